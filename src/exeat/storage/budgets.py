"""Budgets and rates on SQLite and PostgreSQL (APP-8).

``reserve`` is durable before it returns, takes all charges or none, and is exact under concurrency: a
share is read and written under the lock of its one row.  The window slides: what was spent at t counts
until t + window.  Time is the database's on PostgreSQL, since gateways' clocks differ; on SQLite all are
on one machine.  What nobody settles stays spent.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa

from exeat.core.controls import QUANTITY_MAX, Budget, Charge, Counts, Exhausted
from exeat.core.errors import ExeatError, Invalid, StateUnavailable
from exeat.storage.engine import changing, plain_errors, reading
from exeat.storage.schema_budgets import budget_totals, budget_uses

NS: Final = 1_000_000_000
PRUNED_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class Share:
    """What one agent, user, tool or run has spent of a budget.  ``free_at``: nanoseconds when the oldest of
    it is given back."""

    budget: str
    key: str
    spent: int
    calls: int
    free_at: int


@dataclass(frozen=True, slots=True)
class Use:
    """``by``: agent/user.  ``at``: nanoseconds.  ``amount``: units; of distinct values, how many."""

    key: str
    call: str
    by: str
    at: int
    amount: int


@dataclass(frozen=True, slots=True)
class _Group:
    """The charges of one call on one share."""

    budget: str
    share: str
    amount: int
    limit: int
    window: int
    members: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Waiting:
    """``failed`` until it is committed."""

    groups: tuple[_Group, ...]
    call: str
    by: str
    done: bool = False
    exhausted: Exhausted | None = None
    failed: ExeatError | None = field(default_factory=lambda: StateUnavailable("Not reserved."))


class SqlBudgets:
    """What lies behind ``State.budgets``.  Safe to share between threads; may wait for the database."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], int] | None = None) -> None:
        """``clock``: nanoseconds, in place of the database's (for tests)."""
        self._engine = engine
        self._postgres = engine.dialect.name == "postgresql"
        self._clock = clock
        self._queue: deque[_Waiting] = deque()
        self._turn = threading.Lock()

    # ---- a call

    def reserve(self, charges: Iterable[Charge], call: str, by: str = "") -> Exhausted | None:
        """None: everything is reserved, durably.  Else nothing is.  ``call``: never used before.  ``by``:
        agent/user, shown to people.  Raises StateUnavailable; then it may be spent or not."""
        groups = _groups(charges)
        if not groups:
            return None
        if self._postgres:
            return self._call(groups, call, by)
        return self._in_turn(_Waiting(groups, call, by))

    def settle(self, call: str, actual: Mapping[str, int] | None) -> None:
        """What a call of known outcome really took, by budget: the rest is given back.  None: the outcome
        is not known, and what was reserved stays spent.  More than was reserved is never taken."""
        if not actual:
            return
        of_call = (budget_uses.c.call == call) & (budget_uses.c.member == "")
        with changing(self._engine) as tx:
            self._lock(tx, of_call)
            for use in tx.execute(sa.select(budget_uses).where(of_call)).all():
                taken = max(0, actual.get(use.budget, use.amount))
                if taken < use.amount:
                    mine = of_call & (budget_uses.c.budget == use.budget)
                    tx.execute(budget_uses.update().where(mine).values(amount=taken))
                    _give_back(tx, use.budget, use.share, use.amount - taken)

    def release(self, call: str) -> None:
        """Nothing left the gateway: all is given back.  Twice is harmless."""
        of_call = budget_uses.c.call == call
        with changing(self._engine) as tx:
            for budget, share in self._lock(tx, of_call):
                _take_out(tx, budget, share, "call", call)

    def prune(self) -> int:
        """Forget shares of which nothing counts any more.  Returns how many; at most PRUNED_MAX."""
        live = sa.exists().where(
            budget_uses.c.budget == budget_totals.c.budget,
            budget_uses.c.share == budget_totals.c.share,
            budget_uses.c.until > sa.bindparam("now"),
        )
        dead = (
            sa.select(budget_totals.c.budget, budget_totals.c.share)
            .where(~live)
            .order_by(budget_totals.c.budget, budget_totals.c.share)
            .limit(PRUNED_MAX)
            .with_for_update(skip_locked=True)
        )
        pruned = 0
        with changing(self._engine) as tx:
            now = {"now": self._now(tx)}
            for budget, share in tx.execute(dead, now).all():
                # what was reserved between the look and the lock is seen by this second look
                row = (budget_totals.c.budget == budget) & (budget_totals.c.share == share)
                if tx.execute(budget_totals.delete().where(row & ~live), now).rowcount:
                    uses = (budget_uses.c.budget == budget) & (budget_uses.c.share == share)
                    tx.execute(budget_uses.delete().where(uses))
                    pruned += 1
        return pruned

    def look(self, charges: Iterable[Charge]) -> Exhausted | None:
        """What ``reserve`` would say now; nothing is taken, so it may say something else a moment later."""
        u = budget_uses.c
        with reading(self._engine) as connection:
            now = self._now(connection)
            for group in _groups(charges):
                live = (u.budget == group.budget) & (u.share == group.share)
                live &= u.at > now - group.window
                members = sa.func.count(sa.distinct(sa.case((u.member != "", u.member))))
                amounts = sa.func.coalesce(
                    sa.func.sum(sa.case((u.member == "", u.amount), else_=0)), 0
                )
                spent = int(
                    connection.execute(sa.select(amounts + members).where(live)).scalar_one()
                )
                need = group.amount
                if group.members:
                    of = live & u.member.in_(group.members)
                    query = sa.select(sa.func.count(sa.distinct(u.member))).where(of)
                    need = len(group.members) - int(connection.execute(query).scalar_one())
                if need > group.limit - spent:
                    return _exhausted(group, spent, _free_at(connection, group, spent, need))
        return None

    # ---- for people

    def shares(self, budget: Budget) -> tuple[Share, ...]:
        """What counts now, the fullest first."""
        u = budget_uses.c
        spent = (
            sa.func.count(sa.distinct(u.member))
            if budget.counts is Counts.DISTINCT
            else sa.func.sum(u.amount)
        )
        with reading(self._engine) as connection:
            since = self._now(connection) - budget.window_s * NS
            query = (
                sa.select(u.share, spent, sa.func.count(sa.distinct(u.call)), sa.func.min(u.at))
                .where((u.budget == budget.id) & (u.at > since))
                .group_by(u.share)
            )
            found = [
                Share(budget.id, share, int(units), calls, first + budget.window_s * NS)
                for share, units, calls, first in connection.execute(query)
            ]
        return tuple(sorted(found, key=lambda each: (-each.spent, each.key)))

    def uses(self, budget: Budget, limit: int) -> tuple[Use, ...]:
        """Who took from it, the latest first."""
        u = budget_uses.c
        with reading(self._engine) as connection:
            since = self._now(connection) - budget.window_s * NS
            query = (
                sa.select(u.share, u.call, u.by, u.at, sa.func.sum(u.amount))
                .where((u.budget == budget.id) & (u.at > since))
                .group_by(u.share, u.call, u.by, u.at)
                .order_by(u.at.desc(), u.call)
                .limit(limit)
            )
            return tuple(
                Use(share, call, by, at, int(amount))
                for share, call, by, at, amount in connection.execute(query)
            )

    # ---- PostgreSQL: one round trip

    def _call(self, groups: tuple[_Group, ...], call: str, by: str) -> Exhausted | None:
        values = {
            "call": call,
            "by": by,
            "now": None if self._clock is None else self._clock(),
            "budgets": [g.budget for g in groups],
            "shares": [g.share for g in groups],
            "amounts": [g.amount for g in groups],
            "limits": [g.limit for g in groups],
            "windows": [g.window for g in groups],
            "members": [",".join(g.members) for g in groups],
        }
        with plain_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
            found = connection.execute(_RESERVE, values).one_or_none()
        if found is None:
            return None
        place, spent, free_at = found
        return _exhausted(groups[place - 1], spent, free_at)

    # ---- SQLite: whoever has the turn commits for all that wait

    def _in_turn(self, mine: _Waiting) -> Exhausted | None:
        self._queue.append(mine)
        with self._turn:
            if not mine.done:
                self._commit()
        if mine.failed is not None:
            raise mine.failed
        return mine.exhausted

    def _commit(self) -> None:
        """All that wait, mine among them: it was there before I had the turn."""
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            with changing(self._engine) as tx:
                now = self._now(tx)
                for each in batch:
                    each.exhausted = _reserve(tx, each, now)
            for each in batch:
                each.failed = None
        except ExeatError as error:
            for each in batch:
                each.failed = error
        finally:
            for each in batch:
                each.done = True

    # ---- both

    def _now(self, tx: sa.Connection) -> int:
        if self._clock is not None:
            return self._clock()
        if self._postgres:
            return int(tx.execute(_DATABASE_NOW).scalar_one())
        return time.time_ns()

    def _lock(self, tx: sa.Connection, which: sa.ColumnElement[bool]) -> list[tuple[str, str]]:
        """The shares of such uses, in the one order in which everybody locks them."""
        found = {
            (row.budget, row.share)
            for row in tx.execute(sa.select(budget_uses.c.budget, budget_uses.c.share).where(which))
        }
        shares = sorted(found)
        for budget, share in shares:
            row = (budget_totals.c.budget == budget) & (budget_totals.c.share == share)
            tx.execute(sa.select(budget_totals.c.last).where(row).with_for_update())
        return shares


_RESERVE: Final = sa.text(
    "SELECT * FROM exeat_reserve(:call, :by, CAST(:now AS bigint), CAST(:budgets AS text[]),"
    " CAST(:shares AS text[]), CAST(:amounts AS bigint[]), CAST(:limits AS bigint[]),"
    " CAST(:windows AS bigint[]), CAST(:members AS text[]))"
)
_DATABASE_NOW: Final = sa.text(
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"
)


def _groups(charges: Iterable[Charge]) -> tuple[_Group, ...]:
    """By share, sorted: everybody locks in the same order."""
    found: dict[tuple[str, str], list[Charge]] = {}
    for charge in charges:
        found.setdefault((charge.budget, charge.key), []).append(charge)
    groups = []
    for (budget, share), of in sorted(found.items()):
        members = tuple(dict.fromkeys(each.member for each in of if each.member))
        amount = 0 if members else sum(each.amount for each in of)
        if not 0 <= amount <= QUANTITY_MAX:
            raise Invalid(f"The charge on budget {budget} is not a quantity.")
        groups.append(_Group(budget, share, amount, of[0].limit, of[0].window_s * NS, members))
    return tuple(groups)


def _exhausted(group: _Group, spent: int, free_at: int | None) -> Exhausted:
    return Exhausted(group.budget, group.share, group.limit, int(spent), int(free_at or 0))


# The same steps as ``schema_budgets.RESERVE``, in the same order.


def _reserve(tx: sa.Connection, waiting: _Waiting, now: int) -> Exhausted | None:
    standing: list[tuple[_Group, int, int]] = []
    for group in waiting.groups:
        mine = (group.budget, group.share)
        spent, at = tx.exec_driver_sql(_LOOK, (*mine, now)).one()
        if tx.exec_driver_sql(_OVER, (*mine, at - group.window)).first() is not None:
            spent -= _take_out(tx, *mine, "at", at - group.window)
        need = group.amount
        if group.members:
            looked = (tx.exec_driver_sql(_MEMBER, (*mine, each)).first() for each in group.members)
            need = sum(found is None for found in looked)
        if need > group.limit - spent:
            return _exhausted(group, spent, _free_at(tx, group, spent, need))
        standing.append((group, at, spent + need))
    for group, at, spent in standing:
        mine, when = (group.budget, group.share), (at, at + group.window)
        rows = [(*mine, each, waiting.call, 1, *when, waiting.by) for each in group.members]
        tx.exec_driver_sql(
            _USE, rows or [(*mine, "", waiting.call, group.amount, *when, waiting.by)]
        )
        tx.exec_driver_sql(_SPENT, (spent, *mine))
    return None


def _free_at(tx: sa.Connection, group: _Group, spent: int, need: int) -> int | None:
    """When enough of what is spent has left the window; None: the call is larger than the limit."""
    if need > group.limit:
        return None
    over = spent - (group.limit - need)
    u = budget_uses.c
    mine = (u.budget == group.budget) & (u.share == group.share)
    if group.members:
        others = mine & (u.member != "") & u.member.not_in(group.members)
        last = sa.func.max(u.at).label("last")
        by_member = sa.select(last).where(others).group_by(u.member).order_by(last)
        found = tx.execute(by_member.offset(over - 1).limit(1)).scalar()
    else:
        freed = sa.func.sum(u.amount).over(order_by=(u.at, u.call)).label("freed")
        running = sa.select(u.at, freed).where(mine & (u.member == "")).subquery()
        enough = sa.select(running.c.at).where(running.c.freed >= over).order_by(running.c.freed)
        found = tx.execute(enough.limit(1)).scalar()
    return None if found is None else int(found) + group.window


def _take_out(tx: sa.Connection, budget: str, share: str, by: str, value: int | str) -> int:
    """Removes uses, of a call or from before a time, and gives back what counted only through them.
    The share is locked.  Returns units."""
    values = {"budget": budget, "share": share, "value": value}
    freed = int(tx.execute(_FREED[by], values).scalar_one())
    tx.execute(_REMOVE[by], values)
    if freed:
        _give_back(tx, budget, share, freed)
    return freed


def _give_back(tx: sa.Connection, budget: str, share: str, units: int) -> None:
    row = (budget_totals.c.budget == budget) & (budget_totals.c.share == share)
    left = budget_totals.c.spent - units
    tx.execute(budget_totals.update().where(row).values(spent=left))


def _freed(go: sa.ColumnElement[bool], stay: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """What the uses that go count for: amounts as they are, a member unless it has uses that stay."""
    u, r = budget_uses.c, _OTHERS.c
    same = (r.budget == u.budget) & (r.share == u.share) & (r.member == u.member)
    last = (u.member != "") & ~sa.exists().where(same & stay)
    amounts = sa.func.coalesce(sa.func.sum(sa.case((u.member == "", u.amount), else_=0)), 0)
    members = sa.func.count(sa.distinct(sa.case((last, u.member))))
    return sa.select(amounts + members).where(_OF_SHARE & go)


_OTHERS: Final = budget_uses.alias()
_OF_SHARE: Final = (budget_uses.c.budget == sa.bindparam("budget")) & (
    budget_uses.c.share == sa.bindparam("share")
)
_VALUE: Final[sa.BindParameter[Any]] = sa.bindparam("value")
_BEFORE: Final = budget_uses.c.at <= _VALUE
_OF_CALL: Final = budget_uses.c.call == _VALUE
_FREED: Final = {
    "at": _freed(_BEFORE, _OTHERS.c.at > _VALUE),
    "call": _freed(_OF_CALL, _OTHERS.c.call != _VALUE),
}
_REMOVE: Final = {
    "at": budget_uses.delete().where(_OF_SHARE & _BEFORE),
    "call": budget_uses.delete().where(_OF_SHARE & _OF_CALL),
}
_LOOK: Final = """INSERT INTO budget_totals (budget, share, spent, last) VALUES (?, ?, 0, ?)
ON CONFLICT (budget, share) DO UPDATE SET last = max(last, excluded.last) RETURNING spent, last"""
_OVER: Final = "SELECT 1 FROM budget_uses WHERE budget = ? AND share = ? AND at <= ? LIMIT 1"
_MEMBER: Final = "SELECT 1 FROM budget_uses WHERE budget = ? AND share = ? AND member = ? LIMIT 1"
_USE: Final = """INSERT INTO budget_uses (budget, share, member, call, amount, at, until, by)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_SPENT: Final = "UPDATE budget_totals SET spent = ? WHERE budget = ? AND share = ?"

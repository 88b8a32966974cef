"""ApprovalsStore on SQLite and PostgreSQL."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from exeat.approvals.model.grant import Grant, scope
from exeat.approvals.model.hold import Answer, Hold, HoldState, Word
from exeat.approvals.store import Load, Notice
from exeat.core.controls import Channel
from exeat.core.errors import Conflict
from exeat.core.event import Event
from exeat.core.grant import Binding
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.storage import outbox
from exeat.storage.engine import changing, reading
from exeat.storage.schema import state
from exeat.storage.schema_approvals import answers, grants, holds, messages

_OPEN = (HoldState.PENDING.value, HoldState.APPROVED.value, HoldState.DENIED.value)
SHOWN_MAX = 1_000
_AT_ONCE = 500
"""Ids in one question; SQLite takes no more than some thousand parameters."""


class SqlApprovals:
    """What lies behind ``State.approvals``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator["SqlApprovalsRead"]:
        with reading(self._engine) as connection:
            yield SqlApprovalsRead(connection)

    @contextmanager
    def change(self) -> Iterator["SqlApprovalsChange"]:
        with changing(self._engine) as tx:
            # writers take turns, as those of the registry do; events stay in order of commit
            tx.execute(sa.select(state.c.epoch).with_for_update())
            yield SqlApprovalsChange(tx)


class SqlApprovalsRead:
    """ApprovalsRead inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._tx = connection

    def hold(self, hold: str) -> Hold | None:
        return next(iter(self._holds(holds.c.id == hold)), None)

    def holds_of(self, binding: str) -> tuple[Hold, ...]:
        which = (holds.c.binding == binding) & holds.c.state.in_(_OPEN)
        return self._holds(which, holds.c.asked_at.desc(), 20)

    def holds(self, states: Collection[HoldState]) -> tuple[Hold, ...]:
        which = holds.c.state.in_([each.value for each in states])
        return self._holds(which, holds.c.expires_at, SHOWN_MAX)

    def states(self, ids: Collection[str]) -> Mapping[str, HoldState]:
        found: dict[str, HoldState] = {}
        for some in _some(ids):
            query = sa.select(holds.c.id, holds.c.state).where(holds.c.id.in_(some))
            found.update({row.id: HoldState(row.state) for row in self._tx.execute(query)})
        return found

    def load(self, agent: AgentId, now: int, since: int) -> Load:
        waits = (holds.c.state == HoldState.PENDING.value) & (holds.c.expires_at > now)
        count = sa.select(sa.func.count()).select_from(holds).where(holds.c.agent == agent)
        pending = self._tx.execute(count.where(waits)).scalar_one()
        asked = self._tx.execute(count.where(holds.c.asked_at > since)).scalar_one()
        return Load(int(pending), int(asked))

    def grant(self, grant: str) -> Grant | None:
        row = self._tx.execute(sa.select(grants).where(grants.c.id == grant)).one_or_none()
        return None if row is None else _grant(row)

    def grants_of(self, scope: str, now: int) -> tuple[Grant, ...]:
        live = (grants.c.left > 0) & (grants.c.revoked_at == 0) & (grants.c.until > now)
        query = sa.select(grants).where((grants.c.scope == scope) & live)
        query = query.order_by(grants.c.until, grants.c.id)
        return tuple(map(_grant, self._tx.execute(query)))

    def grants(self) -> tuple[Grant, ...]:
        query = sa.select(grants).order_by(grants.c.until, grants.c.id).limit(SHOWN_MAX)
        return tuple(map(_grant, self._tx.execute(query)))

    def asked_since(self, since: int) -> tuple[Hold, ...]:
        return self._holds(holds.c.asked_at >= since, holds.c.asked_at)

    def overdue(self, now: int, limit: int) -> tuple[Hold, ...]:
        unanswered = (holds.c.state == HoldState.PENDING.value) & (holds.c.expires_at <= now)
        unused = (holds.c.state == HoldState.APPROVED.value) & (holds.c.use_by <= now)
        return self._holds(unanswered | unused, holds.c.expires_at, limit)

    def notices(self, now: int, limit: int) -> tuple[Notice, ...]:
        due = (holds.c.notify_at > 0) & (holds.c.notify_at <= now)
        query = sa.select(holds.c.id, holds.c.notified, holds.c.notify_tries).where(due)
        rows = {row.id: row for row in self._tx.execute(query.limit(limit))}
        found = self._holds(holds.c.id.in_(list(rows)), holds.c.asked_at)
        return tuple(
            Notice(hold, frozenset(rows[hold.id].notified.split()), rows[hold.id].notify_tries)
            for hold in found
        )

    def _holds(
        self, which: sa.ColumnElement[bool], order: Any = None, limit: int | None = None
    ) -> tuple[Hold, ...]:
        query = sa.select(holds).where(which).order_by(holds.c.id if order is None else order)
        rows = self._tx.execute(query.limit(limit)).all()
        said: dict[str, list[Answer]] = {row.id: [] for row in rows}
        for some in _some(said):
            found = sa.select(answers).where(answers.c.hold.in_(some))
            for row in self._tx.execute(found.order_by(answers.c.at, answers.c.person)):
                said[row.hold].append(_answer(row))
        return tuple(_hold(row, tuple(said[row.id])) for row in rows)


class SqlApprovalsChange(SqlApprovalsRead):
    """ApprovalsChange."""

    def tell(self, event: Event) -> None:
        outbox.put(self._tx, event)

    def add_hold(self, hold: Hold, event: Event) -> None:
        self._tx.execute(
            holds.insert().values(
                id=hold.id,
                binding=hold.binding.digest,
                **_binding_values(hold.binding),
                alternatives=json.dumps(hold.alternatives),
                why=json.dumps(hold.why),
                effect=hold.effect,
                sink=hold.sink,
                sealed=hold.sealed,
                asked=json.dumps(hold.asked),
                asked_at=hold.asked_at,
                expires_at=hold.expires_at,
                commitment=hold.commitment,
                state=hold.state.value,
                attempts=hold.attempts,
                decided_at=hold.decided_at,
                use_by=hold.use_by,
                grant_id=hold.grant,
                notify_at=hold.asked_at,
                notify_tries=0,
                notified="",
            )
        )
        self.tell(event)

    def attempted(self, hold: str, times: int) -> None:
        more = holds.c.attempts + times
        self._tx.execute(holds.update().where(holds.c.id == hold).values(attempts=more))

    def add_answer(self, hold: str, answer: Answer, event: Event | None) -> None:
        theirs = (answers.c.hold == hold) & (answers.c.person == answer.person)
        before = self._tx.execute(sa.select(answers.c.word).where(theirs)).scalar_one_or_none()
        if before is not None and (before, answer.word) != (Word.APPROVE.value, Word.DENY):
            raise Conflict(f"{answer.person} has already answered {hold}.")
        self._tx.execute(answers.delete().where(theirs))
        self._tx.execute(
            answers.insert().values(
                hold=hold,
                person=answer.person,
                word=answer.word.value,
                channel=answer.channel.value,
                at=answer.at,
                reason=answer.reason,
                controls=json.dumps(sorted(answer.controls)),
                bounds=answer.bounds,
                sealed=answer.sealed,
            )
        )
        if event is not None:
            self.tell(event)

    def move(self, hold: Hold, before: HoldState, event: Event) -> bool:
        still = (holds.c.id == hold.id) & (holds.c.state == before.value)
        moved = holds.update().where(still).values(
            state=hold.state.value,
            decided_at=hold.decided_at,
            use_by=hold.use_by,
            grant_id=hold.grant,
        )  # fmt: skip
        if self._tx.execute(moved).rowcount != 1:
            return False
        self.tell(event)
        return True

    def add_grant(self, grant: Grant, event: Event) -> None:
        self._tx.execute(
            grants.insert().values(
                id=grant.id,
                scope=scope(grant.binding),
                **_binding_values(grant.binding),
                controls=json.dumps(sorted(grant.controls)),
                hold=grant.hold,
                bounds=grant.bounds,
                sealed=grant.sealed,
                any_run=grant.any_run,
                uses=grant.uses,
                left=grant.left,
                made_at=grant.made_at,
                until=grant.until,
                last_used=grant.last_used,
                revoked_at=grant.revoked_at,
                revoked_by=grant.revoked_by or "",
            )
        )
        self.tell(event)

    def take(self, grant: str, now: int) -> Grant | None:
        one = (grants.c.id == grant) & (grants.c.left > 0)
        one &= (grants.c.revoked_at == 0) & (grants.c.until > now)
        fewer = grants.update().where(one).values(left=grants.c.left - 1, last_used=now)
        return self.grant(grant) if self._tx.execute(fewer).rowcount == 1 else None

    def revoke(self, grant: Grant, event: Event) -> bool:
        unrevoked = (grants.c.id == grant.id) & (grants.c.revoked_at == 0)
        values = {"revoked_at": grant.revoked_at, "revoked_by": grant.revoked_by or ""}
        if self._tx.execute(grants.update().where(unrevoked).values(values)).rowcount != 1:
            return False
        self.tell(event)
        return True

    def posted(self, hold: str, done: frozenset[str], again_at: int) -> None:
        values = {
            "notify_at": again_at,
            "notify_tries": holds.c.notify_tries + 1,
            "notified": " ".join(sorted(done)),
        }
        self._tx.execute(holds.update().where(holds.c.id == hold).values(values))

    def forget(self, decided_before: int, removed_before: int) -> int:
        ended = holds.c.state.not_in((HoldState.PENDING.value, HoldState.APPROVED.value))
        old = ended & (holds.c.decided_at < decided_before) & (holds.c.sealed != b"")
        emptied = self._tx.execute(holds.update().where(old).values(sealed=b"")).rowcount
        forgotten = sa.select(holds.c.id).where(holds.c.sealed == b"")
        spent = answers.c.hold.in_(forgotten) & (answers.c.sealed != b"")
        self._tx.execute(answers.update().where(spent).values(sealed=b""))
        over = (grants.c.until < decided_before) & (grants.c.sealed != b"")
        self._tx.execute(grants.update().where(over).values(sealed=b""))
        self._tx.execute(grants.delete().where(grants.c.until < removed_before))
        used = sa.select(grants.c.hold)
        gone = ended & (holds.c.decided_at < removed_before) & holds.c.id.not_in(used)
        self._tx.execute(holds.delete().where(gone))
        return int(emptied)

    def first_message(self, message: str, until: int, now: int) -> bool:
        self._tx.execute(messages.delete().where(messages.c.ends_at <= now))
        known = sa.select(messages.c.id).where(messages.c.id == message)
        if self._tx.execute(known).first() is not None:
            return False
        self._tx.execute(messages.insert().values(id=message, ends_at=until))
        return True


def _some(ids: Iterable[str]) -> Iterator[list[str]]:
    rest = list(ids)
    for start in range(0, len(rest), _AT_ONCE):
        yield rest[start : start + _AT_ONCE]


def _binding_values(binding: Binding) -> dict[str, Any]:
    return {
        "agent": binding.agent,
        "principal": binding.user or "",
        "run": binding.run,
        "server": binding.server,
        "method": binding.method,
        "action": binding.action,
        "pin": binding.pin,
        "arguments": binding.arguments,
        "slice": binding.slice,
        "owner": binding.owner,
        "labels": json.dumps(sorted(binding.labels)),
    }


def _binding(row: Any) -> Binding:
    return Binding(
        AgentId(row.agent),
        PersonId(row.principal) if row.principal else None,
        row.run,
        ServerId(row.server),
        row.method,
        ActionId(row.action),
        row.pin,
        row.arguments,
        row.slice,
        row.owner,
        tuple(json.loads(row.labels)),
    )


def _hold(row: Any, said: tuple[Answer, ...]) -> Hold:
    return Hold(
        row.id,
        _binding(row),
        tuple(tuple(each) for each in json.loads(row.alternatives)),
        tuple(json.loads(row.why)),
        row.effect,
        row.sink,
        bytes(row.sealed),
        tuple(map(PersonId, json.loads(row.asked))),
        row.asked_at,
        row.expires_at,
        row.commitment,
        HoldState(row.state),
        row.attempts,
        row.decided_at,
        row.use_by,
        said,
        row.grant_id,
    )


def _answer(row: Any) -> Answer:
    return Answer(
        PersonId(row.person),
        Word(row.word),
        Channel(row.channel),
        row.at,
        row.reason,
        frozenset(json.loads(row.controls)),
        row.bounds,
        bytes(row.sealed),
    )


def _grant(row: Any) -> Grant:
    return Grant(
        row.id,
        _binding(row),
        frozenset(json.loads(row.controls)),
        row.hold,
        row.bounds,
        bytes(row.sealed),
        bool(row.any_run),
        row.uses,
        row.left,
        row.made_at,
        row.until,
        row.last_used,
        row.revoked_at,
        PersonId(row.revoked_by) if row.revoked_by else None,
    )

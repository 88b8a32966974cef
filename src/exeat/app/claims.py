"""What the pipeline asks the database for, in threads: people's answers (APP-1) and budgets (APP-8).

Answers come back on the loop, once.  Whatever fails is handed over as an error, which denies.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog

from exeat.app.live import View
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.approvals import Approvals
from exeat.core.controls import AMOUNT_UNITS, Budget, Charge, Controls, Counts, Exhausted
from exeat.core.errors import ExeatError, StateUnavailable
from exeat.core.grant import Claim, Held
from exeat.core.request import AccessRequest
from exeat.gateway.ports import NoRoom, Reserved
from exeat.gateway.sessions import principal_key
from exeat.storage.budgets import SqlBudgets

_log = structlog.get_logger("exeat.claims")
THREADS: Final = 4
SWEEP_EVERY_S: Final = 30.0
PRUNE_EVERY_S: Final = 600.0
_T = TypeVar("_T")
_COUNTED: Final = frozenset({Counts.ROWS, Counts.BYTES})


class Waiting:
    """Work in threads, with its answer on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix=name)

    def ask(self, work: Callable[[], _T], then: Callable[[_T | ExeatError], None]) -> None:
        try:
            future = self._loop.run_in_executor(self._threads, _told, work)
        except RuntimeError:  # the threads have ended
            then(StateUnavailable("The gateway is stopping."))
            return

        def done(future: "asyncio.Future[_T | ExeatError]") -> None:
            if future.cancelled():
                then(StateUnavailable("The gateway is stopping."))
            else:
                then(future.result())

        future.add_done_callback(done)

    def close(self) -> None:
        self._threads.shutdown(wait=True)


def _told(work: Callable[[], _T]) -> _T | ExeatError:
    try:
        return work()
    except ExeatError as error:
        return error
    except Exception as error:  # noqa: BLE001 - on the decision path: it denies, and says why
        _log.exception("an approval or a budget could not be read or written")
        return StateUnavailable(f"{type(error).__name__} while reading or writing.")


def standing(view: View) -> Standing:
    """Who may approve what, at this moment."""
    snapshot, pdp = view.snapshot, view.pdp
    return Standing(pdp.controls.approvers, snapshot.people, snapshot.agents, pdp.solo)


class PeopleAsked:
    """``gateway.ports.Approvals`` over the service."""

    def __init__(
        self,
        approvals: Approvals,
        view: Callable[[], View],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], int],
        asked: Callable[[], None],
    ) -> None:
        """``asked``: is told that somebody may have been asked, so that notices go out."""
        self._approvals, self._view, self._clock, self._asked = approvals, view, clock, asked
        self._waiting = Waiting(loop, "exeat-approvals")

    def claim(
        self, held: Held, request: AccessRequest, then: Callable[[Claim | ExeatError], None]
    ) -> None:
        now = standing(self._view())

        def told(claim: Claim | ExeatError) -> None:
            self._asked()
            then(claim)

        self._waiting.ask(lambda: self._approvals.claim(held, now, self._clock()), told)

    def states(self, holds: tuple[str, ...], then: Callable[[Mapping[str, str]], None]) -> None:
        def told(words: Mapping[str, str] | ExeatError) -> None:
            then({} if isinstance(words, ExeatError) else words)

        self._waiting.ask(lambda: self._approvals.states(holds), told)

    def close(self) -> None:
        self._waiting.close()


class BudgetsKept:
    """``gateway.ports.Budgets`` over the database."""

    def __init__(
        self,
        budgets: SqlBudgets,
        controls: Callable[[], Controls],
        loop: asyncio.AbstractEventLoop,
        new_id: Callable[[], str],
    ) -> None:
        self._budgets, self._controls, self._new_id = budgets, controls, new_id
        self._loop, self._waiting = loop, Waiting(loop, "exeat-budgets")
        self._open: dict[str, dict[str, Counts]] = {}
        """Calls under way that reserved rows or bytes: budget → what it counts."""
        self._timer = loop.call_later(PRUNE_EVERY_S, self._prune)

    def reserve(
        self,
        charges: tuple[Charge, ...],
        request: AccessRequest,
        then: Callable[[Reserved | NoRoom | ExeatError], None],
    ) -> None:
        call = self._new_id()
        by_id = {budget.id: budget for budget in self._controls().budgets}

        def told(answer: Exhausted | ExeatError | None) -> None:
            if answer is None:
                counted = {
                    charge.budget: by_id[charge.budget].counts
                    for charge in charges
                    if charge.budget in by_id and by_id[charge.budget].counts in _COUNTED
                }
                if counted:
                    self._open[call] = counted
                then(Reserved(call))
            elif isinstance(answer, Exhausted):
                then(NoRoom(answer.budget, says(answer, by_id.get(answer.budget))))
            else:
                self.release(call)  # it may have been spent all the same
                then(answer)

        by = principal_key(request.caller)
        self._waiting.ask(lambda: self._budgets.reserve(charges, call, by), told)

    def settle(self, reserved: str, rows: int, size: int) -> None:
        counted = self._open.pop(reserved, None)
        if counted is None:
            return
        actual = {name: rows if of is Counts.ROWS else size for name, of in counted.items()}
        self._waiting.ask(lambda: self._budgets.settle(reserved, actual), _ignored)

    def release(self, reserved: str) -> None:
        self._open.pop(reserved, None)
        self._waiting.ask(lambda: self._budgets.release(reserved), _ignored)

    def keep(self, reserved: str) -> None:
        self._open.pop(reserved, None)

    def _prune(self) -> None:
        """What no window reaches any more is forgotten."""
        self._waiting.ask(self._budgets.prune, _unpruned)
        self._timer = self._loop.call_later(PRUNE_EVERY_S, self._prune)

    def close(self) -> None:
        self._timer.cancel()
        self._waiting.close()


def _unpruned(answer: Any) -> None:
    if isinstance(answer, ExeatError):
        _log.warning("old uses of budgets stay for now", problem=str(answer))


def _ignored(answer: Any) -> None:
    """What was not given back stays spent: never too much, maybe too little (APP-8)."""
    if isinstance(answer, ExeatError):
        _log.warning("a reservation stays spent", problem=str(answer))


def says(exhausted: Exhausted, budget: Budget | None) -> str:
    """What is used up, and when there is room again."""
    counts = Counts.CALLS if budget is None else budget.counts
    spent, limit = _units(exhausted.spent, counts), _units(exhausted.limit, counts)
    again = "this call alone is more than it has"
    if exhausted.free_at:
        at = datetime.fromtimestamp(exhausted.free_at // 1_000_000_000 + 1, UTC)
        again = f"there is room from {at:%Y-%m-%dT%H:%M:%SZ} on"
    what = "" if counts is Counts.AMOUNT else f" {counts}"
    if counts is Counts.DISTINCT and budget is not None:
        what = f" different values of {budget.argument}"
    return f"Budget {exhausted.budget}: {spent} of {limit}{what} used; {again}"


def _units(amount: int, counts: Counts) -> str:
    if counts is not Counts.AMOUNT:
        return str(amount)
    whole, rest = divmod(amount, AMOUNT_UNITS)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")

"""What approvals need: rows in a database, and somebody who seals what people are shown."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from exeat.approvals.model.grant import Grant
from exeat.approvals.model.hold import Answer, Hold, HoldState
from exeat.core.event import Event
from exeat.core.ids import AgentId


@dataclass(frozen=True, slots=True)
class Load:
    """How much one agent asks of people."""

    pending: int
    asked_since: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A hold that others are to be told of (APP-5).  ``done``: those who know.  ``tries``: so far."""

    hold: Hold
    done: frozenset[str]
    tries: int


class ApprovalsRead(Protocol):
    """One consistent view."""

    def hold(self, hold: str) -> Hold | None: ...

    def holds_of(self, binding: str) -> tuple[Hold, ...]:
        """Pending, approved and denied ones of a binding's digest, the newest first."""
        ...

    def holds(self, states: Collection[HoldState]) -> tuple[Hold, ...]:
        """By expiry, the next first."""
        ...

    def states(self, holds: Collection[str]) -> Mapping[str, HoldState]: ...

    def load(self, agent: AgentId, now: int, since: int) -> Load: ...

    def grant(self, grant: str) -> Grant | None: ...

    def grants_of(self, scope: str, now: int) -> tuple[Grant, ...]:
        """Live ones, the one that ends first first."""
        ...

    def grants(self) -> tuple[Grant, ...]:
        """All, by their end."""
        ...

    def asked_since(self, since: int) -> tuple[Hold, ...]:
        """Whatever became of them, the oldest first."""
        ...

    def overdue(self, now: int, limit: int) -> tuple[Hold, ...]:
        """Pending ones that nobody answered and approved ones that nobody used in time."""

    def notices(self, now: int, limit: int) -> tuple[Notice, ...]:
        """Those that are due, the oldest hold first."""


class ApprovalsChange(ApprovalsRead, Protocol):
    """A transaction; writers take turns.  What is saved and its event are there together."""

    def add_hold(self, hold: Hold, event: Event) -> None: ...

    def attempted(self, hold: str, times: int) -> None:
        """So many more calls of the same binding; no event of its own (APP-12)."""
        ...

    def add_answer(self, hold: str, answer: Answer, event: Event | None) -> None:
        """None: the event of what came of it tells it.  Raises Conflict if this person has answered,
        except that a denial takes the place of their approval."""
        ...

    def move(self, hold: Hold, before: HoldState, event: Event) -> bool:
        """State, ``decided_at``, ``use_by`` and ``grant``, if it is still in ``before``; else False,
        and nothing is told."""
        ...

    def add_grant(self, grant: Grant, event: Event) -> None: ...

    def take(self, grant: str, now: int) -> Grant | None:
        """One use fewer, if there is one left; the grant as it is then.  None: there was none."""
        ...

    def revoke(self, grant: Grant, event: Event) -> bool:
        """False: it was revoked before."""
        ...

    def tell(self, event: Event) -> None: ...

    def overdue(self, now: int, limit: int) -> tuple[Hold, ...]:
        """Pending ones that nobody answered and approved ones that nobody used in time."""
        ...

    def notices(self, now: int, limit: int) -> tuple[Notice, ...]:
        """Those that are due, the oldest hold first."""
        ...

    def posted(self, hold: str, done: frozenset[str], again_at: int) -> None:
        """``again_at`` 0: it arrived everywhere, or is given up."""
        ...

    def forget(self, decided_before: int, removed_before: int) -> int:
        """Empties what was sealed of holds and ended grants decided before the one moment, and removes
        the rows of those before the other; how many were emptied."""
        ...

    def first_message(self, message: str, until: int, now: int) -> bool:
        """Whether this message of a webhook is seen for the first time; kept until then."""
        ...


class ApprovalsStore(Protocol):
    def read(self) -> AbstractContextManager[ApprovalsRead]: ...
    def change(self) -> AbstractContextManager[ApprovalsChange]: ...


class Seals(Protocol):
    """Seals the arguments of held calls, which may hold secrets and personal data (ADR 0040)."""

    def ready(self) -> None:
        """The key is there.  Blocks, outside any transaction.  Raises VaultFailed, Conflict, Invalid."""
        ...

    def seal(self, place: str, value: bytes) -> bytes:
        """``place``: where it will lie; it opens nowhere else."""
        ...

    def open(self, place: str, sealed: bytes) -> bytes:
        """Raises VaultFailed."""
        ...

"""What the pipeline leans on.  Each protocol has its real implementation outside of the gateway."""

from collections.abc import Callable, Mapping
from typing import Protocol

from exeat.core.controls import Charge
from exeat.core.decision import Decision
from exeat.core.errors import ExeatError, LedgerUnavailable
from exeat.core.event import Event
from exeat.core.facts import ServerFacts, ServerSpec, Snapshot, ToolFacts
from exeat.core.grant import Claim, Held
from exeat.core.ids import ActionId
from exeat.core.records import record
from exeat.core.request import AccessRequest, Caller
from exeat.core.upstream_auth import Credential, Refused
from exeat.evidence.model import DecisionContext, OutcomeFacts, Receipt

Durable = Callable[[Receipt | LedgerUnavailable], None]


class DecisionPoint(Protocol):
    """The PDP of one policy version: total and pure; never raises, never waits."""

    def decide(self, request: AccessRequest) -> Decision: ...

    def could_permit(
        self,
        caller: Caller,
        server: ServerFacts,
        method: str,
        action: ActionId,
        tool: ToolFacts | None,
        target: str,
        now: int,
    ) -> bool:
        """GW-8: False only if no request of this principal could ever be permitted."""
        ...


class Recorder(Protocol):
    """The ledger, as the enforcement point sees it."""

    def record_decision(
        self, request: AccessRequest, decision: Decision, context: DecisionContext, done: Durable
    ) -> int:
        """Returns the index at once; ``done`` is called once, when durable or refused."""
        ...

    def decision_id(self, index: int) -> str: ...

    def record_outcome(self, outcome: OutcomeFacts) -> None: ...

    def record_event(self, event: Event, done: Durable) -> int: ...

    def count(self, kind: str, sample: Mapping[str, str] | None) -> None: ...

    def clock_trusted(self, now: int) -> bool: ...


class Approvals(Protocol):
    """What people said, and what they are asked (APP-1).  Answers on the loop, once."""

    def claim(
        self, held: Held, request: AccessRequest, then: Callable[[Claim | ExeatError], None]
    ) -> None: ...

    def states(self, holds: tuple[str, ...], then: Callable[[Mapping[str, str]], None]) -> None: ...


@record
class Reserved:
    """Durable.  ``id``: under which it is settled or given back."""

    id: str


@record
class NoRoom:
    """``says``: which budget, and when there is room again; fit for the agent's eyes."""

    budget: str
    says: str


class Budgets(Protocol):
    """What calls may use up (APP-8)."""

    def reserve(
        self,
        charges: tuple[Charge, ...],
        request: AccessRequest,
        then: Callable[[Reserved | NoRoom | ExeatError], None],
    ) -> None: ...

    def settle(self, reserved: str, rows: int, size: int) -> None:
        """``size``: bytes of the result as it was passed on."""
        ...

    def release(self, reserved: str) -> None:
        """Nothing left the gateway."""
        ...

    def keep(self, reserved: str) -> None:
        """What became of it is not known, so it stays spent."""
        ...


class View(Protocol):
    """One consistent state of registry and policy, swapped whole."""

    @property
    def snapshot(self) -> Snapshot: ...

    @property
    def pdp(self) -> DecisionPoint: ...


class LiveState(Protocol):
    """The reference to the view in force.  ``fresh``: it was confirmed recently enough."""

    @property
    def view(self) -> View: ...

    @property
    def fresh(self) -> bool: ...


class Account(Protocol):
    """The gateway's credential at one server: its own, or one agent × person's (ID-9)."""

    def current(self) -> Credential | None:
        """What may be sent at once; None: it must be obtained first."""
        ...

    async def obtain(self, refused: Refused | None) -> Credential:
        """After ``refused`` a better one.  Raises ConsentNeeded, CredentialFailed."""
        ...

    async def consented(self, seconds: float) -> bool:
        """Wait until the person has consented; False if that takes longer."""
        ...


class CredentialSource(Protocol):
    def account(self, spec: ServerSpec, principal: str) -> Account:
        """``principal``: agent/person."""
        ...

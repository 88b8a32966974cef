"""What a policy version declares beside its policies: approver roles, controls, budgets.

It stands in ``controls.yaml`` beside the ``*.cedar`` files, has their digest, author and approver, and
is read by ``policy.controls``.  Policies name a control as ``Control::"approved_by_finance"``; the
gateway and approvals give it as evidence, and Cedar alone decides what it is good for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from exeat.core.ids import PersonId

CONTROLS_FILE: Final = "controls.yaml"
APPROVED_BY: Final = "approved_by_"
OWNER: Final = "owner"
CONFIRMED_BY_USER: Final = "confirmed_by_user"
"""Solo mode: the one person there is confirms by passkey.  Never called an approval (APP-3)."""
DRY_RUN: Final = "dry_run"


class Channel(StrEnum):
    """How an answer reached us; each authenticates a person at least as well as the one before."""

    WEBHOOK = "webhook"
    """A signature authenticates the system that answered, and it names the person."""
    CLI = "cli"
    """The operating system's user, at the machine."""
    CONSOLE = "console"
    """A person who has signed in."""
    PASSKEY = "passkey"
    """A person who has signed in, and confirmed this answer with a passkey."""


class Order(StrEnum):
    """In which order a monotone argument gets smaller (POL-9)."""

    LESS = "less"
    """Numbers: smaller is less."""
    BELOW = "below"
    """Paths: what lies below is less."""
    SUBSET = "subset"
    """Lists: fewer of the same elements is less."""
    FLAG = "flag"
    """A dry-run flag: true does less than false."""


class Per(StrEnum):
    AGENT = "agent"
    USER = "user"
    TOOL = "tool"
    RUN = "run"


class Counts(StrEnum):
    """What a budget counts.  AMOUNT and DISTINCT read an argument; ROWS and BYTES the result."""

    CALLS = "calls"
    AMOUNT = "amount"
    DISTINCT = "distinct"
    ROWS = "rows"
    BYTES = "bytes"


AMOUNT_UNITS: Final = 10_000
"""Amounts are whole ten-thousandths: Cedar's decimals have four places, so none is rounded."""
QUANTITY_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ApproverRole:
    """Who may give ``approved_by_<name>`` (APP-3).  ``owner``: the agent's owner and deputy.
    ``channels``: those that are good enough.  ``within_s``: how long people are asked; then the answer
    is no."""

    name: str
    people: frozenset[PersonId] = frozenset()
    roles: frozenset[str] = frozenset()
    owner: bool = False
    quorum: int = 1
    channels: frozenset[Channel] = frozenset({Channel.CLI, Channel.CONSOLE, Channel.PASSKEY})
    within_s: int = 3600

    @property
    def control(self) -> str:
        return f"{APPROVED_BY}{self.name}"


@dataclass(frozen=True, slots=True)
class Fulfilled:
    """A control that the gateway can fulfil itself, on the result or by a declared flag.

    ``detectors``: what is redacted wherever it stands.  ``fields``: JSON pointers (RFC 6901; ``*`` is
    any one key or index) into ``structuredContent``.  ``rows``, ``bytes``: the most that is passed on;
    0 means no cap."""

    name: str
    detectors: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    rows: int = 0
    bytes: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """APP-8.  ``actions``: tools or action groups.  ``limit`` and ``reserve`` in units of ``counts``
    (amounts in ten-thousandths).  ``reserve``: of rows or bytes, the most that one result may use.
    ``window_s``: it slides.  ``agents``: whom it binds; empty: all."""

    id: str
    actions: tuple[str, ...]
    per: Per
    counts: Counts
    limit: int
    window_s: int
    argument: str = ""
    reserve: int = 0
    agents: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes from one budget.  ``key``: whose share of it (``agent:support-bot``).
    ``amount``: units.  ``member``: of a DISTINCT budget, the value that is counted once (a digest)."""

    budget: str
    key: str
    amount: int
    limit: int
    window_s: int
    member: str = ""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """A charge would exceed its limit.  ``spent``: units, within the window that ends now.  ``free_at``:
    nanoseconds since the epoch when it would fit if nobody took more; 0: it never does."""

    budget: str
    key: str
    limit: int
    spent: int
    free_at: int


OWNER_ROLE: Final = ApproverRole(OWNER, owner=True)
BUILT_IN: Final[Mapping[str, Fulfilled]] = {
    each.name: each
    for each in (
        Fulfilled("redacted_secrets", frozenset({"secret"})),
        Fulfilled("redacted_pii", frozenset({"email", "phone", "iban", "card"})),
        Fulfilled("row_limit", rows=100),
        Fulfilled(DRY_RUN, dry_run=True),
    )
}
"""Controls that need no declaration; a declaration of the same name takes their place."""


@dataclass(frozen=True, slots=True)
class Controls:
    """``approvers`` and ``fulfilled`` by name, in the order in which the PDP tries them."""

    approvers: Mapping[str, ApproverRole] = field(default_factory=lambda: {OWNER: OWNER_ROLE})
    fulfilled: Mapping[str, Fulfilled] = field(default_factory=lambda: dict(BUILT_IN))
    budgets: tuple[Budget, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every control that a policy may name, sorted."""
        approvals = (role.control for role in self.approvers.values())
        return tuple(sorted({*approvals, *self.fulfilled, CONFIRMED_BY_USER}))

    def approver(self, control: str) -> ApproverRole | None:
        name = control.removeprefix(APPROVED_BY)
        return self.approvers.get(name) if name != control else None


NO_CONTROLS: Final = Controls()

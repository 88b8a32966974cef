"""The entries of the ledger (EVD-1, EVD-4, EVD-7).  Pure; fixed for ever: a later one is ``v`` 2.

Every field is declared in the order of its ASCII name and holds no float, so that msgspec writes
RFC 8785 canonical JSON (a property test holds it against ``rfc8785``).  Integers stay below 2**53;
times are decimal strings of nanoseconds since the epoch.  Digests are lower-case hexadecimal
SHA-256.  An absent value is an empty string.  Ids only, never names or e-mail addresses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from exeat.core.facts import PolicyVersionFacts
from exeat.core.records import record

LEAF_MAX_BYTES: Final = 65_535
"""tlog-tiles gives an entry a uint16 length (EVD-2)."""
FORMAT: Final = 1

Status = Literal["ok", "tool_error", "rpc_error", "failed", "cancelled", "unknown"]
STATUSES: Final = frozenset({"ok", "tool_error", "rpc_error", "failed", "cancelled", "unknown"})


class _Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A closed set of fields."""


class ActionSeen(_Leaf, frozen=True, omit_defaults=True):
    """What was asked.  ``id``: registered ``server/tool``, else the method; a name that is not
    registered stands only in the commitments, a server's too (revision 0).  ``pin`` is what a
    person confirmed, ``observed_pin`` what the server last showed.  ``upstream_mode``: what keeps others
    from using the server around the gateway (ID-11); entries of exeat 0.1 do not have it."""

    effect: str
    id: str
    method: str
    observed_pin: str
    pin: str
    pin_state: str
    server: str
    server_revision: int
    sink: str
    upstream_mode: str = ""


class AgentSeen(_Leaf, frozen=True):
    """The agent as the decision saw it.  ``acceptance`` names the owner's act (REG-9)."""

    acceptance: str
    accepted: str
    deputy: str
    deputy_live: bool
    ends_at: str
    id: str
    lifecycle: str
    owner: str
    owner_live: bool
    revision: int
    scope: str
    sponsor: str


class Commitments(_Leaf, frozen=True, omit_defaults=True):
    """SHA-256(domain || 32-byte salt || canonical value) each; salts are sealed (EVD-7).  ``wire``: the
    arguments as they left, where they were narrowed (POL-4); other entries do not have it."""

    arguments: str
    detail: str
    target: str
    wire: str = ""


class GatewaySeen(_Leaf, frozen=True):
    """The enforcing instance.  ``staleness_ms``: the oldest state it would decide on (APP-10)."""

    build: str
    config: str
    key: str
    staleness_ms: int


class PolicySeen(_Leaf, frozen=True):
    approver: str
    author: str
    digest: str
    number: int


class DecisionLeaf(_Leaf, frozen=True, omit_defaults=True):
    """One decision, durable before its effect.  ``now`` is the time that the PDP saw, ``at`` the
    ledger's own, never decreasing.  ``bundle``: the policy digest named by the decision.
    ``mode``: ``enforce``, ``evaluate`` of one that somebody else enforces (POL-8), or ``observe`` of a
    permit that policy would have refused (POL-7).  ``would``:
    what an observed agent would have met, and what shadow policies say (POL-5); entries without any,
    and those of exeat 0.1, do not have it."""

    action: ActionSeen
    agent: AgentSeen
    approval: str
    at: str
    bundle: str
    chain: tuple[str, ...]
    clock_trusted: bool
    commitments: Commitments
    credential: str
    credential_thumbprint: str
    gateway: GatewaySeen
    index: int
    input_digest: str
    isolation: str
    kind: Literal["decision"]
    labels_before: tuple[str, ...]
    mode: str
    nonce: str
    now: str
    obligations: tuple[str, ...]
    policies: tuple[str, ...]
    policy: PolicySeen
    reason: str
    run: str
    trace: str
    user: str
    user_live: bool
    v: Literal[1]
    verdict: str
    would: tuple[str, ...] = ()


class OutcomeLeaf(_Leaf, frozen=True):
    """What became of a permitted action.  ``result`` commits to SHA-256 of the result's bytes."""

    at: str
    bytes: int
    cause: str
    decision: int
    decision_hash: str
    duration_ns: int
    index: int
    kind: Literal["outcome"]
    labels_after: tuple[str, ...]
    result: str
    status: Status
    v: Literal[1]


class EventCommitments(_Leaf, frozen=True):
    after: str
    before: str
    reason: str


class EventLeaf(_Leaf, frozen=True):
    """A change of the control plane.  ``before``/``after`` are null where they did not fit and stand
    in their commitment instead; the reason is free text, so it is only committed to."""

    actor: str
    after: Any
    at: str
    before: Any
    channel: str
    commitments: EventCommitments
    event: str
    event_at: str
    index: int
    kind: Literal["event"]
    subject: str
    v: Literal[1]


class LogLeaf(_Leaf, frozen=True):
    """The ledger on itself: ``enrolled``, ``opened``, ``recovered``, ``closed``, ``isolation``."""

    at: str
    facts: Any
    index: int
    kind: Literal["log"]
    v: Literal[1]
    what: str


class CountsLeaf(_Leaf, frozen=True):
    """Noise that was counted, not entered one by one (EVD-9); the samples are only committed to."""

    at: str
    counts: dict[str, int]
    index: int
    kind: Literal["counts"]
    samples: str
    since: str
    v: Literal[1]


class HeartbeatLeaf(_Leaf, frozen=True):
    """The writer lives; ``open``: decisions that still wait for their outcome."""

    at: str
    index: int
    kind: Literal["heartbeat"]
    open: int
    v: Literal[1]


Leaf = DecisionLeaf | OutcomeLeaf | EventLeaf | LogLeaf | CountsLeaf | HeartbeatLeaf
LEAVES: Final[dict[str, type[Leaf]]] = {
    "decision": DecisionLeaf,
    "outcome": OutcomeLeaf,
    "event": EventLeaf,
    "log": LogLeaf,
    "counts": CountsLeaf,
    "heartbeat": HeartbeatLeaf,
}


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Entry ``index`` is durable.  ``leaf_hash``: 32 bytes; ``at``: nanoseconds since the epoch."""

    index: int
    leaf_hash: bytes
    at: int


@record
class DecisionContext:
    """What an entry holds beside request and decision.

    ``policy``: the version in force in the snapshot that decided.  ``isolation``: of the upstream
    (GW-12).  ``approval``: id of the approval or grant that was used.  ``beside``: what leaves with
    the action and is no argument of the tool; it is committed to with them.
    """

    run: str = ""
    trace: str = ""
    policy: PolicyVersionFacts | None = None
    labels: tuple[str, ...] = ()
    isolation: str = ""
    chain: tuple[str, ...] = ()
    thumbprint: str = ""
    approval: str = ""
    mode: str = "enforce"
    beside: Mapping[str, Any] | None = None


@record
class OutcomeFacts:
    """``result_digest``: SHA-256 (32 bytes) of the result's bytes as relayed, or empty.
    ``cause``: a closed word for an outcome that is not ``ok``, e.g. ``crash``, ``timeout``."""

    decision: Receipt
    status: Status
    duration_ns: int = 0
    result_digest: bytes = b""
    labels: tuple[str, ...] = ()
    cause: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """The enforcing gateway.  ``name``: decision ids begin with it.  ``origin``: the log's name and
    its key's.  ``key``: hexadecimal key id.  ``config``: digest of the effective settings."""

    name: str
    origin: str
    key: str
    build: str
    config: str
    staleness_ms: int
    settings: Mapping[str, str | int | bool]

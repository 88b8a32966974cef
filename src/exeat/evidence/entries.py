"""Facts to leaves: what the loop does for every entry, so each microsecond counts (performance.md).

What is constant for an agent, a tool or a policy version is encoded once and found again by the
identity of the frozen fact; the caches are bounded and hold the facts alive.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final, TypeVar, cast

import msgspec

from exeat.core.decision import Decision, Reason
from exeat.core.errors import Invalid
from exeat.core.event import Event
from exeat.core.facts import AgentFacts, PolicyVersionFacts, ServerFacts, ToolFacts
from exeat.core.request import AccessRequest
from exeat.evidence import canonical
from exeat.evidence.canonical import encode_leaf, encode_value, free_form
from exeat.evidence.model import (
    FORMAT,
    LEAF_MAX_BYTES,
    ActionSeen,
    AgentSeen,
    Commitments,
    CountsLeaf,
    DecisionContext,
    DecisionLeaf,
    EventCommitments,
    EventLeaf,
    GatewaySeen,
    HeartbeatLeaf,
    Instance,
    LogLeaf,
    OutcomeFacts,
    OutcomeLeaf,
    PolicySeen,
)
from exeat.evidence.sealed import TAGS, pack_u32

CACHED_FACTS_MAX: Final = 4096
RANDOM_REFILL_BYTES: Final = 4096
NONCE_BYTES: Final = 16
_SALT: Final = canonical.SALT_BYTES
_ARGUMENTS_TAG: Final = TAGS[canonical.ARGUMENTS]
_RESULT_TAG: Final = TAGS[canonical.RESULT]
_FREE_FORM_MAX_BYTES: Final = 24_000
_NO_POLICY: Final = PolicySeen("", "", "", 0)

T = TypeVar("T")
Entry = tuple[bytes, bytes]
"""A leaf and the record of its values to be sealed."""


def _once(part: T) -> T:
    """A part of a leaf, encoded once: msgspec copies ``Raw`` as it stands."""
    return cast(T, msgspec.Raw(encode_leaf(part)))


class EntryWriter:
    """Builds leaves.  Raises Invalid for what cannot be an entry; then nothing may happen."""

    def __init__(self, instance: Instance, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._pool, self._at = b"", 0
        self._gateway = _once(
            GatewaySeen(instance.build, instance.config, instance.key, instance.staleness_ms)
        )
        self._no_policy = _once(_NO_POLICY)
        self._agents: dict[int, tuple[AgentFacts, AgentSeen]] = {}
        self._policies: dict[int, tuple[PolicyVersionFacts, PolicySeen]] = {}
        self._actions: dict[
            tuple[int, int, str, str], tuple[ToolFacts | None, ServerFacts, ActionSeen]
        ] = {}

    def _draw(self, count: int) -> bytes:
        start = self._at
        end = start + count
        if end > len(self._pool):
            self._pool = self._random(RANDOM_REFILL_BYTES)
            start, end = 0, count
        self._at = end
        return self._pool[start:end]

    def decision(
        self,
        stamp: tuple[int, int],
        request: AccessRequest,
        decision: Decision,
        context: DecisionContext,
    ) -> Entry:
        """``stamp``: index and time of the entry.  EVD-7: the arguments, an unregistered target and
        the detail are only committed to."""
        caller, user, arguments = request.caller, request.caller.user, request.arguments
        value = decision.arguments if context.beside is None else b""
        try:
            if not value:
                whole = {**arguments, **context.beside} if context.beside else dict(arguments)
                value = encode_value(whole)
        except (TypeError, ValueError, RecursionError, OverflowError, msgspec.MsgspecError):
            raise Invalid("the arguments cannot be written to the ledger") from None
        noise = self._draw(NONCE_BYTES + _SALT)
        salt = noise[NONCE_BYTES:]
        committed = sha256(canonical.ARGUMENTS + salt + value).hexdigest()
        record = b"%b%b%b%b" % (_ARGUMENTS_TAG, salt, pack_u32(len(value)), value)
        detail = target = wire = ""
        if decision.narrowed is not None:
            wire, more = self._commit(canonical.WIRE, encode_value(decision.narrowed))
            record += more
        if decision.detail:
            detail, more = self._commit(canonical.DETAIL, decision.detail.encode())
            record += more
        if request.tool is None and request.target:
            target, more = self._commit(canonical.TARGET, request.target.encode())
            record += more
        leaf = encode_leaf(
            DecisionLeaf(
                self._action(request),
                self._agent(caller.agent),
                context.approval,
                str(stamp[1]),
                decision.bundle,
                context.chain,
                request.clock_trusted,
                Commitments(committed, detail, target, wire),
                caller.credential,
                context.thumbprint,
                self._gateway,
                stamp[0],
                decision.input_digest,
                context.isolation,
                "decision",
                context.labels,
                "observe" if decision.reason is Reason.OBSERVED else context.mode,
                noise[:NONCE_BYTES].hex(),
                str(request.now),
                decision.obligations,
                decision.policies,
                self._no_policy if context.policy is None else self._policy(context.policy),
                decision.reason,
                context.run,
                context.trace,
                "" if user is None else user.id,
                user is not None and user.live,
                FORMAT,
                decision.verdict,
                decision.would,
            )
        )
        if len(leaf) > LEAF_MAX_BYTES:
            raise _too_long(len(leaf))
        return leaf, record

    def outcome(self, index: int, at: int, facts: OutcomeFacts) -> Entry:
        result = ""
        record = b""
        if facts.result_digest:
            salt, digest = self._draw(_SALT), facts.result_digest
            result = sha256(canonical.RESULT + salt + digest).hexdigest()
            record = b"%b%b%b%b" % (_RESULT_TAG, salt, pack_u32(len(digest)), digest)
        decision = facts.decision
        leaf = encode_leaf(
            OutcomeLeaf(
                str(at),
                facts.bytes,
                facts.cause,
                decision.index,
                decision.leaf_hash.hex(),
                facts.duration_ns,
                index,
                "outcome",
                facts.labels,
                result,
                facts.status,
                FORMAT,
            )
        )
        if len(leaf) > LEAF_MAX_BYTES:
            raise _too_long(len(leaf))
        return leaf, record

    def event(self, index: int, at: int, event: Event) -> Entry:
        """EVD-7: what does not fit, and the reason, stand in commitments and are sealed."""
        before, before_hash, record = self._state(canonical.BEFORE, event.before)
        after, after_hash, more = self._state(canonical.AFTER, event.after)
        reason, last = self._commit(canonical.REASON, event.reason.encode())
        leaf = encode_leaf(
            EventLeaf(
                event.actor,
                after,
                str(at),
                before,
                event.channel,
                EventCommitments(after_hash, before_hash, reason),
                event.kind,
                str(event.at),
                index,
                "event",
                event.subject,
                FORMAT,
            )
        )
        if len(leaf) > LEAF_MAX_BYTES:
            raise _too_long(len(leaf))
        return leaf, record + more + last

    def log(self, index: int, at: int, what: str, facts: Mapping[str, Any]) -> Entry:
        leaf = encode_leaf(LogLeaf(str(at), free_form(facts), index, "log", FORMAT, what))
        if len(leaf) > LEAF_MAX_BYTES:
            raise _too_long(len(leaf))
        return leaf, b""

    def counts(
        self, stamp: tuple[int, int], since: int, counts: Mapping[str, int], samples: Any
    ) -> Entry:
        committed, record = "", b""
        if samples:
            committed, record = self._commit(canonical.SAMPLES, encode_value(samples))
        ordered = {kind: counts[kind] for kind in sorted(counts)}
        return encode_leaf(
            CountsLeaf(str(stamp[1]), ordered, stamp[0], "counts", committed, str(since), FORMAT)
        ), record

    def heartbeat(self, index: int, at: int, waiting: int) -> Entry:
        return encode_leaf(HeartbeatLeaf(str(at), index, "heartbeat", waiting, FORMAT)), b""

    def _commit(self, domain: bytes, value: bytes) -> tuple[str, bytes]:
        salt = self._draw(_SALT)
        record = b"%b%b%b%b" % (TAGS[domain], salt, pack_u32(len(value)), value)
        return canonical.commit(domain, salt, value), record

    def _state(self, domain: bytes, state: Mapping[str, Any] | None) -> tuple[Any, str, bytes]:
        if state is None:
            return None, "", b""
        raw = free_form(state)
        if len(raw) <= _FREE_FORM_MAX_BYTES:
            return raw, "", b""
        return None, *self._commit(domain, bytes(raw))

    def _agent(self, facts: AgentFacts) -> AgentSeen:
        known = self._agents.get(id(facts))
        if known is not None and known[0] is facts:
            return known[1]
        scope = facts.scope
        seen = _once(
            AgentSeen(
                acceptance=scope.acceptance,
                accepted=scope.accepted,
                deputy=facts.deputy,
                deputy_live=facts.deputy_live,
                ends_at=str(facts.ends_at),
                id=facts.id,
                lifecycle=facts.lifecycle,
                owner=facts.owner,
                owner_live=facts.owner_live,
                revision=facts.revision,
                scope=scope.digest,
                sponsor=facts.sponsor,
            )
        )
        _remember(self._agents, id(facts), (facts, seen))
        return seen

    def _policy(self, facts: PolicyVersionFacts) -> PolicySeen:
        known = self._policies.get(id(facts))
        if known is not None and known[0] is facts:
            return known[1]
        seen = _once(PolicySeen(facts.approver, facts.author, facts.digest, facts.number))
        _remember(self._policies, id(facts), (facts, seen))
        return seen

    def _action(self, request: AccessRequest) -> ActionSeen:
        tool, server = request.tool, request.server
        key = (id(tool), id(server), request.method, request.observed_pin)
        known = self._actions.get(key)
        if known is not None and known[0] is tool and known[1] is server:
            return known[2]
        seen = _once(
            ActionSeen(
                effect="" if tool is None else tool.effect,
                id=request.method if tool is None else tool.action,
                method=request.method,
                observed_pin=request.observed_pin,
                pin="" if tool is None else tool.pin,
                pin_state="" if tool is None else tool.state,
                server=server.id if server.revision else "",
                server_revision=server.revision,
                sink="" if tool is None else tool.sink,
                upstream_mode=server.mode if server.revision else "",
            )
        )
        _remember(self._actions, key, (tool, server, seen))
        return seen


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= CACHED_FACTS_MAX:
        cache.clear()
    cache[key] = value


def _too_long(length: int) -> Invalid:
    return Invalid(
        f"the entry would be {length} bytes, and the ledger takes {LEAF_MAX_BYTES}",
        remedy="Fewer determining policies, labels or obligations for one decision.",
    )

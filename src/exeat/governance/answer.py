"""REG-10: the three answers about one agent: who owns it, what it may do, what proves enforcement.

A pure function of state, PDP and ledger: the same on every replica that has loaded the same epoch.
``now`` only says whether the end date has passed; it is not shown.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from exeat.core.controls import ApproverRole
from exeat.core.errors import Conflict
from exeat.core.facts import AgentFacts, ServerFacts, Snapshot, ToolFacts
from exeat.core.ids import ActionId, AgentId, PersonId
from exeat.core.kills import Kills
from exeat.core.request import AccessRequest, Caller
from exeat.policy.decide import Pdp
from exeat.policy.methods import METHODS, TOOL_CALL, resource_type
from exeat.policy.model import Policy
from exeat.policy.preconditions import effect_of, known, pinned, principal, within, within_servers
from exeat.registry.model.agent import Agent
from exeat.registry.model.names import show_time, show_until

PROOFS_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """One recorded decision.  ``decision``: its id; ``at``: nanoseconds."""

    decision: str
    at: int
    action: str
    verdict: str
    reason: str


class Proofs(Protocol):
    def latest(self, agent: AgentId, count: int) -> tuple[Proof, ...] | None:
        """At most ``count`` decisions of the agent, newest first.  None: there is no ledger."""
        ...


class Permission(StrEnum):
    ALWAYS = "always"
    """Whatever the arguments, as long as they fit the tool's pinned schema."""
    CONDITIONAL = "conditional"
    """Depends on what the named policies read of the call."""
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Holder:
    """A person in a role for the agent; ``person`` is empty if the role is not filled."""

    role: str
    person: str
    live: bool


@dataclass(frozen=True, slots=True)
class Ownership:
    """``accepted``: the scope as it stands is accepted, by whom and when (REG-9)."""

    holders: tuple[Holder, ...]
    lifecycle: str
    purpose: str
    scope: Mapping[str, Any]
    scope_digest: str
    accepted: bool
    accepted_by: str
    accepted_at: str
    acceptance: str


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """``place``: file:line of the version in force."""

    id: str
    place: str
    permit: bool
    conditional: bool


@dataclass(frozen=True, slots=True)
class ActionAnswer:
    """One tool or method of one server.  ``why``: one sentence; empty if it is always permitted.
    ``approvals``: whose approval a call may have to wait for, by declared role."""

    server: str
    action: str
    effect: str
    sink: str
    reversible: bool
    confirmed: bool
    permission: Permission
    why: str
    policies: tuple[PolicyRef, ...]
    approvals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Permitted:
    """``stopped``: why every call is denied at present, or empty.  ``until``: the last day.
    ``observed_until``: until then what policy would refuse it is only recorded (POL-7), or empty."""

    stopped: str
    until: str
    policy: Mapping[str, Any] | None
    findings: tuple[str, ...]
    actions: tuple[ActionAnswer, ...]
    observed_until: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """``epoch``: of the state that was asked.  ``proofs``: None if no ledger was found."""

    agent: str
    revision: int
    epoch: int
    owned: Ownership
    permitted: Permitted
    proofs: tuple[Proof, ...] | None

    def as_json(self) -> dict[str, Any]:
        proofs = None
        if self.proofs is not None:
            proofs = [{**asdict(proof), "at": show_time(proof.at)} for proof in self.proofs]
        return {**asdict(self), "proofs": proofs}


def answer(agent: Agent, snapshot: Snapshot, pdp: Pdp, proofs: Proofs, now: int) -> Answer:
    """The three answers.  ``pdp`` is compiled from ``snapshot``; ``agent`` is the registry's value
    of the same revision.  Raises Conflict if it is of another one (read both again)."""
    facts = snapshot.agents.get(agent.id)
    if facts is None or facts.revision != agent.revision:
        raise Conflict(f"Agent {agent.id} was changed meanwhile.", remedy="Ask again.")
    return Answer(
        agent.id,
        agent.revision,
        snapshot.epoch,
        _owned(agent, snapshot),
        _permitted(facts, snapshot, pdp, now),
        proofs.latest(agent.id, PROOFS_SHOWN),
    )


def _owned(agent: Agent, snapshot: Snapshot) -> Ownership:
    charter, by = agent.charter, agent.acceptance
    roles = (("owner", charter.owner), ("deputy", charter.deputy), ("sponsor", charter.sponsor))
    return Ownership(
        tuple(Holder(role, who or "", _is_live(snapshot, who)) for role, who in roles),
        agent.lifecycle.value,
        charter.purpose,
        agent.scope.as_json(agent.ends_at),
        agent.scope_digest,
        agent.accepted,
        by.by if by is not None else "",
        show_time(by.at) if by is not None else "",
        by.event if by is not None else "",
    )


def _is_live(snapshot: Snapshot, who: PersonId | None) -> bool:
    person = snapshot.people.get(who) if who is not None else None
    return person is not None and person.live


def _permitted(agent: AgentFacts, snapshot: Snapshot, pdp: Pdp, now: int) -> Permitted:
    stop = principal(Caller(agent, None, ""), now)
    version = snapshot.policy
    policy = None
    if version is not None:
        policy = {
            "version": version.number,
            "digest": version.digest,
            "author": version.author,
            "approver": version.approver,
            "reason": version.reason,
        }
    asked = _Asked(agent, pdp, now, snapshot.kills)
    killed = snapshot.kills.hit(agent, None, "", "", "")
    actions: list[ActionAnswer] = []
    for _, server in sorted(snapshot.servers.items()):
        tools = [tool for _, tool in sorted(snapshot.tools.items()) if tool.server == server.id]
        actions += [asked.about(server, TOOL_CALL, tool.action, tool) for tool in tools]
        if within_servers(agent, server) is None:
            methods = sorted({*METHODS, *server.extra_methods})
            actions += [asked.about(server, each, ActionId(each), None) for each in methods]
    return Permitted(
        _killed(killed) if killed else "" if stop is None else stop[1],
        show_until(agent.ends_at) if agent.ends_at else "",
        policy,
        tuple(str(finding) for finding in pdp.findings),
        tuple(actions),
        show_time(agent.observe_until) if now < agent.observe_until else "",
    )


def _approvers(role: ApproverRole) -> str:
    """``finance (grace, role cfo; 2 of them)``."""
    who = [*sorted(role.people), *(f"role {name}" for name in sorted(role.roles))]
    if role.owner:
        who = ["the agent's owner or deputy", *who]
    several = f"; {role.quorum} of them" if role.quorum > 1 else ""
    return f"{role.name} ({', '.join(who)}{several})"


def _killed(kill: str) -> str:
    return f"it is stopped by kill {kill}"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The PDP, asked on behalf of one agent at one moment."""

    agent: AgentFacts
    pdp: Pdp
    now: int
    kills: Kills

    def about(
        self, server: ServerFacts, method: str, action: ActionId, tool: ToolFacts | None
    ) -> ActionAnswer:
        request = self._request(server, method, action, tool)
        covering = self.pdp.slice_of(request).policies
        permission, why = self._verdict(request, covering)
        return ActionAnswer(
            server.id,
            action,
            effect_of(method, tool).value,
            tool.sink.value if tool is not None else "",
            tool is not None and tool.reversible,
            tool is not None and tool.profile_confirmed,
            permission,
            why,
            tuple(_ref(policy) for policy in covering),
            () if permission is Permission.NEVER else self._approvals(covering),
        )

    def _approvals(self, covering: tuple[Policy, ...]) -> tuple[str, ...]:
        known = self.pdp.controls
        named = sorted(frozenset().union(*(policy.controls for policy in covering)))
        return tuple(_approvers(role) for role in map(known.approver, named) if role is not None)

    def _request(
        self, server: ServerFacts, method: str, action: ActionId, tool: ToolFacts | None
    ) -> AccessRequest:
        target, pin = (tool.name, tool.pin) if tool is not None else ("", "")
        caller = Caller(self.agent, None, "")
        return AccessRequest(caller, method, action, server, target, tool, pin, {}, self.now)

    def _verdict(
        self, request: AccessRequest, covering: tuple[Policy, ...]
    ) -> tuple[Permission, str]:
        if why := self._unmet(request):
            return Permission.NEVER, why
        permits = [policy for policy in covering if policy.permit]
        forbids = [policy for policy in covering if not policy.permit]
        if not permits:
            return Permission.NEVER, "no permit covers it"
        if final := [p for p in forbids if not p.conditional and self._covers(p, request)]:
            return Permission.NEVER, f"forbidden by {_names(final)}"
        by_target = resource_type(request.method) in ("Prompt", "Resource") and not request.tool
        if not by_target and not self._could(request):
            why = f"the conditions of {_names(permits)} never hold"
            return Permission.NEVER, f"{why} or {_names(forbids)} forbids" if forbids else why
        plain = any(not p.conditional and self._covers(p, request) for p in permits)
        settled = plain or (not by_target and all(_of_registry(p) for p in permits))
        if settled and all(not by_target and _of_registry(p) for p in forbids):
            return Permission.ALWAYS, ""
        open_permits = "" if plain else f"if {_names(permits)} permits"
        open_forbids = f"unless {_names(forbids)} forbids" if forbids else ""
        return Permission.CONDITIONAL, " ".join(
            part for part in (open_permits, open_forbids) if part
        )

    def _unmet(self, request: AccessRequest) -> str:
        """Why no policy is even asked, or empty."""
        server, tool = request.server, request.tool
        killed = self.kills.hit(self.agent, None, server.id, request.action, "")
        if killed:
            return _killed(killed)
        failed = (
            principal(request.caller, request.now)
            or known(server, request.method, request.action, tool)
            or (pinned(tool, tool.pin) if tool is not None else None)
            or within(self.agent, server, request.method, tool)
        )
        if failed is not None:
            return failed[1]
        if self.pdp.broken:
            return self.pdp.broken
        return "" if self.pdp.digest else "no policy version is in force"

    def _could(self, request: AccessRequest) -> bool:
        return self.pdp.could_permit(
            request.caller,
            request.server,
            request.method,
            request.action,
            request.tool,
            request.target,
            request.now,
        )

    def _covers(self, policy: Policy, request: AccessRequest) -> bool:
        """Does the scope match for certain?  A slice only says that it may: it holds policies of
        single prompts and resources, and ``==`` on groups."""
        agent, action, resource = policy.principal, policy.action, policy.resource
        exact = (
            (agent.exact and ("Agent", self.agent.id) not in agent.uids)
            or (action.exact and all(name != request.action for _, name in action.uids))
            or any(kind in ("Prompt", "Resource") for kind, _ in resource.uids)
        )
        return not exact


def _of_registry(policy: Policy) -> bool:
    """Its conditions, if any, read only what the registry says of agent and tool, not the call."""
    return all(path[0] != "context" for path in policy.values | policy.presence)


def _names(policies: Iterable[Policy]) -> str:
    return ", ".join(sorted({policy.id for policy in policies}))


def _ref(policy: Policy) -> PolicyRef:
    place = f"{policy.source.file}:{policy.source.line}"
    return PolicyRef(policy.id, place, policy.permit, policy.conditional)

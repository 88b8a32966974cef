"""A recorded decision as a request again, with the facts that the record holds (POL-6).

What the record does not hold is taken as it is now: groups and environment of agents, roles of people,
scopes, definitions of tools.  Facts are built once and found again, so that the PDP knows its routes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from exeat.core.controls import APPROVED_BY, CONFIRMED_BY_USER
from exeat.core.decision import Reason, Verdict
from exeat.core.facts import (
    AgentFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PinState,
    ServerFacts,
    Sink,
    Snapshot,
    ToolFacts,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.obligations import CONTROL
from exeat.core.request import AccessRequest, Caller
from exeat.evidence.model import ActionSeen, AgentSeen, DecisionLeaf
from exeat.evidence.reader import Entry
from exeat.gateway.routes import INPUTS_KEY
from exeat.gateway.tasks import EXTENSION
from exeat.policy.methods import LIST_METHODS, TOOL_CALL
from exeat.policy.replay import Recorded

DAY_NS: Final = 86_400 * 10**9
_BESIDE: Final = frozenset({INPUTS_KEY, EXTENSION})


def without_beside(method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The tool's own arguments: what left beside them is committed to with them."""
    if method != TOOL_CALL or _BESIDE.isdisjoint(arguments):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name not in _BESIDE}


class Recall:
    """``left_out``: why decisions could not be decided again, and how many.  ``changed``: of agents and
    tools, how many decisions were made on other facts than those of now."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.left_out: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self._agents: dict[tuple[AgentSeen, int], AgentFacts] = {}
        self._tools: dict[ActionSeen, ToolFacts | None] = {}
        self._servers: dict[tuple[str, bool], ServerFacts] = {}
        self._people: dict[tuple[str, bool], PersonFacts] = {}

    def of(self, instance: str, entry: Entry, leaf: DecisionLeaf) -> Recorded | None:
        """None: it is no question of policy, or cannot be asked again; the latter is counted."""
        action = leaf.action
        if action.method in LIST_METHODS:
            return None
        known = self._snapshot.agents.get(AgentId(leaf.agent.id))
        server = self._snapshot.servers.get(ServerId(action.server))
        tool, arguments = self._tool(action), entry.values.get("arguments")
        why = _unaskable(leaf, arguments)
        if why or known is None or server is None:
            self.left_out[why or "their agent or server is no longer registered"] += 1
            return None
        if action.method == TOOL_CALL and tool is None:
            self.left_out["their tool is not registered"] += 1
            return None
        if known.revision != leaf.agent.revision:
            self.changed["agent"] += 1
        if tool is not None and tool.pin != self._snapshot.tools[tool.action].pin:
            self.changed["tool"] += 1
        request = AccessRequest(
            Caller(self._agent(known, leaf), self._user(leaf), leaf.credential),
            action.method,
            ActionId(action.id),
            self._server(server, leaf.reason),
            str(entry.values.get("target", "")) or (tool.name if tool is not None else ""),
            tool,
            action.observed_pin,
            without_beside(action.method, entry.values["arguments"]),
            int(leaf.now),
            leaf.clock_trusted,
            leaf.run,
            controls_of(leaf.obligations),
        )
        return Recorded(
            f"{instance}-{leaf.index}",
            request,
            Verdict(leaf.verdict),
            Reason(leaf.reason),
            leaf.policies,
            leaf.mode,
            leaf.labels_before,
            leaf.would,
            leaf.obligations,
        )

    def _agent(self, now: AgentFacts, leaf: DecisionLeaf) -> AgentFacts:
        """An observed call is decided again as of an observed agent."""
        seen, day = leaf.agent, int(leaf.now) // DAY_NS if leaf.mode == "observe" else -1
        found = self._agents.get((seen, day))
        if found is None:
            found = self._agents[(seen, day)] = replace(
                now,
                revision=seen.revision,
                lifecycle=Lifecycle(seen.lifecycle),
                owner=PersonId(seen.owner),
                owner_live=seen.owner_live,
                deputy=PersonId(seen.deputy),
                deputy_live=seen.deputy_live,
                sponsor=PersonId(seen.sponsor),
                ends_at=int(seen.ends_at),
                scope=replace(now.scope, digest=Digest(seen.scope), accepted=seen.accepted),
                observe_until=(day + 1) * DAY_NS,
            )
        return found

    def _tool(self, seen: ActionSeen) -> ToolFacts | None:
        if seen not in self._tools:
            now = self._snapshot.tools.get(ActionId(seen.id))
            self._tools[seen] = None
            if now is not None and seen.effect:
                self._tools[seen] = replace(
                    now,
                    effect=Effect(seen.effect),
                    sink=Sink(seen.sink),
                    pin=seen.pin,
                    state=PinState(seen.pin_state),
                )
        return self._tools[seen]

    def _server(self, now: ServerFacts, reason: str) -> ServerFacts:
        active = reason != Reason.SERVER_NOT_ACTIVE
        key = (now.id, active)
        if key not in self._servers:
            self._servers[key] = replace(now, active=active)
        return self._servers[key]

    def _user(self, leaf: DecisionLeaf) -> PersonFacts | None:
        if not leaf.user:
            return None
        key = (leaf.user, leaf.user_live)
        if key not in self._people:
            name = PersonId(leaf.user)
            now = self._snapshot.people.get(name)
            roles = now.roles if now is not None else frozenset[str]()
            self._people[key] = PersonFacts(name, leaf.user_live, roles)
        return self._people[key]


def _unaskable(leaf: DecisionLeaf, arguments: object) -> str:
    if leaf.reason not in _REASONS or leaf.verdict not in _VERDICTS:
        return "a newer exeat wrote them"
    if not isinstance(arguments, dict):
        return "their arguments were erased, or cannot be opened here"
    return ""


_REASONS: Final = frozenset(map(str, Reason))
_VERDICTS: Final = frozenset(map(str, Verdict))


def controls_of(obligations: tuple[str, ...]) -> frozenset[str]:
    """The answers of people that the decision was made with; what the gateway fulfils itself is found
    again by deciding."""
    mark = f"{CONTROL}:"
    given = (each.removeprefix(mark) for each in obligations if each.startswith(mark))
    return frozenset(
        name for name in given if name.startswith(APPROVED_BY) or name == CONFIRMED_BY_USER
    )

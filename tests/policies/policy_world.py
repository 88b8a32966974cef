"""A small whole world for the PDP: two servers, four tools, one agent."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exeat.core.decision import Decision
from exeat.core.facts import (
    AgentFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PinState,
    PolicyVersionFacts,
    ScopeFacts,
    ServerFacts,
    Sink,
    ToolFacts,
    tool_action,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp
from exeat.policy.world import Catalogue

NOW = 1_790_000_000 * 10**9
STRING = {"type": "string"}


def tool(server: str, name: str, effect: Effect, schema: Mapping[str, Any]) -> ToolFacts:
    return ToolFacts(
        server=ServerId(server),
        name=name,
        action=tool_action(server, name),
        pin=f"pin-{name}",
        state=PinState.PINNED,
        definition={"name": name, "inputSchema": {"type": "object", **schema}},
        effect=effect,
        sink=Sink.PRIVATE,
        reversible=True,
        profile_confirmed=True,
    )


TOOLS = [
    tool(
        "fs",
        "read",
        Effect.READ,
        {"properties": {"path": STRING, "limit": {"type": "integer"}}, "required": ["path"]},
    ),
    tool(
        "fs",
        "write",
        Effect.WRITE,
        {"properties": {"path": STRING, "content": STRING}, "required": ["path", "content"]},
    ),
    tool(
        "bank",
        "transfer",
        Effect.PAY,
        {
            "properties": {
                "amount": {"type": "number"},
                "to": STRING,
                "memo": {"anyOf": [STRING, {"type": "null"}]},
                "currency": {"enum": ["EUR", "USD"]},
            },
            "required": ["amount", "to"],
        },
    ),
    tool("bank", "balance", Effect.READ, {"properties": {}}),
]
SERVERS = {
    ServerId(name): ServerFacts(ServerId(name), 1, True, PersonId("ada"), 2)
    for name in ("fs", "bank")
}
PEOPLE = {
    PersonId("ada"): PersonFacts(PersonId("ada"), True, frozenset({"finance"})),
    PersonId("bob"): PersonFacts(PersonId("bob"), True),
}
AGENT = AgentFacts(
    id=AgentId("bot"),
    revision=1,
    lifecycle=Lifecycle.ACTIVE,
    owner=PersonId("ada"),
    owner_live=True,
    deputy=PersonId("bob"),
    deputy_live=True,
    sponsor=PersonId("bob"),
    ends_at=NOW + 10**15,
    scope=ScopeFacts(
        Digest("d"), "d", "event-1", frozenset(SERVERS), frozenset(Effect), frozenset()
    ),
    groups=frozenset({"payments"}),
    environment="prod",
)


def version(*texts: str) -> PolicyVersionFacts:
    files = {f"p{number}.cedar": text for number, text in enumerate(texts)}
    digest = Digest(f"digest-{hash(texts) & 0xFFFF:x}")
    return PolicyVersionFacts(digest, 1, PersonId("ada"), PersonId("bob"), "test", files)


@dataclass
class World:
    """Policies, registry and caller; ``decide`` runs the real PDP."""

    policy: str | None = '@id("all") permit(principal, action, resource);'
    tools: dict[ActionId, ToolFacts] = field(
        default_factory=lambda: {each.action: each for each in TOOLS}
    )
    servers: dict[ServerId, ServerFacts] = field(default_factory=lambda: dict(SERVERS))
    people: dict[PersonId, PersonFacts] = field(default_factory=lambda: dict(PEOPLE))
    agent: AgentFacts = AGENT
    user: PersonFacts | None = None
    built: Pdp | None = None

    @property
    def pdp(self) -> Pdp:
        policy = None if self.policy is None else version(self.policy)
        if self.built is None:
            self.built = compile_bundle(policy, self.tools, self.servers, people=self.people)
        return self.built

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(self.tools, self.servers, {self.agent.id: self.agent}, self.people)

    def call(self, action: str, arguments: Mapping[str, Any] | None = None) -> AccessRequest:
        found = self.tools.get(ActionId(action))
        server = self.servers[ServerId(action.split("/")[0])]
        return AccessRequest(
            caller=Caller(self.agent, self.user, "key-1"),
            method="tools/call",
            action=ActionId(action),
            server=server,
            target=action.split("/", 1)[1],
            tool=found,
            observed_pin=found.pin if found else "",
            arguments=dict(arguments or {}),
            now=NOW,
        )

    def method(self, method: str, target: str = "", server: str = "fs") -> AccessRequest:
        return replace(
            self.call(f"{server}/none"),
            method=method,
            action=ActionId(method),
            target=target,
        )

    def decide(self, action: str, arguments: Mapping[str, Any] | None = None) -> Decision:
        return self.pdp.decide(self.call(action, arguments))

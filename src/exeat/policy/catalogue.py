"""A catalogue from a file, so that policies can be checked in CI without a home.

```yaml
servers:
  bank:
    trust: 1
    tools:
      - name: transfer
        inputSchema: {type: object, properties: {amount: {type: number}}}
        effect: pay            # optional: effect, sink, reversible, confirmed
agents:
  invoice-bot: {groups: [payments], owner: ada, environment: prod}
people:
  ada: {roles: [finance]}
```
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from exeat.core.controls import Order
from exeat.core.errors import Invalid
from exeat.core.facts import (
    AgentFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PinState,
    ScopeFacts,
    ServerFacts,
    Sink,
    ToolFacts,
    tool_action,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.policy.documents import document, items, mapping, words
from exeat.policy.world import Catalogue

PIN: Final = "catalogue"
"""Tools of a catalogue file count as pinned as they stand there."""
_FAR: Final = 2**62


def load_catalogue(text: str, name: str = "catalogue") -> Catalogue:
    """Read a catalogue (YAML or JSON).  Raises Invalid, naming the place."""
    top = mapping(document(text, name), name)
    servers: dict[ServerId, ServerFacts] = {}
    tools: dict[ActionId, ToolFacts] = {}
    for server_name, entry in mapping(top.get("servers", {}), f"{name}: servers").items():
        server = ServerId(str(server_name))
        body = mapping(entry, f"{name}: servers.{server}")
        extra = frozenset(words(body.get("extra_methods"), f"{name}: extra_methods of {server}"))
        owner = PersonId(str(body.get("owner", "")))
        servers[server] = ServerFacts(server, 1, True, owner, _trust(body, server, name), extra)
        for listed in items(body.get("tools"), f"{name}: tools of {server}"):
            tool = _tool(server, mapping(listed, f"{name}: a tool of {server}"), name)
            tools[tool.action] = tool
    people = {
        PersonId(str(person)): PersonFacts(
            PersonId(str(person)),
            True,
            frozenset(words(mapping(body, name).get("roles"), f"{name}: roles of {person}")),
        )
        for person, body in mapping(top.get("people", {}), f"{name}: people").items()
    }
    agents = {
        AgentId(str(agent)): _agent(AgentId(str(agent)), mapping(body, name), servers, name)
        for agent, body in mapping(top.get("agents", {}), f"{name}: agents").items()
    }
    return Catalogue(tools, servers, agents, people)


def _trust(body: Mapping[Any, Any], server: ServerId, where: str) -> int:
    found = body.get("trust", 0)
    if not isinstance(found, int):
        raise Invalid(
            f"{where}: trust of {server} is no whole number", remedy="write for example 1"
        )
    return found


def _one_of(words_of: Iterable[str]) -> str:
    return ", ".join(words_of)


def _tool(server: ServerId, body: Mapping[Any, Any], where: str) -> ToolFacts:
    title = str(body.get("name", ""))
    if not title:
        raise Invalid(f"{where}: a tool of {server} has no name", remedy="write its name")
    try:
        effect, sink = Effect(body.get("effect", "execute")), Sink(body.get("sink", "external"))
        listed = mapping(body.get("monotone"), f"{where}: {server}/{title}: monotone")
        monotone = {str(name): Order(order) for name, order in listed.items()}
    except ValueError as error:
        known = f"effects: {_one_of(Effect)}; sinks: {_one_of(Sink)}; monotone: {_one_of(Order)}"
        raise Invalid(f"{where}: tool {server}/{title}: {error}", remedy=known) from None
    return ToolFacts(
        server=server,
        name=title,
        action=tool_action(server, title),
        pin=PIN,
        state=PinState.PINNED,
        definition=dict(body),
        effect=effect,
        sink=sink,
        reversible=bool(body.get("reversible", False)),
        profile_confirmed=bool(body.get("confirmed", False)),
        monotone=monotone,
    )


def _agent(
    agent: AgentId, body: Mapping[Any, Any], servers: Mapping[ServerId, ServerFacts], where: str
) -> AgentFacts:
    digest = Digest(PIN)
    return AgentFacts(
        id=agent,
        revision=1,
        lifecycle=Lifecycle.ACTIVE,
        owner=PersonId(str(body.get("owner", ""))),
        owner_live=True,
        deputy=PersonId(str(body.get("deputy", ""))),
        deputy_live=True,
        sponsor=PersonId(""),
        ends_at=_FAR,
        scope=ScopeFacts(digest, digest, "", frozenset(servers), frozenset(Effect)),
        groups=frozenset(words(body.get("groups"), f"{where}: groups of {agent}")),
        environment=str(body.get("environment", "")),
    )

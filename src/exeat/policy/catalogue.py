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

from collections.abc import Mapping
from typing import Any, Final

import yaml

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
from exeat.policy.world import Catalogue

PIN: Final = "catalogue"
"""Tools of a catalogue file count as pinned as they stand there."""
_FAR: Final = 2**62


def load_catalogue(text: str, name: str = "catalogue") -> Catalogue:
    """Read a catalogue (YAML or JSON).  Raises Invalid, naming the place."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise Invalid(f"{name} is nested too deeply", remedy="write it flat") from None
    top = _mapping(document, name)
    servers: dict[ServerId, ServerFacts] = {}
    tools: dict[ActionId, ToolFacts] = {}
    for server_name, entry in _mapping(top.get("servers", {}), f"{name}: servers").items():
        server = ServerId(str(server_name))
        body = _mapping(entry, f"{name}: servers.{server}")
        extra = frozenset(map(str, body.get("extra_methods", ())))
        owner = PersonId(str(body.get("owner", "")))
        servers[server] = ServerFacts(server, 1, True, owner, int(body.get("trust", 0)), extra)
        for listed in body.get("tools", ()):
            tool = _tool(server, _mapping(listed, f"{name}: a tool of {server}"), name)
            tools[tool.action] = tool
    people = {
        PersonId(str(person)): PersonFacts(
            PersonId(str(person)), True, frozenset(_mapping(body, name).get("roles", ()))
        )
        for person, body in _mapping(top.get("people", {}), f"{name}: people").items()
    }
    agents = {
        AgentId(str(agent)): _agent(AgentId(str(agent)), _mapping(body, name), servers)
        for agent, body in _mapping(top.get("agents", {}), f"{name}: agents").items()
    }
    return Catalogue(tools, servers, agents, people)


def _mapping(value: object, where: str) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Invalid(f"{where} is not a mapping", remedy="see the policy reference for its form")
    return value


def _tool(server: ServerId, body: Mapping[Any, Any], where: str) -> ToolFacts:
    title = str(body.get("name", ""))
    if not title:
        raise Invalid(f"{where}: a tool of {server} has no name", remedy="write its name")
    try:
        effect, sink = Effect(body.get("effect", "execute")), Sink(body.get("sink", "external"))
        listed = _mapping(body.get("monotone"), f"{where}: {server}/{title}: monotone")
        monotone = {str(name): Order(order) for name, order in listed.items()}
    except ValueError as error:
        raise Invalid(f"{where}: tool {server}/{title}: {error}") from None
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
    agent: AgentId, body: Mapping[Any, Any], servers: Mapping[ServerId, ServerFacts]
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
        groups=frozenset(map(str, body.get("groups", ()))),
        environment=str(body.get("environment", "")),
    )

"""A registry with people, a server and its tools, for tests that need more than one fact."""

import itertools
from collections.abc import Mapping
from typing import Any

from exeat.core.facts import Effect, ServerSpec, Transport, tool_action
from exeat.core.ids import AgentId, PersonId, ServerId
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Agent, Charter, Scope
from exeat.registry.model.tool import Tool
from exeat.registry.rules.pins import definition_digest
from exeat.registry.service import Registry
from exeat.storage.state import State

ADA, BOB, EVE = PersonId("ada"), PersonId("bob"), PersonId("eve")
NOW, DAY_NS = 1_800_000_000 * 10**9, 86_400 * 10**9
GIT = ServerId("git")
BOT = AgentId("bot")


def act(actor: PersonId = ADA, at: int = NOW, reason: str = "for a test") -> Act:
    return Act(actor, "test", reason, at)


def definition(name: str, description: str = "does it", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": description, "inputSchema": {"type": "object"}, **more}


class World:
    """ada (admin), bob, eve; server git; random bytes that count up."""

    def __init__(self, state: State) -> None:
        self.state = state
        numbers = itertools.count(1)
        self.registry = Registry(state.registry, lambda size: next(numbers).to_bytes(size, "big"))
        self.registry.found(ADA, act())
        for person in (BOB, EVE):
            self.registry.register_person(person, [], act())
        self.registry.add_server(spec(GIT), ADA, 10, [], act())

    def show(self, *definitions: Mapping[str, Any], server: ServerId = GIT) -> list[str]:
        """What the server shows now; kinds of the findings."""
        found = self.registry.observe_definitions(server, definitions, act())
        return [finding.kind for finding in found]

    def pin(self, body: Mapping[str, Any], server: ServerId = GIT) -> Tool:
        self.show(body, server=server)
        action = tool_action(server, body["name"])
        return self.registry.pin(action, definition_digest(body), act())

    def draft(self, name: str = "bot", **changes: Any) -> Agent:
        return self.registry.register_agent(
            name, charter(**changes), scope(), NOW + 100 * DAY_NS, act()
        )

    def active(self, name: str = "bot") -> Agent:
        drafted = self.draft(name)
        self.registry.accept_scope(drafted.id, drafted.scope_digest, act())
        return self.registry.activate(drafted.id, act())

    def events(self) -> list[str]:
        return [waiting.event.kind for waiting in self.state.outbox.take(1000)]


def spec(server: ServerId, command: tuple[str, ...] = ("git-server",)) -> ServerSpec:
    return ServerSpec(server, Transport.STDIO, command=command)


def charter(**changes: Any) -> Charter:
    fields: dict[str, Any] = {"name": "Bot", "owner": ADA, "deputy": BOB, "sponsor": ADA}
    return Charter(**{**fields, **changes})


def scope(*effects: Effect) -> Scope:
    return Scope(frozenset({GIT}), frozenset(effects or {Effect.READ}))

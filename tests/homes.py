"""Whole homes for tests, bench and conformance: real registry, real policy, real keys."""

import asyncio
import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from exeat.app.observe import fetch_definitions
from exeat.core.facts import Effect, ServerSpec, Transport, tool_action
from exeat.core.ids import AgentId, Digest, PersonId, ServerId
from exeat.core.upstream_auth import NO_AUTH, UpstreamAuth
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Charter, Scope
from exeat.registry.model.tool import Profile
from exeat.registry.rules.pins import definition_digest
from exeat.registry.service import Registry
from exeat.storage.state import State, open_state

ADA, BOB = PersonId("ada"), PersonId("bob")
WAITING = 200
"""Fewer definitions than may wait for a person at a time."""
YEAR_NS = 365 * 86_400 * 1_000_000_000


class Home:
    """A home under ``path`` with ada (admin) and bob; verbs run as ada."""

    def __init__(self, path: Path, database_url: str | None = None) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state: State = open_state(path, database_url)
        self.registry = Registry(self.state.registry, os.urandom)
        self.registry.found(ADA, self.act())
        self.registry.register_person(BOB, ["operator"], self.act())

    @classmethod
    def opened(cls, path: Path) -> "Home":
        """One that is there."""
        home = cls.__new__(cls)
        home.path, home.state = path, open_state(path, None)
        home.registry = Registry(home.state.registry, os.urandom)
        return home

    @classmethod
    def copied(cls, from_: Path, to: Path) -> "Home":
        """A home that nothing has open, copied: cheaper than to make it and run a gateway on it."""
        shutil.copytree(from_, to)
        return cls.opened(to)

    def act(self, reason: str = "for a test", actor: PersonId = ADA) -> Act:
        return Act(actor, "test", reason, time.time_ns())

    def server(
        self,
        name: str,
        *,
        url: str = "",
        command: Sequence[str] = (),
        cwd: str = "",
        env: Mapping[str, str] | None = None,
        shared: bool = False,
        extra: Iterable[str] = (),
        auth: UpstreamAuth = NO_AUTH,
    ) -> ServerId:
        server = ServerId(name)
        spec = ServerSpec(
            server,
            Transport.HTTP if url else Transport.STDIO,
            url=url,
            command=tuple(command),
            cwd=cwd,
            env=env or {},
            shared=shared,
            auth=auth,
        )
        self.registry.add_server(spec, ADA, 50, extra, self.act())
        return server

    def pin_all(
        self, server: ServerId, definitions: Sequence[Mapping[str, Any]] | None = None
    ) -> list[str]:
        """Observe what the server shows and pin all of it.  Returns the names."""
        if definitions is None:
            spec = self.state.snapshot().specs[server]
            definitions = asyncio.run(fetch_definitions(spec, self.path))
        for start in range(0, max(len(definitions), 1), WAITING):
            self.registry.observe_definitions(server, definitions[: start + WAITING], self.act())
            for each in definitions[start : start + WAITING]:
                action = tool_action(server, each["name"])
                self.registry.pin(action, definition_digest(each), self.act())
        return [each["name"] for each in definitions]

    def profile(self, server: str, tool: str, effect: Effect, **rest: Any) -> None:
        action = tool_action(server, tool)
        pin = self.state.snapshot().tools[action].pin
        self.registry.confirm_profile(action, Profile(effect, **rest), Digest(pin), self.act())

    def agent(
        self,
        name: str,
        servers: Iterable[str],
        *,
        effects: Iterable[Effect] = tuple(Effect),
        groups: Iterable[str] = (),
        owner: PersonId = ADA,
        deputy: PersonId = BOB,
    ) -> str:
        """An active agent with accepted scope.  Returns its key."""
        charter = Charter(
            name=name,
            purpose="test",
            owner=owner,
            deputy=deputy,
            sponsor=owner,
            groups=frozenset(groups),
        )
        scope = Scope(frozenset(ServerId(s) for s in servers), frozenset(effects))
        agent = AgentId(name)
        ends = time.time_ns() // 10**9 * 10**9 + YEAR_NS
        drafted = self.registry.register_agent(name, charter, scope, ends, self.act())
        self.registry.accept_scope(agent, drafted.scope_digest, self.act(actor=owner))
        self.registry.activate(agent, self.act())
        return self.key(name)

    def key(self, agent: str, user: PersonId | None = None) -> str:
        _, secret = self.registry.issue_key(AgentId(agent), user, 86_400, self.act())
        return secret

    def policy(self, text: str) -> None:
        self.registry.apply_policy({"test.cedar": text}, ADA, self.act())

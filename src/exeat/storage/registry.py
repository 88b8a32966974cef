"""RegistryStore on SQLite and PostgreSQL: one implementation, SQLAlchemy Core, no ORM."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from exeat.core.errors import Conflict, NotFound
from exeat.core.event import Event
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.registry.model.agent import Agent
from exeat.registry.model.binding import Binding
from exeat.registry.model.key import Key
from exeat.registry.model.kill import Kill
from exeat.registry.model.person import Person
from exeat.registry.model.policy import PolicyVersion
from exeat.registry.model.proposal import Proposal
from exeat.registry.model.server import Server
from exeat.registry.model.stranger import Stranger
from exeat.registry.model.tool import Tool
from exeat.storage import outbox, policy, proposals, rows
from exeat.storage.engine import changing, reading
from exeat.storage.schema import agents, keys, people, servers, state, tools
from exeat.storage.schema_identity import bindings, endings, proofs, strangers
from exeat.storage.schema_kills import kills

T = TypeVar("T")
CHANGED: Final = "exeat_changed"
"""Whom PostgreSQL tells of a change when it commits."""


class SqlRegistry:
    """What lies behind ``State.registry``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator["SqlRead"]:
        with reading(self._engine) as connection:
            yield SqlRead(connection)

    @contextmanager
    def change(self) -> Iterator["SqlChange"]:
        with changing(self._engine) as tx:
            locked = sa.select(state.c.epoch).with_for_update()
            epoch = tx.execute(locked).scalar_one() + 1
            change = SqlChange(tx, epoch)
            yield change
            if change.wrote:
                tx.execute(state.update().values(epoch=epoch))
                if tx.dialect.name == "postgresql":
                    tx.execute(sa.select(sa.func.pg_notify(CHANGED, str(epoch))))


_LISTED: Final = {"kill": "See `exeat kill --list` for those there are."}


class SqlRead:
    """RegistryRead inside one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def person(self, person: PersonId) -> Person:
        return self._one(people.c.id, person, rows.to_person, "person")

    def agent(self, agent: AgentId) -> Agent:
        return self._one(agents.c.id, agent, rows.to_agent, "agent")

    def server(self, server: ServerId) -> Server:
        return self._one(servers.c.id, server, rows.to_server, "server")

    def tool(self, action: ActionId) -> Tool:
        return self._one(tools.c.action, action, rows.to_tool, "tool")

    def key(self, key: str) -> Key:
        return self._one(keys.c.id, key, rows.to_key, "key")

    def people(self) -> tuple[Person, ...]:
        return self._all(people.c.id, rows.to_person)

    def agents(self) -> tuple[Agent, ...]:
        return self._all(agents.c.id, rows.to_agent)

    def servers(self) -> tuple[Server, ...]:
        return self._all(servers.c.id, rows.to_server)

    def tools(self) -> tuple[Tool, ...]:
        return self._all(tools.c.action, rows.to_tool)

    def keys_of(self, agent: AgentId) -> tuple[Key, ...]:
        query = sa.select(keys).where(keys.c.agent == agent).order_by(keys.c.id)
        return tuple(rows.to_key(row) for row in self._connection.execute(query))

    def binding(self, binding: str) -> Binding:
        return self._one(bindings.c.id, binding, rows.to_binding, "binding")

    def bindings(self) -> tuple[Binding, ...]:
        return self._all(bindings.c.id, rows.to_binding)

    def strangers(self) -> tuple[Stranger, ...]:
        return self._all(strangers.c.id, rows.to_stranger)

    def kill(self, kill: str) -> Kill:
        return self._one(kills.c.id, kill, rows.to_kill, "kill")

    def kills(self) -> tuple[Kill, ...]:
        return self._all(kills.c.id, rows.to_kill)

    def policy(self, number: int) -> PolicyVersion:
        return policy.version(self._connection, number)

    def policies(self) -> tuple[PolicyVersion, ...]:
        return policy.versions(self._connection)

    def policy_in_force(self) -> PolicyVersion | None:
        return policy.in_force(self._connection)

    def proposal(self, number: int) -> Proposal:
        return proposals.proposal(self._connection, number)

    def proposals(self) -> tuple[Proposal, ...]:
        return proposals.all_proposals(self._connection)

    def observed_until(self, agent: AgentId) -> int:
        return proposals.observed(self._connection).get(agent, 0)

    def _one(self, key: sa.Column[Any], value: str, read: Callable[[rows.Row], T], what: str) -> T:
        found = self._connection.execute(sa.select(key.table).where(key == value)).one_or_none()
        if found is None:
            raise NotFound(
                f"There is no {what} {value}.",
                remedy=_LISTED.get(what, f"See `exeat {what} list` for those there are."),
            )
        return read(found)

    def _all(self, key: sa.Column[Any], read: Callable[[rows.Row], T]) -> tuple[T, ...]:
        query = sa.select(key.table)
        found = [(str(getattr(r, key.name)), r) for r in self._connection.execute(query)]
        return tuple(read(row) for _, row in sorted(found, key=lambda pair: pair[0]))


class SqlChange(SqlRead):
    """RegistryChange.  ``wrote`` False: nothing was saved, and the epoch stays."""

    def __init__(self, connection: sa.Connection, epoch: int) -> None:
        super().__init__(connection)
        self.connection, self.epoch = connection, epoch
        self.wrote = False

    def save_person(self, person: Person, event: Event) -> None:
        self._save(people.c.id, rows.person_values(person), event)

    def save_agent(self, agent: Agent, event: Event) -> None:
        self._save(agents.c.id, rows.agent_values(agent), event)

    def save_server(self, server: Server, event: Event) -> None:
        self._save(servers.c.id, rows.server_values(server), event)

    def save_tool(self, tool: Tool, event: Event) -> None:
        self._save(tools.c.action, rows.tool_values(tool), event)

    def save_key(self, key: Key, event: Event) -> None:
        self._save(keys.c.id, rows.key_values(key), event)

    def save_binding(self, binding: Binding, event: Event) -> None:
        self._save(bindings.c.id, rows.binding_values(binding), event)

    def save_kill(self, kill: Kill, event: Event) -> None:
        self._save(kills.c.id, rows.kill_values(kill), event)

    def save_policy(self, version: PolicyVersion, event: Event) -> None:
        policy.add(self._connection, version)
        self.tell(event)

    def enforce(self, number: int, event: Event) -> None:
        policy.enforce(self._connection, number)
        self.tell(event)

    def save_proposal(self, proposal: Proposal, event: Event) -> None:
        proposals.save(self._connection, proposal)
        self.tell_beside(event)

    def observe(self, agent: AgentId, until: int, event: Event) -> None:
        proposals.observe(self._connection, agent, until)
        self.tell(event)

    def remove_server(self, server: Server, event: Event) -> None:
        self._connection.execute(tools.delete().where(tools.c.server == server.id))
        self._remove(servers.c.id, server.id, server.revision, event)

    def remove_tool(self, tool: Tool, event: Event) -> None:
        self._remove(tools.c.action, tool.action, tool.revision, event)

    def remove_binding(self, binding: Binding, event: Event) -> None:
        self._remove(bindings.c.id, binding.id, binding.revision, event)

    def end_tokens(self, name: str, until: int, event: Event) -> None:
        self._connection.execute(endings.delete().where(endings.c.name == name))
        self._connection.execute(endings.delete().where(endings.c.until < event.at))
        ended = endings.insert().values(name=name, until=until, epoch=self.epoch)
        self._connection.execute(ended)
        self.tell(event)

    def demand_proof(self, agent: AgentId, method: str, event: Event) -> None:
        self._connection.execute(proofs.delete().where(proofs.c.agent == agent))
        row = proofs.insert().values(agent=agent, method=method, epoch=self.epoch)
        self._connection.execute(row)
        self.tell(event)

    def save_stranger(self, stranger: Stranger, event: Event | None) -> None:
        self.forget_stranger(stranger.id)
        self._connection.execute(strangers.insert().values(rows.stranger_values(stranger)))
        if event is not None:
            outbox.put(self._connection, event)

    def forget_stranger(self, stranger: str) -> None:
        self._connection.execute(strangers.delete().where(strangers.c.id == stranger))

    def _save(self, key: sa.Column[Any], values: rows.Values, event: Event) -> None:
        table, name, revision = key.table, values[key.name], values["revision"]
        assert isinstance(table, sa.Table)  # noqa: S101
        values = {**values, "epoch": self.epoch}
        if revision == 1:
            known = self._connection.execute(sa.select(key).where(key == name)).first()
            if known is not None:
                raise Conflict(
                    f"The id {name} is already taken.", remedy="Choose another, or change that one."
                )
            self._connection.execute(table.insert().values(values))
        else:
            before = (key == name) & (table.c.revision == revision - 1)
            if self._connection.execute(table.update().where(before).values(values)).rowcount != 1:
                raise _lost(name, revision - 1)
        self.tell(event)

    def _remove(self, key: sa.Column[Any], name: str, revision: int, event: Event) -> None:
        table = key.table
        assert isinstance(table, sa.Table)  # noqa: S101
        before = (key == name) & (table.c.revision == revision)
        if self._connection.execute(table.delete().where(before)).rowcount != 1:
            raise _lost(name, revision)
        self._connection.execute(state.update().values(removed_epoch=self.epoch))
        self.tell(event)

    def tell(self, event: Event) -> None:
        outbox.put(self._connection, event)
        self.wrote = True

    def tell_beside(self, event: Event) -> None:
        """Of something that no snapshot speaks of."""
        outbox.put(self._connection, event)


def _lost(name: str, revision: int) -> Conflict:
    return Conflict(
        f"{name} is no longer at revision {revision}: somebody changed it meanwhile.",
        remedy="Look at it again, then repeat the change.",
    )

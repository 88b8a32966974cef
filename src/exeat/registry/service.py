"""The registry's verbs.  Each is one transaction: values, events and epoch together (REG-3)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from exeat.core.errors import Conflict, Invalid
from exeat.core.facts import Lifecycle, ServerSpec
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.registry.killing import Killing
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Agent, Charter, Scope
from exeat.registry.model.key import (
    KEY_ID_RANDOM_BYTES,
    KEY_LIFE_MAX_S,
    KEY_RANDOM_BYTES,
    Key,
    secret_digest,
    secret_text,
)
from exeat.registry.model.names import SECOND_NS
from exeat.registry.model.person import ADMIN, Person
from exeat.registry.model.server import Server
from exeat.registry.model.tool import Profile, Tool
from exeat.registry.naming import Naming, unbind_all
from exeat.registry.rules.authority import require_admin, require_for_agent
from exeat.registry.rules.observation import Finding, compare, warnings
from exeat.registry.rules.profiles import check_monotone
from exeat.registry.store import RegistryChange, RegistryRead, RegistryStore
from exeat.registry.versions import Versions, actor_of

Draw = Callable[[int], bytes]
"""That many random bytes."""


class Registry(Naming, Killing, Versions):
    """Every verb raises NotFound, Conflict or Invalid, and then nothing has changed."""

    def __init__(self, store: RegistryStore, draw: Draw) -> None:
        self._begin: Callable[[], AbstractContextManager[RegistryChange]] = store.change
        self._draw = draw

    @contextmanager
    def together(self) -> Iterator["Registry"]:
        """Several verbs in one transaction: all of them, or none."""
        with self._begin() as tx:
            joined = Registry.__new__(Registry)
            joined._begin = lambda: nullcontext(tx)
            joined._draw = self._draw
            yield joined

    @contextmanager
    def view(self) -> Iterator[RegistryRead]:
        """What stands now; inside ``together``, as it stands in that transaction."""
        with self._begin() as tx:
            yield tx

    # People

    def found(self, name: str, act: Act) -> Person:
        """The first person, an admin who registers themself.  Conflict if there is anybody."""
        with self._begin() as tx:
            if tx.people():
                raise Conflict(
                    "This home already has people.", remedy="An admin runs `exeat person add`."
                )
            if act.actor != name:
                raise Invalid("The first person registers themself.")
            person, event = Person.register(name, [ADMIN], act)
            tx.save_person(person, event)
            return person

    def register_person(self, name: str, roles: Iterable[str], act: Act) -> Person:
        with self._admin("register people", act) as tx:
            person, event = Person.register(name, roles, act)
            tx.save_person(person, event)
            return person

    def set_roles(self, person: PersonId, roles: Iterable[str], act: Act) -> Person:
        with self._admin("set roles", act) as tx:
            changed, event = tx.person(person).with_roles(roles, act)
            _keep_an_admin(tx, changed)
            tx.save_person(changed, event)
            return changed

    def depart(self, person: PersonId, act: Act) -> tuple[Person, tuple[Agent, ...]]:
        """REG-2: from the next call on, agents whose owner *and* deputy have left are denied, and
        so are calls made for this person.  Returns the agents to be given a new owner or deputy."""
        with self._admin("let people depart", act) as tx:
            gone, event = tx.person(person).depart(act)
            _keep_an_admin(tx, gone)
            tx.save_person(gone, event)
            theirs = (a for a in tx.agents() if person in (a.charter.owner, a.charter.deputy))
            return gone, tuple(a for a in theirs if a.lifecycle is not Lifecycle.RETIRED)

    # Agents

    def register_agent(
        self, name: str, charter: Charter, scope: Scope, ends_at: int | None, act: Act
    ) -> Agent:
        """A draft (REG-4).  Its people must be live, its servers registered."""
        with self._admin("register agents", act) as tx:
            _known(tx, charter, scope, Scope(), Charter())
            agent, event = Agent.register(name, charter, scope, ends_at, act)
            tx.save_agent(agent, event)
            return agent

    def change_agent(
        self, agent: AgentId, charter: Charter, scope: Scope, ends_at: int | None, act: Act
    ) -> Agent:
        """REG-9: another scope or end date voids the owner's acceptance."""
        with self._admin(f"change agent {agent}", act) as tx:
            old = tx.agent(agent)
            _known(tx, charter, scope, old.scope, old.charter)
            changed, event = old.change(charter, scope, ends_at, act)
            tx.save_agent(changed, event)
            return changed

    def accept_scope(self, agent: AgentId, seen: str, act: Act) -> Agent:
        """REG-9: ``seen`` is the digest of the scope that the actor was shown."""
        with self._begin() as tx:
            if not tx.person(act.actor).live:
                raise Conflict(f"{act.actor} has departed.")
            changed, event = tx.agent(agent).accept(seen, act)
            tx.save_agent(changed, event)
            return changed

    def activate(self, agent: AgentId, act: Act) -> Agent:
        with self._for_agent("activate", agent, act) as (tx, old):
            changed, event = old.activate(_live(tx), act)
            tx.save_agent(changed, event)
            return changed

    def suspend(self, agent: AgentId, act: Act) -> Agent:
        with self._for_agent("suspend", agent, act) as (tx, old):
            changed, event = old.suspend(act)
            tx.save_agent(changed, event)
            return changed

    def resume(self, agent: AgentId, act: Act) -> Agent:
        with self._for_agent("resume", agent, act) as (tx, old):
            changed, event = old.resume(_live(tx), act)
            tx.save_agent(changed, event)
            return changed

    def retire(self, agent: AgentId, act: Act) -> Agent:
        """REG-4: for good; its keys are revoked in the same transaction."""
        with self._for_agent("retire", agent, act) as (tx, old):
            changed, event = old.retire(act)
            tx.save_agent(changed, event)
            for key in tx.keys_of(agent):
                if not key.revoked:
                    tx.save_key(*key.revoke(act))
            unbind_all(tx, old, act)
            return changed

    # Servers and tools

    def add_server(
        self, spec: ServerSpec, owner: PersonId, trust: int, extra: Iterable[str], act: Act
    ) -> Server:
        with self._admin("add servers", act) as tx:
            _require_live(tx, owner)
            server, event = Server.add(spec, owner, trust, extra, act)
            tx.save_server(server, event)
            return server

    def change_server(
        self, spec: ServerSpec, owner: PersonId, trust: int, extra: Iterable[str], act: Act
    ) -> Server:
        with self._admin("change servers", act) as tx:
            old = tx.server(spec.id)
            if owner != old.owner:
                _require_live(tx, owner)
            server, event = old.change(spec, owner, trust, extra, act)
            tx.save_server(server, event)
            return server

    def suspend_server(self, server: ServerId, act: Act) -> Server:
        with self._admin("suspend servers", act) as tx:
            changed, event = tx.server(server).suspend(act)
            tx.save_server(changed, event)
            return changed

    def resume_server(self, server: ServerId, act: Act) -> Server:
        with self._admin("resume servers", act) as tx:
            changed, event = tx.server(server).resume(act)
            tx.save_server(changed, event)
            return changed

    def remove_server(self, server: ServerId, act: Act) -> None:
        """With its tools.  Conflict while the scope of an agent that is not retired names it."""
        with self._admin("remove servers", act) as tx:
            old = tx.server(server)
            for agent in tx.agents():
                if server in agent.scope.servers and agent.lifecycle is not Lifecycle.RETIRED:
                    raise Conflict(
                        f"The scope of agent {agent.id} names server {server}.",
                        remedy=f"Narrow that scope first, or run `exeat server suspend {server}`.",
                    )
            event = act.event("server.removed", old.subject, old.as_json(), None)
            tx.remove_server(old, event)

    def observe_definitions(
        self, server: ServerId, shown: Sequence[Mapping[str, Any]], act: Act
    ) -> tuple[Finding, ...]:
        """REG-6: keep what is new or changed for a person to see.  No role is needed: seeing only
        ever stops a tool.  Idempotent, and bounded per server."""
        with self._begin() as tx:
            tx.server(server)
            observed = compare(server, shown, tx.tools(), act)
            for tool, event in observed.changes:
                tx.save_tool(tool, event)
            return observed.findings

    def pin(self, action: ActionId, confirmed: str, act: Act) -> Tool:
        """REG-6: the person confirms the definition with that digest, as shown to them."""
        with self._admin("pin tools", act) as tx:
            old = tx.tool(action)
            shown = tuple(f"{w.kind}: {w.says}" for w in warnings(old, tx.tools()))
            tool, event = old.pin(confirmed, act, shown)
            tx.save_tool(tool, event)
            return tool

    def confirm_profile(self, action: ActionId, profile: Profile, pin: str, act: Act) -> Tool:
        """For exactly the definition pinned as ``pin``; another pin voids it."""
        with self._admin("confirm profiles", act) as tx:
            old = tx.tool(action)
            check_monotone(profile, {} if old.pinned is None else old.pinned.body)
            tool, event = old.confirm_profile(profile, pin, act)
            tx.save_tool(tool, event)
            return tool

    def forget_tool(self, action: ActionId, act: Act) -> None:
        """The tool is unknown again, and unknown tools are denied."""
        with self._admin("forget tools", act) as tx:
            old = tx.tool(action)
            tx.remove_tool(old, act.event("tool.forgotten", old.subject, old.as_json(), None))

    # Keys

    def issue_key(
        self, agent: AgentId, user: PersonId | None, life_s: int, act: Act
    ) -> tuple[Key, str]:
        """A key, and its secret, which is shown once and not kept.

        Lives at most KEY_LIFE_MAX_S seconds, and not beyond the agent's end.
        """
        with self._for_agent("issue a key of", agent, act) as (tx, owner_of):
            if owner_of.lifecycle in (Lifecycle.SUSPENDED, Lifecycle.RETIRED):
                raise Conflict(f"Agent {agent} is {owner_of.lifecycle}: it gets no new key.")
            if not 0 < life_s <= KEY_LIFE_MAX_S:
                raise Invalid(f"A key lives 1 second to {KEY_LIFE_MAX_S // 86_400} days.")
            if user is not None:
                _require_live(tx, user)
            end = act.at + life_s * SECOND_NS
            end = end if owner_of.ends_at is None else min(end, owner_of.ends_at)
            if end <= act.at:
                raise Conflict(f"The end date of {agent} has passed.")
            secret = secret_text(self._draw(KEY_RANDOM_BYTES))
            name = f"k-{self._draw(KEY_ID_RANDOM_BYTES).hex()}"
            key = Key(name, agent, user, secret_digest(secret), end, False, 1)
            tx.save_key(key, key.issued(act))
            return key, secret

    def revoke_key(self, key: str, act: Act) -> Key:
        with self._begin() as tx:
            old = tx.key(key)
            require_for_agent(tx.person(act.actor), "revoke a key of", tx.agent(old.agent))
            changed, event = old.revoke(act)
            tx.save_key(changed, event)
            return changed

    @contextmanager
    def _admin(self, verb: str, act: Act) -> Iterator[RegistryChange]:
        with self._begin() as tx:
            require_admin(actor_of(tx, act), verb)
            yield tx

    @contextmanager
    def _for_agent(
        self, verb: str, agent: AgentId, act: Act
    ) -> Iterator[tuple[RegistryChange, Agent]]:
        with self._begin() as tx:
            old = tx.agent(agent)
            require_for_agent(actor_of(tx, act), verb, old)
            yield tx, old


def _live(tx: RegistryChange) -> frozenset[PersonId]:
    return frozenset(person.id for person in tx.people() if person.live)


def _require_live(tx: RegistryChange, person: PersonId) -> None:
    if not tx.person(person).live:
        raise Conflict(f"{person} has departed.", remedy="Name a live person.")


def _known(tx: RegistryChange, new: Charter, scope: Scope, old: Scope, before: Charter) -> None:
    """People who are newly named must be live; servers that are newly named must be registered."""
    for person in sorted(new.people - before.people):
        _require_live(tx, person)
    for server in sorted(scope.servers - old.servers):
        tx.server(server)


def _keep_an_admin(tx: RegistryChange, changed: Person) -> None:
    after = (changed if person.id == changed.id else person for person in tx.people())
    if not any(person.live and ADMIN in person.roles for person in after):
        raise Conflict(
            f"{changed.id} is the last admin.",
            remedy=f"Give another person the role {ADMIN} first.",
        )

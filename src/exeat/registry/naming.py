"""The registry's verbs on who is who at which issuer, on ended tokens and on unregistered agents."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.facts import Lifecycle
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Agent
from exeat.registry.model.binding import Binding, Kind
from exeat.registry.model.names import SECOND_NS
from exeat.registry.model.stranger import STRANGERS_MAX, Stranger
from exeat.registry.rules.authority import require_admin
from exeat.registry.store import RegistryChange

PROOFS = frozenset({"", "dpop", "mtls", "any"})
BINDING_RANDOM_BYTES = 6
ENDING_MAX_S = 90 * 86_400
"""No token that we accept lives longer, so none that was ended can come back."""


class Naming:
    """Every verb is one transaction, and raises NotFound, Conflict or Invalid; then nothing changed."""

    _begin: Callable[[], AbstractContextManager[RegistryChange]]
    _draw: Callable[[int], bytes]

    def bind(
        self, issuer: str, client: str, user: PersonId | None, agent: AgentId, act: Act
    ) -> Binding:
        """ID-5: that issuer's client (for ``user`` only, if given) is ``agent`` from now on.

        An admin may; so may the owner or deputy, for the client that acts for themself.  ID-6: an
        agent has one credential, so what was bound to it for that user before is bound no more."""
        with self._begin() as tx:
            actor, bot = tx.person(act.actor), tx.agent(agent)
            answerable = act.actor in (bot.charter.owner, bot.charter.deputy)
            if not (actor.live and answerable and user == act.actor):
                require_admin(actor, f"bind a client to agent {agent}")
            if bot.lifecycle is Lifecycle.RETIRED:
                raise Conflict(f"Agent {agent} is retired.", remedy="Register another agent.")
            if user is not None and not tx.person(user).live:
                raise Conflict(f"{user} has departed.", remedy="Name a live person.")
            made = self._binding(Kind.CLIENT, issuer, client, user, agent)
            self._free(tx, made, act)
            for old in tx.bindings():
                if old.kind is Kind.CLIENT and (old.to, old.user) == (agent, user):
                    tx.remove_binding(old, old.unbound(act))
            tx.save_binding(made, made.bound(act))
            return made

    def bind_person(self, issuer: str, subject: str, person: PersonId, act: Act) -> Binding:
        """ID-5: whom that issuer calls ``subject`` is ``person``.  Takes an admin."""
        with self._begin() as tx:
            require_admin(tx.person(act.actor), "bind people to an issuer")
            if not tx.person(person).live:
                raise Conflict(f"{person} has departed.", remedy="Name a live person.")
            made = self._binding(Kind.PERSON, issuer, subject, None, person)
            self._free(tx, made, act)
            tx.save_binding(made, made.bound(act))
            return made

    def unbind(self, binding: str, act: Act) -> Binding:
        """An admin may, and who answers for the agent, and the person themself."""
        with self._begin() as tx:
            old, actor = tx.binding(binding), tx.person(act.actor)
            theirs = {old.user, PersonId(old.to)}
            if old.kind is Kind.CLIENT:
                charter = tx.agent(old.agent).charter
                theirs = {old.user, charter.owner, charter.deputy}
            if not (actor.live and actor.id in theirs):
                require_admin(actor, "unbind others")
            tx.remove_binding(old, old.unbound(act))
            return old

    def end_tokens(self, name: str, until: int, act: Act) -> None:
        """Tokens with that grant or id are refused from the next call on.  ``until``: when the last of
        them has expired (ns).  Whoever holds the token may end it, so no role is asked for here."""
        if not name or len(name) > 200:
            raise Invalid("A grant or token id has 1 to 200 characters.")
        with self._begin() as tx:
            end = min(until, act.at + ENDING_MAX_S * SECOND_NS)
            tx.end_tokens(name, end, act.event("tokens.ended", f"grant:{name}", None, None))

    def demand_proof(self, agent: AgentId, method: str, act: Act) -> None:
        """ID-4: from its next call on, the agent's credentials must be bound to a key, and each request
        prove possession of it: ``dpop``, ``mtls``, ``any`` of them; empty: no longer."""
        if method not in PROOFS:
            raise Invalid(f"{method[:40]!r} is no proof.", remedy="Use dpop, mtls, any or none.")
        with self._begin() as tx:
            require_admin(tx.person(act.actor), f"demand a proof of agent {agent}")
            subject, after = tx.agent(agent).subject, {"agent": agent, "proof": method}
            tx.demand_proof(agent, method, act.event("agent.proof_demanded", subject, None, after))

    def saw_strangers(self, seen: list[Stranger], act: Act) -> None:
        """ID-5: what unregistered agents tried.  The first sight of each is an event."""
        with self._begin() as tx:
            known = {each.id: each for each in tx.strangers()}
            for each in seen:
                before = known.get(each.id)
                if before is not None:
                    known[each.id] = before.again(each)
                    tx.save_stranger(known[each.id], None)
                elif len(known) < STRANGERS_MAX:
                    known[each.id] = each
                    event = act.event(
                        "agent.unregistered", f"agent:{each.id}", None, each.as_json()
                    )
                    tx.save_stranger(each, event)

    def forget_stranger(self, stranger: str) -> None:
        with self._begin() as tx:
            tx.forget_stranger(stranger)

    def stranger(self, name: str) -> Stranger:
        """By its id, or the part behind the colon.  Raises NotFound."""
        with self._begin() as tx:
            found = [s for s in tx.strangers() if name in (s.id, s.id.partition(":")[2])]
            if not found:
                raise NotFound(
                    f"There is no unregistered agent {name}.",
                    remedy="See `exeat agent unregistered` for those there are.",
                )
            return found[0]

    def _binding(
        self, kind: Kind, issuer: str, name: str, user: PersonId | None, to: str
    ) -> Binding:
        return Binding(
            f"b-{self._draw(BINDING_RANDOM_BYTES).hex()}", kind, issuer, name, user, to, 1
        )

    def _free(self, tx: RegistryChange, made: Binding, act: Act) -> None:
        """What it is called now is nobody else's.  Raises Conflict."""
        for old in tx.bindings():
            if (old.kind, old.issuer, old.name, old.user) != (
                made.kind, made.issuer, made.name, made.user,
            ):  # fmt: skip
                continue
            if old.to == made.to:
                raise Conflict(f"That is {made.to} already, as {old.id}.")
            raise Conflict(
                f"That is {old.to} already, as {old.id}.",
                remedy=f"Run `exeat agent unbind {old.id}` first.",
            )


def unbind_all(tx: RegistryChange, agent: Agent, act: Act) -> None:
    """Of an agent that retires."""
    for old in tx.bindings():
        if old.kind is Kind.CLIENT and old.to == agent.id:
            tx.remove_binding(old, old.unbound(act))

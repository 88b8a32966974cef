"""Which agent a client is for a person: the registry's word, asked and given on the consent page."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.act import EXEAT, Act
from exeat.registry.model.binding import Kind
from exeat.registry.service import Registry
from exeat.registry.store import RegistryStore

Settled = Callable[[], Awaitable[None]]
"""Waits until gateways decide by what was changed."""
REASON: Final = "chosen on the consent page"


@dataclass(frozen=True, slots=True)
class Bindings:
    """``issuer``: the embedded authorization server's."""

    issuer: str
    registry: Registry
    store: RegistryStore
    settled: Settled

    def agent_of(self, client: str, person: PersonId) -> AgentId | None:
        """Bound for this person, else for everybody."""
        with self.store.read() as read:
            found = {
                b.user: b.agent
                for b in read.bindings()
                if b.kind is Kind.CLIENT and (b.issuer, b.name) == (self.issuer, client)
            }
        return found.get(person, found.get(None))

    def person_of(self, issuer: str, subject: str) -> PersonId | None:
        """Whom a trusted issuer calls ``subject``."""
        with self.store.read() as read:
            found = [
                PersonId(b.to)
                for b in read.bindings()
                if b.kind is Kind.PERSON and (b.issuer, b.name) == (issuer, subject)
            ]
        return found[0] if found else None

    def taken(self, person: PersonId) -> Mapping[AgentId, str]:
        """Agents that another client is for this person already: it would be so no more (ID-6)."""
        with self.store.read() as read:
            return {
                b.agent: b.name
                for b in read.bindings()
                if b.kind is Kind.CLIENT and b.user == person
            }

    def bind(self, client: str, person: PersonId, agent: AgentId, now: int) -> None:
        """Raises Conflict, NotFound."""
        self.registry.bind(self.issuer, client, person, agent, Act(person, "console", REASON, now))

    def end_tokens(self, name: str, until: int, actor: PersonId, reason: str, now: int) -> None:
        self.registry.end_tokens(name, until, Act(actor or EXEAT, "oauth", reason, now))

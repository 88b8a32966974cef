"""What a trusted issuer calls somebody, and whom the registry knows them as (ID-5)."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.core.event import Event
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.act import Act

NAME_MAX_CHARS: Final = 2_000
_NAME: Final = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_ISSUER: Final = re.compile(r"https?://[^\s?#@]+|spiffe://[a-z0-9._-]+")


class Kind(StrEnum):
    """``CLIENT``: an OAuth client or a workload, which is an agent.  ``PERSON``: a subject."""

    CLIENT = "client"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Binding:
    """``issuer`` calls it ``name`` (a client id, or a subject).  ``user``: only when it acts for that
    person.  ``to``: the agent's or person's id.

    A client id that is an HTTPS URL (CIMD) is one document for everybody's copy of a product: it names
    a kind, so the agent is that kind × user, and ``user`` must be given.
    """

    id: str
    kind: Kind
    issuer: str
    name: str
    user: PersonId | None
    to: str
    revision: int

    def __post_init__(self) -> None:
        if not _ISSUER.fullmatch(self.issuer):
            raise Invalid(
                f"{self.issuer[:100]!r} is not an issuer.",
                remedy="Write it as in its metadata, for example https://id.example.com/realm",
            )
        if len(self.name) > NAME_MAX_CHARS or not _NAME.fullmatch(self.name):
            raise Invalid(
                f"{self.name[:100]!r} is not a client id or subject.",
                remedy="Write it exactly as it stands in the token.",
            )
        if self.kind is Kind.CLIENT and self.user is None and is_document(self.name):
            raise Invalid(
                f"{self.name[:100]} names a kind of client, not one agent.",
                remedy="Name the person whose copy it is with --user.",
            )

    @property
    def subject(self) -> str:
        return f"agent:{self.to}" if self.kind is Kind.CLIENT else f"person:{self.to}"

    @property
    def agent(self) -> AgentId:
        return AgentId(self.to)

    def bound(self, act: Act) -> Event:
        return act.event(f"{self.kind.value}.bound", self.subject, None, self.as_json())

    def unbound(self, act: Act) -> Event:
        return act.event(f"{self.kind.value}.unbound", self.subject, self.as_json(), None)

    def as_json(self) -> dict[str, Any]:
        """A subject may be an e-mail address: evidence names the person bound, not what the issuer
        calls them (EVD-7)."""
        shown = {"id": self.id, "issuer": self.issuer, "to": self.to, "user": self.user}
        return shown if self.kind is Kind.PERSON else {**shown, "client": self.name}


def is_document(client: str) -> bool:
    """A client id that is a metadata document's address (CIMD)."""
    return client.startswith("https://")

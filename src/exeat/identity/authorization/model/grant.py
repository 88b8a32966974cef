"""An authorization: what a person gave a client (or an agent has by itself), and what comes of it."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from exeat.core.ids import AgentId, PersonId

CODE_LIFE_S: Final = 60
ACCESS_LIFE_S: Final = 900
ACCESS_LIFE_MAX_S: Final = 3600
REFRESH_IDLE_DAYS: Final = 14
GRANT_LIFE_DAYS: Final = 90
CHAIN_MAX: Final = 4
"""ID-5: so many actors at most may stand behind each other."""


@dataclass(frozen=True, slots=True)
class Grant:
    """``id`` stands in every token that came of it.  ``person`` None: client credentials."""

    id: str
    client: str
    person: PersonId | None
    agent: AgentId | None
    resource: str
    scopes: tuple[str, ...]
    made_at: int
    ends_at: int
    revoked: bool = False

    @property
    def subject(self) -> str:
        return f"authorization:{self.id}"

    def live(self, now: int) -> bool:
        return not self.revoked and now < self.ends_at

    def revoke(self) -> "Grant":
        return replace(self, revoked=True)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "client": self.client,
            "person": self.person,
            "agent": self.agent,
            "resource": self.resource,
            "scopes": list(self.scopes),
            "revoked": self.revoked,
        }


@dataclass(frozen=True, slots=True)
class Code:
    """An authorization code, of which only the SHA-256 is kept (``digest``)."""

    digest: bytes
    grant: str
    redirect_uri: str
    challenge: str
    ends_at: int
    used: bool = False
    jkt: str = ""
    """RFC 9449 10: the key whose proof must come with it, if any."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh token; used at most once."""

    digest: bytes
    grant: str
    ends_at: int
    used: bool = False
    jkt: str = ""


def handle_digest(text: str) -> bytes:
    """What is kept of a code, a refresh token, a link or a cookie: each holds 256 random bits."""
    return sha256(text.encode("utf-8", "replace")).digest()

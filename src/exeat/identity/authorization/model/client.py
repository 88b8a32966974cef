"""An OAuth client: registered by an admin, by itself while the window is open, or by its document."""

from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from exeat.core.ids import AgentId

CODE: Final = "authorization_code"
REFRESH: Final = "refresh_token"
CREDENTIALS: Final = "client_credentials"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
EVALUATE: Final = "urn:exeat:evaluate"
"""No grant type but a right: to ask for decisions on any agent (AuthZEN), and for nothing else."""
NAME_MAX_CHARS: Final = 100
REDIRECTS_MAX: Final = 10
SECRET_RANDOM_BYTES: Final = 32
SECRET_LIFE_MAX_DAYS: Final = 90
CLIENT_LIFE_MAX_DAYS: Final = 366


class ClientKind(StrEnum):
    REGISTERED = "registered"
    """By an admin, with ``exeat client add``."""
    DYNAMIC = "dynamic"
    """By itself (RFC 7591), while somebody had opened the window."""
    DOCUMENT = "document"
    """Its id is the https address of its metadata (CIMD); nothing of it is kept."""


class ClientAuth(StrEnum):
    """How it proves at the token endpoint who it is."""

    NONE = "none"
    SECRET = "client_secret"  # noqa: S105 - the name of a method
    KEY = "private_key_jwt"


@dataclass(frozen=True, slots=True)
class Client:
    """``agent``: for client credentials, the one agent that it is (ID-6); such a client has no
    redirect URIs, and one with redirect URIs has no agent; one that only evaluates has neither.
    ``jwks``: its public keys as JSON, or empty.  ``name`` is what it calls itself: shown as such, and
    never trusted."""

    id: str
    kind: ClientKind
    name: str
    auth: ClientAuth
    redirects: tuple[str, ...]
    grants: frozenset[str]
    ends_at: int
    agent: AgentId | None = None
    secret_digest: bytes | None = None
    jwks: str = ""
    jwks_uri: str = ""
    revoked: bool = False

    @property
    def subject(self) -> str:
        return f"client:{self.id}"

    @property
    def confidential(self) -> bool:
        return self.auth is not ClientAuth.NONE

    def live(self, now: int) -> bool:
        return not self.revoked and now < self.ends_at

    def revoke(self) -> "Client":
        return replace(self, revoked=True)

    def as_json(self) -> dict[str, Any]:
        """For evidence: without its name, which a stranger chose, and without what it proves
        itself with."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "auth": self.auth.value,
            "agent": self.agent,
            "redirects": list(self.redirects),
            "grants": sorted(self.grants),
            "revoked": self.revoked,
        }


def secret_digest(secret: str) -> bytes:
    """What is kept of a secret that we drew: it holds 256 random bits, so a plain hash is enough."""
    return sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Window:
    """Until when clients may register themselves, and how many more."""

    until: int
    left: int

    def open(self, now: int) -> bool:
        return now < self.until and self.left > 0

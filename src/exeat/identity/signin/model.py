"""One-time links, passkeys, sessions and ceremonies under way.  Of secrets only SHA-256 is kept."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from exeat.core.ids import PersonId

LINK_LIFE_S: Final = 900
CHALLENGE_LIFE_S: Final = 300
SESSION_LIFE_S: Final = 12 * 3600
SESSION_IDLE_S: Final = 3600
LINK_SESSION_LIFE_S: Final = 3600
SEEN_EVERY_S: Final = 60
"""The last use of a session is written down at most so often."""
PASSKEYS_MAX: Final = 20


class Method(StrEnum):
    LINK = "link"
    PASSKEY = "passkey"


@dataclass(frozen=True, slots=True)
class Link:
    digest: bytes
    person: PersonId
    ends_at: int
    used: bool = False


@dataclass(frozen=True, slots=True)
class Passkey:
    """``id`` is ours and public; ``credential`` is the authenticator's id.  ``synced``: it may be on
    several devices of the person."""

    id: str
    person: PersonId
    credential: bytes
    public_key: bytes
    sign_count: int
    made_at: int
    used_at: int
    synced: bool

    @property
    def subject(self) -> str:
        return f"passkey:{self.id}"

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, "person": self.person, "synced": self.synced}


@dataclass(frozen=True, slots=True)
class Session:
    digest: bytes
    person: PersonId
    method: Method
    made_at: int
    seen_at: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class Challenge:
    """``digest``: of what the one browser holds that may answer it.  ``person`` None: whoever signs in."""

    digest: bytes
    challenge: bytes
    person: PersonId | None
    ends_at: int


def user_handle(person: PersonId) -> bytes:
    """WebAuthn 14.6.1: says nothing of the person, and is the same for all their passkeys."""
    return sha256(b"exeat person\n" + person.encode()).digest()

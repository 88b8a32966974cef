"""A bearer key of an agent.  The key is shown once; what is kept is its SHA-256."""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

from exeat.core.errors import Conflict
from exeat.core.event import Event
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.act import Act
from exeat.registry.model.names import show_until

KEY_PREFIX: Final = "exk_"
KEY_RANDOM_BYTES: Final = 32
KEY_ID_RANDOM_BYTES: Final = 6
KEY_LIFE_MAX_S: Final = 90 * 86_400
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARS: Final = 43  # ceil(256 / log2(62))


def secret_text(random: bytes) -> str:
    """``exk_`` and 32 random bytes in base 62, always 43 digits."""
    number, digits = int.from_bytes(random, "big"), ""
    for _ in range(_SECRET_CHARS):
        number, place = divmod(number, 62)
        digits = _BASE62[place] + digits
    return KEY_PREFIX + digits


def secret_digest(secret: str) -> bytes:
    """What is kept of a key.  It holds 256 random bits, so a plain hash is enough."""
    return sha256(secret.encode()).digest()


@dataclass(frozen=True, slots=True)
class Key:
    """``user``: the person for whom the agent acts when it uses this key, None for nobody."""

    id: str
    agent: AgentId
    user: PersonId | None
    digest: bytes
    expires_at: int
    revoked: bool
    revision: int

    @property
    def subject(self) -> str:
        return f"key:{self.id}"

    def issued(self, act: Act) -> Event:
        return act.event("key.issued", self.subject, None, self.as_json())

    def revoke(self, act: Act) -> tuple["Key", Event]:
        if self.revoked:
            raise Conflict(f"Key {self.id} is already revoked.")
        new = replace(self, revoked=True, revision=self.revision + 1)
        return new, act.event("key.revoked", self.subject, self.as_json(), new.as_json())

    def as_json(self) -> dict[str, Any]:
        """Without the digest: evidence needs to name a key, not to recognise it."""
        return {
            "id": self.id,
            "agent": self.agent,
            "user": self.user,
            "until": show_until(self.expires_at),
            "revoked": self.revoked,
        }

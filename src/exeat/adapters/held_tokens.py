"""A credential for an upstream as it is kept: whose, for how long, and from where (ID-9)."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Final, Protocol

from exeat.core.facts import ServerSpec
from exeat.core.upstream_auth import NO_CREDENTIAL, Credential

RENEW_BEFORE_S: Final = 30


def early_s(life_s: int | None) -> int:
    """A token that lives for less than a minute is used for half of it."""
    return RENEW_BEFORE_S if life_s is None else min(RENEW_BEFORE_S, life_s // 2)


class TokenStore(Protocol):
    """Where tokens and registrations rest.  ``agent`` or ``upstream`` may be empty."""

    async def get(self, agent: str, upstream: str, name: str) -> bytes | None: ...

    async def put(self, agent: str, upstream: str, name: str, value: bytes) -> None: ...

    async def remove(self, agent: str, upstream: str, name: str) -> None: ...


class MemoryTokens:
    """Tokens that end with the process: consent is asked for again after a restart."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], bytes] = {}

    async def get(self, agent: str, upstream: str, name: str) -> bytes | None:
        return self._kept.get((agent, upstream, name))

    async def put(self, agent: str, upstream: str, name: str, value: bytes) -> None:
        self._kept[agent, upstream, name] = value

    async def remove(self, agent: str, upstream: str, name: str) -> None:
        self._kept.pop((agent, upstream, name), None)


@dataclass(frozen=True, slots=True)
class Held:
    """A token as kept.  ``asked``: the scopes of the request; ``scopes``: those granted.  Times in
    seconds since the epoch; ``expires_at`` 0: unknown.  ``early_s``: renewed so long before its end."""

    access: str = field(default="", repr=False)
    refresh: str = field(default="", repr=False)
    expires_at: int = 0
    early_s: int = RENEW_BEFORE_S
    asked: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    issuer: str = ""
    resource: str = ""

    @property
    def credential(self) -> Credential:
        return Credential(f"Bearer {self.access}") if self.access else NO_CREDENTIAL

    def fresh(self, now_s: int) -> bool:
        """Also of nothing: then the server is asked without, and says what it wants."""
        if not self.access:
            return not self.refresh
        return not self.expires_at or now_s < self.expires_at - self.early_s

    def written(self) -> bytes:
        return json.dumps(
            {name: getattr(self, name) for name in self.__slots__}, sort_keys=True
        ).encode()

    @classmethod
    def read(cls, raw: bytes) -> "Held":
        value = json.loads(raw)
        value["asked"], value["scopes"] = tuple(value["asked"]), tuple(value["scopes"])
        return cls(**value)


NOTHING_HELD: Final = Held()


@dataclass(frozen=True, slots=True)
class Key:
    """``whose``: agent/person, or empty where the gateway's own access serves all.  ``name``: another one
    for another address or other settings, so that no token goes where it was not meant for."""

    server: str
    whose: str
    name: str

    @property
    def agent(self) -> str:
        return self.whose.partition("/")[0]


def key_of(spec: ServerSpec, principal: str) -> Key:
    whose = principal if spec.auth.per_user else ""
    meant = json.dumps([spec.url, asdict(spec.auth), whose], sort_keys=True)
    return Key(spec.id, whose, f"oauth:{hashlib.sha256(meant.encode()).hexdigest()[:32]}")

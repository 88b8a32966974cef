"""An issuer in memory: its keys, and tokens as the tests want them."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, Key, KeySet
from worlds import NOW

from exeat.identity.model.issuer import TrustedIssuer
from exeat.identity.tokens import Keys, Tokens

ISSUER = "https://id.example"
NOW_S = NOW // 10**9
RESOURCE = "http://localhost/mcp/up"
ALL = "mcp:read mcp:write mcp:delete mcp:execute mcp:send mcp:pay"


@dataclass
class Published:
    keys: KeySet
    algorithms: tuple[str, ...] = ("ES256", "EdDSA", "RS256")


def ec_key(kid: str = "k1") -> ECKey:
    made = ECKey.generate_key("P-256", private=True)
    return ECKey.import_key(
        {**made.as_dict(private=True), "kid": kid, "use": "sig", "alg": "ES256"}
    )


@dataclass
class Keyring:
    """What the gateway knows at once (``near``) and what it would have to ask for (``far``)."""

    near: dict[str, list[Key]] = field(default_factory=dict)
    far: dict[str, list[Key]] = field(default_factory=dict)
    opaque: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    down: str = ""
    asked: int = 0

    def known(self, issuer: str, kid: str | None) -> Keys | None:
        found = [key for key in self.near.get(issuer, []) if kid is None or key.kid == kid]
        return Published(KeySet(found)) if found else None

    async def refresh(self, issuer: str, kid: str | None) -> Keys | None:
        self.asked += 1
        if not self.down:
            self.near[issuer] = self.far.get(issuer, self.near.get(issuer, []))
        return self.known(issuer, kid)

    async def introspect(self, issuer: str, token: str) -> Mapping[str, Any] | None:
        self.asked += 1
        return None if self.down else self.opaque.get(token)

    def trouble(self, issuer: str) -> str:
        return self.down


@dataclass
class Idp:
    key: ECKey = field(default_factory=ec_key)
    ring: Keyring = field(default_factory=Keyring)

    def __post_init__(self) -> None:
        self.ring.near[ISSUER] = [self.key]

    def tokens(self, *more: TrustedIssuer, own: str = "", **settings: Any) -> Tokens:
        return Tokens([TrustedIssuer(ISSUER, **settings), *more], self.ring, own)

    def claims(self, **changes: Any) -> dict[str, Any]:
        found = {
            "iss": ISSUER, "sub": "u-bob", "aud": RESOURCE, "client_id": "c1", "scope": ALL,
            "iat": NOW_S, "exp": NOW_S + 600, "jti": "j1", **changes,
        }  # fmt: skip
        return {name: value for name, value in found.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        return sign(
            self.key, {"typ": "at+jwt", "kid": "k1", **(header or {})}, self.claims(**changes)
        )


def sign(key: Any, header: Mapping[str, Any], claims: Mapping[str, Any] | bytes) -> str:
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(
        {"alg": "ES256", **header}, body, key, algorithms=["ES256", "HS256"]
    )


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def proof(
    key: ECKey, token: str, *, url: str = RESOURCE, method: str = "POST",
    header: Mapping[str, Any] | None = None, **changes: Any,
) -> str:  # fmt: skip
    """A DPoP proof."""
    claims = {
        "jti": "p1", "htm": method, "htu": url, "iat": NOW_S,
        "ath": b64(sha256(token.encode()).digest()), **changes,
    }  # fmt: skip
    head = {"typ": "dpop+jwt", "jwk": key.as_dict(private=False), **(header or {})}
    return sign(key, head, {n: v for n, v in claims.items() if v is not None})

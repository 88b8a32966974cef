"""Access tokens: JWTs of RFC 9068, signed with ES256, for exactly one endpoint."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from exeat.identity.authorization.model.doing import SECOND_NS
from exeat.identity.authorization.model.grant import ACCESS_LIFE_MAX_S, ACCESS_LIFE_S, Grant
from exeat.identity.authorization.model.refusal import invalid_grant

ALGORITHM: Final = "ES256"
TYPE: Final = "at+jwt"
JTI_RANDOM_BYTES: Final = 16
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type
Draw = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Issued:
    """What the token endpoint answers (RFC 6749 5.1)."""

    access_token: str = field(repr=False)
    expires_in: int
    scopes: tuple[str, ...]
    bound: bool = False
    refresh_token: str = field(default="", repr=False)
    exchanged: bool = False

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "access_token": self.access_token,
            "token_type": "DPoP" if self.bound else "Bearer",
            "expires_in": self.expires_in,
            "scope": " ".join(self.scopes),
        }
        if self.refresh_token:
            said["refresh_token"] = self.refresh_token
        if self.exchanged:
            said["issued_token_type"] = ACCESS_TOKEN_TYPE
        return said


class Mint:
    """``issuer``: exactly as in the metadata.  ``life_s`` is capped, whatever a setting says."""

    def __init__(self, issuer: str, key: ECKey, draw: Draw, life_s: int = ACCESS_LIFE_S) -> None:
        self.issuer, self._key, self._draw = issuer, key, draw
        self.life_s = min(life_s, ACCESS_LIFE_MAX_S)
        self._kid = key.thumbprint()

    def jwks(self) -> dict[str, Any]:
        public = self._key.as_dict(private=False)
        return {"keys": [{**public, "kid": self._kid, "alg": ALGORITHM, "use": "sig"}]}

    def issue(
        self,
        grant: Grant,
        subject: str,
        scopes: Sequence[str],
        now: int,
        *,
        until: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Issued:
        """``until``: nanoseconds that it may not outlive.  ``more``: ``act``, ``cnf``, another
        ``client_id`` or ``aud``."""
        now_s = now // SECOND_NS
        end_s = min(now_s + self.life_s, grant.ends_at // SECOND_NS)
        if until is not None:
            end_s = min(end_s, until // SECOND_NS)
        if end_s <= now_s:
            raise invalid_grant("The authorization has ended.")
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": grant.resource,
            "client_id": grant.client,
            "iat": now_s,
            "exp": end_s,
            "jti": self._draw(JTI_RANDOM_BYTES).hex(),
            "scope": " ".join(scopes),
            "grant": grant.id,
            **(more or {}),
        }
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self._kid}
        token = jwt.encode(header, claims, self._key, algorithms=[ALGORITHM], default_type=None)
        return Issued(token, end_s - now_s, tuple(scopes), bound="cnf" in claims)

    def read(self, token: str, now: int) -> Mapping[str, Any]:
        """The claims of a token of our own that has not ended.  Raises Refused
        (``invalid_grant``)."""
        try:
            found = jwt.decode(token, self._key, algorithms=[ALGORITHM])
        except (JoseError, ValueError, TypeError, KeyError):
            raise invalid_grant("A token is not one of this server.") from None
        claims = found.claims
        sound = (
            found.header.get("typ") == TYPE
            and claims.get("iss") == self.issuer
            and isinstance(claims.get("exp"), int)
            and isinstance(claims.get("sub"), str)
            and isinstance(claims.get("grant"), str)
        )
        if not sound or claims["exp"] <= now // SECOND_NS:
            raise invalid_grant("A token has ended, or is not an access token of this server.")
        return claims


Clock = Callable[[], int]
CLOCK: Final[Clock] = time.time_ns

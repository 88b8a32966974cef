"""What a token says, and why one is refused."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

TOKEN_MAX_CHARS: Final = 8_192
CHAIN_MAX: Final = 4
"""Links of a delegation chain (``act``), the present actor among them (ID-5)."""
SKEW_S: Final = 30
"""How far an issuer's clock may run ahead of ours.  The end of a token has no such grace."""


class Flaw(StrEnum):
    """Why a token is refused.  Closed."""

    MALFORMED = "malformed"
    OVERSIZE = "oversize"
    ALGORITHM = "algorithm"
    TYPE = "type"
    ISSUER = "issuer"
    KEY = "key"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    EXPIRED = "expired"
    NOT_YET = "not_yet_valid"
    TOO_LONG = "lives_too_long"
    AUDIENCE = "audience"
    CHAIN = "chain"
    ENDED = "ended"
    INACTIVE = "inactive"
    PROOF = "proof"
    UNREACHABLE = "issuer_unreachable"


SAID: Final = {
    Flaw.MALFORMED: "The token is malformed",
    Flaw.OVERSIZE: "The token is too long",
    Flaw.ALGORITHM: "The token is signed with an algorithm that is not accepted",
    Flaw.TYPE: "The token is not an access token",
    Flaw.ISSUER: "The token is of an issuer that is not trusted here",
    Flaw.KEY: "The token is signed with a key that its issuer does not publish",
    Flaw.SIGNATURE: "The signature of the token is wrong",
    Flaw.CLAIMS: "The token lacks a claim that it needs",
    Flaw.EXPIRED: "The token has expired",
    Flaw.NOT_YET: "The token is not valid yet",
    Flaw.TOO_LONG: "The token lives longer than is accepted",
    Flaw.AUDIENCE: "The token is for another resource",
    Flaw.CHAIN: "The delegation chain of the token is too long or malformed",
    Flaw.ENDED: "The token was revoked",
    Flaw.INACTIVE: "The issuer says that the token is not active",
    Flaw.PROOF: "The token is bound to a key, and possession of it was not proven",
    Flaw.UNREACHABLE: "The issuer of the token cannot be reached, so it cannot be checked",
}
"""``error_description`` for the client (RFC 6750 section 3): no part of the token."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that opens nothing."""

    flaw: Flaw

    @property
    def says(self) -> str:
        return SAID[self.flaw]


@dataclass(frozen=True, slots=True)
class Actor:
    """One link of ``act`` (RFC 8693 section 4.1), as its issuer calls it."""

    issuer: str
    name: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Which key the token is bound to: ``dpop`` (RFC 9449: JWK thumbprint) or ``mtls`` (RFC 8705:
    SHA-256 of the certificate), base64url without padding."""

    method: str
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Claims:
    """A token whose signature or introspection was good.  ``subject``, ``client``: as the issuer
    calls them, empty if it names none.  ``actors``: the present one first.  ``names``: under which it
    may have been ended.  ``expires_at``: nanoseconds."""

    issuer: str
    subject: str
    client: str
    audience: frozenset[str]
    scopes: frozenset[str]
    expires_at: int
    names: tuple[str, ...]
    actors: tuple[Actor, ...] = ()
    confirmation: Confirmation | None = None

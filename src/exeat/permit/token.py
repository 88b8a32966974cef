"""A permit on the wire: a compact JWS (RFC 7515) of a few claims (RFC 7519), EdDSA with Ed25519 (RFC 8037).

Header ``{"alg":"EdDSA","kid":…,"typ":"exeat-permit+jwt"}``, nothing else: no ``crit``, no ``b64``, no key or
address in it.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PERMIT_MAX_CHARS: Final = 4096
TYPE: Final = "exeat-permit+jwt"
ALGORITHM: Final = "EdDSA"
LIFE_MAX_S: Final = 300
_ID_MAX_CHARS: Final = 64
_HEADER: Final = frozenset({"alg", "kid", "typ"})
_REQUIRED: Final = (
    "iss", "aud", "sub", "jti", "decision", "tool", "definition", "arguments", "run",
)  # fmt: skip
_OPTIONAL: Final = ("user", "beside")
_CLAIMS: Final = frozenset({*_REQUIRED, *_OPTIONAL, "iat", "exp"})


class Refusal(StrEnum):
    """Why a permit is refused.  Closed: a reader may switch on these."""

    MISSING = "missing"
    """There is none, or more than one."""
    MALFORMED = "malformed"
    """It is not a permit in its one form; too long; or the call is not one."""
    ALGORITHM = "algorithm"
    """Another algorithm than EdDSA, such as ``none``."""
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    AUDIENCE = "audience"
    """It is for another server."""
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    TOOL = "tool"
    DEFINITION = "definition"
    """The tool is not the one that a person reviewed."""
    ARGUMENTS = "arguments"
    """Other arguments, or other members beside them, than were decided."""
    REPLAYED = "replayed"
    FULL = "full"
    """So many permits are in use that this one could not be remembered."""


class PermitRefused(Exception):
    """``reason``: of the closed list.  The message is one plain sentence and quotes no input."""

    def __init__(self, reason: Refusal, says: str) -> None:
        super().__init__(says)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Permit:
    """What was decided, and for how long it holds.

    ``decision``: the id in the gateway's ledger.  ``definition``: digest of the tool's definition as
    pinned.  ``arguments``: SHA-256 over their canonical text.  ``beside``: the same over members of the
    call beside name, arguments and ``_meta``, empty if there are none.  ``run``, ``agent``, ``user``
    (empty: nobody): who acts.  ``issued_at``, ``expires_at``: seconds since the epoch.
    """

    id: str
    issuer: str
    audience: str
    agent: str
    user: str
    run: str
    decision: str
    tool: str
    definition: str
    arguments: str
    beside: str
    issued_at: int
    expires_at: int

    def claims(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": self.agent,
            "jti": self.id,
            "iat": self.issued_at,
            "exp": self.expires_at,
            "decision": self.decision,
            "tool": self.tool,
            "definition": self.definition,
            "arguments": self.arguments,
            "run": self.run,
        }
        optional = {"user": self.user, "beside": self.beside}
        return found | {name: value for name, value in optional.items() if value}


class Signer:
    """``key``: 32 random bytes, the seed of Ed25519."""

    def __init__(self, key: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(key)
        header = {"alg": ALGORITHM, "kid": key_id(self._key.public_key()), "typ": TYPE}
        self._head = _base64(json.dumps(header, separators=(",", ":")).encode()) + b"."

    def sign(self, permit: Permit) -> str:
        claims = json.dumps(permit.claims(), separators=(",", ":")).encode("ascii")
        signed = self._head + _base64(claims)
        return (signed + b"." + _base64(self._key.sign(signed))).decode("ascii")

    def public(self) -> dict[str, str]:
        """The public key as a JWK (RFC 8037)."""
        return public_jwk(self._key.public_key())


def key_id(key: Ed25519PublicKey) -> str:
    """The JWK thumbprint (RFC 7638, RFC 8037 appendix A.3)."""
    thumb = {"crv": "Ed25519", "kty": "OKP", "x": _raw(key)}
    return _base64(sha256(json.dumps(thumb, separators=(",", ":")).encode()).digest()).decode()


def public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {
        "kty": "OKP", "crv": "Ed25519", "x": _raw(key), "kid": key_id(key), "alg": ALGORITHM,
        "use": "sig",
    }  # fmt: skip


def read(text: str, keys: Mapping[str, Ed25519PublicKey]) -> Permit:
    """Form, algorithm, key and signature, in this order.  Raises PermitRefused."""
    if len(text) > PERMIT_MAX_CHARS:
        _malformed(f"The permit is longer than {PERMIT_MAX_CHARS} characters.")
    parts = text.split(".")
    if len(parts) != 3 or not text.isascii():
        _malformed("The permit is not a compact JWS.")
    header, payload, signature = (_unbase64(part) for part in parts)
    head = _object(header)
    if head.get("alg") != ALGORITHM:
        raise PermitRefused(Refusal.ALGORITHM, f"The permit is not signed with {ALGORITHM}.")
    if head.keys() != _HEADER or head["typ"] != TYPE or type(head["kid"]) is not str:
        _malformed("The permit's header is not that of a permit.")
    key = keys.get(head["kid"])
    if key is None:
        raise PermitRefused(Refusal.UNKNOWN_KEY, "The permit is signed with an unknown key.")
    try:
        key.verify(signature, f"{parts[0]}.{parts[1]}".encode("ascii"))
    except InvalidSignature:
        raise PermitRefused(Refusal.SIGNATURE, "The permit's signature is wrong.") from None
    return _permit(_object(payload))


def _permit(claims: dict[str, Any]) -> Permit:
    texts = [claims.get(name) for name in _REQUIRED]
    texts += [claims.get(name, "") for name in _OPTIONAL]
    issued, expires = claims.get("iat"), claims.get("exp")
    if not claims.keys() <= _CLAIMS or not all(type(text) is str for text in texts):
        _malformed("The permit's claims are not those of a permit.")
    if type(issued) is not int or type(expires) is not int:
        _malformed("The permit's times are not whole seconds.")
    if not 0 < expires - issued <= LIFE_MAX_S or not 0 < len(claims["jti"]) <= _ID_MAX_CHARS:
        _malformed("The permit lives too long, or its id is none.")
    return Permit(
        id=claims["jti"],
        issuer=claims["iss"],
        audience=claims["aud"],
        agent=claims["sub"],
        user=claims.get("user", ""),
        run=claims["run"],
        decision=claims["decision"],
        tool=claims["tool"],
        definition=claims["definition"],
        arguments=claims["arguments"],
        beside=claims.get("beside", ""),
        issued_at=issued,
        expires_at=expires,
    )


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object that two parsers cannot read differently: no member twice, no NaN.  Fractions are
    ``Decimal``.  Raises ValueError or RecursionError."""
    value = json.loads(
        text, object_pairs_hook=_unique, parse_constant=_constant, parse_float=Decimal
    )
    if type(value) is not dict:
        raise ValueError("not an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member comes twice")
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        _malformed("The permit does not hold JSON objects.")


def _raw(key: Ed25519PublicKey) -> str:
    return _base64(key.public_bytes_raw()).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _unbase64(text: str) -> bytes:
    """Base64url without padding, and only in its one spelling (RFC 4648 section 3.5)."""
    try:
        raw = base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, ValueError):
        _malformed("The permit is not base64url.")
    if _base64(raw).decode("ascii") != text:
        _malformed("The permit is not base64url in its one spelling.")
    return raw


def _malformed(says: str) -> NoReturn:
    raise PermitRefused(Refusal.MALFORMED, says)

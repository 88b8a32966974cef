"""Compact JWS from strangers: read with care, verified by joserfc (RFC 7515, RFC 7519, RFC 8725)."""

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from exeat.core.strictjson import MalformedJson, parse
from exeat.identity.model.token import TOKEN_MAX_CHARS, Flaw, Refused

FAMILY: Final = {
    "ES256": "EC", "ES384": "EC", "ES512": "EC", "EdDSA": "OKP", "Ed25519": "OKP",
    "RS256": "RSA", "RS384": "RSA", "RS512": "RSA", "PS256": "RSA", "PS384": "RSA", "PS512": "RSA",
}  # fmt: skip
"""Algorithms that may be allowed at all, and the kind of key of each: no ``none``, and nothing that is
verified with a shared secret, so a public key can never be taken for one (key confusion)."""
_EDWARDS: Final = {"Ed25519": "EdDSA"}
"""The same under its newer name (RFC 9864)."""
RSA_MIN_BITS: Final = 2048
_IGNORED: Final = frozenset({"jwk", "jku", "x5u", "x5c"})
"""Keys that a token brings along: whoever made it chose them."""


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart.  Nothing in it is true yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    algorithm: str
    key_id: str | None


def take_apart(token: str) -> Unverified | Refused:
    if len(token) > TOKEN_MAX_CHARS:
        return Refused(Flaw.OVERSIZE)
    parts = token.split(".")
    if len(parts) != 3:
        return Refused(Flaw.MALFORMED)
    header, claims = _object(parts[0]), _object(parts[1])
    if header is None or claims is None:
        return Refused(Flaw.MALFORMED)
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in FAMILY:
        return Refused(Flaw.ALGORITHM)
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= 500):
        return Refused(Flaw.MALFORMED)
    if "crit" in header or "b64" in header:
        return Refused(Flaw.MALFORMED)
    return Unverified(header, claims, algorithm, key_id)


def _object(part: str) -> dict[str, Any] | None:
    try:
        if not part.isascii() or "=" in part:
            return None
        value = parse(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (MalformedJson, binascii.Error, ValueError):
        return None
    return value if isinstance(value, dict) else None


def choose(seen: Unverified, keys: Collection[Key]) -> Key | None:
    """The issuer's key that the token names; without a name, the only one that could be meant."""
    fitting = [key for key in keys if _fits(key, seen.algorithm)]
    if seen.key_id is not None:
        fitting = [key for key in fitting if key.kid == seen.key_id]
    return fitting[0] if len(fitting) == 1 else None


def _fits(key: Key, algorithm: str) -> bool:
    kinds = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
    if not isinstance(key, kinds[FAMILY[algorithm]]):
        return False
    meant = key.get("alg", algorithm)
    if key.get("use", "sig") not in ("sig", "jwt-svid") or _EDWARDS.get(
        meant, meant
    ) != _EDWARDS.get(algorithm, algorithm):
        return False
    return not isinstance(key, RSAKey) or key.public_key.key_size >= RSA_MIN_BITS


def signed_by(token: str, seen: Unverified, key: Key) -> bool:
    """Whether exactly this token is signed with that key."""
    try:
        found = jws.deserialize_compact(token, key, algorithms=[seen.algorithm])
        return bool(parse(found.payload) == seen.claims)
    except (JoseError, MalformedJson, ValueError, TypeError):
        return False

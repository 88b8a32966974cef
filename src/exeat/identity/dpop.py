"""DPoP proofs (RFC 9449 section 4.3): that the sender holds the key that its token is bound to.  Pure."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from exeat.identity.jwt import FAMILY, Unverified, signed_by, take_apart
from exeat.identity.model.token import SKEW_S, Refused

PROOF_MAX_CHARS: Final = 4_096
PROOF_LIFE_S: Final = 60
"""A proof serves for so long after it was made; for as long its id is remembered."""
ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256", "PS256")
SECOND_NS: Final = 1_000_000_000
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS: Final[dict[str, type[ECKey] | type[OKPKey] | type[RSAKey]]] = {
    "EC": ECKey,
    "OKP": OKPKey,
    "RSA": RSAKey,
}


@dataclass(frozen=True, slots=True)
class Proof:
    """``thumbprint``: RFC 7638, of the key that signed it.  ``until``: nanoseconds."""

    thumbprint: str
    id: str
    until: int


@dataclass(frozen=True, slots=True)
class Unproven:
    """Why a proof proves nothing; for the operator."""

    why: str


def read_proof(
    proof: str, method: str, url: str, now: int, token: str | None = None
) -> Proof | Unproven:
    """``url``: of the request, without query and fragment.  ``token``: the access token that comes with
    it, None at the token endpoint.  The caller compares the thumbprint, and takes no id twice."""
    if len(proof) > PROOF_MAX_CHARS:
        return Unproven("it is too long")
    seen = take_apart(proof)
    if isinstance(seen, Refused):
        return Unproven(f"it is {seen.flaw.value}")
    if seen.header.get("typ") != "dpop+jwt" or seen.algorithm not in ALGORITHMS:
        return Unproven("its type or algorithm is not one of a proof")
    key = _key(seen)
    if key is None or not signed_by(proof, seen, key):
        return Unproven("its key or signature is wrong")
    wrong = _wrong(seen.claims, method, url, now, token)
    if wrong:
        return Unproven(wrong)
    made = int(Decimal(str(seen.claims["iat"])) * SECOND_NS)
    until = made + (PROOF_LIFE_S + SKEW_S) * SECOND_NS
    return Proof(key.thumbprint(), str(seen.claims["jti"]), until)


def _key(seen: Unverified) -> Key | None:
    """The public key in the header, of the kind that the algorithm takes."""
    given = seen.header.get("jwk")
    if not isinstance(given, dict) or not _PRIVATE.isdisjoint(given):
        return None
    family = FAMILY[seen.algorithm]
    if given.get("kty") != family or not all(isinstance(v, str) for v in given.values()):
        return None
    public = {name: given[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in given}
    try:
        return _KINDS[family].import_key(public)
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _wrong(claims: Any, method: str, url: str, now: int, token: str | None) -> str:
    name, made = claims.get("jti"), claims.get("iat")
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        return "it has no id"
    if claims.get("htm") != method:
        return "it is for another method"
    htu = claims.get("htu")
    if not isinstance(htu, str) or htu.partition("?")[0].partition("#")[0] != url:
        return "it is for another URL"
    if type(made) not in (int, float, Decimal):
        return "it does not say when it was made"
    age = now - int(Decimal(str(made)) * SECOND_NS)
    if not -SKEW_S * SECOND_NS <= age <= PROOF_LIFE_S * SECOND_NS:
        return "it was made too long ago, or in the future"
    if token is not None and claims.get("ath") != hash_of(token):
        return "it is for another token"
    return ""


def hash_of(token: str) -> str:
    """``ath``: SHA-256 of the token in base64url (RFC 9449 section 4.2)."""
    return urlsafe_b64encode(sha256(token.encode("ascii")).digest()).rstrip(b"=").decode()

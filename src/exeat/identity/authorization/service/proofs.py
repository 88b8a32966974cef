"""DPoP proofs at the token endpoint (RFC 9449 4.3, 5): whose key the token will be bound to."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from exeat.identity.authorization.model.doing import SECOND_NS
from exeat.identity.authorization.model.grant import handle_digest
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.store import AuthorizationStore
from exeat.identity.jwt import FAMILY, Unverified, signed_by, take_apart

AGE_MAX_S: Final = 60
AHEAD_MAX_S: Final = 10
_KINDS: Final[Mapping[str, type[ECKey] | type[OKPKey] | type[RSAKey]]] = {
    "EC": ECKey,
    "OKP": OKPKey,
    "RSA": RSAKey,
}
_PRIVATE: Final = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class Proofs:
    def __init__(self, store: AuthorizationStore) -> None:
        self._store = store

    def thumbprint(self, sent: Sequence[str], method: str, url: str, now: int) -> str:
        """RFC 7638 of the key that signed the one proof, or empty if none was sent.  Each proof counts
        once.  Raises Refused (``invalid_dpop_proof``)."""
        if not sent:
            return ""
        if len(sent) > 1:
            raise _bad("More than one proof was sent.")
        seen = take_apart(sent[0])
        if not isinstance(seen, Unverified) or seen.header.get("typ") != "dpop+jwt":
            raise _bad("The proof is malformed.")
        key = _key(seen)
        if not signed_by(sent[0], seen, key):
            raise _bad("The proof is not signed with the key that it holds.")
        claims = seen.claims
        if claims.get("htm") != method or claims.get("htu") != url:
            raise _bad("The proof is for another request.")
        made, jti, now_s = claims.get("iat"), claims.get("jti"), now // SECOND_NS
        if not isinstance(made, int) or not now_s - AGE_MAX_S <= made <= now_s + AHEAD_MAX_S:
            raise _bad("The proof is too old, or from the future.")
        if not isinstance(jti, str) or not 0 < len(jti) <= 256:
            raise _bad("The proof has no id.")
        thumbprint = str(key.thumbprint())
        once = handle_digest(f"dpop\n{thumbprint}\n{jti}")
        with self._store.change() as tx:
            if not tx.first_use(once, now + (AGE_MAX_S + AHEAD_MAX_S) * SECOND_NS):
                raise _bad("The proof was used before.")
        return thumbprint


def _key(seen: Unverified) -> Key:
    said: Any = seen.header.get("jwk")
    if not isinstance(said, dict) or said.keys() & _PRIVATE:
        raise _bad("The proof holds no public key.")
    if said.get("kty") != FAMILY[seen.algorithm]:
        raise _bad("The proof's key does not fit its algorithm.")
    try:
        return _KINDS[said["kty"]].import_key(said)
    except (JoseError, ValueError, TypeError, KeyError):
        raise _bad("The proof's key cannot be read.") from None


def _bad(message: str) -> Refused:
    return Refused("invalid_dpop_proof", message)

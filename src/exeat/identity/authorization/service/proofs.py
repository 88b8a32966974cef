"""DPoP proofs at the token endpoint (RFC 9449 5): whose key the token will be bound to."""

from collections.abc import Sequence

from exeat.identity.authorization.model.grant import handle_digest
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.store import AuthorizationStore
from exeat.identity.dpop import Unproven, read_proof


class Proofs:
    def __init__(self, store: AuthorizationStore) -> None:
        self._store = store

    def thumbprint(self, sent: Sequence[str], method: str, url: str, now: int) -> str:
        """Of the key that signed the one proof, or empty if none was sent.  Each proof counts once.
        Raises Refused (``invalid_dpop_proof``)."""
        if not sent:
            return ""
        if len(sent) > 1:
            raise Refused("invalid_dpop_proof", "More than one proof was sent.")
        proof = read_proof(sent[0], method, url, now)
        if isinstance(proof, Unproven):
            raise Refused("invalid_dpop_proof", f"The proof proves nothing: {proof.why}.")
        once = handle_digest(f"dpop\n{proof.thumbprint}\n{proof.id}")
        with self._store.change() as tx:
            if not tx.first_use(once, proof.until):
                raise Refused("invalid_dpop_proof", "The proof was used before.")
        return proof.thumbprint

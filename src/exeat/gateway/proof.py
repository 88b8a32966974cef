"""Possession of the key that a token is bound to: DPoP (RFC 9449), mutual TLS (RFC 8705) (ID-4)."""

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final, Protocol

from exeat.gateway.http1 import RequestHead
from exeat.identity.dpop import Proof, Unproven, read_proof
from exeat.identity.model.token import Confirmation, Flaw

IDS_MAX: Final = 100_000
"""Proofs remembered at a time; if more are in their life, further ones are refused, not forgotten."""


class Peer(Protocol):
    """The connection that a request came by."""

    @property
    def certificate(self) -> bytes | None:
        """What the client showed, in DER; None if nothing, or without TLS."""
        ...


class Proofs:
    """One per gateway process: a proof serves once here."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}
        self._swept = 0

    def check(
        self,
        header: str,
        bound: Confirmation | None,
        head: RequestHead,
        url: str,
        peer: Peer,
        now: int,
    ) -> Proof | Flaw | None:
        """``header``: Authorization.  A proof is good but not spent yet; None: nothing is to be spent."""
        scheme, _, token = header.partition(" ")
        if bound is None or (bound.method == "dpop") != (scheme.lower() == "dpop"):
            return Flaw.PROOF  # a bound token as a bearer, or the other way round (section 7.1)
        if bound.method == "mtls":
            shown = peer.certificate
            good = shown is not None and thumbprint(shown) == bound.thumbprint
            return None if good else Flaw.PROOF
        proof = read_proof(head.fields.get("dpop", ""), head.method, url, now, token.strip())
        if isinstance(proof, Unproven) or proof.thumbprint != bound.thumbprint:
            return Flaw.PROOF
        return Flaw.PROOF if self._used.get(_name(proof), 0) > now else proof

    def spend(self, proof: Proof, now: int) -> bool:
        """False if it served before."""
        return self._first_use(_name(proof), proof.until, now)

    def _first_use(self, name: str, until: int, now: int) -> bool:
        if name in self._used:
            return False
        if len(self._used) >= IDS_MAX:
            if self._swept + 1_000_000_000 > now:
                return False
            self._swept = now
            self._used = {each: end for each, end in self._used.items() if end > now}
            if len(self._used) >= IDS_MAX:
                return False
        self._used[name] = until
        return True


def _name(proof: Proof) -> str:
    return f"{proof.thumbprint} {proof.id}"


def thumbprint(certificate: bytes) -> str:
    """``x5t#S256`` (RFC 8705 section 3.1)."""
    return urlsafe_b64encode(sha256(certificate).digest()).rstrip(b"=").decode()

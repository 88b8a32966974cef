"""Who is calling, checked on every request: an agent's key, or a token of a trusted issuer (ID-1).

What was verified is remembered: a key and its agent as long as the view in which they were found, a
token's claims until it ends or CHECKED_MAX_S have passed.  Later calls cost one look-up.  A change of
the registry, a revocation among them, is a new view, and everybody is looked up again.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from exeat.core.request import Caller, TokenFacts
from exeat.gateway.http1 import RequestHead
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.ports import View
from exeat.gateway.proof import Peer, Proofs
from exeat.gateway.sessions import principal_key
from exeat.identity.dpop import Proof
from exeat.identity.model.token import Claims, Confirmation, Flaw, Refused
from exeat.identity.rules.principal import principal
from exeat.identity.tokens import Tokens
from exeat.registry.model.key import KEY_PREFIX

CACHED_MAX: Final = 10_000
CHECKED_MAX_S: Final = 300
"""A token's signature is believed for so long."""
ASKED_MAX_S: Final = 30
"""So is what its issuer said of an opaque one, or for as long as is set for that issuer, if that is less."""
ASKED_MIN_S: Final = 1
"""For one request, which comes back to the answer that it waited for."""
REFUSED_FOR_S: Final = 5
"""After asking an issuer in vain; the same token does not make us ask again before."""
SECOND_NS: Final = 1_000_000_000
_BEARER: Final = "bearer"
_DPOP: Final = "dpop"
_DPOP_SCHEME: Final = "dpop "


@dataclass(frozen=True, slots=True)
class Unknown:
    """The issuer must be asked first; after ``settle`` the answer is known."""

    settle: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Known:
    """``audience`` None: any endpoint (an agent's key)."""

    caller: Caller
    expires_at: int
    audience: frozenset[str] | None
    bound: Confirmation | None


Found = Caller | Refused | Unknown | None


class Credentials:
    """``tokens`` None: only keys open anything."""

    def __init__(
        self, pipeline: Pipeline, tokens: Tokens | None = None, proofs: Proofs | None = None
    ) -> None:
        self._pipeline = pipeline
        self.tokens = tokens
        self._proofs = proofs or Proofs()
        self._view: View | None = None
        self._proof: Proof | None = None
        self._exchanges = False
        self._known: dict[str, _Known] = {}
        self._shown: dict[str, tuple[str, str, int]] = {}
        self._checked: dict[str, tuple[Claims | Refused, int]] = {}

    def caller(
        self, header: str | None, resource: str, head: RequestHead, peer: Peer, now: int
    ) -> Found:
        """Whom an Authorization header stands for at ``resource`` (the endpoint's URL); None if it
        stands for nobody.  ``now`` in nanoseconds since the epoch.  A proof of possession is spent."""
        found = self.admits(header, resource, head, peer, now)
        if type(found) is Caller:
            proof, self._proof = self._proof, None
            if proof is not None and not self._proofs.spend(proof, now):
                return Refused(Flaw.PROOF)
            if self._exchanges and found.token is not None and header is not None:
                self._keep_shown(found, found.token, header)
        return found

    def admits(
        self, header: str | None, resource: str, head: RequestHead, peer: Peer, now: int
    ) -> Found:
        """The same before a body has come: a proof is looked at, and serves when the request does."""
        self._proof = None
        if header is None:
            return None
        view = self._pipeline.state.view
        if view is not self._view:
            self._view = view
            self._known.clear()
            self._exchanges = any(spec.auth.for_caller for spec in view.snapshot.specs.values())
        known = self._known.get(header)
        if known is None or known.expires_at <= now:
            found = self._look_up(view, header, now)
            if type(found) is not _Known:
                return found  # type: ignore[return-value]  # mypy does not narrow by type()
            known = found
            if known.expires_at <= now:
                return Refused(Flaw.EXPIRED)
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            self._known[header] = known
        if known.audience is None:
            return known.caller
        if resource not in known.audience:
            return Refused(Flaw.AUDIENCE)
        if known.bound is not None or header[:5].lower() == _DPOP_SCHEME:
            proof = self._proofs.check(header, known.bound, head, resource, peer, now)
            if isinstance(proof, Flaw):
                return Refused(proof)
            self._proof = proof
        return known.caller

    def shown(self, principal: str) -> tuple[str, str]:
        """The issuer and the token by which the principal came last, while it lives: what is exchanged
        on its behalf (ID-9).  Kept only while some server asks for that."""
        issuer, token, end = self._shown.get(principal, ("", "", 0))
        return (issuer, token) if end > self._pipeline.clock() else ("", "")

    def _keep_shown(self, caller: Caller, token: TokenFacts, header: str) -> None:
        """Only of a token that opened the endpoint: one that was refused is exchanged for nothing."""
        if len(self._shown) >= CACHED_MAX:
            self._shown.clear()
        text = header.partition(" ")[2].strip()
        self._shown[principal_key(caller)] = (token.issuer, text, token.expires_at)

    def _look_up(self, view: View, header: str, now: int) -> _Known | Refused | Unknown | None:
        scheme, _, text = header.partition(" ")
        text = text.strip()
        if scheme.lower() == _BEARER:
            digest = hashlib.sha256(text.encode("latin-1", "replace")).digest()
            key = self._key(view, digest)
            if key is not None:
                return key
        elif scheme.lower() != _DPOP:
            return None
        if self.tokens is None or not text or text.startswith(KEY_PREFIX):
            return None  # a key may be good in a moment, or elsewhere: no issuer gets to see it
        return self._token(self.tokens, view, text, now)

    def _key(self, view: View, digest: bytes) -> _Known | None:
        snapshot = view.snapshot
        credential = snapshot.credentials.get(digest)
        agent = snapshot.agents.get(credential.agent) if credential is not None else None
        if credential is None or agent is None:
            return None
        user = None
        if credential.user is not None:
            user = snapshot.people.get(credential.user)
            if user is None:
                return None
        if agent.id in snapshot.proofs:
            return None  # a key that anybody could carry away proves nothing (ID-4)
        caller = Caller(agent, user, credential.id)
        return _Known(caller, credential.expires_at, None, None)

    def _token(self, tokens: Tokens, view: View, text: str, now: int) -> _Known | Refused | Unknown:
        claims, until = self._checked.get(text, (None, 0))
        if claims is None or until <= now:
            claims = tokens.read(text, now)
            if claims is None:
                return Unknown(lambda: self._settle(tokens, text))
            if isinstance(claims, Refused):
                return claims  # found so without asking anybody: not worth remembering
            until = now + CHECKED_MAX_S * SECOND_NS
            self._remember(text, claims, until)
        if isinstance(claims, Refused):
            return claims
        name = f"t-{hashlib.sha256(text.encode('latin-1', 'replace')).hexdigest()[:12]}"
        caller = principal(claims, view.snapshot, name, tokens.scopes(claims), tokens.own)
        if isinstance(caller, Refused):
            return caller
        demanded = view.snapshot.proofs.get(caller.agent.id)
        if demanded is not None:
            bound = claims.confirmation
            if bound is None or demanded not in ("any", bound.method):
                return Refused(Flaw.PROOF)
        end = min(until, claims.expires_at)
        return _Known(caller, end, claims.audience, claims.confirmation)

    async def _settle(self, tokens: Tokens, text: str) -> None:
        found = await tokens.fetch(text, self._pipeline.clock())
        life_s: float = CHECKED_MAX_S
        if isinstance(found, Refused):
            life_s = REFUSED_FOR_S
        elif text.count(".") != 2:
            life_s = max(ASKED_MIN_S, min(ASKED_MAX_S, tokens.believed_s(found)))
        self._remember(text, found, self._pipeline.clock() + int(life_s * SECOND_NS))

    def _remember(self, text: str, found: Claims | Refused, until: int) -> None:
        if len(self._checked) >= CACHED_MAX:
            self._checked.clear()
        self._checked[text] = (found, until)

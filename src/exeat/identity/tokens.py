"""Access tokens: from the bytes of a stranger to claims that hold, or why not (ID-1, ID-3).

1. taken apart, within limits; the algorithm is one that may be allowed at all
2. its issuer is one that we trust, and the type is that of an access token
3. the key that the issuer publishes under that name, and the signature
4. the claims: who, for how long, for which resource, through whom

What is cached is read at once; what must be asked of the issuer is waited for.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from joserfc.jwk import KeySet

from exeat.identity.jwt import Unverified, choose, signed_by, take_apart
from exeat.identity.model.issuer import TrustedIssuer
from exeat.identity.model.token import TOKEN_MAX_CHARS, Claims, Flaw, Refused
from exeat.identity.rules.claims import read_claims

ACCESS_TYPES: Final = frozenset({"at+jwt", "application/at+jwt", "jwt"})
"""RFC 9068, and plain JWT as many providers still write it.  Nothing else is an access token: no ID
token of another type, logout token, DPoP proof or client assertion."""
ASSERTION_TYPES: Final = frozenset({"oauth-id-jag+jwt"})
SPIFFE: Final = "spiffe://"


class Keys(Protocol):
    """What an issuer publishes, and what may be used with it."""

    @property
    def keys(self) -> KeySet: ...

    @property
    def algorithms(self) -> Collection[str]: ...


class Keyring(Protocol):
    """Keys and answers of issuers: from memory at once, or asked for."""

    def known(self, issuer: str, kid: str | None) -> Keys | None: ...

    async def refresh(self, issuer: str, kid: str | None) -> Keys | None: ...

    async def introspect(self, issuer: str, token: str) -> Mapping[str, Any] | None:
        """None: not active, or not known to be."""
        ...

    def trouble(self, issuer: str) -> str:
        """Why the last question failed; empty if it did not."""
        ...


class Tokens:
    """``own``: the URL of our own authorization server, or empty."""

    def __init__(self, issuers: Sequence[TrustedIssuer], keyring: Keyring, own: str = "") -> None:
        self._issuers = {each.url: each for each in issuers}
        self._keyring = keyring
        self.own = own

    def read(self, token: str, now: int) -> Claims | Refused | None:
        """None: the issuer must be asked first.  ``now``: nanoseconds."""
        found = self._begin(token)
        if not isinstance(found, tuple):
            return found
        seen, issuer = found
        keys = self._keyring.known(issuer.url, seen.key_id)
        return None if keys is None else self._judge(token, seen, issuer, keys, now)

    async def fetch(self, token: str, now: int) -> Claims | Refused:
        """The same, asking the issuer for what is not known."""
        found = self._begin(token)
        if found is None:
            return await self._introspect(token, now)
        if isinstance(found, Refused):
            return found
        seen, issuer = found
        keys = await self._keyring.refresh(issuer.url, seen.key_id)
        if keys is None:
            down = self._keyring.trouble(issuer.url)
            return Refused(Flaw.UNREACHABLE if down else Flaw.KEY)
        return self._judge(token, seen, issuer, keys, now)

    async def assertion(self, token: str, now: int) -> tuple[Claims, Mapping[str, Any]] | Refused:
        """An ID-JAG of a trusted issuer, never one of our own: its claims, as read and as written."""
        found = self._begin(token, ASSERTION_TYPES)
        if found is None or isinstance(found, Refused):
            return found or Refused(Flaw.MALFORMED)
        seen, issuer = found
        if issuer.url == self.own:
            return Refused(Flaw.ISSUER)
        keys = self._keyring.known(issuer.url, seen.key_id)
        keys = keys or await self._keyring.refresh(issuer.url, seen.key_id)
        if keys is None:
            down = self._keyring.trouble(issuer.url)
            return Refused(Flaw.UNREACHABLE if down else Flaw.KEY)
        claims = self._judge(token, seen, issuer, keys, now)
        return claims if isinstance(claims, Refused) else (claims, seen.claims)

    def scopes(self, claims: Claims) -> frozenset[str] | None:
        """In our words; None if tokens of that issuer are not bounded by scopes of ours."""
        issuer = self._issuers[claims.issuer]
        return None if issuer.unscoped else issuer.scope(claims.scopes)

    def believed_s(self, claims: Claims) -> float:
        """How long what its issuer said of an opaque token may be used."""
        asked = self._issuers[claims.issuer].introspection
        return asked.cache_max_s if asked is not None else 0

    def _begin(
        self, token: str, types: Collection[str] = ACCESS_TYPES
    ) -> tuple[Unverified, TrustedIssuer] | Refused | None:
        """None: opaque, and somebody may know it."""
        if len(token) > TOKEN_MAX_CHARS:
            return Refused(Flaw.OVERSIZE)
        if token.count(".") != 2:
            asked = any(issuer.introspection for issuer in self._issuers.values())
            return None if asked else Refused(Flaw.MALFORMED)
        seen = take_apart(token)
        if isinstance(seen, Refused):
            return seen
        issuer = self._issuer(seen.claims)
        if issuer is None:
            return Refused(Flaw.ISSUER)
        kind = seen.header.get("typ", "jwt")
        if not isinstance(kind, str) or kind.lower() not in types:
            return Refused(Flaw.TYPE)
        return seen, issuer

    def _issuer(self, claims: Mapping[str, Any]) -> TrustedIssuer | None:
        """By ``iss``, compared exactly; a JWT-SVID's by its trust domain (SPIFFE JWT-SVID section 3)."""
        named, subject = claims.get("iss"), claims.get("sub")
        if isinstance(named, str) and named in self._issuers:
            return self._issuers[named]
        if isinstance(subject, str) and subject.startswith(SPIFFE):
            domain = subject[len(SPIFFE) :].partition("/")[0]
            return self._issuers.get(SPIFFE + domain)
        return None

    def _judge(
        self, token: str, seen: Unverified, issuer: TrustedIssuer, keys: Keys, now: int
    ) -> Claims | Refused:
        if seen.algorithm not in keys.algorithms:
            return Refused(Flaw.ALGORITHM)
        key = choose(seen, keys.keys.keys)
        if key is None:
            return Refused(Flaw.KEY)
        if not signed_by(token, seen, key):
            return Refused(Flaw.SIGNATURE)
        return self._claims(seen.claims, issuer, now)

    def _claims(
        self, claims: Mapping[str, Any], issuer: TrustedIssuer, now: int
    ) -> Claims | Refused:
        workload = issuer.url.startswith(SPIFFE)
        read = read_claims(
            claims,
            issuer.url,
            now,
            life_max_s=issuer.life_max_s,
            client_claims=("sub",) if workload else issuer.client_claims,
            user_claim=issuer.user_claim,
            workload=issuer.workload,
            own=self.own,
        )
        if isinstance(read, Refused):
            return read
        return replace(read, audience=issuer.resources(read.audience))

    async def _introspect(self, token: str, now: int) -> Claims | Refused:
        """RFC 7662, at each issuer that has it, until one knows the token."""
        flaw = Flaw.INACTIVE
        for issuer in self._issuers.values():
            if not issuer.introspection:
                continue
            answer = await self._keyring.introspect(issuer.url, token)
            if answer is None:
                if self._keyring.trouble(issuer.url):
                    flaw = Flaw.UNREACHABLE
                continue
            if answer.get("iss", issuer.url) != issuer.url:
                return Refused(Flaw.ISSUER)
            return self._claims(answer, issuer, now)
        return Refused(flaw)

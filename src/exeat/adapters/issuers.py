"""ID-3: the keys of trusted issuers, and what they say of opaque tokens.

Keys are found by discovery, kept, and asked for again when they grow old or a token names one that is
unknown; at most one request per issuer is under way, and none within ``REFETCH_MIN_S`` of the last.
While an issuer is down its keys serve until ``KEYS_AGE_MAX_S``, then there are none: denied.
"""

import asyncio
import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey, import_key

from exeat.adapters.client_auth import show
from exeat.adapters.fetch import Fetcher, FetchRefused
from exeat.core.errors import ExeatError, Invalid
from exeat.identity.model.client import Client, ClientAuth
from exeat.identity.model.issuer import Introspection, TrustedIssuer
from exeat.identity.rules.discovery import server_metadata_urls, text

KEYS_FRESH_S: Final = 300.0
"""Older keys are asked for again beside the next use of them, so that a withdrawn key ends."""
KEYS_AGE_MAX_S: Final = 6 * 3600.0
REFETCH_MIN_S: Final = 10.0
KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2048
ANSWERS_MAX: Final = 10_000
INACTIVE_S: Final = 10.0
"""How long the answer "not active" is used again."""
ASKING_MAX: Final = 16
"""Introspections of one issuer under way; further ones wait."""
_S: Final = 1_000_000_000

Clock = Callable[[], int]
"""Nanoseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Public keys that may verify a token, and the algorithms that may be used with them."""

    keys: KeySet
    algorithms: tuple[str, ...]


@dataclass(slots=True)
class _Issuer:
    trusted: TrustedIssuer
    all: Keys | None = None
    by_kid: Mapping[str, Keys] = field(default_factory=dict)
    fetched_at: int = 0
    tried_at: int = 0
    trouble: str = ""
    fetching: asyncio.Task[None] | None = None
    asking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ASKING_MAX))
    failed_at: int = 0


class Issuers:
    """``clock``: see Clock.  Of one event loop; keeps nothing on disk."""

    def __init__(self, trusted: Sequence[TrustedIssuer], fetcher: Fetcher, clock: Clock) -> None:
        self._issuers = {issuer.url: _Issuer(issuer) for issuer in trusted}
        self._fetcher = fetcher
        self._clock = clock
        self._answers: OrderedDict[tuple[str, bytes], tuple[int, Mapping[str, Any] | None]] = (
            OrderedDict()
        )
        self._asked: dict[tuple[str, bytes], asyncio.Task[Mapping[str, Any] | None]] = {}

    def trusted(self, issuer: str) -> TrustedIssuer | None:
        found = self._issuers.get(issuer)
        return found.trusted if found else None

    def trouble(self, issuer: str) -> str:
        """Why the last question to an issuer failed; empty if it did not."""
        found = self._issuers.get(issuer)
        return found.trouble if found else f"{issuer!r} is not a trusted issuer"

    def known(self, issuer: str, kid: str | None) -> Keys | None:
        """The key named ``kid`` (None: all keys), from memory.  None: unknown, or too old to use."""
        found = self._issuers.get(issuer)
        if found is None or found.all is None:
            return None
        age_s = (self._clock() - found.fetched_at) / _S
        if not 0 <= age_s <= KEYS_AGE_MAX_S:
            return None
        if age_s > KEYS_FRESH_S:
            self._start(found)
        return found.all if kid is None else found.by_kid.get(kid)

    async def refresh(self, issuer: str, kid: str | None) -> Keys | None:
        """As ``known``, after asking the issuer if that was not done a moment ago."""
        found = self._issuers.get(issuer)
        if found is None:
            return None
        task = self._start(found)
        if task is not None:
            await asyncio.shield(task)
        return self.known(issuer, kid)

    async def introspect(self, issuer: str, token: str) -> Mapping[str, Any] | None:
        """What the issuer says of ``token`` (RFC 7662), if it says that it is active; else None."""
        found = self._issuers.get(issuer)
        if found is None or found.trusted.introspection is None:
            return None
        key = (issuer, hashlib.sha256(token.encode()).digest())
        cached = self._answers.get(key)
        if cached is not None and self._clock() < cached[0]:
            return cached[1]
        task = self._asked.get(key)
        if task is None:
            if 0 <= self._clock() - found.failed_at < REFETCH_MIN_S * _S / 10:
                return None
            task = asyncio.get_running_loop().create_task(self._ask(found, token, key))
            self._asked[key] = task
            task.add_done_callback(lambda _: self._asked.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._asked.values()]
        tasks += [found.fetching for found in self._issuers.values() if found.fetching]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, found: _Issuer) -> asyncio.Task[None] | None:
        """The request under way, or a new one unless one ended a moment ago."""
        if found.fetching is not None:
            return found.fetching
        now = self._clock()
        if found.tried_at and 0 <= now - found.tried_at < REFETCH_MIN_S * _S:
            return None
        found.tried_at = now
        found.fetching = asyncio.get_running_loop().create_task(self._fetch_keys(found))
        return found.fetching

    async def _fetch_keys(self, found: _Issuer) -> None:
        try:
            url = found.trusted.jwks_url or text(await self._metadata(found.trusted), "jwks_uri")
            if not url:
                raise FetchRefused(f"the metadata of {found.trusted.url} names no jwks_uri")
            fetched = await self._fetcher.get(url)
            if fetched.status != 200:
                raise FetchRefused(f"{fetched.url} answered {fetched.status}")
            keys = public_keys(fetched.json())
            if not keys:
                raise FetchRefused(f"{fetched.url} has no key that can be used")
        except ExeatError as error:
            found.trouble = str(error)
        else:
            algorithms = tuple(sorted(found.trusted.algorithms))
            found.all = Keys(KeySet(list(keys)), algorithms)
            by_kid: dict[str, Keys] = {}
            for key in keys:
                if key.kid:
                    by_kid.setdefault(key.kid, Keys(KeySet([key]), algorithms))
            found.by_kid, found.fetched_at, found.trouble = by_kid, self._clock(), ""
        finally:
            found.fetching = None

    async def _metadata(self, trusted: TrustedIssuer) -> Mapping[str, Any]:
        """Raises FetchRefused: nothing there, or it is the metadata of another issuer."""
        trouble = ""
        for url in server_metadata_urls(trusted.url):
            try:
                fetched = await self._fetcher.get(url)
                if fetched.status != 200:
                    raise FetchRefused(f"{fetched.url} answered {fetched.status}")
                document = fetched.json()
            except FetchRefused as error:
                trouble = str(error)
                continue
            if document.get("issuer") != trusted.url:
                raise FetchRefused(
                    f"{fetched.url} is the metadata of issuer {document.get('issuer')!r}, "
                    f"not of {trusted.url!r}",
                    remedy="configure the issuer exactly as its metadata writes it",
                )
            return document
        raise FetchRefused(f"no metadata of {trusted.url} was found: {trouble}")

    async def _ask(
        self, found: _Issuer, token: str, key: tuple[str, bytes]
    ) -> Mapping[str, Any] | None:
        settings = cast(Introspection, found.trusted.introspection)
        try:
            async with found.asking:
                answer = await self._introspection(found.trusted, settings, token)
        except ExeatError as error:
            found.trouble, found.failed_at = str(error), self._clock()
            return None
        now = self._clock()
        until = now + int(INACTIVE_S * _S)
        if answer is not None:
            until = now + int(settings.cache_max_s * _S)
            expiry = answer.get("exp")
            if isinstance(expiry, int) and not isinstance(expiry, bool):
                until = min(until, expiry * _S)
                answer = answer if now < expiry * _S else None
        self._answers[key] = (until, answer)
        while len(self._answers) > ANSWERS_MAX:
            self._answers.popitem(last=False)
        return answer

    async def _introspection(
        self, trusted: TrustedIssuer, settings: Introspection, token: str
    ) -> Mapping[str, Any] | None:
        url = settings.endpoint or text(await self._metadata(trusted), "introspection_endpoint")
        if not url:
            raise FetchRefused(f"the metadata of {trusted.url} names no introspection_endpoint")
        shown = show(
            _client(trusted, settings),
            now_s=self._clock() // _S,
            token_id=secrets.token_urlsafe(16),
        )
        form = {"token": token, "token_type_hint": "access_token", **shown.form}
        fetched = await self._fetcher.post(url, form, headers=shown.headers)
        if fetched.status != 200:
            raise FetchRefused(f"{fetched.url} answered {fetched.status}")
        answer = fetched.json()
        if answer.get("active") is not True:
            return None
        if "iss" in answer and answer["iss"] != trusted.url:
            raise FetchRefused(f"{fetched.url} told of a token of another issuer")
        return answer


def _client(trusted: TrustedIssuer, settings: Introspection) -> Client:
    """Raises Invalid if the credential is not there."""
    if settings.key_file:
        try:
            pem = Path(settings.key_file).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            raise Invalid(f"the key file {settings.key_file} cannot be read") from None
        return Client(trusted.url, settings.client_id, ClientAuth.PRIVATE_KEY_JWT, key=pem)
    secret = os.environ.get(settings.secret_from, "") if settings.secret_from else ""
    if not secret:
        raise Invalid(
            f"no secret for introspection at {trusted.url}",
            remedy=f"set the environment variable {settings.secret_from or '(introspection.secret_from)'}",
        )
    return Client(trusted.url, settings.client_id, ClientAuth.BASIC, secret=secret)


SIGNING_USES: Final = ("sig", "jwt-svid")
"""``jwt-svid``: in the bundle of a SPIFFE trust domain (SPIFFE Trust Domain and Bundle, 4.2.2)."""


def public_keys(document: Mapping[str, Any]) -> tuple[ECKey | OKPKey | RSAKey, ...]:
    """The keys of a JWK set (RFC 7517) that may verify a signature.  A key that is not understood, is
    symmetric, short, or meant for something else is left out.  Raises FetchRefused on no JWK set."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise FetchRefused("the document is no JWK set")
    found: list[ECKey | OKPKey | RSAKey] = []
    for entry in listed[:KEYS_MAX]:
        if not isinstance(entry, dict) or entry.get("use", "sig") not in SIGNING_USES:
            continue
        if entry.get("kty") == "RSA" and len(str(entry.get("n"))) * 6 < RSA_BITS_MIN:
            continue
        if "key_ops" in entry and "verify" not in (entry["key_ops"] or ()):
            continue
        public = {name: value for name, value in entry.items() if name not in _PRIVATE}
        try:
            key = import_key(public)
            key.ensure_kid()
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, OctKey):
            continue
        if isinstance(key, RSAKey) and key.raw_value.key_size < RSA_BITS_MIN:  # zeros in front
            continue
        found.append(key)
    return tuple(found)


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

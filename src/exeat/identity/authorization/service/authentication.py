"""Which client is it, and is it really that one?"""

import asyncio
import json
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any, Final, Protocol

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from exeat.core.errors import ExeatError
from exeat.identity.authorization.model.client import (
    Client,
    ClientAuth,
    ClientKind,
    secret_digest,
)
from exeat.identity.authorization.model.doing import SECOND_NS
from exeat.identity.authorization.model.grant import handle_digest
from exeat.identity.authorization.model.refusal import Refused, invalid_client
from exeat.identity.authorization.rules.credentials import Shown, read_shown
from exeat.identity.authorization.rules.documents import (
    DOCUMENT_MAX_BYTES,
    client_of_document,
    is_document_id,
    looks_like_address,
    public_keys,
)
from exeat.identity.authorization.store import AuthorizationStore
from exeat.identity.jwt import Unverified, choose, signed_by, take_apart

DOCUMENT_KEPT_S: Final = 300
DOCUMENT_FAILED_KEPT_S: Final = 15
DOCUMENTS_MAX: Final = 200
ASSERTION_LIFE_MAX_S: Final = 300
SKEW_S: Final = 60
_NOT_PROVEN: Final = "The client could not be authenticated."


class Answer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Fetching(Protocol):
    """GW-10: the guarded client; raises ExeatError if the address may not be asked."""

    async def get(self, url: str, *, accept: str = ...) -> Answer: ...


class Documents:
    """Client metadata documents, fetched through the SSRF guard and kept for a few minutes; a failure
    is kept for some seconds, so that nobody makes us knock at a stranger's door."""

    def __init__(self, fetching: Fetching) -> None:
        self._fetching = fetching
        self._kept: dict[str, tuple[int, Client | Refused]] = {}

    async def get(self, client_id: str, now: int) -> Client:
        """Raises Refused."""
        kept = self._kept.get(client_id)
        if kept is None or kept[0] <= now:
            kept = await self._fetch(client_id, now)
            if len(self._kept) >= DOCUMENTS_MAX:
                self._kept.clear()
            self._kept[client_id] = kept
        if isinstance(kept[1], Refused):
            raise kept[1]
        return kept[1]

    async def _fetch(self, client_id: str, now: int) -> tuple[int, Client | Refused]:
        end = now + DOCUMENT_KEPT_S * SECOND_NS
        try:
            body = await self._body(client_id)
            return end, client_of_document(client_id, body, end)
        except Refused as error:
            return now + DOCUMENT_FAILED_KEPT_S * SECOND_NS, error

    async def keys(self, client: Client) -> str:
        """Its public keys, as its document holds them or says where they are."""
        if client.jwks or not client.jwks_uri:
            return client.jwks
        return public_keys((await self._body(client.jwks_uri)).decode("utf-8", "replace"))

    async def _body(self, url: str) -> bytes:
        try:
            answer = await self._fetching.get(url, accept="application/json")
        except ExeatError as error:
            raise invalid_client(f"The client's document could not be fetched: {error}") from None
        if answer.status != 200 or len(answer.body) > DOCUMENT_MAX_BYTES:
            raise invalid_client(
                "The client's document could not be fetched: not 200, or too large."
            )
        return answer.body


class Authentication:
    """``audiences``: our issuer and token endpoint, one of which an assertion must be for."""

    def __init__(
        self,
        store: AuthorizationStore,
        documents: Documents,
        audiences: frozenset[str],
        clock: Callable[[], int],
    ) -> None:
        self._store, self._documents = store, documents
        self._audiences, self._clock = audiences, clock

    async def find(self, client_id: str) -> Client:
        """The live client of that id, by its document if the id is an address.  Raises Refused."""
        if looks_like_address(client_id):
            if not is_document_id(client_id):
                raise invalid_client("This address cannot be a client id.")
            return await self._documents.get(client_id, self._clock())
        client = await asyncio.to_thread(self._stored, client_id)
        if client is None or not client.live(self._clock()):
            raise invalid_client("The client is unknown, or has ended.")
        return client

    def _stored(self, client_id: str) -> Client | None:
        with self._store.read() as read:
            return read.client(client_id)

    def named(self, authorization: str | None, form: Mapping[str, str]) -> str:
        """The client that somebody says to be, in whichever way.  Raises Refused."""
        shown = read_shown(authorization, form)
        if shown.client_id or shown.assertion is None:
            return shown.client_id
        return str(self._taken_apart(shown.assertion).claims.get("sub", ""))

    async def authenticate(self, authorization: str | None, form: Mapping[str, str]) -> Client:
        """OAuth 2.1 2.4: by the method it is registered with, and no other.  No document is fetched of
        a client that nobody ever gave an authorization: here nobody is signed in.  Raises Refused."""
        client_id = self.named(authorization, form)
        if looks_like_address(client_id) and not await asyncio.to_thread(self._given, client_id):
            raise invalid_client("The client is unknown, or has ended.")
        client = await self.find(client_id)
        shown = read_shown(authorization, form)
        seen = self._taken_apart(shown.assertion) if shown.assertion is not None else None
        if seen is not None and shown.assertion is not None:
            if client.auth is not ClientAuth.KEY:
                raise invalid_client(_NOT_PROVEN)
            await self._check_assertion(client, shown.assertion, seen)
        elif not _shows_what_it_must(client, shown):
            raise invalid_client(_NOT_PROVEN)
        return client

    def _given(self, client_id: str) -> bool:
        with self._store.read() as read:
            return bool(read.grants_to(client_id))

    def _taken_apart(self, assertion: str) -> Unverified:
        seen = take_apart(assertion)
        if not isinstance(seen, Unverified):
            raise invalid_client(_NOT_PROVEN)
        return seen

    async def _check_assertion(self, client: Client, assertion: str, seen: Unverified) -> None:
        """RFC 7523 3 and RFC 7523bis: issuer and subject are the client, the one audience is we, it
        lives for minutes, and each ``jti`` counts once."""
        key = choose(seen, _keys(await self._documents.keys(client)))
        if key is None or not signed_by(assertion, seen, key):
            raise invalid_client(_NOT_PROVEN)
        claims, now = seen.claims, self._clock()
        if claims.get("iss") != client.id or claims.get("sub") != client.id:
            raise invalid_client("The assertion is another client's.")
        if _only(claims.get("aud")) not in self._audiences:
            raise invalid_client("The assertion is for another server.")
        end = _seconds(claims, "exp", 0)
        begins = max(_seconds(claims, "nbf", 0), _seconds(claims, "iat", 0))
        now_s = now // SECOND_NS
        if not now_s - SKEW_S < end <= now_s + ASSERTION_LIFE_MAX_S + SKEW_S:
            raise invalid_client("The assertion has ended, or lives too long.")
        if begins > now_s + SKEW_S:
            raise invalid_client("The assertion is not valid yet.")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= 256:
            raise invalid_client("The assertion has no id.")
        once = handle_digest(f"assertion\n{client.id}\n{jti}")
        if not await asyncio.to_thread(self._first_use, once, (end + SKEW_S) * SECOND_NS):
            raise invalid_client("The assertion was used before.")

    def _first_use(self, key: bytes, until: int) -> bool:
        with self._store.change() as tx:
            return tx.first_use(key, until)


def _shows_what_it_must(client: Client, shown: Shown) -> bool:
    if client.auth is ClientAuth.NONE:
        return shown.secret is None
    if client.auth is not ClientAuth.SECRET or client.secret_digest is None:
        return False
    return compare_digest(secret_digest(shown.secret or ""), client.secret_digest)


def _keys(jwks: str) -> list[Any]:
    try:
        return list(KeySet.import_key_set(json.loads(jwks)).keys)
    except (JoseError, ValueError, TypeError, KeyError):
        raise invalid_client("The client's keys cannot be read.") from None


def _only(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else ""


def _seconds(claims: Mapping[str, Any], name: str, default: int) -> int:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise invalid_client("A time in the assertion cannot be read.")
    return int(value)


def kind_words(client: Client) -> str:
    """For people: how the client came to be known."""
    return {
        ClientKind.REGISTERED: "registered by an admin",
        ClientKind.DYNAMIC: "registered by itself",
        ClientKind.DOCUMENT: "known by its web address",
    }[client.kind]

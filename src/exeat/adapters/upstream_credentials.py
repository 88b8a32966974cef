"""ID-9: the gateway's credentials for upstreams: obtained, kept, renewed, given up.

Never passthrough: what an agent shows the gateway goes nowhere.  A token belongs to one server and,
where access is per user, to one agent × user; it is kept with the issuer that gave it, and a client
registration is shown to no other issuer.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from exeat.adapters.consent_links import ConsentLinks, Wish
from exeat.adapters.exchange import granted
from exeat.adapters.held_tokens import NOTHING_HELD, Held, Key, TokenStore, early_s, key_of
from exeat.adapters.oauth_client import OAuthClient, Token, TokenRefused
from exeat.core.errors import ExeatError
from exeat.core.facts import ServerSpec
from exeat.core.upstream_auth import (
    AuthMode,
    ConsentNeeded,
    Credential,
    CredentialFailed,
    Refused,
)
from exeat.identity.model.client import Client, ClientAuth
from exeat.identity.upstream.challenge import Challenge, read_challenge
from exeat.identity.upstream.rules import (
    AuthorizationServer,
    Resource,
    scopes_to_ask,
    union,
    with_offline,
)

STEP_UPS_MAX: Final = 3
"""Times that more scope is asked for within STEP_UPS_S, for one server and principal."""
STEP_UPS_S: Final = 600
LOOK_EVERY_S: Final = 1.0
RELOAD_S: Final = 30
"""How long a token from memory is used before the store is asked whether it still stands."""
HELD_MAX: Final = 10_000
_S: Final = 1_000_000_000

Notice = Callable[[str, str, Mapping[str, Any]], None]
"""(kind, server, details without secrets) → an event in the ledger."""


OpenSecret = Callable[[str, str, str], Awaitable[bytes]]
"""(agent or empty, server, name) → a secret of the vault.  Raises ExeatError."""


_UNKNOWN: Final = (NOTHING_HELD, -RELOAD_S)


@dataclass(frozen=True, slots=True)
class Place:
    """Where access to one server is given, and for what."""

    resource: Resource
    server: AuthorizationServer


class UpstreamCredentials:
    """``client_for``: the OAuth client that may be used for what a server at this URL names.  ``page``:
    the URL under which consent pages are served.  ``document``: of our client ID metadata document, or
    empty.  Of one event loop."""

    def __init__(
        self,
        client_for: Callable[[str], OAuthClient],
        store: TokenStore,
        links: ConsentLinks,
        clock: Callable[[], int],
        notice: Notice,
        *,
        page: str,
        document: str = "",
        open_secret: OpenSecret | None = None,
    ) -> None:
        self.client_for, self.store, self.links = client_for, store, links
        self.redirect_uri = f"{page}/callback"
        self.document = document
        self._page, self._clock, self._notice = page, clock, notice
        self._open_secret = open_secret
        self.shown: Callable[[str], tuple[str, str]] = lambda principal: ("", "")
        """Principal → issuer and token by which it is known to the gateway now."""
        self._held: dict[Key, tuple[Held, int]] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        self._steps: dict[Key, tuple[int, int]] = {}
        self._arrived: dict[Key, asyncio.Event] = {}

    def account(self, spec: ServerSpec, principal: str) -> "Account":
        return Account(self, spec, key_of(spec, principal))

    # ---- what accounts ask

    def current(self, key: "Key") -> Credential | None:
        now, (held, at) = self._now(), self._held.get(key, _UNKNOWN)
        if not 0 <= now - at < RELOAD_S or not held.fresh(now):
            return None
        return held.credential

    async def obtain(self, spec: ServerSpec, key: "Key", refused: Refused | None) -> Credential:
        async with self._locks.setdefault(key, asyncio.Lock()):
            held = await self._load(key)  # renewed by another gateway, or withdrawn, meanwhile?
            if refused is None:
                return (await self._renewed(spec, key, held)).credential
            if held.access and held.credential != refused.credential:
                return held.credential  # another request was faster
            return (await self._after(spec, key, held, refused)).credential

    async def consented(self, key: "Key", seconds: float) -> bool:
        """The callback may come to another worker: then the token is found in the store."""
        arrived = self._arrived.setdefault(key, asyncio.Event())
        for _ in range(max(1, int(seconds / LOOK_EVERY_S))):
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await arrived.wait()
                    return True
            except TimeoutError:
                if (await self._load(key)).access:
                    return True
        return False

    # ---- keeping

    def _now(self) -> int:
        return self._clock() // _S

    async def _load(self, key: Key) -> Held:
        raw = await self.store.get(key.agent, key.server, key.name)
        held = Held.read(raw) if raw else NOTHING_HELD
        self._remember(key, held)
        return held

    def _remember(self, key: Key, held: Held) -> None:
        if len(self._held) >= HELD_MAX:
            self._held.clear()
        self._held[key] = (held, self._now())

    async def _keep(
        self, key: Key, before: Held, place: Place, asked: tuple[str, ...], token: Token
    ) -> Held:
        now = self._now()
        held = Held(
            token.access,
            token.refresh or before.refresh,
            now + token.life_s if token.life_s else 0,
            early_s(token.life_s),
            asked,
            asked if token.scopes is None else token.scopes,
            place.server.issuer,
            place.resource.uri,
        )
        await self._put(key, held)
        details = {"issuer": held.issuer, "scopes": list(held.scopes), "whose": key.whose}
        self._notice("upstream.credential_obtained", key.server, details)
        return held

    async def _put(self, key: Key, held: Held) -> None:
        self._remember(key, held)
        await self.store.put(key.agent, key.server, key.name, held.written())

    # ---- renewing

    async def _renewed(self, spec: ServerSpec, key: Key, held: Held) -> Held:
        """Before it is sent: what is fresh as it is, what ended refreshed.  A refresh that is refused
        leaves nothing, and the server says what it wants."""
        if held.fresh(self._now()):
            return held
        if held.refresh:
            found = await self._refreshed(spec, key, held)
            if found is not None:
                return found
        emptied = replace(held, access="", refresh="", expires_at=0)
        await self._put(key, emptied)
        return emptied

    async def _refreshed(self, spec: ServerSpec, key: Key, held: Held) -> Held | None:
        """None: the grant is over.  Raises CredentialFailed if the server cannot be asked."""
        oauth = self.client_for(spec.url)
        server = await oauth.server(held.issuer)
        client = await self.client(spec, oauth, server, register=False)
        if client is None:
            return None
        form = {
            "grant_type": "refresh_token",
            "refresh_token": held.refresh,
            "resource": held.resource,
        }
        try:
            token = await oauth.token(server, client, form)
        except TokenRefused as refused:
            if refused.error in ("invalid_grant", "invalid_client", "unauthorized_client"):
                return None
            raise
        place = Place(Resource(held.resource, held.issuer, None), server)
        granted = token if token.scopes is not None else replace(token, scopes=held.scopes)
        return await self._keep(key, held, place, held.asked, granted)

    async def _after(self, spec: ServerSpec, key: Key, held: Held, refused: Refused) -> Held:
        """The server refused: 401, or 403 for want of scope."""
        challenge = read_challenge(refused.challenge)
        oauth = self.client_for(spec.url)
        place = await self.place(spec, oauth, challenge.resource_metadata)
        same = held.issuer == place.server.issuer
        asked = scopes_to_ask(
            challenge.scopes, place.resource, held.asked if same else (), spec.auth.scopes
        )
        if refused.status == 403:
            self._step_up(spec, key, held, challenge)
        elif held.refresh and same and held.access:
            emptied = replace(held, access="", expires_at=0)
            await self._put(key, emptied)
            found = await self._refreshed(spec, key, emptied)
            if found is not None:
                return found
        dropped = Held(asked=held.asked if same else (), issuer=held.issuer)
        await self._put(key, dropped)
        if spec.auth.mode is AuthMode.AUTHORIZATION_CODE:
            raise self._consent(spec, key, asked, challenge)
        return await self._granted(spec, key, oauth, place, asked)

    def _step_up(self, spec: ServerSpec, key: Key, held: Held, challenge: Challenge) -> None:
        """Raises CredentialFailed when asking for more again would change nothing."""
        since, count = self._steps.get(key, (self._now(), 0))
        if self._now() - since > STEP_UPS_S:
            since, count = self._now(), 0
        self._steps[key] = (since, count + 1)
        if set(challenge.scopes) <= set(held.scopes) or count >= STEP_UPS_MAX:
            raise CredentialFailed(
                f"server {spec.id} refuses access with the scopes that it asked for "
                f"({' '.join(challenge.scopes) or 'none named'})",
                remedy="ask the server's operator what access this account needs",
            )

    def _consent(
        self, spec: ServerSpec, key: Key, asked: tuple[str, ...], challenge: Challenge
    ) -> ExeatError:
        server, agent, person = key.server, key.agent, key.whose.partition("/")[2]
        if person in ("", "-"):
            return CredentialFailed(
                f"server {server} gives access to people, and agent {agent} acts for nobody",
                remedy="the agent has to sign in, or to show a key that names the person for whom it"
                f" acts: exeat key issue {agent} --user PERSON",
            )
        if key not in self._arrived or self._arrived[key].is_set():
            self._arrived[key] = asyncio.Event()
        link = self.links.seal(Wish(server, key.whose, asked, challenge.resource_metadata))
        return ConsentNeeded(server, f"{self._page}/consent/{link}", link[-24:])

    async def _granted(
        self,
        spec: ServerSpec,
        key: Key,
        oauth: OAuthClient,
        place: Place,
        asked: tuple[str, ...],
    ) -> Held:
        """The gateway's own access, without a person."""
        client = await self.client(spec, oauth, place.server, register=False)
        if client is None or not spec.auth.client_id:
            raise CredentialFailed(
                f"server {spec.id} has no client_id for {place.server.issuer}",
                remedy=f"exeat server change {spec.id} --auth-with client_id=ID",
            )
        subject = self._subject(spec, key) if spec.auth.for_caller else ""
        token = await granted(
            oauth, spec.auth, client, place.server, place.resource, asked, subject
        )
        return await self._keep(key, NOTHING_HELD, place, asked, replace(token, refresh=""))

    def _subject(self, spec: ServerSpec, key: Key) -> str:
        """What the caller showed us, for the issuer that gave it and nobody else.  Raises
        CredentialFailed."""
        issuer, token = self.shown(key.whose)
        wanted = spec.auth.idp or spec.auth.issuer
        if not token or issuer != wanted:
            raise CredentialFailed(
                f"server {spec.id} gives access in exchange for a token of {wanted}, and agent "
                f"{key.agent} showed none",
                remedy="sign in there; an agent's key and other issuers' tokens are not exchanged",
            )
        return token

    # ---- shared with the consent page (adapters.consent)

    async def place(self, spec: ServerSpec, oauth: OAuthClient, named: str) -> Place:
        """Raises CredentialFailed: nothing found, or not the issuer that the operator named."""
        wanted = spec.auth.issuer
        resource = await oauth.resource(spec.url, named, wanted)
        if wanted and resource.issuer != wanted:
            raise CredentialFailed(
                f"server {spec.id} now sends to the authorization server {resource.issuer}, "
                f"and its registration names {wanted}",
                remedy="find out why; register the server again if the change is meant",
            )
        return Place(resource, await oauth.server(resource.issuer))

    async def client(
        self,
        spec: ServerSpec,
        oauth: OAuthClient,
        server: AuthorizationServer,
        *,
        register: bool,
    ) -> Client | None:
        """Who we are there: pre-registered, by metadata document, or registered dynamically, in that
        order.  None: not known there, and ``register`` does not allow to become so."""
        if spec.auth.client_id:
            return await self._configured(spec, server)
        if self.document and server.takes_documents:
            return Client(server.issuer, self.document)
        name = self._registration_name(server)
        raw = await self.store.get("", "", name)
        if raw:
            kept = json.loads(raw)
            method = ClientAuth(kept["auth"])
            return Client(server.issuer, kept["client_id"], method, secret=kept["secret"])
        if not register:
            return None
        if not server.registration_endpoint:
            raise CredentialFailed(
                f"{server.issuer} does not know this gateway, and registers no clients by itself",
                remedy="register the gateway there by hand, then run"
                f" exeat server change {spec.id} --auth-with client_id=ID",
            )
        client = await oauth.register(server, self.redirect_uri)
        kept = {"client_id": client.client_id, "auth": client.auth.value, "secret": client.secret}
        await self.store.put("", "", name, json.dumps(kept).encode())
        return client

    async def _configured(self, spec: ServerSpec, server: AuthorizationServer) -> Client:
        """The client that an operator registered there.  Raises CredentialFailed without its secret."""
        auth = spec.auth
        if auth.key_file:
            key = _key_file(auth.key_file)
            return Client(server.issuer, auth.client_id, ClientAuth.PRIVATE_KEY_JWT, key=key)
        if not auth.secret and not auth.secret_from:
            return Client(server.issuer, auth.client_id)
        secret = os.environ.get(auth.secret_from, "")
        if auth.secret and self._open_secret is not None:
            try:
                secret = (await self._open_secret("", spec.id, auth.secret)).decode()
            except (ExeatError, UnicodeDecodeError):
                secret = ""
        if not secret:
            where = f"secret {auth.secret}" if auth.secret else f"variable {auth.secret_from}"
            raise CredentialFailed(
                f"server {spec.id} needs the {where}, which is not set or cannot be read",
                remedy=f"set the {where} for the gateway",
            )
        method = ClientAuth.BASIC
        if ClientAuth.BASIC not in server.methods and ClientAuth.POST in server.methods:
            method = ClientAuth.POST
        return Client(server.issuer, auth.client_id, method, secret=secret)

    def _registration_name(self, server: AuthorizationServer) -> str:
        """A registration belongs to the issuer that gave it, and to the address it was made for."""
        meant = f"{server.issuer} {self.redirect_uri}"
        return f"oauth-client:{hashlib.sha256(meant.encode()).hexdigest()[:32]}"

    def asking(self, wish: Wish, place: Place) -> tuple[str, ...]:
        return with_offline(union(wish.scopes), place.server)

    async def forget(self, spec: ServerSpec, principal: str) -> bool:
        """Withdraw: gone from the store, and from every gateway's memory within RELOAD_S.  False if
        there was none."""
        key = key_of(spec, principal)
        self._held.pop(key, None)
        there = await self.store.get(key.agent, key.server, key.name) is not None
        await self.store.remove(key.agent, key.server, key.name)
        return there

    async def arrived(
        self,
        spec: ServerSpec,
        wish: Wish,
        place: Place,
        asked: tuple[str, ...],
        token: Token,
    ) -> None:
        """The person consented, and the code was exchanged."""
        key = key_of(spec, wish.whose)
        await self._keep(key, NOTHING_HELD, place, asked, token)
        self._arrived.setdefault(key, asyncio.Event()).set()


class Account:
    """``gateway.ports.Account`` of one server and principal."""

    def __init__(self, source: UpstreamCredentials, spec: ServerSpec, key: Key) -> None:
        self._source, self._spec, self._key = source, spec, key

    def current(self) -> Credential | None:
        return self._source.current(self._key)

    async def obtain(self, refused: Refused | None) -> Credential:
        return await self._source.obtain(self._spec, self._key, refused)

    async def consented(self, seconds: float) -> bool:
        return await self._source.consented(self._key, seconds)


def _key_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise CredentialFailed(f"the key file {path} cannot be read") from None

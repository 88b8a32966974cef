"""The questions of one sign-in, from the gateway's challenge to the token (MCP 2026-07-28, Authorization).

Keeps nothing; every URL is one that the gateway, or what it named, gave us, so each is checked before
it is called or shown (GW-10).
"""

import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from exeat.adapters.native.callback import listening
from exeat.adapters.native.kept import NOTHING, Kept
from exeat.adapters.oauth_client import OAuthClient, Token, TokenRefused
from exeat.core.upstream_auth import CredentialFailed
from exeat.identity.model.client import Client, ClientAuth
from exeat.identity.upstream.challenge import Challenge
from exeat.identity.upstream.rules import (
    Asking,
    AuthorizationServer,
    Resource,
    authorization_url,
    check_response_issuer,
    registration,
    scopes_to_ask,
    with_offline,
)

EARLY_S: Final = 60
"""A token is renewed so long before its end, or at three quarters of a shorter life."""
CLIENT_NAME_MAX_CHARS: Final = 64
_CLOSED: Final = (
    "an admin runs `exeat client open`, then try again; or name a client with --client-id, or a key"
    " with --key-file"
)


@dataclass(frozen=True, slots=True)
class Place:
    """``url``: the resource, exactly.  ``plain_http``: hosts to which secrets may travel unencrypted.
    ``client_id``: the client that an admin added, or empty.  ``name``: of this sign-in, or empty."""

    url: str
    plain_http: frozenset[str]
    client_id: str = ""
    name: str = ""


class NativeClient:
    """``show``: brings the URL to the person.  ``clock``: nanoseconds since the epoch.

    Every verb raises CredentialFailed; TokenRefused if the authorization server said no.
    """

    def __init__(
        self,
        place: Place,
        oauth: OAuthClient,
        show: Callable[[str], None],
        clock: Callable[[], int],
    ) -> None:
        self._place, self._oauth, self._show, self._clock = place, oauth, show, clock

    async def sign_in(
        self,
        kept: Kept,
        challenge: Challenge,
        before: tuple[str, ...],
        keep: Callable[[Kept], None],
    ) -> Kept:
        """Waits for the person without end.

        1. The resource's metadata, of exactly this URL (RFC 9728 section 3.3).
        2. Its authorization server's, of exactly that issuer (RFC 8414 section 3.3), with PKCE S256.
        3. A listener on this machine, then a client that the server knows: given, kept or registered.
        4. The person's browser; one answer, with our ``state`` and the server's ``iss`` (RFC 9207).
        5. The code becomes a token for this resource (RFC 8707).

        ``before``: scopes to ask for again (step-up).  ``keep`` is told of a registration at once.
        """
        resource = await self._resource(challenge.resource_metadata)  # 1
        server = await self._server(resource.issuer)  # 2
        known = kept if kept.issuer == server.issuer else NOTHING
        scopes = with_offline(scopes_to_ask(challenge.scopes, resource, before, ()), server)
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        async with listening(state, known.port) as callback:  # 3
            client = await self._client(server, known, callback.uri)
            port = known.port if client.client_id == known.client_id else callback.port
            found = Kept(server.issuer, client.client_id, client.auth.value, client.secret, port)
            keep(found)
            asking = Asking(
                client.client_id, callback.uri, state, verifier, resource.uri, scopes
            )  # fmt: skip
            self._show(authorization_url(server, asking))  # 4
            answer = await callback.answer()
        check_response_issuer(answer.get("iss"), server)
        if answer.get("error") or not answer.get("code"):
            raise CredentialFailed(
                "No access was given on the sign-in page",
                remedy="send the request again to be asked once more",
            )
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": asking.redirect_uri,
            "code_verifier": asking.verifier,
            "resource": asking.resource,
        }
        return self._with(found, await self._oauth.token(server, client, form), scopes)  # 5

    async def renew(self, kept: Kept) -> Kept:
        """The refresh token, at the authorization server that gave it."""
        server = await self._server(kept.issuer)
        form = {
            "grant_type": "refresh_token",
            "refresh_token": kept.refresh,
            "resource": self._place.url,
        }
        token = await self._oauth.token(server, _client_of(kept), form)
        return self._with(kept, token, kept.scopes)

    async def revoke(self, kept: Kept) -> None:
        """RFC 7009; of the refresh token, and so of the whole authorization, if there is one."""
        server = await self._server(kept.issuer)
        if not server.revocation_endpoint:
            raise CredentialFailed(f"{server.issuer} revokes no tokens")
        self._check(server.revocation_endpoint)
        kind = "refresh_token" if kept.refresh else "access_token"
        form = {"token": kept.refresh or kept.access, "token_type_hint": kind}
        await self._oauth.revoke(server.revocation_endpoint, _client_of(kept), form)

    async def _resource(self, named: str) -> Resource:
        if named:
            self._check(named)
        found = await self._oauth.resource(self._place.url, named)
        if found.uri != self._place.url:
            raise CredentialFailed(
                f"The gateway's metadata is of another resource, {found.uri[:200]!r}",
                remedy="give the bridge exactly the URL that the gateway shows",
            )
        return found

    async def _server(self, issuer: str) -> AuthorizationServer:
        self._check(issuer)
        server = await self._oauth.server(issuer)
        self._check(server.token_endpoint)
        self._check(server.authorization_endpoint)
        if not server.pkce:
            raise CredentialFailed(
                f"{server.issuer} does not say that it does PKCE with S256, so its codes are not"
                " protected"
            )
        return server

    async def _client(self, server: AuthorizationServer, known: Kept, redirect: str) -> Client:
        if self._place.client_id:
            return Client(server.issuer, self._place.client_id)
        if known.client_id and await self._is_known(server, known):
            return _client_of(known)
        if not server.registration_endpoint:
            raise CredentialFailed(
                f"{server.issuer} does not let programs register themselves now", remedy=_CLOSED
            )
        self._check(server.registration_endpoint)
        document = registration(redirect, server, self._client_name())
        document["token_endpoint_auth_method"] = ClientAuth.NONE.value
        try:
            return await self._oauth.register_as(server, document)
        except TokenRefused as refused:
            raise CredentialFailed(str(refused), remedy=_CLOSED) from None

    async def _is_known(self, server: AuthorizationServer, known: Kept) -> bool:
        """Whether a kept registration still holds: an authorization endpoint would tell only the person.
        A refresh token that is none shows it (RFC 6749 section 5.2: invalid_client, or invalid_grant)."""
        form = {"grant_type": "refresh_token", "refresh_token": secrets.token_urlsafe(16)}
        try:
            await self._oauth.ask_token(server.token_endpoint, _client_of(known), form)
        except TokenRefused as refused:
            return refused.error not in ("invalid_client", "unauthorized_client")
        return True

    def _client_name(self) -> str:
        """What the consent page shows, beside a host that it can trust more."""
        of = f", {self._place.name}" if self._place.name else ""
        return f"exeat bridge on {platform.node() or 'this machine'}{of}"[:CLIENT_NAME_MAX_CHARS]

    def _check(self, url: str) -> None:
        self._oauth.check(url)
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname not in self._place.plain_http:
            raise CredentialFailed(
                f"Tokens would travel unencrypted to {parts.hostname}",
                remedy="use https there, or allow it with --allow-http if the network is yours",
            )

    def _with(self, kept: Kept, token: Token, asked: tuple[str, ...]) -> Kept:
        now_s = self._clock() / 1_000_000_000
        early = min(EARLY_S, token.life_s / 4) if token.life_s else 0
        return replace(
            kept,
            access=token.access,
            refresh=token.refresh or kept.refresh,
            renew_at=now_s + token.life_s - early if token.life_s else 0,
            scopes=asked if token.scopes is None else token.scopes,
        )


def _client_of(kept: Kept) -> Client:
    return Client(kept.issuer, kept.client_id, ClientAuth(kept.method), secret=kept.secret)

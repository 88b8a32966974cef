"""ID-9: the questions of an OAuth client, each one HTTP request through the guarded client (GW-10).

Keeps nothing: who asks keeps tokens and registrations.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from exeat.adapters.client_auth import show
from exeat.adapters.fetch import Fetched, Fetcher, FetchRefused
from exeat.core.upstream_auth import CredentialFailed
from exeat.identity.model.client import Client
from exeat.identity.rules.discovery import (
    resource_metadata_urls,
    server_metadata_urls,
    text,
)
from exeat.identity.upstream.challenge import scopes_of
from exeat.identity.upstream.rules import (
    AuthorizationServer,
    Resource,
    auth_method,
    read_resource,
    read_server,
    registration,
)

NAME: Final = "exeat"
LIFE_MAX_S: Final = 30 * 24 * 3600
_ERRORS: Final = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "access_denied",
     "unsupported_grant_type", "invalid_scope", "invalid_target", "invalid_redirect_uri",
     "invalid_client_metadata", "server_error", "temporarily_unavailable", "interaction_required"}
)  # fmt: skip


class TokenRefused(CredentialFailed):
    """The authorization server answered with an error.  ``error``: its code, or empty."""

    def __init__(self, message: str, error: str = "") -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Token:
    """``life_s`` None: the server does not say.  ``scopes`` None: it granted what was asked for."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    life_s: int | None = None
    scopes: tuple[str, ...] | None = None


class OAuthClient:
    """``clock``: nanoseconds since the epoch."""

    def __init__(self, fetcher: Fetcher, clock: Callable[[], int]) -> None:
        self._fetcher = fetcher
        self._clock = clock

    def check(self, url: str) -> None:
        """Raises CredentialFailed if ``url`` is none that may be followed."""
        try:
            self._fetcher.check(url)
        except FetchRefused as refused:
            raise CredentialFailed(str(refused), remedy=refused.remedy) from None

    # ---- discovery

    async def resource(self, server: str, named: str, wanted: str = "") -> Resource:
        """RFC 9728 metadata of the MCP server at ``server``: where the challenge says (``named``), then
        the well-known places.  ``wanted``: the issuer that an operator chose.  Raises
        CredentialFailed."""
        urls = ([named] if named else []) + list(resource_metadata_urls(server))
        document = await self._first(urls, f"protected resource metadata of {server}")
        return read_resource(document, server, wanted)

    async def server(self, issuer: str) -> AuthorizationServer:
        """Raises CredentialFailed."""
        urls = server_metadata_urls(issuer)
        return read_server(await self._first(urls, f"metadata of issuer {issuer}"), issuer)

    async def _first(self, urls: Sequence[str], what: str) -> Mapping[str, Any]:
        trouble = ""
        for url in urls:
            try:
                fetched = await self._fetcher.get(url)
                if fetched.status == 200:
                    return fetched.json()
                trouble = f"{fetched.url} answered {fetched.status}"
            except FetchRefused as refused:
                trouble = str(refused)
        raise CredentialFailed(f"no {what} was found: {trouble}")

    # ---- registration (RFC 7591)

    async def register(self, server: AuthorizationServer, redirect_uri: str) -> Client:
        """Raises CredentialFailed."""
        return await self.register_as(server, registration(redirect_uri, server, NAME))

    async def register_as(self, server: AuthorizationServer, document: Mapping[str, Any]) -> Client:
        """Raises TokenRefused, CredentialFailed."""
        fetched = await self._ask(
            lambda: self._fetcher.post_json(server.registration_endpoint, document)
        )
        if fetched.status not in (200, 201):
            raise _refusal(fetched, f"{server.issuer} did not register this client")
        answer = _document(fetched)
        client_id, secret = text(answer, "client_id"), text(answer, "client_secret")
        if not client_id:
            raise CredentialFailed(f"{server.issuer} registered this client without a client_id")
        given = text(answer, "token_endpoint_auth_method")
        method = auth_method(given, server, secret=secret)
        return Client(server.issuer, client_id, method, secret=secret)

    # ---- tokens

    async def token(
        self, server: AuthorizationServer, client: Client, form: Mapping[str, str]
    ) -> Token:
        """One token request (RFC 6749 section 3.2).  Raises TokenRefused, CredentialFailed."""
        if client.issuer != server.issuer:  # never show one server's credential to another
            raise CredentialFailed(
                f"the client {client.client_id!r} is not known to {server.issuer}"
            )
        answer = await self.ask_token(server.token_endpoint, client, form)
        kind, access = text(answer, "token_type"), text(answer, "access_token")
        if kind.lower() != "bearer" or not _sendable(access):
            raise CredentialFailed(f"{server.issuer} gave no bearer token")
        life = answer.get("expires_in")
        said = answer.get("scope")
        return Token(
            access,
            text(answer, "refresh_token"),
            min(int(life), LIFE_MAX_S) if _is_number(life) else None,  # type: ignore[arg-type]
            scopes_of(said) if isinstance(said, str) else None,
        )

    async def ask_token(
        self, endpoint: str, client: Client, form: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """The answer of a token endpoint as it is.  Raises TokenRefused, CredentialFailed."""
        shown = show(
            client, now_s=self._clock() // 1_000_000_000, token_id=secrets.token_urlsafe(16)
        )
        sent = {**form, **shown.form}
        fetched = await self._ask(lambda: self._fetcher.post(endpoint, sent, headers=shown.headers))
        if fetched.status not in (200, 201):
            raise _refusal(fetched, f"{client.issuer} gave no token")
        return _document(fetched)

    async def revoke(self, endpoint: str, client: Client, form: Mapping[str, str]) -> None:
        """RFC 7009 section 2.1.  Raises TokenRefused, CredentialFailed."""
        shown = show(
            client, now_s=self._clock() // 1_000_000_000, token_id=secrets.token_urlsafe(16)
        )
        sent = {**form, **shown.form}
        fetched = await self._ask(lambda: self._fetcher.post(endpoint, sent, headers=shown.headers))
        if fetched.status != 200:
            raise _refusal(fetched, f"{client.issuer} did not revoke the token")

    async def _ask(self, send: Callable[[], Any]) -> Fetched:
        try:
            found: Fetched = await send()
        except FetchRefused as refused:
            raise CredentialFailed(str(refused), remedy=refused.remedy) from None
        return found


def _document(fetched: Fetched) -> Mapping[str, Any]:
    try:
        return fetched.json()
    except FetchRefused as refused:
        raise CredentialFailed(str(refused)) from None


def _refusal(fetched: Fetched, what: str) -> TokenRefused:
    """Only known codes are repeated: a server's own words might hold what was sent to it."""
    try:
        error = text(fetched.json(), "error")
    except FetchRefused:
        error = ""
    shown = error if error in _ERRORS else "no known error code"
    return TokenRefused(f"{what} (HTTP {fetched.status}, {shown})", error)


def _sendable(access: str) -> bool:
    return (
        0 < len(access) <= 16_384
        and access.isascii()
        and access.isprintable()
        and " " not in access
    )


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float) and value > 0

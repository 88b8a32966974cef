"""Rules of the MCP authorization specification (2026-07-28) for a client.  Pure."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from exeat.core.upstream_auth import CredentialFailed
from exeat.identity.model.client import ClientAuth
from exeat.identity.rules.discovery import text, texts
from exeat.identity.upstream.challenge import scopes_of

OFFLINE: Final = "offline_access"
_PREFERRED: Final = (ClientAuth.BASIC, ClientAuth.POST, ClientAuth.NONE)


@dataclass(frozen=True, slots=True)
class Resource:
    """What a protected resource says of itself (RFC 9728), and where its access is given."""

    uri: str
    issuer: str
    scopes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """Validated metadata (RFC 8414).  ``methods`` empty: it does not say."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    methods: tuple[str, ...] = ()
    pkce: bool = False
    says_issuer: bool = False
    takes_documents: bool = False
    """Client ID metadata documents (CIMD)."""
    scopes: tuple[str, ...] = ()
    revocation_endpoint: str = ""


def read_resource(document: Mapping[str, Any], server: str, wanted: str = "") -> Resource:
    """Metadata found for the MCP server at the URL ``server``.  ``wanted``: the authorization server to
    choose if it is among those named; else the first.  Raises CredentialFailed if it is of another
    resource (RFC 9728 section 3.3), or names no authorization server."""
    uri = text(document, "resource")
    if not covers(uri, server):
        raise CredentialFailed(f"the metadata found for {server} is of another resource, {uri!r}")
    servers = texts(document, "authorization_servers")
    if not servers:
        raise CredentialFailed(f"the metadata of {uri} names no authorization server")
    listed = document.get("scopes_supported")
    scopes = scopes_of(" ".join(texts(document, "scopes_supported")))
    chosen = wanted if wanted in servers else servers[0]
    return Resource(uri, chosen, scopes if isinstance(listed, list) else None)


def covers(resource: str, server: str) -> bool:
    """Whether ``resource`` is the server's URL, or a parent of it at the same origin."""
    try:
        a, b = urlsplit(resource), urlsplit(server)
        same = (a.scheme, a.hostname, _port(a.scheme, a.port)) == (
            b.scheme, b.hostname, _port(b.scheme, b.port)
        )  # fmt: skip
    except ValueError:
        return False
    if not same or not a.hostname or a.fragment or "@" in a.netloc:
        return False
    if a.query and a.query != b.query:
        return False
    parent, path = a.path.rstrip("/") + "/", b.path.rstrip("/") + "/"
    return path.startswith(parent)


def _port(scheme: str, port: int | None) -> int | None:
    return port or {"https": 443, "http": 80}.get(scheme)


def read_server(document: Mapping[str, Any], issuer: str) -> AuthorizationServer:
    """Raises CredentialFailed if the metadata is another issuer's (compared exactly, RFC 8414 section
    3.3), or lacks what every flow needs."""
    if document.get("issuer") != issuer:
        raise CredentialFailed(
            f"the metadata found for issuer {issuer!r} is of {document.get('issuer')!r}"
        )
    token_endpoint = text(document, "token_endpoint")
    if not token_endpoint:
        raise CredentialFailed(f"the metadata of {issuer} names no token endpoint")
    return AuthorizationServer(
        issuer,
        token_endpoint,
        text(document, "authorization_endpoint"),
        text(document, "registration_endpoint"),
        texts(document, "token_endpoint_auth_methods_supported"),
        "S256" in texts(document, "code_challenge_methods_supported"),
        document.get("authorization_response_iss_parameter_supported") is True,
        document.get("client_id_metadata_document_supported") is True,
        texts(document, "scopes_supported"),
        text(document, "revocation_endpoint"),
    )


def union(*groups: Iterable[str]) -> tuple[str, ...]:
    """All scopes in order, each once."""
    return tuple(dict.fromkeys(scope for group in groups for scope in group))


def scopes_to_ask(
    challenged: Iterable[str], resource: Resource, before: Iterable[str], own: Iterable[str]
) -> tuple[str, ...]:
    """Scope selection: what the challenge says, else what the resource lists; always with what was asked
    for before (step-up) and what the operator configured."""
    first = tuple(challenged) or resource.scopes or ()
    return union(before, first, own)


def with_offline(scopes: tuple[str, ...], server: AuthorizationServer) -> tuple[str, ...]:
    """A refresh token is asked for where the server lists that scope, and something is asked for."""
    return union(scopes, (OFFLINE,)) if scopes and OFFLINE in server.scopes else scopes


def challenge_of(verifier: str) -> str:
    """PKCE S256 (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Asking:
    """One authorization request.  ``resource`` is sent with it and with the token request (RFC 8707)."""

    client_id: str
    redirect_uri: str
    state: str
    verifier: str
    resource: str
    scopes: tuple[str, ...]


def authorization_url(server: AuthorizationServer, asking: Asking) -> str:
    """Where the browser is sent.  Raises CredentialFailed if the server does no PKCE with S256."""
    if not server.authorization_endpoint:
        raise CredentialFailed(f"{server.issuer} has no authorization endpoint")
    if not server.pkce:
        raise CredentialFailed(
            f"{server.issuer} does not say that it does PKCE with S256, so its codes are not protected"
        )
    fields = {
        "response_type": "code",
        "client_id": asking.client_id,
        "redirect_uri": asking.redirect_uri,
        "state": asking.state,
        "code_challenge": challenge_of(asking.verifier),
        "code_challenge_method": "S256",
        "resource": asking.resource,
    }
    if asking.scopes:
        fields["scope"] = " ".join(asking.scopes)
    if OFFLINE in asking.scopes:
        fields["prompt"] = "consent"  # OpenID Connect Core section 11
    joint = "&" if "?" in server.authorization_endpoint else "?"
    return f"{server.authorization_endpoint}{joint}{urlencode(fields)}"


def check_response_issuer(told: str | None, server: AuthorizationServer) -> None:
    """RFC 9207 section 2.4, before anything else of the response is believed.  No normalization.
    Raises CredentialFailed."""
    if told is None:
        if server.says_issuer:
            raise CredentialFailed(f"the answer does not say that it comes from {server.issuer}")
    elif told != server.issuer:
        raise CredentialFailed("the answer comes from another authorization server")


def auth_method(given: str, server: AuthorizationServer, *, secret: str) -> ClientAuth:
    """How a registered client shows itself: as it was told, else the best that the server lists."""
    if not secret:
        return ClientAuth.NONE
    for name in (given, *(() if given else server.methods)):
        if name in (ClientAuth.BASIC, ClientAuth.POST):
            return ClientAuth(name)
    if given:
        raise CredentialFailed(f"{server.issuer} wants the client to show itself by {given[:40]!r}")
    return ClientAuth.BASIC


def registration(redirect_uri: str, server: AuthorizationServer, name: str) -> dict[str, Any]:
    """RFC 7591.  ``application_type``: a redirect to this machine is a native application's."""
    host = urlsplit(redirect_uri).hostname
    native = host in ("localhost", "127.0.0.1", "::1")
    offered = [method for method in _PREFERRED if method in server.methods]
    document: dict[str, Any] = {
        "client_name": name,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "native" if native else "web",
    }
    if offered:
        document["token_endpoint_auth_method"] = offered[0].value
    return document

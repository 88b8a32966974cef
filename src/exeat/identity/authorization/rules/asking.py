"""The authorization request (OAuth 2.1 4.1.1): what is told to the person, and what to the client."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from exeat.core.ids import ServerId
from exeat.identity.authorization.model.client import CODE, Client, ClientKind
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.parameters import need
from exeat.identity.authorization.rules.pkce import challenge_is_sound
from exeat.identity.authorization.rules.redirects import (
    Redirect,
    read_private,
    read_redirect,
    redirect_matches,
)
from exeat.identity.authorization.rules.resources import Resource, Resources
from exeat.identity.authorization.rules.scopes import read_scopes

STATE_MAX_CHARS: Final = 2048


@dataclass(frozen=True, slots=True)
class Asking:
    """A sound request of a known client, to be put before a person."""

    client: Client
    redirect_uri: str
    resource: Resource
    scopes: tuple[str, ...]
    challenge: str
    state: str
    prompt: str
    jkt: str = ""

    @property
    def redirect(self) -> Redirect:
        found = read_redirect(self.redirect_uri) or read_private(self.redirect_uri)
        assert found is not None  # noqa: S101 - it matched a registered one
        return found

    @property
    def impersonable(self) -> bool:
        """Any program on the person's machine could have asked for this in the client's name, so a
        remembered consent would be everybody's (OAuth 2.1 7.3)."""
        return self.redirect.native and not self.client.confidential


def redirect_of(client: Client, given: Mapping[str, str]) -> str:
    """The redirect URI to answer to.  Raises Refused, which only the person may be told: sending it
    on would make us an open redirector (OAuth 2.1 7.12.2)."""
    asked = need(given, "redirect_uri")
    if CODE not in client.grants or not client.redirects:
        raise Refused("unauthorized_client", "This client does not sign people in.")
    by_admin = client.kind is ClientKind.REGISTERED
    sound = read_redirect(asked) or (read_private(asked) if by_admin else None)
    if sound is None or not any(
        redirect_matches(registered, asked) for registered in client.redirects
    ):
        raise Refused("invalid_request", "The redirect URI is not one of this client's.")
    return asked


def read_asking(
    client: Client,
    redirect_uri: str,
    given: Mapping[str, str],
    resources: Resources,
    servers: Collection[ServerId],
) -> Asking:
    """The rest of the request.  Raises Refused, which the client is told at its redirect URI."""
    if need(given, "response_type") != "code":
        raise Refused("unsupported_response_type", "Only the response type code exists here.")
    if given.get("response_mode", "query") != "query":
        raise Refused("invalid_request", "Only the response mode query exists here.")
    if "request" in given or "request_uri" in given:
        raise Refused("request_not_supported", "Request objects are not supported.")
    if given.get("code_challenge_method") != "S256":
        raise Refused("invalid_request", "PKCE with the method S256 is required.")
    if not challenge_is_sound(need(given, "code_challenge")):
        raise Refused("invalid_request", "The code challenge is not one of S256.")
    if len(given.get("state", "")) > STATE_MAX_CHARS:
        raise Refused("invalid_request", "The state is too long.")
    return Asking(
        client=client,
        redirect_uri=redirect_uri,
        resource=resources.find(need(given, "resource"), servers),
        scopes=read_scopes(given.get("scope", "")),
        challenge=given["code_challenge"],
        state=given.get("state", ""),
        prompt=given.get("prompt", ""),
        jkt=given.get("dpop_jkt", ""),
    )


def answer_to(redirect_uri: str, issuer: str, state: str, **parameters: str) -> str:
    """Where the browser goes: the client's redirect URI with the answer, ``state`` and ``iss``
    (RFC 9207)."""
    fields = {**parameters, **({"state": state} if state else {}), "iss": issuer}
    joint = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{joint}{urlencode(fields)}"

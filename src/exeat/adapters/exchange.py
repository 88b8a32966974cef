"""ID-9: access without a person at hand: the gateway's own, by exchange (RFC 8693), or by an identity
provider's assertion (ID-JAG: draft-ietf-oauth-identity-assertion-authz-grant, RFC 7523)."""

import os
from typing import Final

from exeat.adapters.oauth_client import OAuthClient, Token
from exeat.core.upstream_auth import AuthMode, CredentialFailed, UpstreamAuth
from exeat.identity.model.client import Client
from exeat.identity.rules.discovery import text
from exeat.identity.upstream.rules import AuthorizationServer, Resource

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TYPE: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TYPE: Final = f"{_TYPE}access_token"
ID_TYPE: Final = f"{_TYPE}id_token"
ID_JAG_TYPE: Final = f"{_TYPE}id-jag"


async def granted(
    oauth: OAuthClient,
    auth: UpstreamAuth,
    client: Client,
    server: AuthorizationServer,
    resource: Resource,
    scopes: tuple[str, ...],
    subject: str,
) -> Token:
    """A token for ``resource``.  ``subject``: the caller's own token, or empty where the gateway has one.
    Raises TokenRefused, CredentialFailed."""
    form = {"resource": resource.uri}
    if scopes:
        form["scope"] = " ".join(scopes)
    if auth.mode is AuthMode.CLIENT_CREDENTIALS:
        form["grant_type"] = "client_credentials"
    elif auth.mode is AuthMode.TOKEN_EXCHANGE:
        form |= {
            "grant_type": EXCHANGE,
            "subject_token": subject or _subject(auth),
            "subject_token_type": auth.subject_type or ACCESS_TYPE,
            "requested_token_type": ACCESS_TYPE,
        }
    else:
        assertion = await _assertion(oauth, auth, server, form, subject)
        form |= {"grant_type": JWT_BEARER, "assertion": assertion}
    return await oauth.token(server, client, form)


async def _assertion(
    oauth: OAuthClient,
    auth: UpstreamAuth,
    server: AuthorizationServer,
    wanted: dict[str, str],
    subject: str,
) -> str:
    """The identity provider's word to ``server`` for the holder of our subject token."""
    idp = await oauth.server(auth.idp)
    form = {
        **wanted,
        "grant_type": EXCHANGE,
        "requested_token_type": ID_JAG_TYPE,
        "audience": server.issuer,
        "subject_token": subject or _subject(auth),
        "subject_token_type": auth.subject_type or (ACCESS_TYPE if subject else ID_TYPE),
    }
    answer = await oauth.ask_token(idp.token_endpoint, Client(idp.issuer, auth.idp_client_id), form)
    assertion = text(answer, "access_token")
    if text(answer, "issued_token_type") != ID_JAG_TYPE or not assertion:
        raise CredentialFailed(f"{idp.issuer} gave no identity assertion")
    return assertion


def _subject(auth: UpstreamAuth) -> str:
    subject = os.environ.get(auth.subject_from, "")
    if not subject:
        raise CredentialFailed(
            f"the environment variable {auth.subject_from} is not set",
            remedy=f"set {auth.subject_from} in the gateway's environment and restart it",
        )
    return subject

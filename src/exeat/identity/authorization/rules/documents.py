"""What a client says of itself: in a registration (RFC 7591) or in its document (CIMD)."""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from exeat.identity.authorization.model.client import (
    CODE,
    NAME_MAX_CHARS,
    REDIRECTS_MAX,
    REFRESH,
    Client,
    ClientAuth,
    ClientKind,
)
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.redirects import why_not_redirect

DOCUMENT_MAX_BYTES: Final = 64 * 1024
JWKS_MAX_CHARS: Final = 16 * 1024
_ID: Final = re.compile(
    r"https://[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[1-9][0-9]{0,4})?"
    r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+/?"
)


def is_document_id(client_id: str) -> bool:
    """CIMD 3: https with a path, without user info, fragment or dot segments.  A query is not taken
    (the draft: SHOULD NOT)."""
    if len(client_id) > 500 or _ID.fullmatch(client_id) is None:
        return False
    return not any(part in (".", "..") for part in client_id.split("/"))


def looks_like_address(client_id: str) -> bool:
    return client_id.lower().startswith(("http:", "https:"))


def client_of_document(client_id: str, body: bytes, ends_at: int) -> Client:
    """Raises Refused (``invalid_client``) for a document that is not this client's, or not sound."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Refused("invalid_client", "The client's document is not a JSON object.", status=401)
    if said.get("client_id") != client_id:
        raise Refused(
            "invalid_client", "The client's document is of another client id.", status=401
        )
    if "client_secret" in said or "client_secret_expires_at" in said:
        raise Refused("invalid_client", "A client's document holds no secret.", status=401)
    try:
        method, jwks, jwks_uri = _method(said)
        return Client(
            client_id,
            ClientKind.DOCUMENT,
            shown_name(said.get("client_name")),
            method,
            read_redirects(said.get("redirect_uris")),
            _grants(said.get("grant_types")),
            ends_at,
            jwks=jwks,
            jwks_uri=jwks_uri,
        )
    except Refused as error:
        raise Refused("invalid_client", f"The client's document: {error}", status=401) from None


def client_of_registration(client_id: str, said: Any, ends_at: int) -> Client:
    """RFC 7591 3.2.1: whatever method it asks for, it gets ``none``: PKCE protects its code, and there
    is no secret to lose.  Raises Refused."""
    if not isinstance(said, dict):
        raise Refused("invalid_client_metadata", "A registration is a JSON object.")
    types = said.get("response_types", ["code"])
    if not isinstance(types, list) or "code" not in types:
        raise Refused("invalid_client_metadata", "Only the response type code exists here.")
    return Client(
        client_id,
        ClientKind.DYNAMIC,
        shown_name(said.get("client_name", "a client without a name")),
        ClientAuth.NONE,
        read_redirects(said.get("redirect_uris")),
        _grants(said.get("grant_types")),
        ends_at,
    )


def read_redirects(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= REDIRECTS_MAX:
        raise Refused("invalid_redirect_uri", f"There are 1 to {REDIRECTS_MAX} redirect URIs.")
    for uri in value:
        why = why_not_redirect(uri) if isinstance(uri, str) else "a redirect URI is text"
        if why:
            raise Refused("invalid_redirect_uri", why[0].upper() + why[1:] + ".")
    return tuple(value)


def shown_name(value: Any) -> str:
    """The name, without what a page would hide or turn around.  Raises Refused."""
    if not isinstance(value, str) or not value.strip():
        raise Refused("invalid_client_metadata", "The client has no name.")
    seen = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in value)
    return " ".join(seen.split())[:NAME_MAX_CHARS] or "a client without a name"


def registered(client: Client, issued_at_s: int) -> Mapping[str, Any]:
    """The answer to a registration (RFC 7591 3.2.1)."""
    return {
        "client_id": client.id,
        "client_id_issued_at": issued_at_s,
        "client_name": client.name,
        "redirect_uris": list(client.redirects),
        "grant_types": sorted(client.grants),
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


def _grants(value: Any) -> frozenset[str]:
    """Those that we have; others are left out, which RFC 7591 2 allows."""
    if value is None:
        return frozenset({CODE})
    if not isinstance(value, list) or CODE not in value:
        raise Refused("invalid_client_metadata", "The grant type authorization_code is needed.")
    return frozenset({CODE, REFRESH}) & frozenset(each for each in value if isinstance(each, str))


def _method(said: Mapping[str, Any]) -> tuple[ClientAuth, str, str]:
    method = said.get("token_endpoint_auth_method", "none")
    if method == "none":
        return ClientAuth.NONE, "", ""
    jwks, uri = said.get("jwks"), said.get("jwks_uri", "")
    if method != "private_key_jwt" or not (isinstance(jwks, dict) or isinstance(uri, str)):
        raise Refused(
            "invalid_client_metadata", "Its method is none, or private_key_jwt with keys."
        )
    if not isinstance(jwks, dict):
        if not is_document_id(uri):
            raise Refused("invalid_client_metadata", "Its jwks_uri is not an https address.")
        return ClientAuth.KEY, "", uri
    return ClientAuth.KEY, public_keys(json.dumps(jwks)), ""


def public_keys(text: str) -> str:
    """A JWK set of public keys only.  Raises Refused."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        said = None
    keys = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(keys, list) or not 0 < len(keys) <= 10 or len(text) > JWKS_MAX_CHARS:
        raise Refused("invalid_client_metadata", "A key set holds 1 to 10 keys.")
    for key in keys:
        if not isinstance(key, dict) or key.get("kty") not in ("EC", "RSA", "OKP"):
            raise Refused("invalid_client_metadata", "A key is of the kind EC, RSA or OKP.")
        if key.keys() & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}:
            raise Refused("invalid_client_metadata", "The key set holds a private key.")
    return json.dumps({"keys": keys}, sort_keys=True)

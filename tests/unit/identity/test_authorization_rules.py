"""PKCE, scopes, resources, documents and what a client shows: pure rules of the authorization server."""

import base64
import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.ids import ServerId
from exeat.identity.authorization.model.client import ClientAuth
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.credentials import ASSERTION, read_shown
from exeat.identity.authorization.rules.documents import (
    client_of_document,
    client_of_registration,
    is_document_id,
    public_keys,
    shown_name,
)
from exeat.identity.authorization.rules.parameters import only_once
from exeat.identity.authorization.rules.pkce import challenge_is_sound, verifier_matches
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.rules.scopes import LEAST, SCOPES, narrowed, read_scopes

ID = "https://app.example.com/client.json"


def refused(code: str) -> Any:
    return pytest.raises(Refused, check=lambda error: error.code == code)


@requirement("ID-7")
@given(st.from_regex(r"[A-Za-z0-9._~-]{43,128}", fullmatch=True))
def test_pkce(verifier: str) -> None:
    digest = sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert challenge_is_sound(challenge) and verifier_matches(challenge, verifier)
    assert not verifier_matches(challenge, verifier + "x")
    assert not verifier_matches(verifier, verifier)  # the method plain


@requirement("ID-7")
@pytest.mark.parametrize("verifier", ["", "a" * 42, "a" * 129, "a" * 43 + "é", "a" * 43 + "\n"])
def test_a_verifier_outside_its_grammar_fits_nothing(verifier: str) -> None:
    digest = sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert not verifier_matches(challenge, verifier)


@requirement("ID-7")
def test_scopes() -> None:
    assert read_scopes("mcp:pay mcp:read offline_access openid") == ("mcp:read", "mcp:pay")
    assert read_scopes("") == read_scopes("offline_access") == LEAST
    assert read_scopes(" ".join(SCOPES)) == SCOPES
    with refused("invalid_scope"):
        read_scopes("mcp:read mcp:everything")
    assert narrowed(("mcp:read", "mcp:pay"), "") == ("mcp:read", "mcp:pay")
    assert narrowed(("mcp:read", "mcp:pay"), "mcp:pay") == ("mcp:pay",)
    with refused("invalid_scope"):
        narrowed(("mcp:read",), "mcp:read mcp:write")


@requirement("ID-7")
def test_resources_are_our_own_endpoints_in_each_spelling() -> None:
    ours = Resources.at("http", "127.0.0.1", 8717, ["gw.example"], "https://public.example/")
    servers = {ServerId("git")}
    for base in (
        "http://127.0.0.1:8717", "http://localhost:8717", "http://[::1]:8717",
        "http://gw.example", "http://gw.example:8717", "https://public.example",
    ):  # fmt: skip
        assert ours.find(f"{base}/mcp", servers).server is None
        assert ours.find(f"{base}/mcp/git", servers).server == "git"
    assert ours.find("HTTP://LOCALHOST:8717/mcp", servers).uri == "http://localhost:8717/mcp"
    for strange in (
        "http://localhost:8717", "http://localhost:8717/mcp/", "http://localhost:8717/mcp/git/",
        "http://localhost:8717/mcp/other", "http://localhost:8717/MCP", "http://localhost:8717/mcp#x",
        "http://localhost:8717/mcp?x", "https://localhost:8717/mcp", "http://localhost:8718/mcp",
        "http://evil.example/mcp", "http://localhost:8717@evil.example/mcp", "",
        "http://localhost:8717/mcp/../mcp", "http://localhost:8717\\/mcp",
    ):  # fmt: skip
        with refused("invalid_target"):
            ours.find(strange, servers)


@requirement("ID-7")
def test_a_parameter_comes_once() -> None:
    assert only_once([("a", "1"), ("b", "")]) == {"a": "1"}
    for pairs in ([("a", "1"), ("a", "1")], [("a", "x" * 9000)], [("a", "\x00")]):
        with refused("invalid_request"):
            only_once(pairs)


@requirement("ID-7")
@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (ID, True),
        ("https://app.example.com:8443/a/b", True),
        ("https://app.example.com/", False),
        ("https://app.example.com", False),
        ("http://app.example.com/client.json", False),
        ("https://user@app.example.com/client.json", False),
        ("https://app.example.com/client.json#x", False),
        ("https://app.example.com/client.json?x=1", False),
        ("https://app.example.com/a/../client.json", False),
        ("https://app.example.com/./client.json", False),
        ("https://app.example.com\\client.json", False),
        ("https://APP.example.com/client.json", False),
        ("https://app.example.com/" + "a" * 500, False),
    ],
)
def test_which_addresses_are_client_ids(text: str, fits: bool) -> None:
    assert is_document_id(text) is fits


def document(**changes: Any) -> bytes:
    said = {"client_id": ID, "client_name": "App", "redirect_uris": ["https://app.example.com/cb"]}
    return json.dumps({**said, **changes}).encode()


@requirement("ID-7")
def test_a_clients_document() -> None:
    client = client_of_document(ID, document(logo_uri="https://evil.example/x.png"), 9)
    assert (client.id, client.auth, client.grants) == (ID, ClientAuth.NONE, {"authorization_code"})
    keys = {"keys": [{"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"}]}
    by_key = client_of_document(
        ID, document(token_endpoint_auth_method="private_key_jwt", jwks=keys), 9
    )
    assert by_key.auth is ClientAuth.KEY


@requirement("ID-7")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        document(client_id=ID + "x"),
        document(client_id=ID.upper()),
        document(client_id=None),
        document(client_name=""),
        document(client_name=7),
        document(redirect_uris=[]),
        document(redirect_uris="https://app.example.com/cb"),
        document(redirect_uris=["javascript:alert(1)"]),
        document(redirect_uris=["https://a.example/cb"] * 11),
        document(redirect_uris=[7]),
        document(client_secret="x"),
        document(token_endpoint_auth_method="client_secret_basic"),
        document(token_endpoint_auth_method="private_key_jwt", jwks={"keys": []}),
        document(token_endpoint_auth_method="private_key_jwt", jwks={"keys": [{"kty": "oct", "k": "x"}]}),
        document(token_endpoint_auth_method="private_key_jwt", jwks={"keys": [{"kty": "EC", "d": "x"}]}),
        document(token_endpoint_auth_method="private_key_jwt", jwks_uri="http://169.254.169.254/x"),
        document(grant_types=["client_credentials"]),
        document(grant_types="authorization_code"),
    ],
)  # fmt: skip
def test_documents_that_are_no_clients(body: bytes) -> None:
    with refused("invalid_client"):
        client_of_document(ID, body, 9)


@requirement("ID-7")
def test_a_registration_gets_no_secret_and_no_more_than_a_code() -> None:
    said = {
        "redirect_uris": ["http://localhost:1/cb"],
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code", "refresh_token", "client_credentials", "implicit"],
    }
    client = client_of_registration("DYN-1", said, 9)
    assert client.auth is ClientAuth.NONE and client.secret_digest is None
    assert client.grants == {"authorization_code", "refresh_token"}
    for wrong, code in (
        ([], "invalid_client_metadata"),
        ({}, "invalid_redirect_uri"),
        ({**said, "response_types": ["token"]}, "invalid_client_metadata"),
        ({**said, "redirect_uris": ["http://evil.example/cb"]}, "invalid_redirect_uri"),
    ):
        with refused(code):
            client_of_registration("DYN-1", wrong, 9)


@requirement("ID-7")
def test_names_are_shown_without_what_turns_text_around() -> None:
    assert shown_name(" A\u202ebank\u0000 \n b\u200b ") == "A bank b"
    assert len(shown_name("x" * 500)) == 100
    with refused("invalid_client_metadata"):
        public_keys("{}")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@requirement("ID-7")
def test_how_clients_say_who_they_are() -> None:
    assert read_shown(basic("CL-a%20b:s%2Bs"), {}).secret == "s+s"
    assert read_shown(None, {"client_id": "c"}).secret is None
    assert read_shown(None, {"client_id": "c", "client_secret": "s"}).secret == "s"
    assertion = {"client_assertion": "x", "client_assertion_type": ASSERTION}
    assert read_shown(None, assertion).assertion == "x"
    for header, form, code in (
        (basic("c:s"), {"client_id": "c", "client_secret": "s"}, "invalid_request"),
        (None, {**assertion, "client_secret": "s"}, "invalid_request"),
        (basic("c:s"), {"client_id": "d"}, "invalid_client"),
        ("Bearer x", {"client_id": "c"}, "invalid_client"),
        ("Basic !!!", {}, "invalid_client"),
        (basic("no-colon"), {}, "invalid_client"),
        (basic(":s"), {}, "invalid_client"),
        (None, {}, "invalid_client"),
        (None, {"client_assertion": "x", "client_assertion_type": "saml"}, "invalid_client"),
    ):
        with refused(code):
            read_shown(header, form)


@requirement("ID-7")
@given(st.text(max_size=60))
def test_no_header_breaks_it(header: str) -> None:
    try:
        read_shown(header, {})
    except Refused as error:
        assert error.code == "invalid_client"

"""ID-9: challenges, scopes, issuers and resources, as the MCP authorization specification reads them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.core.upstream_auth import AuthMode, CredentialFailed, UpstreamAuth, read_auth
from exeat.identity.model.client import ClientAuth
from exeat.identity.upstream.challenge import Challenge, read_challenge, scopes_of
from exeat.identity.upstream.rules import (
    Asking,
    AuthorizationServer,
    Resource,
    auth_method,
    authorization_url,
    challenge_of,
    check_response_issuer,
    covers,
    read_resource,
    read_server,
    registration,
    scopes_to_ask,
    with_offline,
)

SERVER = AuthorizationServer(
    "https://as.example", "https://as.example/token", "https://as.example/authorize", pkce=True
)


@requirement("ID-9")
@pytest.mark.parametrize(
    ("header", "error", "scopes", "metadata"),
    [
        ("Bearer", "", (), ""),
        ('Bearer error="invalid_token", scope="a b a"', "invalid_token", ("a", "b"), ""),
        ("bearer scope=mcp:basic", "", ("mcp:basic",), ""),
        (
            'BEARER  resource_metadata = "https://m.example/x?y=1,2"',
            "",
            (),
            "https://m.example/x?y=1,2",
        ),
        ('Basic realm="a, Bearer scope=x", Bearer scope="y"', "", ("y",), ""),
        ("Negotiate YWJj==, Bearer error=insufficient_scope", "insufficient_scope", (), ""),
        ('DPoP algs="ES256", error="use_dpop_nonce"', "", (), ""),
        ('Bearer scope="a", DPoP scope="b"', "", ("a",), ""),
        (r'Bearer error="a\"b", scope="c"', 'a"b', ("c",), ""),
        ('Bearer scope="a", scope="b"', "", (), ""),
        ('Bearer scope="a', "", (), ""),
        ('Bearer scope="a\x00 b"', "", ("b",), ""),
        ("", "", (), ""),
    ],
)
def test_a_challenge_is_read(
    header: str, error: str, scopes: tuple[str, ...], metadata: str
) -> None:
    found = read_challenge(header)
    assert (found.error, found.scopes, found.resource_metadata) == (error, scopes, metadata)


@requirement("ID-9")
@settings(max_examples=2000)
@given(
    st.text(max_size=200)
    | st.text('Bearr ="\\,scope_tadkn:/.é\t', max_size=120).map("Bearer ".__add__)
)
def test_any_header_is_read(header: str) -> None:
    found = read_challenge(header)
    assert isinstance(found, Challenge)
    assert all(scope == scopes_of(scope)[0] for scope in found.scopes)


@requirement("ID-9")
@pytest.mark.parametrize(
    ("resource", "server", "good"),
    [
        ("https://m.example/mcp", "https://m.example/mcp", True),
        ("https://m.example", "https://m.example/mcp", True),
        ("https://m.example/", "https://m.example/mcp", True),
        ("https://M.example:443/mcp/", "https://m.example/mcp", True),
        ("https://m.example/mc", "https://m.example/mcp", False),
        ("https://m.example/mcp/x", "https://m.example/mcp", False),
        ("http://m.example/mcp", "https://m.example/mcp", False),
        ("https://m.example:444/mcp", "https://m.example/mcp", False),
        ("https://evil.example/mcp", "https://m.example/mcp", False),
        ("https://m.example.evil.example", "https://m.example/mcp", False),
        ("https://m.example@evil.example", "https://m.example/mcp", False),
        ("https://m.example/mcp#x", "https://m.example/mcp", False),
        ("https://m.example/mcp?t=1", "https://m.example/mcp", False),
        ("", "https://m.example/mcp", False),
        ("https://[", "https://m.example/mcp", False),
    ],
)
def test_metadata_counts_only_for_the_server_it_is_of(
    resource: str, server: str, good: bool
) -> None:
    assert covers(resource, server) is good
    document = {"resource": resource, "authorization_servers": ["https://as.example"]}
    if good:
        assert read_resource(document, server).uri == resource
    else:
        with pytest.raises(CredentialFailed, match="another resource"):
            read_resource(document, server)


@requirement("ID-9")
def test_metadata_that_lacks_what_is_needed_is_refused() -> None:
    whole = {"issuer": "https://as.example", "token_endpoint": "https://as.example/token"}
    assert read_server(whole, "https://as.example").token_endpoint
    for issuer in ("https://as.example/", "https://AS.example", "https://as.example:443"):
        with pytest.raises(CredentialFailed):
            read_server(whole, issuer)
    with pytest.raises(CredentialFailed, match="token endpoint"):
        read_server({"issuer": "https://as.example"}, "https://as.example")
    with pytest.raises(CredentialFailed, match="no authorization server"):
        read_resource({"resource": "https://m.example"}, "https://m.example")


@requirement("ID-9")
def test_of_several_authorization_servers_the_one_that_the_operator_chose() -> None:
    first, second = "https://one.example", "https://two.example"
    document = {"resource": "https://m.example", "authorization_servers": [first, second]}
    for wanted, chosen in (("", first), (second, second), ("https://three.example", first)):
        assert read_resource(document, "https://m.example", wanted).issuer == chosen


@requirement("ID-9")
def test_scopes_the_challenge_first_then_what_is_listed_and_never_less_than_before() -> None:
    listed = Resource("https://m.example", "https://as.example", ("read", "write"))
    silent = Resource("https://m.example", "https://as.example", None)
    assert scopes_to_ask(("admin",), listed, (), ()) == ("admin",)
    assert scopes_to_ask((), listed, (), ()) == ("read", "write")
    assert scopes_to_ask((), silent, (), ()) == ()
    assert scopes_to_ask(("admin",), listed, ("read",), ("own",)) == ("read", "admin", "own")


@requirement("ID-9")
def test_a_refresh_token_is_asked_for_only_where_it_is_offered() -> None:
    offering = AuthorizationServer("i", "t", scopes=("offline_access",))
    assert with_offline(("a",), offering) == ("a", "offline_access")
    assert with_offline((), offering) == ()
    assert with_offline(("a",), SERVER) == ("a",)


@requirement("ID-9")
def test_the_authorization_request() -> None:
    asking = Asking(
        "me", "http://localhost:1/cb", "st", "v" * 43, "https://m.example/mcp", ("a", "b")
    )
    url = authorization_url(SERVER, asking)
    assert url.startswith("https://as.example/authorize?response_type=code&client_id=me&")
    assert f"code_challenge={challenge_of('v' * 43)}&code_challenge_method=S256" in url
    assert "resource=https%3A%2F%2Fm.example%2Fmcp" in url and "scope=a+b" in url
    assert "v" * 43 not in url
    bare = AuthorizationServer(
        "https://as.example", "https://as.example/token", "https://as.example/a?x=1"
    )
    with pytest.raises(CredentialFailed, match="PKCE"):
        authorization_url(bare, asking)


@requirement("ID-9")
def test_pkce_as_in_rfc_7636_appendix_b() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@requirement("ID-9")
@pytest.mark.parametrize(
    ("says", "told", "good"),
    [
        (True, "https://as.example", True),
        (True, None, False),
        (False, None, True),
        (False, "https://as.example", True),
        (False, "https://evil.example", False),
        (True, "https://as.example/", False),
        (True, "https://AS.example", False),
        (True, "", False),
    ],
)
def test_who_answers_is_compared_exactly(says: bool, told: str | None, good: bool) -> None:
    server = AuthorizationServer("https://as.example", "t", says_issuer=says)
    if good:
        check_response_issuer(told, server)
    else:
        with pytest.raises(CredentialFailed):
            check_response_issuer(told, server)


@requirement("ID-9")
def test_how_a_registered_client_shows_itself() -> None:
    both = AuthorizationServer("i", "t", methods=("client_secret_post", "client_secret_basic"))
    assert auth_method("client_secret_basic", both, secret="s") is ClientAuth.BASIC
    assert auth_method("", both, secret="s") is ClientAuth.POST
    assert auth_method("", SERVER, secret="s") is ClientAuth.BASIC
    assert auth_method("none", both, secret="") is ClientAuth.NONE
    with pytest.raises(CredentialFailed, match="tls_client_auth"):
        auth_method("tls_client_auth", both, secret="s")


@requirement("ID-9")
def test_registration_says_what_kind_of_application_it_is() -> None:
    native = registration("http://localhost:8718/upstreams/callback", SERVER, "exeat")
    web = registration("https://gw.example/upstreams/callback", SERVER, "exeat")
    assert (native["application_type"], web["application_type"]) == ("native", "web")
    assert "refresh_token" in native["grant_types"]


@requirement("ID-9")
def test_settings_of_a_mode_are_kept_as_they_were_given() -> None:
    given = {"mode": "authorization-code", "issuer": "https://as.example", "client_id": "me",
             "secret": "github", "scopes": "a b"}  # fmt: skip
    auth = read_auth(given)
    assert auth.scopes == ("a", "b") and auth.mode is AuthMode.AUTHORIZATION_CODE
    assert auth.pairs() == given
    assert read_auth({}) == UpstreamAuth() and UpstreamAuth().pairs() == {}
    for bad in ({"mode": "magic"}, {"mode": "none", "passwort": "x"}, {"issuer": "x"}):
        with pytest.raises(Invalid):
            read_auth(bad)

"""Redirect URIs: the tricks, one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.identity.authorization.rules.redirects import (
    read_private,
    read_redirect,
    redirect_matches,
)


@requirement("ID-7")
@pytest.mark.parametrize(
    "uri",
    [
        "https://app.example.com/callback",
        "https://app.example.com:8443/cb?x=1",
        "https://app.example.com",
        "http://127.0.0.1:33418/callback",
        "http://localhost/cb",
        "http://[::1]:1/cb",
    ],
)
def test_what_may_be_registered(uri: str) -> None:
    assert read_redirect(uri) is not None
    assert redirect_matches(uri, uri)


@requirement("ID-7")
@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "app://callback",
        "http://app.example.com/cb",  # not https, not this machine
        "http://localhost.evil.example/cb",
        "http://127.0.0.1.evil.example/cb",
        "http://127.0.0.2/cb",
        "http://2130706433/cb",
        "http://0x7f000001/cb",
        "http://0.0.0.0/cb",
        "http://user@127.0.0.1/cb",
        "https://app.example.com@evil.example/cb",
        "https://app.example.com:pw@evil.example/cb",
        "https://app.example.com\\@evil.example/cb",
        "https:\\\\evil.example/cb",
        "https:/evil.example/cb",
        "https://evil.example\\.app.example.com/cb",
        "https://app.example.com/cb#fragment",
        "https://app.example.com/cb#",
        "https://app%2eexample.com/cb",
        "https://app.example.com/%zz",
        "https://app.example.com/a b",
        "https://app.example.com/cb\n",
        "https://app.example.com/\tcb",
        " https://app.example.com/cb",
        "https://app.example.com/cb\x00",
        "https://\u0430pp.example.com/cb",  # cyrillic
        "https://APP.example.com/cb",
        "HTTPS://app.example.com/cb",
        "https://app.example.com:99999/cb",
        "https://app.example.com:0/cb",
        "https://app.example.com:080/cb",
        "https://app.example.com:/cb",
        "https://-app.example.com/cb",
        "https://app..example.com/cb",
        "https://app.example.com./cb",
        "https:///cb",
        "https://",
        "//app.example.com/cb",
        "/cb",
        "",
        "https://app.example.com/" + "a" * 2000,
        "https://app.example.com/<script>",
        'https://app.example.com/"onload=',
    ],
)
def test_what_may_not(uri: str) -> None:
    assert read_redirect(uri) is None
    assert not redirect_matches("https://app.example.com/cb", uri)


@requirement("ID-7")
@pytest.mark.parametrize(
    ("registered", "asked", "same"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb", True),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb", True),
        ("http://localhost:1/cb", "http://localhost:2/cb", True),
        ("http://[::1]/cb", "http://[::1]:2/cb", True),
        ("http://127.0.0.1/cb", "http://localhost:2/cb", False),
        ("http://localhost/cb", "http://127.0.0.1:2/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:2/cb/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:2/CB", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:2/cb?x", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:2/cb", False),
        ("https://localhost:1/cb", "https://localhost:2/cb", False),
        ("https://a.example/cb", "https://a.example:8443/cb", False),
        ("https://a.example/cb", "https://a.example/cb?", False),
        ("https://a.example/cb", "https://a.example/cb/../cb", False),
        ("https://a.example/cb", "https://a.example/%63b", False),
        ("https://a.example", "https://a.example/", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:2@evil.example/cb", False),
    ],
)
def test_only_the_port_of_a_loopback_address_may_differ(
    registered: str, asked: str, same: bool
) -> None:
    assert redirect_matches(registered, asked) is same


@requirement("ID-7")
@pytest.mark.parametrize(
    ("uri", "sound"),
    [
        ("cursor://anysphere.cursor-mcp/oauth/callback", True),
        ("com.example.app://callback", True),
        ("javascript://host/alert", False),
        ("data://host/x", False),
        ("file://host/x", False),
        ("https://host/x", False),
        ("http://host/x", False),
        ("cursor:callback", False),
        ("cursor://host/x?y=1", False),
        ("cursor://host/x#y", False),
        ("cursor://user@host/x", False),
        ("CURSOR://host/x", False),
        ("cursor://host/%2e", False),
        ("cursor://host\\x", False),
        ("cursor://host/x\n", False),
        ("c://host/x", False),
    ],
)
def test_schemes_of_apps(uri: str, sound: bool) -> None:
    assert (read_private(uri) is not None) is sound
    assert read_redirect(uri) is None or uri.startswith("http")


@requirement("ID-7")
@given(st.text(max_size=40), st.text(max_size=40))
def test_nothing_else_ever_matches(one: str, other: str) -> None:
    assert redirect_matches(one, other) == (one == other)


@requirement("ID-7")
@given(st.from_regex(r"https?://[^\s]{0,30}", fullmatch=True))
def test_what_is_read_is_what_a_browser_would_read(uri: str) -> None:
    """The origin that people are shown and that CSP holds is the one in the URI, char by char."""
    found = read_redirect(uri)
    if found is not None:
        assert uri == found.origin + found.rest
        assert found.rest == "" or found.rest[0] in "/?"
        assert not set(uri) & set("\\@#\t\n ") - ({"@"} if "@" in found.rest else set())

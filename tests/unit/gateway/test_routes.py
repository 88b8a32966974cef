"""Which server an action goes to (GW-7), and Host and Origin (GW-14)."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.gateway.routes import Router, fits
from exeat.gateway.settings import GatewaySettings

ROUTER = Router(cast(Any, None), cast(Any, None))


@requirement("GW-7")
@pytest.mark.parametrize(
    ("path", "server"),
    [("/mcp", None), ("/mcp/", None), ("/mcp/up", "up"), ("/mcp/up/", "up"), ("/mcp/a-1", "a-1")],
)
def test_endpoints(path: str, server: str | None) -> None:
    for _ in range(2):
        found = ROUTER.endpoint(path)
        assert found is not None and found.server == server


@requirement("GW-7")
@pytest.mark.parametrize(
    "path", ["/", "/mc", "/mcpx", "/mcp/Up", "/mcp/up/x", "/mcp/-a", "/mcp/a_b", "/mcp/" + "a" * 32,
             "/mcp/up\n", "/mcp\n"],
)  # fmt: skip
def test_other_paths_are_no_endpoints(path: str) -> None:
    assert ROUTER.endpoint(path) is None


@requirement("GW-7")
@pytest.mark.parametrize(
    ("template", "uri", "whether"),
    [
        ("file:///{path}", "file:///a/b", True),
        ("file:///{path}", "file:///", False),
        ("file:///{path}", "http://a/b", False),
        ("a://{x}/b/{y}", "a://1/b/2", True),
        ("a://{x}/b/{y}", "a://1/c/2", False),
        ("a://b", "a://b", True),
        ("a://b", "a://bc", False),
        ("a.b{x}", "aXbc", False),
        ("{x}", "anything\nat all", True),
    ],
)
def test_templates(template: str, uri: str, whether: bool) -> None:
    assert fits(template, uri) is whether


@requirement("GW-7")
@given(st.text(max_size=20), st.text(max_size=20))
def test_templates_never_fail(template: str, uri: str) -> None:
    fits(template, uri)


@requirement("GW-14")
@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True), ("localhost:8080", True), ("127.0.0.1:1", True), ("[::1]:8", True),
        ("LOCALHOST", True), ("gw.example.com", True), ("gw.example.com:9", True),
        ("evil.example.com", False), ("localhost.evil.com", False), ("evil.com@localhost", False),
        ("localhost@evil.com", False), ("localhost:x", False), ("localhost:99999", False), ("", False),
        ("localhost, evil.com", False), ("127.0.0.1.evil.com", False), ("0.0.0.0", False), ("[::1", False),
    ],
)  # fmt: skip
def test_only_our_own_hosts_are_served(host: str, served: bool) -> None:
    settings = GatewaySettings(allowed_hosts=frozenset({"gw.example.com"}))
    for _ in range(2):
        assert (settings.refuses({"host": host}) == "") is served


@requirement("GW-14")
@pytest.mark.parametrize(
    ("origin", "served"),
    [
        ("http://localhost:3000", True), ("https://127.0.0.1", True), ("https://app.example.com", True),
        ("https://evil.com", False), ("null", False), ("", False), ("file://localhost", False),
        ("http://localhost.evil.com", False), ("https://app.example.com.evil.com", False), 
        ("http://[", False),
    ],
)  # fmt: skip
def test_only_our_own_origins_are_served(origin: str, served: bool) -> None:
    settings = GatewaySettings(allowed_origins=frozenset({"https://app.example.com"}))
    assert (settings.refuses({"host": "localhost", "origin": origin}) == "") is served


@requirement("GW-14")
def test_strange_hosts_fill_no_memory() -> None:
    settings = GatewaySettings()
    for number in range(1000):
        settings.refuses({"host": f"h{number}"})
        settings.refuses({"host": f"localhost:{number + 1}"})
    assert len(settings._hosts_seen) <= 65

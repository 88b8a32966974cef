"""Whatever a stranger puts into an authorization request: nobody is sent anywhere but to the client that
asked, or to our own sign-in (ID-7)."""

from collections.abc import Iterator
from urllib.parse import quote, urlencode

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from portal import CALLBACK, CHALLENGE, ISSUER, RESOURCE, Portal
from requirements import requirement

from exeat.storage.state import open_state

GOOD = {
    "response_type": "code",
    "redirect_uri": CALLBACK,
    "resource": RESOURCE,
    "scope": "mcp:read",
    "state": "s",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
NAMES = st.sampled_from([*GOOD, "client_id", "prompt", "response_mode", "request", "dpop_jkt", "x"])
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", "none", "consent", "token", "plain", "//evil.example", "https://evil.example/cb",
         "http://127.0.0.1:1@evil.example/callback", "http://127.0.0.1:1/callback",
         "javascript:alert(1)", "http://localhost:8717/mcp", "\r\nLocation: https://evil.example"]
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    state = open_state(tmp_path_factory.mktemp("asked") / "home")
    yield Portal(state)
    state.close()


@pytest.fixture(scope="module")
def client(portal: Portal) -> str:
    return portal.add("native", "http://127.0.0.1/callback")[0].id


@requirement("ID-7")
@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(NAMES, VALUES), max_size=4),
    raw=st.text(max_size=20),
    signed_in=st.booleans(),
)
def test_nobody_is_sent_elsewhere(
    portal: Portal, client: str, changes: list[tuple[str, str]], raw: str, signed_in: bool
) -> None:
    pairs = {**GOOD, "client_id": client, **dict(changes[:2])}
    query = urlencode([*pairs.items(), *changes[2:]]) + "&" + quote(raw, safe="&=%+")

    async def ask() -> None:
        portal.later(61)
        browser = portal.browser()
        if signed_in:
            await browser.sign_in()
        answer = await browser.get(f"/oauth/authorize?{query}")
        assert answer.status_code in (200, 303, 400, 401)
        where = answer.headers.get("location")
        if where is not None:
            assert where.startswith(("/sign-in?next=", "http://127.0.0.1:"))
            if not where.startswith("/"):
                uri, _, told = where.partition("?")
                assert uri.rpartition(":")[2].partition("/")[2] == "callback"
                assert f"iss={quote(ISSUER, safe='')}" in told and "evil" not in uri
        assert "Traceback" not in answer.text

    anyio.run(ask)

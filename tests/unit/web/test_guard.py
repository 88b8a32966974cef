"""What stands before every page of the control listener (GW-10, GW-13, ID-8)."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from portal import ISSUER, Portal
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.storage.state import open_state
from exeat.web.attempts import Attempts
from exeat.web.guard import HEADERS, Guard
from exeat.web.site import own_path, site_at

pytestmark = pytest.mark.anyio


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Portal]:
    state = open_state(tmp_path / "home")
    yield Portal(state)
    state.close()


@requirement("GW-10")
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost",
        "localhost:8719",
        "localhost:8718.evil.example",
        "",
        "localhost:8718, x",
    ],
)
async def test_other_names_are_not_served(portal: Portal, host: str) -> None:
    """DNS rebinding: a page of evil.example that resolves to us reads nothing here."""
    for path in ("/", "/sign-in", "/oauth/token", "/.well-known/oauth-authorization-server"):
        async with portal._http() as http:
            answer = await http.get(path, headers={"Host": host})
        assert answer.status_code == 421 and "location" not in answer.headers


@requirement("ID-8")
async def test_pages_have_one_name_and_endpoints_each_local_one(portal: Portal) -> None:
    async with portal._http() as http:
        local = {"Host": "127.0.0.1:8718"}
        for path, there in (
            ("/sign-in?next=/passkeys", f"{ISSUER}/sign-in?next=/passkeys"),
            ("//evil.example/x", f"{ISSUER}/evil.example/x"),
        ):
            answer = await http.get(httpx2.URL(ISSUER + path), headers=local)
            assert (answer.status_code, answer.headers["location"]) == (307, there)
        assert (await http.post("/link", headers=local)).status_code == 421
        found = await http.get("/.well-known/openid-configuration", headers=local)
        assert found.json()["issuer"] == ISSUER


@requirement("ID-8")
async def test_every_answer_carries_the_headers(portal: Portal) -> None:
    async with portal._http() as http:
        for path in (
            "/",
            "/sign-in",
            "/nothing",
            "/oauth/authorize",
            "/static/exeat.css",
            "/oauth/token",
        ):
            answer = await http.get(path)
            for name, value in HEADERS.items():
                assert answer.headers[name] == value, (path, name)
        assert (await http.get("/static/../../core/errors.py")).status_code == 404
        assert (await http.get("/static/%2e%2e/pages.py")).status_code == 404


@requirement("GW-13")
async def test_bodies_are_small_and_of_the_right_kind(portal: Portal) -> None:
    async with portal._http() as http:
        big = await http.post("/oauth/token", data={"grant_type": "x" * 70_000})
        assert big.status_code == 413
        for kind, body in (
            ("application/json", b"{}"),
            ("multipart/form-data; boundary=x", b"--x--"),
            ("application/x-www-form-urlencoded", b"\xff\xfe"),
            ("application/x-www-form-urlencoded", b"grant_type=a&grant_type=b"),
            ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(60))),
            ("application/x-www-form-urlencoded", b""),
            ("application/x-www-form-urlencoded", b"grant_type=password&username=a&password=b"),
        ):
            answer = await http.post("/oauth/token", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 400, body
            assert answer.json()["error"] in ("invalid_request", "unsupported_grant_type")
        wrong = await http.post(
            "/oauth/register",
            content=b'{"a":1,"a":2}',
            headers={"Content-Type": "application/json"},
        )
        assert wrong.json()["error"] == "invalid_request"


@requirement("GW-13")
async def test_an_agents_key_or_token_opens_nothing_here(portal: Portal) -> None:
    said = await portal.signed_up(portal.native())
    for value in (said["access_token"], "exk_" + "0" * 43):
        async with portal._http() as http:
            headers = {"Authorization": f"Bearer {value}", "Origin": ISSUER}
            for path in ("/", "/passkeys"):
                assert (await http.get(path, headers=headers)).status_code == 303
            for path in ("/passkeys/remove", "/authorizations/revoke", "/sign-out"):
                answer = await http.post(path, data={"csrf": ""}, headers=headers)
                assert answer.status_code == 403


@requirement("ID-8")
async def test_no_stack_trace_whatever_happens(portal: Portal) -> None:
    async def broken(scope: object, receive: object, send: object) -> None:
        raise RuntimeError("secret detail")

    transport = httpx2.ASGITransport(app=Guard(broken, portal.site))
    async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as http:
        answer = await http.get("/")
    assert answer.status_code == 500 and "secret" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


@requirement("ID-8")
async def test_a_database_that_is_gone_is_said_plainly(portal: Portal, tmp_path: Path) -> None:
    (tmp_path / "home" / "state.db").rename(tmp_path / "elsewhere")
    async with portal._http() as http:
        cookie = {"Cookie": f"exeat-session-8718={'a' * 64}"}
        page = await http.get("/sign-in", headers=cookie)
        assert page.status_code == 503 and "cannot be read" in page.text
        answer = await portal.token(
            grant_type="refresh_token", client_id="DYN-1", refresh_token="x"
        )
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    (tmp_path / "elsewhere").rename(tmp_path / "home" / "state.db")


@requirement("ID-8")
def test_own_paths() -> None:
    assert own_path("/passkeys") == "/passkeys"
    for path in ("/holds/h-abc", "/holds/h-abc/approve", "/holds/h-abc/deny"):
        assert own_path(path) == path
    for path in ("/holds/", "/holds//evil.example", "/holds/h-abc/revoke", "/holds/h\\evil"):
        assert own_path(path) == "/"
    assert own_path("/oauth/authorize?a=b&c=%2F") == "/oauth/authorize?a=b&c=%2F"
    consent = "/upstreams/consent/eyJhbGciOiJkaXIifQ..a_b-c.d"  # where an agent led a person to
    assert own_path(consent) == consent
    for wrong in (
        "",
        "//x",
        "/\\x",
        "/x",
        "http://x",
        "/oauth/authorize?\\x",
        "/oauth/authorize? x",
        "/upstreams/consent/",
        "/upstreams/consent/a/b",
        "/upstreams/callback?code=x&state=y",
    ):
        assert own_path(wrong) == "/"


@requirement("ID-7")
@pytest.mark.parametrize(
    "issuer",
    [
        "https://Exeat.example",
        "https://exeat.example/",
        "https://exeat.example/x",
        "ftp://x",
        "https://a@b",
        "",
    ],
)
def test_issuers_that_nobody_would_write_the_same(issuer: str) -> None:
    with pytest.raises(Invalid, match="issuer_url"):
        site_at(issuer, 8718, frozenset())


@requirement("ID-8")
def test_attempts() -> None:
    now = [0]
    attempts = Attempts(2, 60, lambda: now[0])
    assert [attempts.take("a") for _ in range(3)] == [True, True, False]
    assert attempts.full("a") and not attempts.full("b")
    now[0] = 60 * 10**9
    assert not attempts.full("a") and attempts.take("a")


@requirement("ID-8")
async def test_under_tls_cookies_are_bound_to_the_host(tmp_path: Path) -> None:
    from exeat.web.visits import Visits

    site = site_at("https://exeat.example:8443", 8718, frozenset())
    visits = Visits(site, None, lambda size: b"x" * size, lambda: 0)  # type: ignore[arg-type]
    from starlette.responses import Response

    response = Response()
    visits.begin_session(response, "c")
    said = response.headers["set-cookie"]
    assert said.startswith("__Host-exeat-session-8443=c;")
    assert "; Secure" in said and "HttpOnly" in said and "SameSite=lax" in said and "Path=/" in said

"""GW-6, ID-7: what a native client refuses.  A gateway, an authorization server and a person in memory;
the listener for the browser's answer is the real one."""

import asyncio
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from requirements import requirement

from exeat.adapters.fetch import Fetched, FetchRefused
from exeat.adapters.native.access import SignedIn
from exeat.adapters.native.callback import read_callback
from exeat.adapters.native.kept import NOTHING, Keeper, Kept
from exeat.adapters.native.sign_in import NativeClient, Place
from exeat.adapters.oauth_client import OAuthClient
from exeat.core.errors import Unauthenticated
from exeat.core.upstream_auth import NO_CREDENTIAL, Credential, Refused

pytestmark = pytest.mark.anyio
URL = "https://gw.test/mcp"
ISSUER = "https://as.test"
S = 1_000_000_000
FIRST = Refused(
    NO_CREDENTIAL,
    401,
    'Bearer resource_metadata="https://gw.test/.well-known/oauth-protected-resource/mcp",'
    ' scope="mcp:read mcp:write"',
)


class Net:
    """Stands for the guarded HTTP client: both servers, with what a test changes in their documents."""

    def __init__(self) -> None:
        self.resource: dict[str, Any] = {"resource": URL, "authorization_servers": [ISSUER]}
        self.server: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "registration_endpoint": f"{ISSUER}/register",
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
            "authorization_response_iss_parameter_supported": True,
        }
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.refuses: dict[str, str] = {}
        """Grant type → error."""
        self.tokens = 0

    def check(self, url: str) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise FetchRefused(f"{url} is not called")

    def grants(self) -> list[str]:
        return [form["grant_type"] for url, form in self.asked if url.endswith("/token")]

    async def get(self, url: str, **_: object) -> Fetched:
        self.asked.append((url, {}))
        if url == "https://gw.test/.well-known/oauth-protected-resource/mcp":
            return _answer(url, self.resource)
        if url == f"{ISSUER}/.well-known/oauth-authorization-server":
            return _answer(url, self.server)
        return _answer(url, {}, 404)

    async def post(self, url: str, form: Mapping[str, str], **_: object) -> Fetched:
        self.asked.append((url, form))
        if error := self.refuses.get(form["grant_type"]):
            return _answer(url, {"error": error}, 400)
        self.tokens += 1
        token = {"access_token": f"at-{self.tokens}", "refresh_token": f"rt-{self.tokens}"}
        return _answer(url, {**token, "token_type": "Bearer", "expires_in": 900})

    async def post_json(self, url: str, document: Mapping[str, Any], **_: object) -> Fetched:
        self.asked.append((url, document))
        return _answer(url, {"client_id": "c-1"}, 201)


def _answer(url: str, document: object, status: int = 200) -> Fetched:
    return Fetched(status, {}, json.dumps(document).encode(), url)


Answer = Callable[[dict[str, str]], list[dict[str, str]]]


def yes(asked: dict[str, str]) -> list[dict[str, str]]:
    return [{"code": "a-code", "state": asked["state"], "iss": ISSUER}]


class World:
    """``answers``: what the browser brings, given the authorization request; nothing: it never comes."""

    def __init__(self, folder: Path, answers: Answer = yes, kept: Kept = NOTHING) -> None:
        self.net, self.answers = Net(), answers
        self.now = int(time.time()) * S
        self.keeper = Keeper(folder / "bridge", URL)
        if kept != NOTHING:
            self.keeper.write(kept)
        self.shown: list[dict[str, str]] = []
        self.said: list[str] = []
        self.pages: list[httpx2.Response] = []
        oauth = OAuthClient(self.net, lambda: self.now)  # type: ignore[arg-type]
        native = NativeClient(Place(URL, frozenset()), oauth, self._show, lambda: self.now)
        self.access = SignedIn(
            self.keeper, lambda: native, self.said.append, lambda: self.now, patience_s=3
        )

    def _show(self, url: str) -> None:
        asked = dict(parse_qsl(urlsplit(url).query))
        self.shown.append(asked)
        threading.Thread(target=self._browse, args=(asked,), daemon=True).start()

    def _browse(self, asked: dict[str, str]) -> None:
        for answer in self.answers(asked):
            self.pages.append(httpx2.get(f"{asked['redirect_uri']}?{urlencode(answer)}"))


KEPT = Kept(ISSUER, "c-1", access="at-0", refresh="rt-0", scopes=("mcp:read",))
OLD = Refused(Credential("Bearer at-0"), 401, FIRST.challenge)


@requirement("GW-6", "ID-7")
async def test_a_sign_in_asks_as_the_specification_says(tmp_path: Path) -> None:
    w = World(tmp_path)
    await w.access.obtain(FIRST)
    assert await w.access.current() == Credential("Bearer at-1")
    (asked,) = w.shown
    assert asked["code_challenge_method"] == "S256" and asked["resource"] == URL
    assert asked["scope"] == "mcp:read mcp:write"
    registered = next(said for url, said in w.net.asked if url.endswith("/register"))
    assert registered["application_type"] == "native"
    assert registered["token_endpoint_auth_method"] == "none"
    assert registered["redirect_uris"] == [asked["redirect_uri"]]
    redeemed = next(said for url, said in w.net.asked if url.endswith("/token"))
    assert redeemed["resource"] == URL and redeemed["code"] == "a-code"
    assert w.keeper.read().refresh == "rt-1"


@requirement("GW-6", "ID-7")
async def test_answers_that_are_not_ours_change_nothing_and_are_not_repeated(
    tmp_path: Path,
) -> None:
    def answers(asked: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"code": "stolen", "state": "<b>guess</b>", "iss": ISSUER},
            {"code": "stolen", "iss": ISSUER},
            *yes(asked),
        ]

    w = World(tmp_path, answers)
    await w.access.obtain(FIRST)
    assert [page.status_code for page in w.pages[:2]] == [400, 400]
    assert "guess" not in w.pages[0].text and "stolen" not in w.pages[0].text
    codes = [form["code"] for url, form in w.net.asked if url.endswith("/token")]
    assert codes == ["a-code"]


@requirement("GW-6", "ID-7")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"iss": "https://other.test"}, "another authorization server"),
        ({"iss": f"{ISSUER}/"}, "another authorization server"),
        ({"iss": None}, "does not say that it comes from"),
        ({"error": "access_denied"}, "No access was given"),
        ({"code": ""}, "No access was given"),
    ],
)
async def test_an_answer_of_another_server_or_without_access(
    tmp_path: Path, changed: dict[str, str | None], said: str
) -> None:
    def answers(asked: dict[str, str]) -> list[dict[str, str]]:
        whole = {**yes(asked)[0], **changed}
        return [{name: value for name, value in whole.items() if value is not None}]

    w = World(tmp_path, answers)
    with pytest.raises(Unauthenticated, match=said) as caught:
        await w.access.obtain(FIRST)
    assert caught.value.remedy and w.net.grants() == []
    with pytest.raises(Unauthenticated, match=said):  # the person is not asked again at once
        await w.access.obtain(FIRST)
    assert len(w.shown) == 1


@requirement("GW-6", "ID-7", "GW-10")
@pytest.mark.parametrize(
    ("of", "changed", "said"),
    [
        ("resource", {"resource": "https://gw.test"}, "another resource"),
        ("resource", {"resource": "https://gw.test/mcp/"}, "another resource"),
        ("resource", {"resource": "https://other.test/mcp"}, "another resource"),
        ("resource", {"authorization_servers": []}, "no authorization server"),
        ("resource", {"authorization_servers": ["http://as.test"]}, "unencrypted"),
        ("server", {"issuer": f"{ISSUER}/"}, "is of"),
        ("server", {"issuer": "https://other.test"}, "is of"),
        ("server", {"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ("server", {"code_challenge_methods_supported": None}, "PKCE"),
        ("server", {"token_endpoint": "http://as.test/token"}, "unencrypted"),
        ("server", {"authorization_endpoint": "javascript:alert(1)"}, "not called"),
        ("server", {"authorization_endpoint": "http://as.test/authorize"}, "unencrypted"),
        ("server", {"registration_endpoint": None}, "register"),
    ],
)
async def test_metadata_that_is_not_good(
    tmp_path: Path, of: str, changed: dict[str, object], said: str
) -> None:
    w = World(tmp_path)
    getattr(w.net, of).update(changed)
    with pytest.raises(Unauthenticated, match=said):
        await w.access.obtain(FIRST)
    assert not w.shown and not w.net.grants() and w.keeper.read() == NOTHING


@requirement("GW-6", "ID-7")
async def test_who_never_comes_back_is_not_waited_for_without_end(tmp_path: Path) -> None:
    w = World(tmp_path, lambda asked: [])
    waiting = [asyncio.ensure_future(w.access.obtain(FIRST)) for _ in range(3)]
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert all("Nobody signed in" in str(each) for each in found)
    assert len(w.shown) == 1  # one page for all who waited
    assert w.keeper.read().client_id == "c-1"  # the registration is not lost


@requirement("GW-6", "ID-7")
async def test_a_refused_token_is_renewed_first_and_only_then_is_somebody_asked(
    tmp_path: Path,
) -> None:
    w = World(tmp_path, kept=KEPT)
    await w.access.obtain(OLD)
    assert w.net.grants() == ["refresh_token"] and not w.shown
    renewed = await w.access.current()
    await w.access.obtain(Refused(renewed, 401, FIRST.challenge))  # refused as well
    assert w.net.grants().count("authorization_code") == 1 and len(w.shown) == 1
    given = await w.access.current()
    with pytest.raises(Unauthenticated, match="just given"):
        await w.access.obtain(Refused(given, 401, FIRST.challenge))
    assert len(w.shown) == 1


@requirement("GW-6", "ID-7")
@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error", "odd"])
async def test_a_server_in_trouble_ends_no_sign_in(tmp_path: Path, error: str) -> None:
    w = World(tmp_path, kept=KEPT)
    w.net.refuses["refresh_token"] = error
    with pytest.raises(Unauthenticated, match="gave no token"):
        await w.access.obtain(OLD)
    assert not w.shown and w.keeper.read() == KEPT


@requirement("GW-6", "ID-7")
async def test_what_belongs_to_one_issuer_is_shown_to_no_other(tmp_path: Path) -> None:
    """SEP-2352: a resource that moved to another authorization server."""
    other = Kept("https://gone.test", "c-0", refresh="", access="at-0")
    w = World(tmp_path, kept=other)
    await w.access.obtain(OLD)
    told = repr([form for url, form in w.net.asked if url.startswith(ISSUER)])
    assert "c-0" not in told and "at-0" not in told
    assert w.keeper.read().issuer == ISSUER


@requirement("GW-6", "ID-2")
async def test_more_scope_is_asked_for_with_all_that_there_was(tmp_path: Path) -> None:
    w = World(tmp_path, kept=KEPT)
    w.net.refuses["refresh_token"] = "invalid_grant"  # so a probe of the registration answers
    challenge = 'Bearer error="insufficient_scope", scope="mcp:write"'
    await w.access.obtain(Refused(Credential("Bearer at-0"), 403, challenge))
    assert w.shown[0]["scope"] == "mcp:read mcp:write"
    assert w.keeper.read().client_id == "c-1"
    assert not any(url.endswith("/register") for url, _ in w.net.asked)


@requirement("GW-6", "ID-7")
async def test_a_token_that_ends_soon_is_renewed_before_it_is_used(tmp_path: Path) -> None:
    w = World(tmp_path, kept=KEPT)
    await w.access.obtain(OLD)
    w.now += 839 * S
    assert await w.access.current() == Credential("Bearer at-1")
    w.now += S
    assert await w.access.current() == Credential("Bearer at-2")
    w.net.refuses["refresh_token"] = "server_error"
    w.now += 840 * S
    assert await w.access.current() == Credential("Bearer at-2")  # it may hold still


@requirement("GW-6", "ID-10")
async def test_what_cannot_be_kept_still_serves_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = World(tmp_path, kept=KEPT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    await w.access.obtain(OLD)
    assert await w.access.current() == Credential("Bearer at-1")
    assert "No space left" in w.said[0] and "at-" not in w.said[0]
    assert [path.suffix for path in w.keeper.path.parent.iterdir()] == [".lock"]
    await w.access.obtain(Refused(Credential("Bearer at-1"), 403, "Bearer"))
    assert w.keeper.read() == NOTHING


@requirement("GW-6", "ID-10")
def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "bridge", URL)
    assert keeper.read() == NOTHING
    keeper.write(KEPT)
    assert keeper.read() == KEPT and "rt-0" not in repr(KEPT) and "at-0" not in repr(KEPT)
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600
    assert keeper.path != Keeper(tmp_path / "bridge", URL, "other").path
    for broken in (b"", b"{", b"[]", b'{"port": "x"}', b"\xff"):
        keeper.path.write_bytes(broken)
        assert keeper.read() == NOTHING
    keeper.forget()
    (tmp_path / "elsewhere").write_bytes(b'{"access": "planted"}')
    keeper.path.symlink_to(tmp_path / "elsewhere")
    assert keeper.read() == NOTHING


@requirement("GW-6", "ID-7")
@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("GET /callback?state=s&code=c HTTP/1.1\r\nHost: 127.0.0.1:1", {"state": "s", "code": "c"}),
        ("GET /callback HTTP/1.1\r\nhost: 127.0.0.1:1", {}),
        ("GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1:1", 404),
        ("GET /callback/ HTTP/1.1\r\nHost: 127.0.0.1:1", 404),
        ("POST /callback?state=s HTTP/1.1\r\nHost: 127.0.0.1:1", 405),
        ("GET /callback?state=s HTTP/1.1\r\nHost: evil.test:1", 400),
        ("GET /callback?state=s HTTP/1.1\r\nHost: 127.0.0.1:1\r\nHost: evil.test", 400),
        ("GET /callback?state=s HTTP/1.1", 400),
        ("GET /callback?state=s&state=t HTTP/1.1\r\nHost: 127.0.0.1:1", 400),
        ("GET /callback?code=%ff HTTP/1.1\r\nHost: 127.0.0.1:1", 400),
        ("GET http://127.0.0.1:1/callback HTTP/1.1\r\nHost: 127.0.0.1:1", 400),
        ("GET /callback?" + "&".join(f"a{n}=" for n in range(17)) + " HTTP/1.1\r\nHost: 127.0.0.1:1", 400),
        ("", 400),
    ],
)  # fmt: skip
def test_a_request_to_the_redirect_uri(head: str, found: object) -> None:
    assert read_callback(f"{head}\r\n\r\n".encode(), "127.0.0.1:1") == found

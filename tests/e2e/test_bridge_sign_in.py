"""GW-6, ID-7: `exeat bridge` without a key signs in by itself, against a real `exeat up`; the person is
played over HTTP, behind a browser that notes where it was sent."""

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateways import (
    Gateway,
    Wire,
    decisions,
    environ,
    permit_all,
    running,
    start_matrix_server,
    text,
    url_of,
)
from homes import ADA, Home
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from requirements import requirement
from signing_in import Person, issuer_of
from worlds import META

from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.signin.service import RelyingParty, SignIn

pytestmark = pytest.mark.anyio
BROWSER = "import sys; open(sys.argv[2], 'a').write(sys.argv[1] + '\\n')"
PATIENCE_S = 30.0
CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


class Site:
    def __init__(self, home: Home, gateway: Gateway) -> None:
        self.home, self.gateway = home, gateway
        self.issuer = issuer_of(gateway)
        self.url = gateway.endpoint("m")
        self.links = SignIn(home.state.sign_in, RelyingParty("localhost", self.issuer), os.urandom)

    def doing(self) -> Doing:
        act = self.home.act()
        return Doing(act.actor, act.channel, act.at, act.reason)

    def person(self) -> Person:
        found = Person(self.issuer)
        found.sign_in(f"{self.issuer}/link/{self.links.make_link(ADA, self.doing())}")
        return found

    def let_register(self, minutes: int = 5) -> None:
        Clients(self.home.state.authorization, os.urandom).open_window(minutes, self.doing())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(start_matrix_server()) as upstream:
        home = Home(tmp_path_factory.mktemp("bridged") / "home")
        home.pin_all(home.server("m", url=url_of(upstream)))
        home.agent("bot", ["m"])
        permit_all(home, "bot")
        with running(Gateway(home.path)) as gateway:
            yield Site(home, gateway)
        home.state.close()


class Desk:
    """One person's machine: a home for the bridge, a browser, and the person."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site, self.home, self.pages = site, folder / "home", folder / "pages"
        self.pages.touch()
        script = folder / "browser.py"
        script.write_text(BROWSER)
        browser = f"{sys.executable} {script} %s {self.pages}"
        self.env = environ(EXEAT_HOME=str(self.home), BROWSER=browser)
        self.log = folder / "stderr"
        self.person = site.person()

    def argv(self, *options: str) -> list[str]:
        return [sys.executable, "-m", "exeat.cli.main", "bridge", self.site.url, *options]

    @property
    def visited(self) -> list[str]:
        return self.pages.read_text().split()

    @property
    def file(self) -> Path:
        (found,) = (self.home / "bridge").glob("*.json")
        return found

    @property
    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def change(self, **fields: object) -> None:
        self.file.write_text(json.dumps({**self.kept, **fields}))

    async def sent(self, number: int = 1) -> str:
        """Where the browser was sent for the ``number``-th time."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.visited) < number:
                await asyncio.sleep(0.01)
        return self.visited[number - 1]

    async def consents(self, number: int = 1, decision: str = "allow") -> httpx2.Response:
        url = await self.sent(number)
        return await asyncio.to_thread(
            lambda: httpx2.get(self.person.sent_to(url, "bot", decision))
        )

    @asynccontextmanager
    async def bridge(self, *options: str) -> AsyncIterator["Bridge"]:
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.argv(*options),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env,
            )  # fmt: skip
        bridge = Bridge(process)
        try:
            yield bridge
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*options), env=self.env, capture_output=True, text=True, timeout=PATIENCE_S
        )


class Bridge:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._last = 0

    async def ask(self, method: str = "tools/call", params: dict[str, Any] = CALL) -> Any:
        self._last += 1
        message = {"jsonrpc": "2.0", "id": self._last, "method": method}
        message["params"] = {**params, "_meta": META}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            answer = json.loads(await self.process.stdout.readline())
        assert answer["id"] == self._last
        return answer


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> Iterator[Desk]:
    site.let_register()
    made = Desk(site, tmp_path)
    yield made
    made.person.close()


async def first(desk: Desk, bridge: Bridge, number: int = 1) -> Any:
    """A call that needs the person's consent."""
    answer, page = await asyncio.gather(bridge.ask(), desk.consents(number))
    assert page.status_code == 200 and "close this page" in page.text
    return answer


def status_of(site: Site, token: str) -> int:
    wire = Wire(site.gateway.port, token, "/mcp/m")
    wire.call("add", a=1, b=2)
    wire.http.close()
    return wire.status


@requirement("GW-6", "ID-7")
@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.long)])
async def test_the_first_call_signs_in_and_the_next_start_needs_nobody(
    desk: Desk, site: Site, mode: str
) -> None:
    """The official SDK's client: its handshake waits while the person is asked."""
    argv = desk.argv()
    parameters = StdioServerParameters(command=argv[0], args=argv[1:], env=desk.env)

    async def use() -> str:
        async with Client(parameters, mode=mode) as client:
            result = await client.call_tool("add", {"a": 1, "b": 2})
            return result.content[0].text  # type: ignore[union-attr]

    said, page = await asyncio.gather(use(), desk.consents())
    assert said == "3" and page.status_code == 200
    called = [d for d in decisions(site.home.path) if d[0].action.method == "tools/call"]
    assert (called[-1][0].agent.id, called[-1][0].user) == ("bot", "ada")
    assert stat.S_IMODE(desk.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(desk.file.parent.stat().st_mode) == 0o700
    assert await use() == "3"
    assert len(desk.visited) == 1


@requirement("GW-6", "ID-10")
async def test_no_token_is_told_to_anybody(desk: Desk, site: Site) -> None:
    async with desk.bridge() as bridge:
        assert text(await first(desk, bridge)) == "3"
        argv = Path(f"/proc/{bridge.process.pid}/cmdline").read_bytes().decode()
    said = desk.log.read_text()
    assert said.count(desk.visited[0]) == 1  # for a machine without a browser
    for secret in (desk.kept["access"], desk.kept["refresh"]):
        assert secret and secret not in said + argv + site.gateway.output + desk.pages.read_text()


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_a_token_that_ends_is_renewed_without_anybody(desk: Desk, site: Site) -> None:
    async with desk.bridge() as bridge:
        await first(desk, bridge)
        before = desk.kept
        site.home.registry.end_tokens(  # the gateway refuses it, though its end has not come
            _claims(before["access"])["jti"], time.time_ns() + 10**12, site.home.act()
        )
        await _refused(site, before["access"])
        assert text(await bridge.ask()) == "3"
        after = desk.kept
    assert after["refresh"] != before["refresh"] and after["client_id"] == before["client_id"]
    desk.change(renew_at=1)
    async with desk.bridge() as bridge:
        assert text(await bridge.ask()) == "3"
    assert desk.kept["access"] != after["access"] and desk.kept["renew_at"] > time.time()
    assert len(desk.visited) == 1


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_after_a_revocation_the_person_is_asked_again(desk: Desk, site: Site) -> None:
    async with desk.bridge() as bridge:
        await first(desk, bridge)
        before = desk.kept
        form = {"token": before["refresh"], "client_id": before["client_id"]}
        httpx2.post(f"{site.issuer}/oauth/revoke", data=form)
        site.let_register(0)  # its registration still holds
        assert text(await first(desk, bridge, 2)) == "3"
    assert desk.kept["client_id"] == before["client_id"]
    site.let_register()
    Clients(site.home.state.authorization, os.urandom).revoke(before["client_id"], site.doing())
    desk.change(renew_at=1)
    async with desk.bridge() as bridge:
        assert text(await first(desk, bridge, 3)) == "3"
    assert desk.kept["client_id"] != before["client_id"]


@pytest.mark.long
@requirement("GW-6", "ID-2")
async def test_a_call_that_needs_more_scope_asks_for_all_together(desk: Desk, site: Site) -> None:
    async with desk.bridge() as bridge:
        await first(desk, bridge)
    kept = desk.kept
    form = {
        "grant_type": "refresh_token", "refresh_token": kept["refresh"],
        "client_id": kept["client_id"], "scope": "mcp:read",
    }  # fmt: skip
    given = httpx2.post(f"{site.issuer}/oauth/token", data=form).json()
    narrow = {"access": given["access_token"], "refresh": given["refresh_token"]}
    desk.change(**narrow, scopes=["mcp:read"])
    async with desk.bridge() as bridge:
        assert text(await first(desk, bridge, 2)) == "3"
    asked = httpx2.URL(desk.visited[1]).params["scope"].split()
    assert asked[0] == "mcp:read" and set(asked) > {"mcp:read"}
    assert set(desk.kept["scopes"]) == set(asked)


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_two_bridges_ask_once_and_never_renew_against_each_other(desk: Desk) -> None:
    async with desk.bridge() as one, desk.bridge() as other:
        answers = await asyncio.gather(one.ask(), other.ask(), desk.consents())
        assert [text(answer) for answer in answers[:2]] == ["3", "3"]
    assert len(desk.visited) == 1
    for _ in range(3):
        desk.change(renew_at=1)
        async with desk.bridge() as one, desk.bridge() as other:
            answers = await asyncio.gather(one.ask(), other.ask())
            assert [text(answer) for answer in answers] == ["3", "3"]
    assert len(desk.visited) == 1


@requirement("GW-6", "ID-7")
async def test_closed_registration_is_said_with_the_next_step(desk: Desk, site: Site) -> None:
    site.let_register(0)
    async with desk.bridge() as bridge:
        error = (await bridge.ask())["error"]
    assert error["code"] == -31401
    assert "register" in error["message"] and "`exeat client open`" in error["message"]
    assert not desk.visited and "Traceback" not in desk.log.read_text()


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_a_client_that_an_admin_added_needs_no_registration(desk: Desk, site: Site) -> None:
    site.let_register(0)
    argv = [sys.executable, "-m", "exeat.cli.main", "client", "add", "desk", "--as", "ada"]
    done = subprocess.run(
        [*argv, "--redirect", "http://127.0.0.1/callback", "--home", str(site.home.path)],
        capture_output=True, text=True, env=environ(),
    )  # fmt: skip
    client = done.stdout.partition("client id: ")[2].split()[0]
    async with desk.bridge("--client-id", client) as bridge:
        assert text(await first(desk, bridge)) == "3"
    assert desk.kept["client_id"] == client


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_a_person_who_says_no_or_never_comes_back(desk: Desk) -> None:
    async with desk.bridge() as bridge:
        answer, _ = await asyncio.gather(bridge.ask(), desk.consents(1, "deny"))
        assert "No access was given" in answer["error"]["message"]
        assert (
            "No access was given" in (await bridge.ask())["error"]["message"]
        )  # not asked anew at once
    assert len(desk.visited) == 1
    async with desk.bridge("--wait-seconds", "1") as bridge:
        assert "Nobody signed in within" in (await bridge.ask())["error"]["message"]


@pytest.mark.long
@requirement("GW-6", "ID-7")
async def test_signing_in_ahead_and_signing_out(desk: Desk, site: Site) -> None:
    done, _ = await asyncio.gather(asyncio.to_thread(desk.run, "--sign-in"), desk.consents())
    assert (done.returncode, done.stdout) == (0, "") and "Signed in." in done.stderr
    async with desk.bridge() as bridge:
        assert text(await bridge.ask()) == "3"
    token = desk.kept["access"]
    done = await asyncio.to_thread(desk.run, "--sign-out")
    assert (done.returncode, done.stdout) == (0, "") and "revoked" in done.stderr
    assert not list((desk.home / "bridge").glob("*.json"))
    assert status_of(site, token) == 401
    assert "no sign-in" in (await asyncio.to_thread(desk.run, "--sign-out")).stderr


def _claims(token: str) -> dict[str, Any]:
    import base64

    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


async def _refused(site: Site, token: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(status_of, site, token) != 401:
            pass

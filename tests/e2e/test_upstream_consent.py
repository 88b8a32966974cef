"""ID-9 with everything real: `exeat up`, a protected MCP server with its authorization server, a person's
browser, and an agent that is led to the consent page."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from browsing import Browser
from gateways import Gateway, Wire, decisions, denied, entries, environ, running, verified
from homes import ADA, BOB, Home
from local_as import LocalAs
from local_site import Answer, Asked, LocalSite, site_in_thread
from portal import CALLBACK, VERIFIER, answered, authorize_path
from requirements import requirement

from exeat.core.upstream_auth import AuthMode, UpstreamAuth
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients

TOOL = {
    "name": "files",
    "description": "files",
    "inputSchema": {"type": "object", "properties": {}},
}
URLS = {"elicitation": {"url": {}}}


class Drive:
    """An MCP server that takes tokens of its own authorization server alone."""

    def __init__(self, site: LocalSite) -> None:
        self.site = site
        self.server = LocalAs(site)
        self.calls = 0
        self.authorized: list[dict[str, str]] = []
        site.routes |= {"/mcp": self.mcp, "/authorize": self.authorize}

    def authorize(self, asked: Asked) -> Answer:
        """A person who is signed in there and says yes, or said it before: no page is shown."""
        self.authorized.append(asked.query)
        back = self.server.authorize(f"{self.site.url}/authorize?{httpx2.QueryParams(asked.query)}")
        to = asked.query["redirect_uri"]
        return Answer(b"", 302, {"location": f"{to}?{httpx2.QueryParams(back)}"})

    def mcp(self, asked: Asked) -> Answer:
        if not asked.headers.get("authorization", "").startswith("Bearer access-"):
            return Answer(b"", 401, {"www-authenticate": 'Bearer scope="files:read"'})
        method, request = asked.json["method"], asked.json["id"]
        result: dict[str, Any] = {"tools": [TOOL]}
        if method == "server/discover":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        elif method == "tools/call":
            self.calls += 1
            result = {"content": [{"type": "text", "text": "a.txt"}]}
        whole = {"jsonrpc": "2.0", "id": request, "result": {**result, "resultType": "complete"}}
        return Answer(whole)


@pytest.fixture
def drive() -> Iterator[Drive]:
    with site_in_thread() as site:
        yield Drive(site)


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


def made(path: Path, drive: Drive) -> tuple[Home, str]:
    home = Home(path)
    server = home.server(
        "drive", url=f"{drive.site.url}/mcp", auth=UpstreamAuth(AuthMode.AUTHORIZATION_CODE)
    )
    home.pin_all(server, [TOOL])
    home.agent("bot", ["drive"])
    home.policy('@id("all") permit(principal, action, resource);')
    return home, home.key("bot", ADA)


@requirement("ID-9", "ID-10", "GW-13")
def test_an_agent_leads_its_person_to_consent_and_never_sees_a_token(
    tmp_path: Path, drive: Drive
) -> None:
    home, key = made(tmp_path / "home", drive)
    with running(Gateway(home.path)) as gateway, ExitStack() as browsers:
        wire = Wire(gateway.port, key, "/mcp/drive")
        wire.offers = URLS
        result = wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")["result"]
        (question,) = result["inputRequests"].values()
        link = question["params"]["url"]
        control = link.partition("/upstreams/consent/")[0]
        stranger, bob, ada = (browsers.enter_context(Browser(control)) for _ in range(3))
        assert "passkey" in stranger.get(link).text  # who is not signed in must sign in first
        assert wire_opens_nothing(link, key)
        bob.sign_in(home, BOB)
        refused = bob.get(link)
        assert refused.status_code == 403 and "another person" in refused.text
        ada.sign_in(home, ADA)
        page = ada.get(link)
        assert "files:read" in page.text and drive.site.url.partition("://")[2] in page.text
        forged = ada.client.post(link, data={}, headers={"origin": "https://evil.example"})
        assert forged.status_code == 403
        done = ada.submit(page)
        assert done.status_code == 200 and "has access to drive" in done.text
        again = ada.get(ada.visited[-1])  # the same answer once more
        assert again.status_code == 403

        retry = {
            "name": "files", "arguments": {}, "requestState": result["requestState"],
            "inputResponses": {"exeat/consent": {"action": "accept"}},
        }  # fmt: skip
        answer = wire.ask("tools/call", retry, "files")
        assert answer["result"]["content"][0]["text"] == "a.txt"
        assert drive.calls == 1
        output = gateway.output
        assert gateway.stop() == 0
    with running(Gateway(home.path)) as gateway:  # the vault kept it
        wire = Wire(gateway.port, key, "/mcp/drive")
        assert wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")["result"]
        output += gateway.output
        assert gateway.stop() == 0
    home.state.close()
    assert len(drive.server.clients) == 1
    secrets = [b"access-", b"refresh-", b"s3cret", key.encode()]
    for file in [path for path in home.path.rglob("*") if path.is_file()]:
        held = file.read_bytes()
        assert not any(secret in held for secret in secrets), file
    assert not any(secret.decode() in output for secret in secrets)


def wire_opens_nothing(link: str, key: str) -> bool:
    """GW-13: an agent's own key is nobody's session."""
    with httpx2.Client() as client:
        answer = client.get(link, headers={"authorization": f"Bearer {key}"})
    return answer.status_code == 303 and "/sign-in" in answer.headers["location"]


@requirement("ID-7", "ID-9", "ID-5")
def test_the_gateway_is_nobodys_confused_deputy(tmp_path: Path, drive: Drive) -> None:
    """One client id of the gateway at an authorization server that remembers consent and sends every
    browser on; clients that registered themselves at the gateway.  (MCP, security best practices.)

    1. ada gave access to drive, for bot
    2. a stranger's client sends ada's browser to us: she is shown a page, and nothing leaves without it
    3. allowed as somebody new, it is no agent: denied, and no consent to drive is even begun
    4. another agent of ada's, and the stranger's own, need a consent of their own
    5. every code of drive went to the gateway's own callback, for what its person had begun
    """
    home = Home(tmp_path / "home")
    auth = UpstreamAuth(
        AuthMode.AUTHORIZATION_CODE, issuer=drive.site.url, client_id="exeat-at-drive",
        secret_from="EXEAT_DRIVE_SECRET",
    )  # fmt: skip
    home.pin_all(home.server("drive", url=f"{drive.site.url}/mcp", auth=auth), [TOOL])
    for agent in ("bot", "second", "evil"):
        home.agent(agent, ["drive"])
    home.policy('@id("all") permit(principal, action, resource);')
    keys = {name: home.key(name, ADA) for name in ("bot", "second")} | {
        "evil": home.key("evil", BOB)
    }
    with running(Gateway(home.path, drive_secret="of-drive-41")) as gateway, ExitStack() as stack:

        def link(agent: str) -> str:
            wire = Wire(gateway.port, keys[agent], "/mcp/drive")
            said = wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")["result"]
            return str(said["_meta"]["exeat/consent"]["url"])

        def works(agent: str) -> bool:
            wire = Wire(gateway.port, keys[agent], "/mcp/drive")
            said = wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")["result"]
            return "a.txt" in json.dumps(said)

        first = link("bot")
        control = first.partition("/upstreams/consent/")[0]
        ada = stack.enter_context(Browser(control))
        ada.sign_in(home)
        assert ada.consent(first).status_code == 200 and works("bot")  # 1

        clients = Clients(home.state.authorization, os.urandom)
        clients.open_window(5, Doing(ADA, "test", time.time_ns(), "for a test"))
        said = {"client_name": "drive", "redirect_uris": ["http://127.0.0.1/callback"]}
        stranger = httpx2.post(f"{control}/oauth/register", json=said).json()["client_id"]
        asked = f"{control}{authorize_path(stranger, resource=gateway.endpoint('drive'))}"
        silent = ada.client.get(f"{asked}&prompt=none")
        assert answered(silent)["error"] == "consent_required"
        begun = len(drive.authorized)
        page = ada.get(asked)
        assert page.status_code == 200 and len(drive.authorized) == begun  # 2
        found = re.search(r'name="seen" value="([0-9a-f]+)"', page.text)
        csrf = re.search(r'name="csrf" content="([0-9a-f]+)"', page.text)
        assert found is not None and csrf is not None
        form = {"csrf": csrf[1], "seen": found[1], "agent": "later", "decision": "allow"}
        allowed = ada.client.post(asked, data=form, headers={"origin": control})
        token = httpx2.post(
            f"{control}/oauth/token",
            data={
                "grant_type": "authorization_code", "client_id": stranger,
                "code": answered(allowed)["code"], "redirect_uri": CALLBACK,
                "code_verifier": VERIFIER, "resource": gateway.endpoint("drive"),
            },
        ).json()["access_token"]  # fmt: skip
        told = Wire(gateway.port, token, "/mcp/drive").call("files")
        assert denied(told) == "agent_unregistered" and "consent" not in json.dumps(told)  # 3

        for agent in ("second", "evil"):
            assert not works(agent)
        theirs = link("evil")  # the stranger has ada's browser open it
        assert ada.get(theirs).status_code == 403
        mine = link("second")
        assert ada.get(mine).status_code == 200 and not works("second")  # looking gives nothing
        assert len(drive.authorized) == begun == 1
        assert ada.consent(mine).status_code == 200 and works("second") and not works("evil")  # 4
        assert gateway.stop() == 0
    home.state.close()
    assert {each["redirect_uri"] for each in drive.authorized} == {f"{control}/upstreams/callback"}
    assert {each["client_id"] for each in drive.authorized} == {"exeat-at-drive"}
    assert len(drive.authorized) == 2 and drive.server.clients == {}  # 5


@requirement("ID-9")
def test_evidence_says_that_consent_was_missing_and_then_obtained(
    tmp_path: Path, drive: Drive
) -> None:
    home, key = made(tmp_path / "home", drive)
    with running(Gateway(home.path)) as gateway:
        wire = Wire(gateway.port, key, "/mcp/drive")
        said = wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")["result"]
        link = said["_meta"]["exeat/consent"]["url"]
        with Browser(link.partition("/upstreams")[0]) as ada:
            ada.sign_in(home)
            assert ada.consent(link).status_code == 200
        assert "a.txt" in json.dumps(
            wire.ask("tools/call", {"name": "files", "arguments": {}}, "files")
        )
        assert gateway.stop() == 0
    home.state.close()
    assert verified(home.path).sound
    outcomes = [status for _, _, status in decisions(home.path)]
    assert outcomes.count("failed") == 1 and outcomes[-1] == "ok"
    assert "upstream.credential_obtained" in str([entry.leaf for entry in entries(home.path)])


@requirement("ID-9")
def test_the_tools_of_such_a_server_are_seen_from_the_command_line(
    tmp_path: Path, drive: Drive
) -> None:
    home, _ = made(tmp_path / "home", drive)
    (home.path / "operator").write_text("ada")

    def observe(*more: str) -> str:
        command = [str(Path(sys.executable).with_name("exeat")), "server", "observe", "drive"]
        told = environ(EXEAT_HOME=str(home.path), EXEAT_CONTROL_PORT=control.rpartition(":")[2])
        done = subprocess.run(
            [*command, *more, "--home", str(home.path)], capture_output=True, text=True, env=told
        )
        return done.stdout + done.stderr

    with running(Gateway(home.path)) as gateway:
        until(lambda: "sign-in and consent" in gateway.output)
        control = re.findall(r"sign-in and consent: (\S+)", gateway.output)[0]
        assert "--for AGENT/PERSON" in observe()
        said = observe("--for", "bot/ada")
        link = re.findall(
            r"http://localhost:\d+/upstreams/consent/[\w.=-]+", said.replace("\n", "")
        )
        assert link, said
        with Browser(control) as ada:
            ada.sign_in(home)
            assert ada.consent(link[0]).status_code == 200
        assert "drive shows 1 tool." in observe("--for", "bot/ada")
        assert gateway.stop() == 0
    home.state.close()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""Real tool servers that demand permits, through a real gateway and around it (ID-11)."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateways import (
    CALL_S,
    Gateway,
    Server,
    Wire,
    agent,
    decisions,
    denied,
    environ,
    running,
    verified,
)
from homes import ADA, Home
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from requirements import requirement
from secretive_server import TOOLS

from exeat.app.permits import permit_signer
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.permit import PermitRefused, Seen, load_keys, verify_call

pytestmark = pytest.mark.anyio
OFFICE = Path(__file__).parents[2] / "demo" / "office_server.py"
READY_S = 30.0
BALANCE = {"account": "ops"}


@dataclass
class World:
    home: Home
    gateway: Gateway
    office: Path
    office_url: str
    keys: Path
    log: Path
    key: str

    def executed(self, name: str) -> list[dict[str, Any]]:
        log = self.office / name / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextlib.contextmanager
def office(folder: Path, keys: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, str(OFFICE), "--data", str(folder), "--port", str(port)]
    process = subprocess.Popen([*argv, "--permit-keys", str(keys)], env=environ())
    try:
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < READY_S:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("permits")
    home = Home(folder / "home")
    keys, log = folder / "keys.json", folder / "calls"
    keys.write_text(json.dumps({"keys": [permit_signer(home.path).public()]}))
    with office(folder / "office" / "web", keys) as url, running(
        Server([sys.executable, str(Path(__file__).parents[1] / "secretive_server.py"), str(log)], "listening")
    ) as plain:  # fmt: skip
        command = (
            sys.executable, str(OFFICE), "--data", str(folder / "office" / "box"),
            "--permit-keys", str(keys),
        )  # fmt: skip
        port = plain.line.split()[-1]
        specs = (
            ServerSpec(ServerId("web"), Transport.HTTP, url=url, permit=url),
            ServerSpec(ServerId("box"), Transport.STDIO, command=command, permit="office"),
            ServerSpec(ServerId("wrong"), Transport.HTTP, url=url, permit="https://other.example"),
            ServerSpec(
                ServerId("seen"), Transport.HTTP, url=f"http://127.0.0.1:{port}/mcp", permit="seen"
            ),
            ServerSpec(ServerId("plain"), Transport.HTTP, url=f"http://127.0.0.1:{port}/mcp"),
        )
        for spec in specs:
            home.registry.add_server(spec, ADA, 0, [], home.act())
            home.pin_all(spec.id, TOOLS if spec.id in ("seen", "plain") else None)
        home.policy('@id("all") permit(principal, action, resource);')
        key = home.agent("bot", [spec.id for spec in specs])
        with running(Gateway(home.path)) as gateway:
            yield World(home, gateway, folder / "office", url, keys, log, key)
            Wire.close_all()
            home.state.close()
            assert gateway.stop() == 0
    assert verified(home.path).sound


@requirement("ID-11")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("server", ["web", "box"])
async def test_through_the_gateway_it_works(world: World, server: str, mode: str) -> None:
    before = len(world.executed(server))
    async with agent(world.gateway.endpoint(server), world.key, mode) as client:
        for _ in range(2):
            result = await client.call_tool("get_balance", BALANCE)
            assert not result.is_error and result.structured_content["balance"] == 12_500
        paid = {"from_account": "ops", "to_account": "ops", "amount": 80, "currency": "EUR"}
        assert not (await client.call_tool("transfer", {**paid, "amount": 0.5})).is_error
    assert len(world.executed(server)) == before + 3
    assert decisions(world.home.path)[-1][0].action.upstream_mode == "permit-enforced"


@requirement("ID-11")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_around_it_nothing_does(world: World, mode: str) -> None:
    before = len(world.executed("web"))
    async with (
        httpx2.AsyncClient(timeout=CALL_S, headers={"Exeat-Permit": "a.b.c"}) as forged,
        httpx2.AsyncClient(timeout=CALL_S) as bare,
    ):
        for http, says in ((bare, "needs one permit"), (forged, "is not base64url")):
            transport = streamable_http_client(world.office_url, http_client=http)
            async with Client(transport, mode=mode) as client:
                assert (await client.list_tools()).tools
                with pytest.raises(MCPError, match=says):
                    await client.call_tool("get_balance", BALANCE)
    assert len(world.executed("web")) == before


@requirement("ID-11")
async def test_around_it_on_stdio_nothing_does(world: World, tmp_path: Path) -> None:
    argv = [str(OFFICE), "--data", str(tmp_path), "--permit-keys", str(world.keys)]
    async with Client(StdioServerParameters(command=sys.executable, args=argv)) as client:
        assert (await client.list_tools()).tools
        with pytest.raises(MCPError, match="Refused: The call has no permit"):
            await client.call_tool("get_balance", BALANCE)
    assert not (tmp_path / "calls.jsonl").exists()


@requirement("ID-11", "GW-11")
async def test_a_permit_for_another_server_is_refused_and_that_is_told(world: World) -> None:
    before = len(world.executed("web"))
    async with agent(world.gateway.endpoint("wrong"), world.key) as client:
        with pytest.raises(MCPError, match="Refused: The permit is for another server"):
            await client.call_tool("get_balance", BALANCE)
    assert len(world.executed("web")) == before


@requirement("ID-11")
async def test_what_was_seen_on_the_way_names_the_entry_and_serves_once(world: World) -> None:
    wire = Wire(world.gateway.port, world.key, "/mcp/seen")
    assert not denied(wire.call("look", paths=["é"]))
    seen_call = json.loads(world.log.read_text().splitlines()[-1])
    permit, params = seen_call["exeat-permit"], seen_call["body"]["params"]
    keys, seen = load_keys(world.keys), Seen()
    found = verify_call(params, permit=permit, keys=keys, audience="seen", seen=seen)
    last = decisions(world.home.path)[-1][0]
    assert (found.decision, found.run, found.agent) == (f"gw1-{last.index}", last.run, "bot")
    assert found.definition == last.action.pin and found.expires_at - found.issued_at == 10
    with pytest.raises(PermitRefused, match="used before"):
        verify_call(params, permit=permit, keys=keys, audience="seen", seen=seen)
    with pytest.raises(PermitRefused, match="other arguments"):
        changed = {**params, "arguments": {"paths": ["e"]}}
        verify_call(changed, permit=permit, keys=keys, audience="seen", seen=Seen())
    assert "result" in Wire(world.gateway.port, world.key, "/mcp/plain").call("given")
    plain = json.loads(world.log.read_text().splitlines()[-1])
    assert "exeat-permit" not in plain and "exeat/permit" not in str(plain)
    assert decisions(world.home.path)[-1][0].action.upstream_mode == "none"

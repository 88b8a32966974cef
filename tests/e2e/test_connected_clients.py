"""REG-5 with a real gateway: what `adopt` and `connect` write into clients' files works as written."""

import hashlib
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from command_line import Run, run
from gateways import Gateway, agent, running
from homes import Home
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from requirements import requirement

from exeat.app.observe import fetch_definitions
from exeat.cli import clients as shared
from exeat.cli import connect as connecting
from exeat.core.ids import ServerId
from exeat.governance.inventory.clients import Machine

__all__ = ["run"]
pytestmark = pytest.mark.anyio
SECRET = "EXAMPLE-who-token-0001"
SECRETIVE = [sys.executable, str(Path(__file__).with_name("secretive_server.py"))]
TIME = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@requirement("REG-5")
async def test_an_adopted_server_answers_through_the_gateway_and_so_does_a_connected_client(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    (user / ".cursor").mkdir(parents=True)
    cursor = user / ".cursor" / "mcp.json"
    entry = {"command": TIME[0], "args": TIME[1:], "timeout": 9}
    who = {"command": SECRETIVE[0], "args": SECRETIVE[1:], "env": {"WHO_TOKEN": SECRET}}
    cursor.write_text(json.dumps({"mcpServers": {"time": entry, "who": who}}))
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.chdir(user)
    for module in (shared, connecting):
        monkeypatch.setattr(module, "this_machine", lambda: Machine("linux", str(user), {}))
    home = Home(tmp_path / "home")
    (home.path / "exeat.toml").write_text(f"port = {free_port()}\n")
    at = ("--home", home.path)

    code, _, err = run("adopt", "cursor", "--yes", "--as", "ada", *at)
    assert code == 0, err
    for server in (ServerId("time"), ServerId("who")):
        spec = home.state.snapshot().specs[server]
        if server == "who":  # its secret is the vault's now, and is no part of its tools
            assert spec.env_secret == {"WHO_TOKEN": "who_token"}
            spec = replace(spec, env_secret={})
        home.pin_all(server, await fetch_definitions(spec, home.path))
    key = home.agent("clock", ["time", "who"])
    home.policy("permit(principal, action, resource);")
    key_file = tmp_path / "agent.key"
    key_file.touch(0o600)
    key_file.write_text(key)
    code, _, err = run("connect", "claude-desktop", "--key-file", key_file, "--yes", *at)
    assert code == 0, err

    written = json.loads(cursor.read_text())["mcpServers"]["time"]
    assert written["timeout"] == 9
    port = int((home.path / "exeat.toml").read_text().split()[-1])
    with running(Gateway(home.path, port)) as gateway:
        assert written["url"] == gateway.endpoint("time")
        async with httpx2.AsyncClient() as http:
            refused = await http.post(written["url"], json={})
            challenge = refused.headers["www-authenticate"]
            metadata = await http.get(
                challenge.partition('resource_metadata="')[2].partition('"')[0]
            )
        assert refused.status_code == 401
        assert metadata.json()["resource"] == written["url"]  # or a client would refuse to sign in
        async with agent(written["url"], key) as client:
            result = await client.call_tool("get_current_time", {"timezone": "UTC"})
            assert not result.is_error
        async with agent(gateway.endpoint("who"), key) as client:
            result = await client.call_tool("digest", {})
            told = result.content[0].text  # type: ignore[union-attr]
            assert told == hashlib.sha256(SECRET.encode()).hexdigest()
        desktop = user / ".config" / "Claude" / "claude_desktop_config.json"
        told = json.loads(desktop.read_text())["mcpServers"]["exeat"]
        bridge = StdioServerParameters(command=told["command"], args=told["args"])
        async with Client(bridge) as client:
            listed = await client.list_tools()
            assert "time__get_current_time" in [tool.name for tool in listed.tools]
        code, out, _ = run("discover", *at)
        assert code == 0 and "3 servers in 2 files: 0 bypass the gateway; 0 secrets" in out
        assert key not in out
    assert SECRET not in gateway.output
    home.state.close()

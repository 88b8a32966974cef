"""REG-5 with a real gateway: what `adopt` and `connect` write into clients' files works as written."""

import json
import socket
import sys
from pathlib import Path

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
    cursor.write_text(json.dumps({"mcpServers": {"time": entry}}))
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.chdir(user)
    for module in (shared, connecting):
        monkeypatch.setattr(module, "this_machine", lambda: Machine("linux", str(user), {}))
    home = Home(tmp_path / "home")
    (home.path / "exeat.toml").write_text(f"port = {free_port()}\n")
    at = ("--home", home.path)

    code, _, err = run("adopt", "cursor", "--yes", "--as", "ada", *at)
    assert code == 0, err
    server = ServerId("time")
    spec = home.state.snapshot().specs[server]
    home.pin_all(server, await fetch_definitions(spec, home.path))
    key = home.agent("clock", ["time"])
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
        async with agent(written["url"], key) as client:
            result = await client.call_tool("get_current_time", {"timezone": "UTC"})
            assert not result.is_error
        desktop = user / ".config" / "Claude" / "claude_desktop_config.json"
        told = json.loads(desktop.read_text())["mcpServers"]["exeat"]
        bridge = StdioServerParameters(command=told["command"], args=told["args"])
        async with Client(bridge) as client:
            listed = await client.list_tools()
            assert "time__get_current_time" in [tool.name for tool in listed.tools]
        code, out, _ = run("discover", *at)
        assert code == 0 and "2 servers in 2 files: 0 bypass the gateway; 0 secrets" in out
        assert key not in out
    home.state.close()

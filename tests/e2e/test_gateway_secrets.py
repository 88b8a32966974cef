"""Secrets of the vault on their way to real servers, through a real gateway; and nowhere else (ID-10)."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways import UP, Gateway, Server, Wire, environ, running, text
from homes import Home
from requirements import requirement
from secretive_server import TOOLS

from exeat.app.settings import load_settings
from exeat.app.vault import open_vault
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.core.secret import TENANT, SecretId
from exeat.gateway.isolation import landlock_abi
from exeat.governance.secrets import rotate_key, set_secret

SCRIPT = str(Path(__file__).parents[1] / "secretive_server.py")
FIRST, SECOND, OWN = "hush-first-41", "hush-second-42", "hush-of-bot-43"
DEADLINE_S = 20.0


class World:
    def __init__(self, folder: Path, **settings: str) -> None:
        self.home = Home(folder / "home")
        self.settings = settings
        self.log = folder / "calls"
        self.upstream = Server([sys.executable, SCRIPT, str(self.log)], "listening on ")
        environment = {f"EXEAT_{name.upper()}": value for name, value in settings.items()}
        self.environ = {**os.environ, **environment}
        self.vault = open_vault(
            self.home.path, load_settings(self.home.path, **_typed(settings)),
            self.home.state, self.environ,
        )  # fmt: skip

    def secret(self, value: str, *, server: str = "", agent: str = "") -> None:
        at = SecretId(TENANT, agent, server, "token")
        set_secret(self.vault, at, value.encode(), self.home.act())

    def servers(self) -> None:
        """``web`` takes the secret in a header, ``box`` in a variable."""
        url = f"http://127.0.0.1:{self.upstream.line.split()[-1]}/mcp"
        web = ServerSpec(
            ServerId("web"), Transport.HTTP, url=url,
            headers_secret={"Authorization": "Bearer {token}"},
        )  # fmt: skip
        box = ServerSpec(
            ServerId("box"), Transport.STDIO, command=(sys.executable, SCRIPT),
            env_secret={"TOKEN": "token"},
        )  # fmt: skip
        for spec in (web, box):
            self.home.registry.add_server(spec, self.home.act().actor, 0, [], self.home.act())
            self.home.pin_all(spec.id, TOOLS)
        self.home.policy('@id("all") permit(principal, action, resource);')

    def close(self) -> None:
        self.home.state.close()
        self.upstream.kill()
        Wire.close_all()


def _typed(settings: dict[str, str]) -> dict[str, Any]:
    return {k: tuple(json.loads(v)) if v.startswith("[") else v for k, v in settings.items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def until(holds: Callable[[], Any]) -> None:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < DEADLINE_S, "it never came to hold"
        time.sleep(0.01)


def given(wire: Wire) -> str:
    answer = wire.call("given")
    return str(json.loads(text(answer))) if "result" in answer else str(answer["error"]["message"])


@requirement("ID-10")
def test_servers_are_given_the_value_in_force_and_each_agent_its_own(world: World) -> None:
    world.secret(FIRST)
    world.servers()
    keys = {name: world.home.agent(name, ["web", "box"]) for name in ("bot", "cat")}
    with running(Gateway(world.home.path)) as gateway:
        wires = {
            (name, server): Wire(gateway.port, key, f"/mcp/{server}")
            for name, key in keys.items()
            for server in ("web", "box")
        }
        for (_, server), wire in wires.items():
            assert given(wire) == digest(FIRST if server == "box" else f"Bearer {FIRST}")
        world.secret(SECOND)
        until(lambda: given(wires["bot", "web"]) == digest(f"Bearer {SECOND}"))
        until(lambda: given(wires["cat", "box"]) == digest(SECOND))
        world.secret(OWN, agent="bot")
        until(lambda: given(wires["bot", "web"]) == digest(f"Bearer {OWN}"))
        until(lambda: given(wires["bot", "box"]) == digest(OWN))
        assert given(wires["cat", "web"]) == digest(f"Bearer {SECOND}")
        assert given(wires["cat", "box"]) == digest(SECOND)
        rotate_key(world.vault, world.home.act())
        world.secret(FIRST)  # under the new key, which the gateway has not seen yet
        until(lambda: given(wires["cat", "web"]) == digest(f"Bearer {FIRST}"))
        assert gateway.stop() == 0
    _nowhere(world, gateway.output)


def _nowhere(world: World, output: str) -> None:
    """Not in what the gateway said, nor in any file of the home."""
    places = [output.encode(), *(p.read_bytes() for p in world.home.path.rglob("*") if p.is_file())]
    for value in (FIRST, SECOND, OWN):
        for form in (value.encode(), base64.b64encode(value.encode()), digest(value).encode()):
            assert not [place[:80] for place in places if form in place]


@requirement("ID-10", "GW-12")
@pytest.mark.skipif(landlock_abi() < 3, reason="the kernel has no Landlock ABI 3")
def test_a_stdio_server_reaches_neither_key_nor_the_gateways_environment(tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    made = World(tmp_path, vault_key_env="MY_VAULT_KEY")
    try:
        made.environ["MY_VAULT_KEY"] = key
        made.vault = open_vault(
            made.home.path,
            load_settings(made.home.path, vault_key_env="MY_VAULT_KEY"),
            made.home.state,
            made.environ,
        )
        made.secret(FIRST)
        made.servers()
        nosy = ServerSpec(
            ServerId("nosy"), Transport.STDIO, command=(sys.executable, SCRIPT),
            env_from=("MY_VAULT_KEY",),
        )  # fmt: skip
        made.home.registry.add_server(nosy, made.home.act().actor, 0, [], made.home.act())
        made.home.pin_all(nosy.id, TOOLS)
        (made.home.path / "keys").mkdir(exist_ok=True)
        (made.home.path / "keys" / "vault.key").write_text("bait")
        wire_key = made.home.agent("bot", ["web", "box", "nosy"])
        env = environ(EXEAT_VAULT_KEY_ENV="MY_VAULT_KEY", MY_VAULT_KEY=key)
        with running(_gateway(made.home.path, env)) as gateway:
            wire = Wire(gateway.port, wire_key, "/mcp/box")
            paths = [str(made.home.path / "keys" / "vault.key"), "/proc/PARENT/environ"]
            seen = json.loads(text(wire.call("look", paths=[*paths, "/proc/self/environ"])))
            assert seen == ["PermissionError", "PermissionError", "read"]
            children = _environments(gateway.process.pid)
            assert any(FIRST in each for each in children) and not any(key in c for c in children)
            listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
            assert FIRST not in listed and key not in listed
            refused = given(Wire(gateway.port, wire_key, "/mcp/nosy"))
            assert "needs the environment variable MY_VAULT_KEY, which is not set" in refused
        assert key not in gateway.output and FIRST not in gateway.output
    finally:
        made.close()


def _gateway(home: Path, env: dict[str, str]) -> Gateway:
    gateway = Gateway.__new__(Gateway)
    argv = [sys.executable, "-c", UP, "--home", str(home), "--port", "0"]
    Server.__init__(gateway, argv, "exeat is up: ", env)
    gateway.home, gateway.url = home, gateway.line.strip().rpartition(" ")[2]
    gateway.port = int(gateway.url.split(":")[2].split("/")[0])
    return gateway


def _environments(parent: int) -> list[str]:
    found = []
    for name in Path("/proc").iterdir():
        stat = _read(name / "stat") if name.name.isdigit() else ""
        if stat and int(stat.rpartition(")")[2].split()[1]) == parent:
            found.append(_read(name / "environ"))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@requirement("ID-10", "GW-11")
def test_a_secret_that_is_missing_or_does_not_open_fails_the_call_and_says_which(
    world: World,
) -> None:
    world.servers()
    key = world.home.agent("bot", ["web", "box"])
    with running(Gateway(world.home.path)) as gateway:
        wires = [Wire(gateway.port, key, f"/mcp/{server}") for server in ("web", "box")]
        for wire in wires:
            assert "server" in given(wire) and "needs secret token, which is not set" in given(wire)
        world.secret(FIRST)
        # a server that was asked just before is closed when the gateway hears of the new value
        until(lambda: given(wires[1]) == digest(FIRST))
        until(lambda: given(wires[0]) == digest(f"Bearer {FIRST}"))
        assert gateway.stop() == 0
    path = world.home.path / "keys" / "vault.key"
    stored = path.read_text()
    for wrong, mode in ((base64.b64encode(b"x" * 32).decode(), 0o600), (stored, 0o644)):
        path.write_text(wrong)
        path.chmod(mode)
        with running(Gateway(world.home.path)) as gateway:
            wires = [Wire(gateway.port, key, f"/mcp/{server}") for server in ("web", "box")]
            for wire in wires:
                assert "needs secret token, which cannot be used" in given(wire)
                assert "keys" not in given(wire)  # where they are is not an agent's business
            path.write_text(stored)
            path.chmod(0o600)
            assert given(wires[0]) == digest(f"Bearer {FIRST}")
            assert given(wires[1]) == digest(FIRST)
            assert "a secret cannot be used" in gateway.output and FIRST not in gateway.output

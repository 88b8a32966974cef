"""A server on stdio that starts slowly is met in its own era, and one that cannot be met is not left running
(GW-4, GW-5).  Real children, which answer when the test needs it: behind the gateway's second line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from requirements import requirement

from exeat.app.observe import fetch_definitions
from exeat.core.errors import UpstreamFailed
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.gateway import handshake
from exeat.gateway.handshake import greet
from exeat.gateway.methods import Era
from exeat.gateway.upstreams import UpstreamServer

pytestmark = pytest.mark.anyio
CHILD = """
import json, sys

def hear():
    while True:
        message = json.loads(sys.stdin.readline() or sys.exit())
        if "id" in message:
            return message

def say(message, **rest):
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **rest}), flush=True)

NO = {"code": -32601, "message": "no"}
PROBED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
          "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
OPENED = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
          "serverInfo": {"name": "child", "version": "1"}}
TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}],
         "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
probe, opening = hear(), hear()
assert (probe["method"], opening["method"]) == ("server/discover", "initialize"), (probe, opening)
"""
LISTS = "say(hear(), result=TOOLS)\nhear()"
SLOW_MODERN = f"say(probe, result=PROBED); say(opening, error=NO)\n{LISTS}"
SLOW_LEGACY = f"say(probe, error=NO); say(opening, result=OPENED)\n{LISTS}"
IGNORES_PROBES = f"say(opening, result=OPENED)\n{LISTS}"
REFUSED_THEN_MODERN = f"say(opening, error=NO); say(probe, result=PROBED)\n{LISTS}"
UNMET = {
    "silent": "hear()",
    "refuses both": "say(probe, error=NO); say(opening, error=NO)\nhear()",
    "unknown revision": "say(opening, result={**OPENED, 'protocolVersion': '1'})\nhear()",
    "nonsense for a list": "say(opening, result=OPENED); say(hear(), result={'tools': 1})\nhear()",
}


def spec(rest: str) -> ServerSpec:
    command = (sys.executable, "-I", "-S", "-c", CHILD + rest)
    return ServerSpec(ServerId("child"), Transport.STDIO, command=command)


@pytest.fixture
def eras(monkeypatch: pytest.MonkeyPatch) -> list[Era]:
    """The eras of the links that were met.  The probe is given up as late at once."""
    met: list[Era] = []

    async def noted(link: Any, *rest: Any) -> Any:
        about = await greet(link, *rest)
        met.append(link.era)
        return about

    monkeypatch.setattr(handshake, "PROBE_MAX_S", 0.0)
    monkeypatch.setattr("exeat.gateway.upstreams.greet", noted)
    return met


def left_running() -> int:
    """How many children are; they are ended, for the loop would wait for them."""
    found = psutil.Process().children(recursive=True)
    for each in found:
        each.kill()
    return len(found)


@requirement("GW-4", "GW-5")
@pytest.mark.parametrize(
    ("rest", "era"),
    [
        (SLOW_MODERN, Era.MODERN),
        (REFUSED_THEN_MODERN, Era.MODERN),
        (SLOW_LEGACY, Era.LEGACY),
        (IGNORES_PROBES, Era.LEGACY),
    ],
)
async def test_a_server_that_is_slow_to_start_is_met_in_its_era(
    eras: list[Era], tmp_path: Path, rest: str, era: Era
) -> None:
    (tool,) = await fetch_definitions(spec(rest), tmp_path)
    assert (tool["name"], eras) == ("t", [era])
    assert left_running() == 0


@requirement("GW-5", "GW-11")
@pytest.mark.parametrize("how", UNMET)
async def test_a_server_that_cannot_be_met_is_not_left_running(
    monkeypatch: pytest.MonkeyPatch, eras: list[Era], tmp_path: Path, how: str
) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_MAX_S", 2.0 if how == "silent" else 20.0)
    with pytest.raises(UpstreamFailed):
        await fetch_definitions(spec(UNMET[how]), tmp_path)
    assert left_running() == 0


@requirement("GW-5")
async def test_a_server_that_is_replaced_while_it_starts_is_not_left_running(
    monkeypatch: pytest.MonkeyPatch, eras: list[Era], tmp_path: Path
) -> None:
    whole: Callable[..., Any] = UpstreamServer._list

    async def replaced(server: UpstreamServer, link: Any) -> None:
        await whole(server, link)
        await server.close()

    monkeypatch.setattr(UpstreamServer, "_list", replaced)
    with pytest.raises(UpstreamFailed, match="changed or removed while it started"):
        await fetch_definitions(spec(IGNORES_PROBES), tmp_path)
    assert left_running() == 0

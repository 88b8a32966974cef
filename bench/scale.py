"""Part 5: does it stay flat?  Agents, tools, a long tools/list, and a start with a long record."""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import targets
import uvloop
from load import MODERN, drive
from policies import AGENT, AGENTS, GROUPS, policies
from targets import Target
from upstream import TOOLS_DEFAULT, tool_names

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from homes import Home
from ledger_world import CONTEXT, PERMIT, REQUEST

from exeat.evidence.keys import create_master, create_signer
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import Instance, OutcomeFacts
from exeat.storage.ledger import SqliteLedgerStore
from exeat.storage.state import open_state

CONNECTIONS: Final = 32
WAVE: Final = 500


def _home(folder: Path, port: int, agents: int, tools: int) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    home = Home(folder)
    for server in ("bank", "shop"):
        home.pin_all(home.server(server, url=f"http://127.0.0.1:{port}/json"))
    for number in range(agents - 1):
        home.agent(f"agent-{number}", ["shop"], groups=[f"g{number % GROUPS}"])
    bearer = home.agent(AGENT, ["bank", "shop"], groups=["g0"])
    home.policy(policies(1_000, tool_names(min(tools, TOOLS_DEFAULT))))
    home.state.close()
    return bearer


@contextlib.contextmanager
def _gateway(folder: Path, bearer: str, core: int, out: Path) -> Any:
    port = targets.free_port()
    command = [str(Path(sys.executable).with_name("exeat")), "up", "--home", str(folder)]
    began = time.perf_counter()
    with targets.started([*command, "--port", str(port)], port, core, out / "scale.log", {}) as pid:
        ready = time.perf_counter() - began
        _entered(folder)
        yield Target("exeat", port, "/mcp/shop", "/mcp/bank", bearer, pid), ready


def _entered(folder: Path) -> None:
    """Returns once the making of the home is on record: those events are no part of a call."""
    state = open_state(folder, None)
    while state.outbox.take(1):
        time.sleep(0.05)
    state.close()


async def _cost(target: Target, tools: int, seconds: float) -> dict[str, Any]:
    plan = target.plan(MODERN, tool_names(tools))
    await drive(plan, CONNECTIONS, seconds / 2)
    before = targets.cpu_seconds(target.pid)
    tally = await drive(plan, CONNECTIONS, seconds)
    spent = targets.cpu_seconds(target.pid) - before
    if tally.wrong:
        raise SystemExit(f"wrong answers: {tally.example[:300]}")
    return {
        "cpu_us": round(spent / max(len(tally.latencies), 1) * 1e6, 1),
        "rate": round(tally.rate),
        "memory_mib": targets.memory_kib(target.pid) // 1024,
        "list_ms": round(await _list(target) * 1e3, 2),
    }


async def _list(target: Target) -> float:
    """Median time of one tools/list, connection included."""
    body = msgspec.json.encode(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/list",
            "params": {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": MODERN,
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
            },
        }
    )
    lines = [f"POST {target.path} HTTP/1.1", f"Host: 127.0.0.1:{target.port}", "Connection: close"]
    lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    lines += [f"MCP-Protocol-Version: {MODERN}", "Mcp-Method: tools/list"]
    lines += [f"Authorization: Bearer {target.bearer}", f"Content-Length: {len(body)}"]
    times = []
    for _ in range(5):
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = await reader.read()
        writer.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"tools/list: {answer[:300]!r}")
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


async def _fill(folder: Path, decisions: int) -> None:
    """A record of so many permits with their outcomes, under the home's own keys."""
    keys = folder / "keys"
    signer = create_signer(keys / "gw1.ed25519", "exeat/gw1", os.urandom)
    master = create_master(keys / "master.key", os.urandom)
    instance = Instance("gw1", signer.verifier.name, signer.verifier.id.hex(), "0", "0" * 64, 0, {})
    store = SqliteLedgerStore(folder / "ledger" / "gw1.db")
    ledger = Ledger(instance, store, signer, master, clock=time.time_ns, random=os.urandom)
    loop = asyncio.get_running_loop()
    ledger.start(loop)
    left = decisions
    while left > 0:
        waits = [loop.create_future() for _ in range(min(WAVE, left))]
        for wait in waits:
            ledger.record_decision(REQUEST, PERMIT, CONTEXT, wait.set_result)
        for receipt in await asyncio.gather(*waits):
            ledger.record_outcome(OutcomeFacts(receipt, "ok"))
        left -= len(waits)
    await ledger.close()


def scale(core: int, rest: int, out: Path, shape: dict[str, Any]) -> list[dict[str, Any]]:
    """``shape``: agents, tools and decisions to try, and seconds per round."""
    lines: list[dict[str, Any]] = []
    folder = out / "scale-home"
    cases = [("agents", n, n, TOOLS_DEFAULT) for n in shape["agents"]]
    cases += [("tools", n, AGENTS, n) for n in shape["tools"]]
    for what, count, agents, tools in cases:
        with targets.upstream(rest, tools, out) as port:
            bearer = _home(folder, port, agents, tools)
            os.sched_setaffinity(0, {rest})
            with _gateway(folder, bearer, core, out) as (target, ready):
                found = uvloop.run(_cost(target, tools, shape["seconds"]))
            os.sched_setaffinity(0, {core, rest})
        lines.append({"what": what, "count": count, "start_s": round(ready, 2), **found})
        print(f"  scale {lines[-1]}", flush=True)
    for decisions in shape["decisions"]:
        with targets.upstream(rest, TOOLS_DEFAULT, out) as port:
            bearer = _home(folder, port, 2, TOOLS_DEFAULT)
            uvloop.run(_fill(folder, decisions))
            with _gateway(folder, bearer, core, out) as (target, ready):
                found = uvloop.run(_cost(target, TOOLS_DEFAULT, shape["seconds"]))
        line = {"what": "decisions on record", "count": decisions, "start_s": round(ready, 2)}
        lines.append({**line, **found})
        print(f"  scale {lines[-1]}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return lines

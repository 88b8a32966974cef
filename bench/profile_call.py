"""Where each microsecond of a call goes: the gateway's own Python, stage by stage, without the network.

A real gateway (policies, ledger, pins) in this process; both ends of the wire are played by objects, so
that what is left is our code.  Stages are timed exclusively: what a stage calls in another one counts
there.  The cost of timing itself is measured and taken off.
"""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import targets
import uvloop
from load import MODERN, Plan, drive
from upstream import TOOLS_DEFAULT, tool_names

from exeat.app.serve import Gateway
from exeat.app.settings import Settings
from exeat.storage.state import open_state

CONNECTIONS: Final = 32
CALLS: Final = 9_600
WARM: Final = 6_400
PLAYED: Final = "the upstream that is played"
STAGES: Final = (
    ("exeat.gateway.connection", "Connection.data_received", "client's bytes to a request head"),
    ("exeat.gateway.front", "Front.dispatch", "host, path, order of steps"),
    ("exeat.gateway.credentials", "Credentials.caller", "credential"),
    ("exeat.gateway.front", "read_body", "strict parse, ladder"),
    ("exeat.gateway.front", "Front._request", "session, method"),
    ("exeat.gateway.front", "Front._act", "facts"),
    ("exeat.gateway.routes", "Router.route", "facts"),
    ("exeat.gateway.routes", "Router.describe", "facts"),
    ("exeat.gateway.pipeline", "Pipeline.submit", "facts confirmed, context"),
    ("exeat.policy.decide", "Pdp.decide", "decision, input digest"),
    ("exeat.evidence.entries", "EntryWriter.decision", "decision entry, commitment"),
    ("exeat.evidence.ledger", "Ledger.record_decision", "queue of the record"),
    ("exeat.evidence.committer", "Committer.prepare", "leaf hashes, tree, sealing"),
    ("exeat.evidence.ledger", "Ledger._on_committed", "receipts"),
    ("exeat.gateway.call", "Call._recorded", "what leaves: rewritten request"),
    ("exeat.gateway.link_http", "ModernHttpLink.call", "what leaves: rewritten request"),
    ("exeat.gateway.origin", "UpstreamConnection.send", "upstream's socket"),
    ("exeat.gateway.origin", "UpstreamConnection.data_received", "upstream's bytes to an answer"),
    ("exeat.gateway.http_call", "HttpCall._whole", "upstream's bytes to an answer"),
    ("exeat.gateway.call", "Call.link_result", "answer checked, digest"),
    ("exeat.gateway.answer", "ClientAnswer.final", "answer to the client"),
    ("exeat.gateway.pipeline", "Pipeline.outcome", "outcome entry"),
    ("exeat.evidence.ledger", "Ledger.record_outcome", "outcome entry"),
)


class Clock:
    """Exclusive time per stage."""

    def __init__(self) -> None:
        self.spent: dict[str, int] = {}
        self.entered: dict[str, int] = {}
        self._stack: list[int] = []

    def wrap(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        spent, entered, stack, now = self.spent, self.entered, self._stack, time.perf_counter_ns
        spent[name] = entered[name] = 0

        def timed(*args: Any, **kwargs: Any) -> Any:
            stack.append(0)
            began = now()
            try:
                return inner(*args, **kwargs)
            finally:
                whole = now() - began
                spent[name] += whole - stack.pop()
                entered[name] += 1
                if stack:
                    stack[-1] += whole

        return timed

    def clear(self) -> None:
        for name in self.spent:
            self.spent[name] = self.entered[name] = 0

    def own_cost_ns(self) -> float:
        """What one wrapped call of nothing costs, seen from its caller."""
        probe = Clock()
        timed = probe.wrap("nothing", lambda: None)
        began = time.perf_counter_ns()
        for _ in range(20_000):
            timed()
        return (time.perf_counter_ns() - began) / 20_000


def _instrument(clock: Clock) -> None:
    for module, path, name in STAGES:
        place: Any = sys.modules[module]
        *parents, last = path.split(".")
        for parent in parents:
            place = getattr(place, parent)
        setattr(place, last, clock.wrap(name, getattr(place, last)))


class Wire:
    """A transport that goes nowhere."""

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...

    abort = pause_reading = resume_reading = close


class Player:
    """The upstream: answers with the note of the call, through real connections of the pool."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Any, bytes]] = []

    def send(self, origin: Any, raw: bytes, sink: Any) -> Any:
        from exeat.gateway.origin import UpstreamConnection

        idle = origin._idle
        connection = idle.pop() if idle else UpstreamConnection(origin)
        connection._transport = Wire()
        connection.send(raw, sink)
        body = raw[raw.index(b"\r\n\r\n") + 4 :]
        at = body.index(b'"id":') + 5
        number = body[at : body.index(b",", at)]
        answer = (
            b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"paid"}],'
            % number
        )
        answer += b'"isError":false,"resultType":"complete"}}'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.waiting.append((connection, head % len(answer) + answer))
        return connection

    def play(self) -> None:
        waiting, self.waiting = self.waiting, []
        for connection, answer in waiting:
            connection.data_received(answer)


async def _measure(home: Path, bearer: str, clock: Clock) -> dict[str, float]:
    from exeat.gateway.origin import Origin

    settings = Settings(port=0)
    gateway = Gateway(home, settings, open_state(home, None))
    port = await gateway.start()
    plan = Plan("127.0.0.1", port, "/mcp/shop", MODERN, tuple(tool_names(TOOLS_DEFAULT)), bearer)
    await drive(plan, 2, 0.3)
    player = Player()
    played = clock.wrap(PLAYED, player.send)
    Origin.send = lambda origin, raw, sink: played(origin, raw, sink)  # type: ignore
    for server in gateway.upstreams.servers.values():
        if server.origin is not None:
            server.origin._idle.clear()
    connections = [gateway.edge() for _ in range(CONNECTIONS)]
    for connection in connections:
        connection.connection_made(Wire())  # type: ignore[arg-type]
    requests = [plan.request(number, f"n{number:09d}") for number in range(CALLS)]

    async def go(count: int) -> None:
        done = 0
        while done < count:
            for connection in connections:
                connection.data_received(requests[done % CALLS])
                done += 1
            while any(connection.busy for connection in connections):
                await asyncio.sleep(0)
                player.play()

    await go(WARM)
    _instrument(clock)
    await go(WARM)
    clock.clear()
    await go(CALLS)
    del clock.spent[PLAYED]
    found = {name: spent / CALLS / 1_000 for name, spent in clock.spent.items()}
    cost = clock.own_cost_ns() / 1_000
    return {
        n: round(max(0.0, us - cost * clock.entered[n] / CALLS / 2), 2) for n, us in found.items()
    }


def profile(out: Path) -> list[dict[str, Any]]:
    """One line per stage, in the order of a call, in microseconds."""
    core = sorted(os.sched_getaffinity(0))[-1]
    home = out / "profile-home"
    shutil.rmtree(home, ignore_errors=True)
    with targets.upstream(core, TOOLS_DEFAULT, out) as port:
        bearer = targets.prepare_home(home, f"http://127.0.0.1:{port}/json")
        found = uvloop.run(_measure(home, bearer, Clock()))
    shutil.rmtree(home, ignore_errors=True)
    lines = [{"stage": stage, "us_per_call": us} for stage, us in found.items()]
    lines.append({"stage": "our Python, in all", "us_per_call": round(sum(found.values()), 1)})
    for line in lines:
        print(f"  profile {line}", flush=True)
    (out / "profile.json").write_text(json.dumps(lines, indent=1))
    return lines


if __name__ == "__main__":
    place = Path(__file__).resolve().parents[1] / "out" / "bench"
    place.mkdir(parents=True, exist_ok=True)
    profile(place)
    os._exit(0)

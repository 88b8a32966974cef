"""One gateway, its upstream and its clients, to be hurt: what was carried out, recorded and told."""

import contextlib
import http.client
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateways import ACCEPT, MODERN, Server, entries, environ, verified
from homes import Home
from worlds import META

from exeat.evidence.model import DecisionLeaf, OutcomeLeaf

TESTS = Path(__file__).resolve().parents[1]
CLIENTS = 6
CALL_S = 8.0
RECOVER_S = 40.0
LAUNCH = (
    "import sys; sys.path.insert(0, {place!r}); import shifted; shifted.install({clock!r});"
    "import typer; from exeat.cli.up import up; typer.run(up)"
)


class ShiftedGateway(Server):
    """`exeat up` whose wall clock is the system's plus what a file says (nanoseconds)."""

    def __init__(self, home: Path, clock: Path, settings: dict[str, str]) -> None:
        env = environ(**{f"EXEAT_{name.upper()}": value for name, value in settings.items()})
        code = LAUNCH.format(place=str(Path(__file__).parent), clock=str(clock))
        argv = [sys.executable, "-c", code, "--home", str(home), "--port", "0"]
        super().__init__(argv, "exeat is up: ", env)
        url = self.line.strip().rpartition(" ")[2]
        self.port = int(url.split(":")[2].split("/")[0])


@dataclass
class Told:
    """What clients were told, by number of the call: ``ok``, ``denied: reason``, ``lost`` …"""

    answers: dict[int, str] = field(default_factory=dict)
    nameless: list[str] = field(default_factory=list)
    """Denials that name no cause."""

    def counts(self) -> Counter[str]:
        return Counter(self.answers.values())


class Stage:
    """``disk``: where the home lies.  ``database_url``: None for SQLite."""

    def __init__(self, folder: Path, disk: Path, database_url: str | None) -> None:
        self.log, self.clock = folder / "executed.log", folder / "clock"
        self.clock.write_text("0")
        self.path, self.database_url = disk / "home", database_url
        self.settings = {"heartbeat_s": "1.0"}
        if database_url is not None:
            self.settings["database_url"] = database_url
        argv = [sys.executable, str(TESTS / "counting_upstream.py"), str(self.log)]
        self.upstream = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.upstream.stdout is not None
        port = self.upstream.stdout.readline().strip()
        home = self._home()
        home.pin_all(home.server("notes", url=f"http://127.0.0.1:{port}/mcp"))
        home.policy('@id("notes") permit(principal, action == Action::"notes/note", resource);')
        self.key = home.agent("writer", ["notes"])
        home.state.close()
        self.told = Told()
        self.gateway: ShiftedGateway | None = None
        self._numbers = itertools.count(1)
        self._clients: list[threading.Thread] = []
        self._stopping = threading.Event()
        self._progress = threading.Semaphore(0)

    def _home(self) -> Home:
        return Home(self.path, self.database_url) if self.database_url else Home(self.path)

    # ---- the gateway

    def start(self) -> None:
        self.gateway = ShiftedGateway(self.path, self.clock, self.settings)

    @property
    def pid(self) -> int:
        assert self.gateway is not None
        return self.gateway.process.pid

    def kill(self) -> None:
        assert self.gateway is not None
        self.gateway.end(signal.SIGKILL)

    def terminate(self) -> None:
        assert self.gateway is not None
        self.gateway.end(signal.SIGTERM)

    @property
    def alive(self) -> bool:
        return self.gateway is not None and self.gateway.process.poll() is None

    # ---- clients

    def load(self) -> None:
        """Begin calls from several clients; returns once some were answered."""
        for _ in range(CLIENTS):
            client = threading.Thread(target=self._work, daemon=True)
            client.start()
            self._clients.append(client)
        self.answered(40)

    def answered(self, count: int) -> None:
        """Wait for so many more answers, of whatever kind."""
        for _ in range(count):
            if not self._progress.acquire(timeout=CALL_S):
                return

    def unload(self) -> None:
        self._stopping.set()
        for client in self._clients:
            client.join(CALL_S * 2)
        self._clients.clear()
        self._stopping.clear()

    def _work(self) -> None:
        while not self._stopping.is_set():
            with contextlib.closing(self._connection()) as connection:
                while not self._stopping.is_set() and self._call(connection).startswith(
                    ("ok", "d")
                ):
                    pass

    def _connection(self) -> http.client.HTTPConnection:
        port = self.gateway.port if self.gateway is not None else 0
        return http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_S)

    def call(self, padding_bytes: int = 0) -> str:
        """One call on a connection of its own; padding is dropped at the gateway's door."""
        with contextlib.closing(self._connection()) as connection:
            return self._call(connection, padding_bytes)

    def _call(self, connection: http.client.HTTPConnection, padding_bytes: int = 0) -> str:
        number = next(self._numbers)
        headers = {
            "authorization": f"Bearer {self.key}", "content-type": "application/json", "accept": ACCEPT,
            "mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "note",
        }  # fmt: skip
        meta = {**META, "padding": "x" * padding_bytes} if padding_bytes else META
        params = {"name": "note", "arguments": {"n": number}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        try:
            connection.request("POST", "/mcp/notes", json.dumps(body), headers)
            answer = connection.getresponse()
            said = self._read(answer.status, answer.read())
        except TimeoutError:
            said = "no answer in time"
        except (OSError, http.client.HTTPException):
            said = "lost"
            time.sleep(0.01)  # a gateway that is down refuses at once: do not spin
        self.told.answers[number] = said
        self._progress.release()
        return said

    def _read(self, status: int, raw: bytes) -> str:
        try:
            answer = json.loads(raw)
        except ValueError:
            return f"HTTP {status}"
        result, error = answer.get("result"), answer.get("error")
        if isinstance(result, dict) and not result.get("isError"):
            return "ok"
        held = ((result or {}).get("_meta") or {}).get("exeat/denied") or {}
        held = held or (error or {}).get("data") or {}
        text = "".join(part.get("text", "") for part in (result or {}).get("content", []))
        text = text or str((error or {}).get("message", ""))
        reason = str(held.get("reason", ""))
        if not reason or not text:
            self.told.nameless.append(f"HTTP {status}: {raw[:300]!r}")
        return f"denied: {reason}"

    def recover(self) -> float | None:
        """Seconds until a call goes through again; None if none does."""
        began = time.monotonic()
        while time.monotonic() - began < RECOVER_S:
            if self.call() == "ok":
                return time.monotonic() - began
            time.sleep(0.02)
        return None

    # ---- the account

    def executed(self) -> list[int]:
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def account(self) -> "Account":
        """Compare, once the gateway is stopped."""
        permitted: dict[int, str] = {}
        outcomes: dict[int, str] = {}
        for entry in self._entries():
            leaf = entry.leaf
            if isinstance(leaf, DecisionLeaf) and leaf.verdict == "permit" and entry.values:
                number = entry.values["arguments"].get("n")
                if number is not None:
                    permitted[leaf.index] = number
            elif isinstance(leaf, OutcomeLeaf):
                outcomes[leaf.decision] = leaf.status
        executed = self.executed()
        recorded = set(permitted.values())
        done = {n for n, said in self.told.answers.items() if said == "ok"}
        return Account(
            calls=len(self.told.answers),
            executed=len(executed),
            unrecorded=sorted(set(executed) - recorded),
            repeated=[n for n, times in Counter(executed).items() if times > 1],
            claimed=sorted(done - set(executed)),
            unknown=sum(status == "unknown" for status in outcomes.values()),
            told=self.told.counts(),
            nameless=self.told.nameless,
            sound=self._verified(),
        )

    def _entries(self) -> Iterator[Any]:
        return iter(entries(self.path, self.database_url))

    def _verified(self) -> bool:
        return verified(self.path, self.database_url).sound

    def close(self) -> None:
        self.unload()
        if self.alive:
            self.kill()
        self.upstream.kill()
        self.upstream.wait()
        assert self.upstream.stdout is not None
        self.upstream.stdout.close()


@dataclass(frozen=True)
class Account:
    """``unrecorded``: carried out without a durable permit.  ``claimed``: told done, never carried
    out."""

    calls: int
    executed: int
    unrecorded: list[int]
    repeated: list[int]
    claimed: list[int]
    unknown: int
    told: Counter[str]
    nameless: list[str]
    sound: bool

    def broken(self) -> list[str]:
        """Which promises did not hold."""
        found = []
        if self.unrecorded:
            found.append(f"{len(self.unrecorded)} calls were carried out without a record")
        if self.repeated:
            found.append(f"{len(self.repeated)} calls were carried out twice")
        if self.claimed:
            found.append(f"{len(self.claimed)} calls were told done and were not")
        if self.nameless:
            found.append(f"{len(self.nameless)} denials named no cause: {self.nameless[0]}")
        if not self.sound:
            found.append("the record does not verify")
        return found

"""Real gateways, servers and clients as processes: started, awaited by what they print, killed by pid."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx2
from homes import Home
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from worlds import META, VERSION

from exeat.evidence.keys import load_master
from exeat.evidence.model import DecisionLeaf, OutcomeLeaf
from exeat.evidence.reader import Entry, EvidenceReader
from exeat.evidence.store import LedgerReader
from exeat.evidence.verify import Report, verify
from exeat.storage.ledger import SqliteLedgerReader

TESTS = Path(__file__).parent
MODERN = VERSION
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ACCEPT = "application/json, text/event-stream"
UP = "import typer; from exeat.cli.up import up; typer.run(up)"
CALL_S = 15.0


def environ(**extra: str) -> dict[str, str]:
    """The tests' own environment without EXEAT_* settings, so that nothing outside decides; many
    gateways run beside each other, so each takes any free port for its control listener."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXEAT_")}
    return {**kept, "EXEAT_CONTROL_PORT": "0", **extra}


class Server:
    """A child that says on a line of its stdout that it is ready; the rest of its output is kept."""

    def __init__(
        self, argv: Sequence[str], ready: str, env: Mapping[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            text=True, env=dict(env) if env is not None else environ(),
        )  # fmt: skip
        self.said: deque[str] = deque(maxlen=500)
        self.line = self._await(ready)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _await(self, ready: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if ready in line:
                return line
        code = self.process.wait()
        self.process.stdout.close()
        raise NotStarted(code, "".join(self.said))

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            self.said.extend(self.process.stdout)

    def end(self, number: int) -> int:
        """Signal, then wait.  Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(20)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        return self.end(signal.SIGTERM)

    def kill(self) -> int:
        return self.end(signal.SIGKILL)

    @property
    def output(self) -> str:
        return "".join(self.said)


class NotStarted(Exception):
    """``status`` and what it said."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"ended with {status}: {said}")
        self.status, self.said = status, said


class Gateway(Server):
    """`exeat up` on a home, in a process of its own."""

    def __init__(
        self, home: Path, port: int = 0, options: Sequence[str] = (), **settings: str
    ) -> None:
        env = environ(**{f"EXEAT_{name.upper()}": value for name, value in settings.items()})
        argv = [sys.executable, "-c", UP, "--home", str(home), "--port", str(port), *options]
        super().__init__(argv, "exeat is up: ", env)
        self.home = home
        self.url = self.line.strip().rpartition(" ")[2]
        self.port = int(self.url.split(":")[2].split("/")[0])

    def endpoint(self, server: str = "") -> str:
        return f"{self.url}/{server}" if server else self.url


@contextlib.contextmanager
def running(server: Server) -> Iterator[Any]:
    try:
        yield server
    finally:
        server.kill()


@contextlib.asynccontextmanager
async def agent(url: str, key: str, mode: str = "auto", **options: Any) -> AsyncIterator[Client]:
    """The official SDK's client with an agent's key."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=CALL_S) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, **options) as client,
    ):
        yield client


class Wire:
    """A raw keep-alive client of the modern revision (blocking): one JSON-RPC request at a time."""

    opened: ClassVar[list["Wire"]] = []

    def __init__(self, port: int, key: str, path: str = "/mcp", timeout: float = CALL_S) -> None:
        self.opened.append(self)
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.path, self.key = path, key
        self.status, self.fields = 0, {}
        self.offers: dict[str, Any] = {}
        self.more: dict[str, str] = {}
        self._last = 0

    def ask(self, method: str, params: Mapping[str, Any] | None = None, name: str = "") -> Any:
        """The answer's JSON value.  Raises OSError or HTTPException when the gateway is gone."""
        self._last += 1
        body = {"jsonrpc": "2.0", "id": self._last, "method": method}
        meta = {**META, CAPABILITIES: self.offers} if self.offers else META
        body["params"] = {**(params or {}), "_meta": meta}
        fields = {
            "Content-Type": "application/json",
            "Accept": ACCEPT,
            "Authorization": f"Bearer {self.key}",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Method": method,
        }
        if name:
            fields["Mcp-Name"] = name
        return self.post(json.dumps(body), {**fields, **self.more})

    def post(self, body: str, fields: Mapping[str, str], verb: str = "POST") -> Any:
        self.http.request(verb, self.path, body, dict(fields))
        response = self.http.getresponse()
        self.status = response.status
        self.fields = {key.lower(): value for key, value in response.getheaders()}
        text = response.read().decode()
        if "event-stream" in self.fields.get("content-type", ""):
            text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
        return json.loads(text) if text.startswith("{") else text

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.ask("tools/call", {"name": tool, "arguments": arguments}, tool)

    def legacy(self, message: Mapping[str, Any], session: str = "") -> Any:
        fields = {
            "Content-Type": "application/json",
            "Accept": ACCEPT,
            "Authorization": f"Bearer {self.key}",
            "MCP-Protocol-Version": "2025-11-25",
            **({"Mcp-Session-Id": session} if session else {}),
        }
        return self.post(json.dumps({"jsonrpc": "2.0", **message}), fields)

    @classmethod
    def close_all(cls) -> None:
        for wire in cls.opened:
            wire.http.close()
        cls.opened.clear()


def denied(answer: Mapping[str, Any]) -> str:
    """The reason of a denied tool call, or empty."""
    told = answer.get("result", {}).get("_meta") or {}
    return str(told.get("exeat/denied", {}).get("reason", ""))


def text(answer: Mapping[str, Any]) -> str:
    return "".join(block.get("text", "") for block in answer["result"]["content"])


# What the ledger says.


def ledger_path(home: Path) -> Path:
    return home / "ledger" / "gw1.db"


def source_of(home: Path, database_url: str | None = None) -> LedgerReader:
    if database_url is None:
        return SqliteLedgerReader(ledger_path(home))
    from exeat.storage.ledger_postgres import PostgresLedgerReader

    return PostgresLedgerReader(database_url, "exeat/gw1")


def entries(home: Path, database_url: str | None = None) -> list[Entry]:
    """Every entry that is durable now, its values opened with the home's own key."""
    source = source_of(home, database_url)
    try:
        master = load_master(home / "keys" / "master.key")
        return list(EvidenceReader(source, "exeat/gw1", master).entries())
    finally:
        source.close()


def verified(home: Path, database_url: str | None = None) -> Report:
    source = source_of(home, database_url)
    try:
        return verify(source)
    finally:
        source.close()


def decisions(home: Path) -> list[tuple[DecisionLeaf, dict[str, Any], str]]:
    """Each decision, its opened values, and the status of its outcome (empty while there is none)."""
    found = entries(home)
    outcomes = {e.leaf.decision: e.leaf.status for e in found if isinstance(e.leaf, OutcomeLeaf)}
    return [
        (entry.leaf, entry.values, outcomes.get(entry.index, ""))
        for entry in found
        if isinstance(entry.leaf, DecisionLeaf)
    ]


def start_matrix_server(*options: str) -> Server:
    """tests/e2e/matrix_server.py over HTTP; its URL is the last word of ``line``."""
    argv = [sys.executable, str(TESTS / "e2e" / "matrix_server.py"), *options]
    return Server(argv, "listening on ")


def url_of(server: Server) -> str:
    return server.line.split()[-1]


def permit_all(home: Home, *agents: str) -> None:
    home.policy(
        "\n".join(
            f'@id("all-{a}") permit(principal == Agent::"{a}", action, resource);' for a in agents
        )
    )

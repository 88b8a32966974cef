"""Kill a gateway under load, again and again; then compare the upstream with the record."""

import http.client
import itertools
import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from homes import Home
from running import ACCEPT, META, MODERN, Gateway

from exeat.evidence.keys import load_master
from exeat.evidence.model import DecisionLeaf, OutcomeLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader

HERE = Path(__file__).parent
CLIENTS = 8


@dataclass(frozen=True)
class Tally:
    """``unrecorded``: calls that the upstream carried out without a durable permit."""

    kills: int
    executed: int
    permits: int
    unknown: int
    unrecorded: tuple[int, ...]
    sound: bool


def kill_many(folder: Path, kills: int) -> Tally:
    log = folder / "executed.log"
    upstream = subprocess.Popen(
        [sys.executable, str(HERE / "counting_upstream.py"), str(log)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert upstream.stdout is not None
    try:
        home = Home(folder / "home")
        port = upstream.stdout.readline().strip()
        server = home.server("notes", url=f"http://127.0.0.1:{port}/mcp")
        home.pin_all(server)
        home.policy('@id("notes") permit(principal, action == Action::"notes/note", resource);')
        key = home.agent("writer", ["notes"])
        home.state.close()
        numbers = itertools.count(1)
        for _ in range(kills):
            _one_life(folder / "home", key, numbers)
        last = Gateway(folder / "home")
        last.stop()
    finally:
        upstream.kill()
        upstream.wait()
        upstream.stdout.close()
    return _compare(folder, log, kills)


def _one_life(home: Path, key: str, numbers: "itertools.count[int]") -> None:
    gateway = Gateway(home)
    progress = threading.Semaphore(0)
    clients = [
        threading.Thread(target=_load, args=(gateway.port, key, numbers, progress))
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for _ in range(random.randint(1, 60)):  # kill after so many answers, in the middle of others
        progress.acquire(timeout=10)
    gateway.kill()
    for client in clients:
        client.join()


def _load(
    port: int, key: str, numbers: "itertools.count[int]", progress: threading.Semaphore
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {
        "authorization": f"Bearer {key}", "content-type": "application/json", "accept": ACCEPT,
        "mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "note",
    }  # fmt: skip
    try:
        while True:
            number = next(numbers)
            params = {"name": "note", "arguments": {"n": number}, "_meta": META}
            body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            connection.request("POST", "/mcp/notes", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            progress.release()
    except (OSError, http.client.HTTPException):
        connection.close()


def _compare(folder: Path, log: Path, kills: int) -> Tally:
    executed = [int(line) for line in log.read_text().splitlines()] if log.exists() else []
    path = next((folder / "home" / "ledger").glob("*.db"))
    master = load_master(folder / "home" / "keys" / "master.key")
    permitted: set[int] = set()
    unknown = 0
    for entry in EvidenceReader(SqliteLedgerReader(path), "exeat/gw1", master).entries():
        leaf = entry.leaf
        if isinstance(leaf, DecisionLeaf) and leaf.verdict == "permit":
            permitted.add(entry.values["arguments"]["n"])
        elif isinstance(leaf, OutcomeLeaf) and leaf.status == "unknown":
            unknown += 1
    return Tally(
        kills,
        len(executed),
        len(permitted),
        unknown,
        tuple(n for n in executed if n not in permitted),
        verify(SqliteLedgerReader(path)).sound,
    )

"""Kill a gateway under load, again and again; then compare the upstream with the record."""

import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from gateways import ACCEPT, MODERN, Gateway, entries, environ, verified
from homes import Home
from worlds import META

from exeat.evidence.model import DecisionLeaf, OutcomeLeaf

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
        with Lives(folder / "home") as lives:
            for _ in range(kills):
                _one_life(lives, key, numbers)
        last = Gateway(folder / "home")
        last.stop()
    finally:
        upstream.kill()
        upstream.wait()
        upstream.stdout.close()
    return _compare(folder, log, kills)


class Lives:
    """Gateways on one home, one after the other, from a warm parent process."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._parent = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environ(),
        )

    def __enter__(self) -> "Lives":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        self._parent.stdin.close()
        self._parent.wait(30)
        self._parent.stdout.close()

    def _say(self, line: str) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.write(line + "\n")
        self._parent.stdin.flush()

    def start(self) -> tuple[int, int]:
        """A new gateway: its pid and port."""
        assert self._parent.stdout is not None
        self._say(str(self._home))
        pid = int(self._parent.stdout.readline())
        first = self._parent.stdout.readline()
        return pid, int(first.split()[-1].split(":")[2].split("/")[0])

    def kill(self, pid: int) -> None:
        assert self._parent.stdout is not None
        os.kill(pid, signal.SIGKILL)
        self._say("")
        while (line := self._parent.stdout.readline()) != "reaped\n":
            assert line, "the parent has ended"  # else what the gateway still had to say


def _one_life(lives: Lives, key: str, numbers: "itertools.count[int]") -> None:
    pid, port = lives.start()
    progress = threading.Semaphore(0)
    clients = [
        threading.Thread(target=_load, args=(port, key, numbers, progress)) for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for _ in range(random.randint(1, 60)):  # kill after so many answers, in the middle of others
        progress.acquire(timeout=10)
    lives.kill(pid)
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
    permitted: set[int] = set()
    unknown = 0
    for entry in entries(folder / "home"):
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
        verified(folder / "home").sound,
    )

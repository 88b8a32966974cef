"""Several gateways on one port and one home, on SQLite or PostgreSQL."""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from faulting.database import Database
from gateways import Gateway, Wire, environ
from homes import Home

from exeat.cli import main as command_line
from exeat.evidence.reader import EvidenceReader
from exeat.storage.places import LedgerPlace, places

INITIALIZE = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "stock", "version": "1"},
    },
}


@dataclass(frozen=True)
class Done:
    """What a command said."""

    status: int
    stdout: str
    stderr: str


class World:
    """A home, and what its logs hold."""

    def __init__(self, folder: Path, database: Database | None) -> None:
        self.database = database
        self.url = database.url if database is not None else None
        self.home = Home(folder / "home", self.url)
        (self.home.path / "operator").write_text("ada")
        self.key = ""

    def up(self, workers: int, **settings: str) -> Gateway:
        if self.url is not None:
            settings["database_url"] = self.url
        return Gateway(self.home.path, workers=str(workers), heartbeat_s="0.3", **settings)

    def logs(self) -> list[LedgerPlace]:
        return places(self.home.path, self.url)

    def entries(self) -> dict[str, list[Any]]:
        found = {}
        for place in self.logs():
            reader = place.reader()
            found[place.name] = [entry.leaf for entry in EvidenceReader(reader).entries()]
            reader.close()
        return found

    def environ(self, **settings: str) -> dict[str, str]:
        given = {f"EXEAT_{name.upper()}": value for name, value in settings.items()}
        if self.url is not None:
            given["EXEAT_DATABASE_URL"] = self.url
        return environ(EXEAT_HOME=str(self.home.path), **given)

    def cli(self, *arguments: object, **settings: str) -> Done:
        """A command in this process, with nothing of the environment's own EXEAT_*."""
        out, err = io.StringIO(), io.StringIO()
        status = 0
        with (
            mock.patch.dict(os.environ, self.environ(**settings), clear=True),
            mock.patch.object(sys, "argv", ["exeat", *map(str, arguments)]),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            try:
                command_line.main()
            except SystemExit as end:
                status = int(end.code or 0)
        assert "Traceback" not in err.getvalue()
        return Done(status, out.getvalue(), err.getvalue())

    def process(self, *arguments: object, home: Path | None = None, **settings: str) -> Done:
        """A command in a process of its own: what opens the database keeps it open to its end."""
        argv = [sys.executable, "-m", "exeat.cli.main", *map(str, arguments)]
        env = self.environ(**settings)
        if home is not None:
            env["EXEAT_HOME"] = str(home)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def doctor(self, **settings: str) -> dict[str, dict[str, str]]:
        found = json.loads(self.cli("doctor", "--json", **settings).stdout)
        return {each["id"]: each for each in found}


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    """What ``holds`` returns once it is true; the limit only ends a test that would never end."""
    end = time.monotonic() + seconds
    while not (held := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.01)
    return held


def workers_of(gateway: Gateway) -> list[int]:
    """Pids, as the kernel knows the supervisor's children."""
    pid = gateway.process.pid
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def named(home: Path, name: str) -> int:
    """The pid of the worker."""
    return int((home / f"{name}.lock").read_text())


def session_of(wire: Wire) -> str:
    assert "result" in wire.legacy(INITIALIZE), wire.status
    return str(wire.fields["mcp-session-id"])


def sessions_of_all(connect: Callable[[], Wire], count: int) -> dict[str, str]:
    """A session in each of the workers, by the worker's name."""
    found: dict[str, str] = {}
    while len(found) < count:
        session = session_of(connect())
        found.setdefault(session.partition(".")[0], session)
    return found


def legacy_call(wire: Wire, session: str, number: int, tool: str = "add", **arguments: Any) -> Any:
    given = arguments or {"a": number, "b": 1}
    params = {"name": tool, "arguments": given}
    return wire.legacy({"id": number, "method": "tools/call", "params": params}, session)


def answered(wire: Wire) -> Any:
    """A call's answer, or None where the connection ended."""
    try:
        return wire.call("add", a=1, b=1)
    except OSError:
        wire.http.close()
        return None


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

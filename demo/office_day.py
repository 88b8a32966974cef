"""The demo's world: a fresh home, three real MCP servers, a gateway that can be killed.

Everything that a person would do is done through the `exeat` command.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from exeat.evidence.model import DecisionLeaf, OutcomeLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.storage.ledger import SqliteLedgerReader

HERE: Final = Path(__file__).resolve().parent
BIN: Final = Path(sys.executable).parent
READY_S: Final = 30.0
SLOW_S: Final = "30"


class Failed(Exception):
    """The demo did not go as it must; the message says where."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something listens on the port."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.05)
    raise Failed(f"nothing listens on port {port}: {log.read_text(errors='replace')[-800:]}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tool call as the ledger has it.  ``outcome``: empty while there is none."""

    number: int
    agent: str
    action: str
    verdict: str
    reason: str
    policies: tuple[str, ...]
    outcome: str
    mode: str
    obligations: tuple[str, ...]
    approval: str


@dataclass(slots=True)
class World:
    """``folder`` holds everything; ``home`` is exeat's.  ``hold_wait_s``: how long the gateway keeps a held
    call open."""

    folder: Path
    port: int = field(default_factory=free_port)
    office_port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    hold_wait_s: int = 0
    gateway: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def office(self) -> Path:
        return self.folder / "office"

    @property
    def ledger(self) -> Path:
        return self.home / "ledger" / "gw1.db"

    @property
    def permit_keys(self) -> Path:
        return self.folder / "permit-keys.json"

    @property
    def office_url(self) -> str:
        return f"http://127.0.0.1:{self.office_port}/mcp"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def environ(self) -> dict[str, str]:
        kept = {**os.environ, "EXEAT_HOME": str(self.home), "NO_COLOR": "1"}
        settings = {"CONTROL_PORT": self.control_port, "HOLD_WAIT_S": self.hold_wait_s}
        return {**kept, **{f"EXEAT_{name}": str(value) for name, value in settings.items()}}

    def exeat(self, *words: str, expect: int = 0) -> str:
        """Run one `exeat` command; returns what it printed."""
        done = subprocess.run(
            [str(BIN / "exeat"), *words],
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        if (done.returncode != 0) != (expect != 0):
            raise Failed(
                f"`exeat {' '.join(words)}` ended with {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done.stdout + (done.stderr if expect else "")

    def up(self) -> None:
        log = self.folder / "gateway.log"
        with log.open("ab") as out:
            self.gateway = subprocess.Popen(
                [str(BIN / "exeat"), "up", "--port", str(self.port)],
                env=self.environ(), stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        wait_for(self.port, self.gateway, log)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.gateway is not None:
            self.gateway.send_signal(how)
            self.gateway.wait(20)
            self.gateway = None

    def executed(self, tool: str = "") -> list[dict[str, Any]]:
        """The calls that the office really carried out, from its own log."""
        log = self.office / "calls.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        calls: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [call for call in calls if not tool or call["tool"] == tool]

    def recorded(self) -> list[Recorded]:
        """Every tool call in the ledger, in order, with its outcome."""
        source = SqliteLedgerReader(self.ledger)
        try:
            leaves = [entry.leaf for entry in EvidenceReader(source).entries()]
        finally:
            source.close()
        outcomes = {leaf.decision: leaf.status for leaf in leaves if isinstance(leaf, OutcomeLeaf)}
        return [
            Recorded(
                leaf.index, leaf.agent.id, leaf.action.id, leaf.verdict, leaf.reason,
                leaf.policies, outcomes.get(leaf.index, ""), leaf.action.upstream_mode,
                leaf.obligations, leaf.approval,
            )
            for leaf in leaves
            if isinstance(leaf, DecisionLeaf) and leaf.action.method == "tools/call"
        ]  # fmt: skip


@contextlib.contextmanager
def office_server(world: World) -> Iterator[None]:
    command = [sys.executable, str(HERE / "office_server.py"), "--data", str(world.office)]
    command += ["--permit-keys", str(world.permit_keys)]
    log = world.folder / "office.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--port", str(world.office_port), "--slow-seconds", SLOW_S],
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(world.office_port, process, log)
        yield
    finally:
        process.kill()
        process.wait(20)


def make_repository(folder: Path) -> None:
    """A git repository with one commit, for mcp-server-git."""
    folder.mkdir()
    (folder / "README").write_text("The office's repository.\n")
    who = ["-c", "user.name=Demo", "-c", "user.email=demo@office.example"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "First version"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)


def found(world: World) -> None:
    """The home, and for the office the public key of its gateway."""
    world.exeat("init", "--me", "ada")
    world.permit_keys.write_text(world.exeat("permit", "keys"))


def prepare(world: World) -> dict[str, str]:
    """People, servers, pins, agents, policy, keys, all through the CLI.  Returns agent → key."""
    exeat = world.exeat
    make_repository(world.folder / "repository")
    for person in ("bob", "cleo", "dan"):
        exeat("person", "add", person)
    exeat("server", "add", "time", "--", str(BIN / "mcp-server-time"), "--local-timezone", "UTC")
    git = [str(BIN / "mcp-server-git"), "--repository", str(world.folder / "repository")]
    exeat("server", "add", "git", "--", *git)
    exeat("server", "add", "office", "--url", world.office_url, "--permit")
    for server in ("time", "git", "office"):
        exeat("server", "observe", server)
        exeat("tool", "pin", server, "--all", "--reason", "reviewed for the demo")
    profiles(world)
    keys = {}
    for agent, owner, deputy in (("assistant", "ada", "bob"), ("intern-bot", "cleo", "dan")):
        servers = [word for server in ("time", "git", "office") for word in ("--server", server)]
        people = ["--owner", owner, "--deputy", deputy]
        effects = [word for each in ("read", "pay", "execute") for word in ("--effect", each)]
        ends = time.strftime("%Y-12-31", time.gmtime(time.time() + 86_400 * 400))
        exeat("agent", "add", agent, *people, *servers, *effects, "--ends", ends)
        exeat("agent", "accept", agent, "--as", owner)
        exeat("agent", "activate", agent, "--reason", "demo")
        keys[agent] = exeat("key", "issue", agent, "--quiet").strip()
    said = exeat("policy", "test", str(HERE / "policies"))
    if ", 0 failed" not in said:
        raise Failed(f"the cases of the policies: {said}")
    exeat("policy", "apply", str(HERE / "policies"), "--reason", "first policy of the demo")
    return keys


def profiles(world: World) -> None:
    """What some tools do, as a person confirms it; all others count as the worst."""
    confirmed = {
        "time/get_current_time": ["--as-proposed"],
        "office/transfer": ["--effect", "pay", "--sink", "external"],
        "office/search_mail": ["--effect", "read", "--sink", "private", "--narrows", "limit=less"],
    }
    for tool, words in confirmed.items():
        world.exeat("tool", "profile", tool, *words, "--reason", "reviewed for the demo")

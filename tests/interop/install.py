"""Real servers and clients, installed once under ``.tools/interop``; everything pinned by hash.

Node and the reference server come with the conformance suite; npm's packages through
``package-lock.json``; Python's in two environments, ``peers`` on the SDK of today and ``old`` on the one
before.  No lock file names an address.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / "conformance"))

from suite import Suite, build

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
ENVIRONMENTS: Final = ("peers", "old")
DRIVERS: Final = ("ts1.mjs", "ts2.mjs", "oauth.mjs")


class NotInstalled(Exception):
    """What could not be installed, in the installer's own words."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Where everything lies once it is installed."""

    root: Path
    suite: Suite

    @property
    def node(self) -> str:
        return str(self.suite.node)

    def npm(self, name: str) -> str:
        """The program of an npm package."""
        return str(self.root / "npm" / "node_modules" / ".bin" / name)

    def driver(self, name: str) -> str:
        """A TypeScript client's driver: it lies beside the packages that it imports."""
        return str(self.root / "npm" / name)

    def python(self, environment: str, program: str) -> str:
        return str(self.root / environment / "bin" / program)


def install(root: Path = ROOT / ".tools" / "interop") -> Peers:
    """Install what is missing.  The first time takes about a minute.  Raises NotInstalled."""
    try:
        suite = build(ROOT / ".tools" / "conformance")
    except SystemExit as failed:
        raise NotInstalled(str(failed)) from None
    _once(root / "npm", HERE / "package-lock.json", lambda into: _npm(suite, into))
    for name in ENVIRONMENTS:
        _once(root / name, HERE / f"{name}.lock", _environment)
    for name in DRIVERS:
        shutil.copy(HERE / "drivers" / name, root / "npm")
    return Peers(root, suite)


def npm_install(root: Path, lock: Path) -> Path:
    """Node, after installing the packages of the ``package-lock.json`` in folder ``lock`` into ``root``.
    Raises NotInstalled."""
    try:
        suite = build(ROOT / ".tools" / "conformance")
    except SystemExit as failed:
        raise NotInstalled(str(failed)) from None
    _once(root, lock / "package-lock.json", lambda into: _npm(suite, into, lock))
    return suite.node


def _once(into: Path, lock: Path, make: Callable[[Path], None]) -> None:
    stamp, wanted = into / "installed", lock.read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    make(into)
    stamp.write_text(wanted)


def _npm(suite: Suite, into: Path, lock: Path = HERE) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(lock / name, into)
    home = suite.node.parents[1]
    npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quietly(suite.node, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=into)


def _environment(into: Path) -> None:
    quietly(sys.executable, "-m", "venv", "--clear", "--without-pip", into, cwd=ROOT)
    uv = Path(sys.executable).with_name("uv")
    script = '. scripts/trust.sh && "$0" pip sync --quiet --python "$1" --require-hashes "$2"'
    lock = HERE / f"{into.name}.lock"
    quietly("bash", "-c", script, uv, into / "bin" / "python", lock, cwd=ROOT)


def quietly(*command: str | Path, cwd: Path) -> None:
    """Raises NotInstalled."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    if done.returncode:
        raise NotInstalled(f"{command[0]} failed: {done.stdout[-1000:]}{done.stderr[-1000:]}")

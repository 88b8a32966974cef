"""The reference server behind a whole gateway: real home, real key, `exeat up` as its own process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from homes import Home
from suite import free_port, wait_for


@dataclass(frozen=True, slots=True)
class Entrance:
    url: str
    bearer: str


@contextmanager
def gateway(home: Path, upstream: str) -> Iterator[Entrance]:
    """Everything that the reference server has is pinned and permitted to one agent."""
    made = Home(home)
    made.pin_all(made.server("ref", url=upstream))
    bearer = made.agent("bot", ["ref"])
    made.policy('@id("all") permit(principal == Agent::"bot", action, resource);')
    made.state.close()
    port, exeat = free_port(), str(Path(sys.executable).with_name("exeat"))
    with (home / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [exeat, "up", "--home", str(home), "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "EXEAT_CONTROL_PORT": "0"},
        )
        try:
            wait_for(port, process)
            yield Entrance(f"http://127.0.0.1:{port}/mcp/ref", bearer)
        finally:
            process.terminate()
            process.wait(20)

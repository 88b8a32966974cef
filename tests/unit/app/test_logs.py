"""A log that nobody takes any more stops nothing (GW-14, APP-10)."""

import contextlib
import io
import os
import sys
from pathlib import Path

import pytest
import structlog
from gateways import UP, Server, Wire, denied, environ, running, text
from homes import Home
from requirements import requirement

from exeat.app.logs import Sink, log_to_stderr

MATRIX = Path(__file__).parents[2] / "e2e" / "matrix_server.py"


@requirement("GW-14")
def test_closed_and_broken_streams_are_written_to_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    Sink(closed).error("lost")
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    Sink(broken).error("lost")
    with contextlib.suppress(OSError):
        broken.close()
    monkeypatch.setattr(sys, "stderr", closed)
    kept = structlog.get_config()
    try:
        log_to_stderr(verbose=True)
        structlog.get_logger("test").error("lost")
    finally:
        structlog.configure(**kept)


@requirement("GW-14", "APP-10")
@pytest.mark.parametrize("stderr", ["2>&-", "2> >(true)"], ids=["closed", "no reader"])
def test_a_gateway_whose_log_nobody_takes_goes_on_after_a_fault(
    tmp_path: Path, stderr: str
) -> None:
    home = Home(tmp_path / "home")
    home.pin_all(home.server("m", command=[sys.executable, str(MATRIX), "--stdio"]))
    home.policy('@id("all") permit(principal, action, resource);')
    key = home.agent("bot", ["m"])
    up = [sys.executable, "-c", UP, "--home", str(home.path), "--port", "0"]
    command = ["bash", "-c", f'exec "$@" {stderr}', "bash", *up]
    env = environ(EXEAT_STATE_AGE_MAX_S="1")
    with running(Server(command, "exeat is up: ", env)) as gateway:
        wire = Wire(int(gateway.line.split(":")[-1].split("/")[0]), key, "/mcp/m")
        assert text(wire.call("add", a=1, b=1)) == "2"
        hidden = home.path / "hidden.db"
        (home.path / "state.db").rename(hidden)
        while denied(wire.call("add", a=1, b=1)) != "state_stale":
            pass
        hidden.rename(home.path / "state.db")
        while denied(wire.call("add", a=1, b=1)):
            pass
        wire.http.close()
    home.state.close()

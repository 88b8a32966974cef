"""What a running gateway does when disk, database, clock, server or operator fail it
(GW-1, GW-5, GW-11, EVD-3, EVD-9)."""

import os
import resource
import shutil
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from gateways import (
    TESTS,
    Gateway,
    NotStarted,
    Server,
    Wire,
    agent,
    decisions,
    denied,
    environ,
    running,
    start_matrix_server,
    text,
    url_of,
    verified,
)
from homes import Home
from requirements import requirement

from exeat.app.serve import DRAIN_MAX_S

DEADLINE_S = 10.0
ALL = '@id("all") permit(principal, action, resource);'
STDIO = [sys.executable, str(TESTS / "e2e" / "matrix_server.py"), "--stdio"]


class World:
    """One home with one HTTP server (``m``) and one stdio server (``pipe``); gateways come and go."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "executed.log"
        self.home = Home(folder / "home")
        self.upstream = start_matrix_server("--log", str(self.log))
        self.home.pin_all(self.home.server("m", url=url_of(self.upstream)))
        self.home.pin_all(self.home.server("pipe", command=STDIO))
        self.key = self.home.agent("bot", ["m", "pipe"])
        self.home.policy(ALL)
        self.path = self.home.path

    def executed(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def recorded(self) -> dict[str, str]:
        """Tag of each permitted ``act`` or ``slow`` → its outcome."""
        return {
            values["arguments"]["tag"]: outcome
            for leaf, values, outcome in decisions(self.path)
            if leaf.action.id in ("m/act", "m/slow") and leaf.verdict == "permit"
        }

    def wire(self, gateway: Gateway, server: str = "m") -> Wire:
        return Wire(gateway.port, self.key, f"/mcp/{server}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("faults"))
    try:
        yield made
    finally:
        made.upstream.kill()
        made.home.state.close()


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    with running(Gateway(world.path, state_age_max_s="1.0")) as made:
        yield made


def until(holds: Callable[[], Any]) -> Any:
    begun = time.monotonic()
    while not (found := holds()):
        assert time.monotonic() - begun < DEADLINE_S, "it never came to hold"
        time.sleep(0.01)
    return found


def up(home: Path) -> list[str]:
    return [sys.executable, "-m", "exeat.cli.main", "up", "--home", str(home), "--port", "0"]


def not_started(home: Path) -> str:
    """What `exeat up` said when it refused to start, in plain words and with status 1."""
    with pytest.raises(NotStarted) as refused:
        Server(up(home), "exeat is up: ").kill()
    assert refused.value.status == 1
    assert "Traceback" not in refused.value.said
    return refused.value.said


@requirement("EVD-3")
def test_one_gateway_per_home(world: World, gateway: Gateway) -> None:
    said = not_started(world.path)
    assert f"pid {gateway.process.pid}" in said
    assert text(world.wire(gateway).call("add", a=1, b=1)) == "2"


@requirement("GW-1")
def test_a_ledger_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.state.close()
    (tmp_path / "home" / "ledger").write_text("in the way")
    said = not_started(home.path)
    assert "ledger" in said


@requirement("GW-1", "EVD-3")
def test_no_room_for_the_record_no_action(world: World, gateway: Gateway) -> None:
    """The kernel refuses every write of the gateway beyond one byte of a file."""
    wire = world.wire(gateway)
    assert text(wire.call("act", tag="before")) == "did before"
    before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, -1))
    try:
        for n in range(5):
            answer = wire.call("act", tag=f"full-{n}")
            assert answer["error"]["data"]["reason"] == "ledger_unavailable", answer
            assert "nothing was done" in answer["error"]["message"]
    finally:
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)
    until(lambda: "result" in wire.call("act", tag="after"))
    assert not [tag for tag in world.executed() if tag.startswith("full")]
    until(lambda: world.recorded().get("after") == "ok")
    assert set(world.executed()) <= set(world.recorded())


@requirement("GW-1", "EVD-3")
def test_a_ledger_that_is_removed_while_it_is_written(world: World, gateway: Gateway) -> None:
    """Its file would go on taking entries, and none of them would be found again."""
    wire, ledger = world.wire(gateway), world.path / "ledger"
    assert "result" in wire.call("act", tag="present")
    ledger.rename(world.path / "away")
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:  # several attempts to open it again
            answer = wire.call("act", tag="away")
            assert answer["error"]["data"]["reason"] == "ledger_unavailable", answer
        assert not ledger.exists()  # and no second one was begun
    finally:
        (world.path / "away").rename(ledger)
    until(lambda: "result" in wire.call("act", tag="returned"))
    assert "away" not in world.executed()
    assert verified(world.path).sound


@requirement("POL-1")
def test_a_locked_database_stops_no_call(world: World, gateway: Gateway) -> None:
    wire = world.wire(gateway)
    lock = sqlite3.connect(world.path / "state.db", isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:  # longer than the state's age limit
            assert text(wire.call("add", a=1, b=1)) == "2"
    finally:
        lock.execute("ROLLBACK")
        lock.close()


@requirement("POL-1")
def test_a_database_that_is_gone_denies_after_its_age_limit(world: World, gateway: Gateway) -> None:
    wire = world.wire(gateway)
    names = [name for name in os.listdir(world.path) if name.startswith("state.db")]
    aside = world.path / "aside"
    aside.mkdir()
    for name in names:
        shutil.move(world.path / name, aside / name)
    try:
        answer = until(lambda: (a := wire.call("act", tag="stale")) and denied(a) and a)
        assert denied(answer) == "state_stale"
        wire.ask("tools/list")
        ready = Wire(gateway.port, "", "/readyz")
        assert ready.post("", {}, "GET").strip() == "state unconfirmed" and ready.status == 503
        assert "state.db" not in os.listdir(world.path)  # no empty one in its place
    finally:
        for name in names:
            shutil.move(aside / name, world.path / name)
        aside.rmdir()
    until(lambda: not denied(wire.call("act", tag="back")))


@requirement("GW-5", "GW-11")
def test_a_stdio_server_that_dies_in_mid_call(world: World, gateway: Gateway) -> None:
    wire, other = world.wire(gateway, "pipe"), world.wire(gateway, "pipe")
    pid = int(text(other.call("pid")))
    answers: list[Any] = []
    calling = threading.Thread(target=lambda: answers.append(wire.call("wait")))
    calling.start()
    until(lambda: [leaf for leaf, *_ in decisions(world.path) if leaf.action.id == "pipe/wait"])
    os.kill(pid, signal.SIGKILL)
    calling.join(DEADLINE_S)
    error = answers[0]["error"]
    assert "pipe" in error["message"] and "SIGKILL" in error["message"]
    assert "unknown" in error["message"] and error["data"]["sent"] is True
    number = int(error["data"]["decision"].rpartition("-")[2])
    until(lambda: outcome_of(world, number) == "unknown")
    waiting = other.call("pid")
    if "error" in waiting:  # the pause before a restart
        assert "restarting in" in waiting["error"]["message"]
        assert waiting["error"]["data"]["sent"] is False
    again = until(lambda: (a := other.call("pid")) and "result" in a and a)
    assert int(text(again)) != pid


def outcome_of(world: World, number: int) -> str:
    return next(outcome for leaf, _, outcome in decisions(world.path) if leaf.index == number)


@requirement("GW-11")
def test_a_server_that_is_down_is_named_and_the_call_is_safe_to_repeat(
    world: World, gateway: Gateway
) -> None:
    home = world.home
    with running(start_matrix_server()) as brief:
        home.pin_all(home.server("brief", url=url_of(brief)))
    key = home.agent("visitor", ["brief"])
    wire = Wire(gateway.port, key, "/mcp/brief")
    error = until(lambda: wire.call("add", a=1, b=1).get("error") if wire else None)
    error = until(lambda: (e := wire.call("add", a=1, b=1)["error"])["code"] != -31401 and e)
    assert "brief" in error["message"] and "not carried out" in error["message"]
    number = int(error["data"]["decision"].rpartition("-")[2])
    until(lambda: outcome_of(world, number) == "failed")


@requirement("GW-1", "GW-5")
def test_a_stop_lets_the_call_under_way_end(world: World, gateway: Gateway, tmp_path: Path) -> None:
    """The last test on this gateway: SIGTERM takes nothing new, and loses no answer and no record."""
    wire = world.wire(gateway)
    answers: list[Any] = []
    release = tmp_path / "release"
    calling = threading.Thread(
        target=lambda: answers.append(wire.call("slow", tag="last", release=str(release)))
    )
    calling.start()
    until(lambda: "last" in world.executed())
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: closed(gateway.port))
    release.touch()
    calling.join(DEADLINE_S)
    assert text(answers[0]) == "did last slowly"
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output, gateway.output
    assert world.recorded()["last"] == "ok"
    report = verified(world.path)
    assert report.sound and report.closed and report.waiting == 0


def closed(port: int) -> bool:
    try:
        Wire(port, "", "/healthz", timeout=1).post("", {}, "GET")
    except OSError:
        return True
    return False


@requirement("GW-5", "GW-9")
@pytest.mark.anyio
async def test_a_stop_does_not_wait_for_subscribers(world: World) -> None:
    """A subscription has no end of its own: the stop ends it, and does not use up its patience."""
    with running(Gateway(world.path)) as gateway:
        async with (
            agent(gateway.endpoint("m"), world.key) as client,
            client.listen(tools_list_changed=True),
        ):
            begun = time.monotonic()
            status = await anyio.to_thread.run_sync(gateway.stop)
            took = time.monotonic() - begun
        assert status == 0 and "Traceback" not in gateway.output, gateway.output
        assert took < DRAIN_MAX_S
    assert verified(world.path).waiting == 0


BACK = """
import sys, time
from pathlib import Path
real, back = time.time_ns, Path(sys.argv.pop(1))
time.time_ns = lambda: real() - (3600 * 10**9 if back.exists() else 0)
import typer
from exeat.cli.up import up
typer.run(up)
"""


@requirement("EVD-9")
def test_a_clock_that_runs_backwards_denies(world: World, tmp_path: Path) -> None:
    back = tmp_path / "back"
    argv = [sys.executable, "-c", BACK, str(back), "--home", str(world.path), "--port", "0"]
    with running(Server(argv, "exeat is up: ", environ())) as gateway:
        port = int(gateway.line.split()[-1].split(":")[2].split("/")[0])
        wire = Wire(port, world.key, "/mcp/m")
        assert text(wire.call("act", tag="on time")) == "did on time"
        back.touch()
        assert denied(wire.call("act", tag="an hour ago")) == "clock_backwards"
        back.unlink()
        assert text(wire.call("act", tag="on time again")) == "did on time again"
        gateway.stop()
    assert "an hour ago" not in world.executed()
    assert verified(world.path).sound


@requirement("EVD-3", "GW-1")
def test_a_kill_in_mid_call_is_said_as_an_unknown_outcome(world: World, tmp_path: Path) -> None:
    never = tmp_path / "never"
    with running(Gateway(world.path)) as gateway:
        wire = world.wire(gateway)
        calling = threading.Thread(
            target=lambda: lost(lambda: wire.call("slow", tag="cut", release=str(never)))
        )
        calling.start()
        until(lambda: "cut" in world.executed())
        gateway.kill()
        calling.join(DEADLINE_S)
    assert world.recorded()["cut"] == ""
    with running(Gateway(world.path)) as gateway:
        until(lambda: world.recorded()["cut"] == "unknown")
        assert text(world.wire(gateway).call("act", tag="goes on")) == "did goes on"
        gateway.stop()
    assert verified(world.path).sound


def lost(call: Callable[[], Any]) -> None:
    with pytest.raises(Exception, match=r".*"):
        call()

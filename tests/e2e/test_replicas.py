"""Two gateways on one database: each its own log, one state (EVD-1, APP-10)."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulting.database import Database
from gateways import TESTS, Gateway, NotStarted, Server, Wire, denied, environ, running, text
from homes import Home
from requirements import requirement

from exeat.core.ids import AgentId
from exeat.evidence.verify import verify
from exeat.storage.ledger_postgres import PostgresLedgerReader, origins


@dataclass
class Pair:
    folder: Path
    database: Database
    home: Home
    key: str

    def gateway(self, name: str, instance: str) -> Gateway:
        """Each has a home of its own, so that they could be two machines."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return Gateway(folder, database_url=self.database.url, instance=instance)


@pytest.fixture(scope="module")
def pair(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("replicas")
    upstream = Server([sys.executable, str(TESTS / "e2e" / "matrix_server.py")], "listening on ")
    try:
        home = Home(folder / "desk", database.url)
        home.pin_all(home.server("m", url=upstream.line.split()[-1]))
        key = home.agent("bot", ["m"])
        home.policy('@id("all") permit(principal, action, resource);')
        yield Pair(folder, database, home, key)
        home.state.close()
    finally:
        upstream.kill()


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


@requirement("APP-10", "EVD-1")
def test_a_change_holds_on_every_gateway_and_each_has_its_own_log(pair: Pair) -> None:
    with running(pair.gateway("a", "gw1")) as first, running(pair.gateway("b", "gw2")) as second:
        wires = [Wire(each.port, pair.key, "/mcp/m") for each in (first, second)]
        assert [text(wire.call("add", a=1, b=1)) for wire in wires] == ["2", "2"]
        pair.home.registry.suspend(AgentId("bot"), pair.home.act())
        for wire in wires:
            while not (reason := denied(wire.call("add", a=1, b=1))):
                pass  # until its next poll
            assert reason == "agent_not_active"
        pair.home.registry.resume(AgentId("bot"), pair.home.act())
        for wire in wires:
            while denied(wire.call("add", a=1, b=1)):
                pass
        first.stop()
        second.stop()
    assert origins(pair.database.url) == ["exeat/gw1", "exeat/gw2"]
    for origin in origins(pair.database.url):
        reader = PostgresLedgerReader(pair.database.url, origin)
        report = verify(reader)
        reader.close()
        assert report.problems == []
        assert report.permits >= 2
        assert report.closed


@requirement("EVD-3")
def test_one_log_has_one_writer_on_any_machine(pair: Pair) -> None:
    with running(pair.gateway("a", "gw1")) as first:
        other = pair.folder / "c"
        other.mkdir()
        env = environ(EXEAT_DATABASE_URL=pair.database.url, EXEAT_INSTANCE="gw1")
        up = [sys.executable, "-m", "exeat.cli.main", "up", "--home", str(other), "--port", "0"]
        with pytest.raises(NotStarted) as refused:
            Server(up, "exeat is up: ", env).kill()
        assert refused.value.status == 1
        assert f"pid {first.process.pid}" in refused.value.said
        assert "Traceback" not in refused.value.said


@pytest.mark.long
@requirement("EVD-1", "POL-3")
def test_each_log_can_be_read_from_anywhere(pair: Pair) -> None:
    """A third machine has the address, and no key."""
    with running(pair.gateway("a", "gw1")) as first, running(pair.gateway("b", "gw2")) as second:
        for each in (first, second):
            assert text(Wire(each.port, pair.key, "/mcp/m").call("add", a=1, b=2)) == "3"
        first.stop()
        second.stop()

    def exeat(*arguments: str) -> tuple[int, str, str]:
        env = environ(EXEAT_DATABASE_URL=pair.database.url, EXEAT_HOME=str(pair.folder / "looker"))
        argv = [sys.executable, "-m", "exeat.cli.main", *arguments]
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    code, out, _ = exeat("evidence", "audit")
    assert code == 0 and "gw1-" in out and "gw2-" in out
    code, _, err = exeat("evidence", "checkpoint")
    assert code == 1 and "gw1, gw2" in err and "--instance" in err
    assert exeat("evidence", "audit", "--instance", "gw9")[0] == 1
    code, out, err = exeat("evidence", "audit", "--instance", "gw2", "--json")
    assert code == 0, err
    entry = json.loads(out)[-1]["entry"]
    code, out, err = exeat("evidence", "show", f"gw2-{entry}")
    assert code == 0 and json.loads(out)["entry"]["action"]["id"] == "m/add", err
    code, out, err = exeat("policy", "explain", f"gw2-{entry}")
    assert code == 0 and "Recorded: permit" in out and "cannot be opened" in out, err
    code, out, _ = exeat("evidence", "checkpoint", "--instance", "gw1")
    assert code == 0 and out.startswith("exeat/gw1\n")
    copy = str(pair.folder / "gw2.copy")
    assert exeat("evidence", "export", copy, "--instance", "gw2")[0] == 0
    assert "SOUND" in exeat("evidence", "verify", copy)[1]

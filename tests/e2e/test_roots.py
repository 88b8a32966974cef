"""Roots over the logs of running gateways, and what `exeat evidence verify` says of them (EVD-1, EVD-4)."""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from command_line import Run, run
from gateways import TESTS, Gateway, Server, Wire, running, text
from homes import Home
from requirements import requirement


@dataclass
class Deployment:
    """Two gateways in one home, on SQLite or PostgreSQL."""

    home: Home
    key: str
    url: str | None
    run: Run

    def gateway(self, instance: str, **settings: str) -> Gateway:
        if self.url is not None:
            settings["database_url"] = self.url
        return Gateway(self.home.path, instance=instance, **settings)

    def evidence(self, *arguments: object) -> tuple[int, str, str]:
        """`exeat evidence`: exit status, stdout and stderr, each as one line."""
        code, out, err = self.run("evidence", *arguments, "--home", self.home.path)
        return code, " ".join(out.split()), " ".join(err.split())

    def lose(self, instance: str) -> None:
        """As somebody with every right on the storage could."""
        if self.url is None:
            for path in (self.home.path / "ledger").glob(f"{instance}.db*"):
                if path.suffix != ".checkpoint":
                    path.unlink()
            return
        import psycopg

        tables = ("writers", "batches", "checkpoints", "keys", "open_state")
        with psycopg.connect(self.url, autocommit=True) as admin:
            for table in tables:
                admin.execute(
                    f"DELETE FROM ledger_{table} WHERE origin = %s",  # type: ignore[arg-type]
                    (f"exeat/{instance}",),
                )


__all__ = ["run"]


@pytest.fixture(params=["sqlite", "postgresql"])
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Deployment]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("database").another()
        monkeypatch.setenv("EXEAT_DATABASE_URL", url)
    upstream = Server([sys.executable, str(TESTS / "e2e" / "matrix_server.py")], "listening on ")
    try:
        home = Home(tmp_path / "home", url)
        with closing(home.state):
            home.pin_all(home.server("m", url=upstream.line.split()[-1]))
            home.policy('@id("all") permit(principal, action, resource);')
            yield Deployment(home, home.agent("bot", ["m"]), url, run)
    finally:
        upstream.kill()


@requirement("EVD-1", "EVD-4")
def test_a_log_that_is_gone_shows(deployment: Deployment, tmp_path: Path) -> None:
    assert "No root" in deployment.evidence("roots")[2]
    with running(deployment.gateway("gw1")) as first, running(deployment.gateway("gw2")) as second:
        for gateway in (first, second):
            wire = Wire(gateway.port, deployment.key, "/mcp/m")
            assert text(wire.call("add", a=1, b=1)) == "2"
            wire.http.close()
        assert first.stop() == 0
        assert second.stop() == 0
    _, note, _ = deployment.run("evidence", "roots", "--home", deployment.home.path)
    assert note.startswith("exeat/roots\n2\n")
    kept = tmp_path / "root"
    kept.write_text(note)
    code, said, err = deployment.evidence("verify", "--root", kept)
    assert code == 0, said + err
    assert "over the logs exeat/gw1, exeat/gw2" in said
    deployment.lose("gw2")
    code, said, _ = deployment.evidence("verify")
    assert code == 1
    assert "the log exeat/gw2" in said and "is gone" in said
    with deployment.home.state._engine.begin() as tx:
        tx.execute(sa.text("DELETE FROM roots"))
    code, said, _ = deployment.evidence("verify")
    assert code == 1
    assert "a root that was kept elsewhere" in said  # the one beside the ledgers
    assert "gw2" in said and "its log is gone" in said
    kept.write_text(note.replace("number", "numbers"))
    code, said, _ = deployment.evidence("verify", "--root", kept)
    assert code == 1
    assert "kept elsewhere" in said


@requirement("EVD-1")
def test_a_root_is_written_while_gateways_run(deployment: Deployment) -> None:
    with running(deployment.gateway("gw1", root_every_s="0.05", heartbeat_s="0.05")):
        while not (shown := deployment.evidence("roots")[1]):
            pass
    assert shown.startswith("exeat/roots 1 ")


@requirement("EVD-4")
def test_a_root_is_not_asked_of_one_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "one.db"
    file.touch()
    code, _, err = run("evidence", "verify", file, "--root", file)
    assert code == 1
    assert "Name the home" in err

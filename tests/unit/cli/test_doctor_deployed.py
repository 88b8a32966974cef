"""``exeat doctor`` on what a deployment adds: versions, memory, TLS, the record in a database."""

import os
import sys
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest
from certificates import Authority
from faulting.database import Database
from gateways import Gateway, Wire, running
from homes import Home
from requirements import requirement

from exeat.app.doctor import place, program, reach, record
from exeat.app.doctor.check import Finding, Patient, Status
from exeat.app.doctor.examine import examine
from exeat.app.settings import Settings, load_settings

HEAD = "Filename Type Size Used Priority\n"


def look(home: Path, **variables: str) -> dict[str, Finding]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXEAT_")}
    return {each.id: each for each in examine(home, {**kept, **variables})}


@requirement("REG-1")
def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = Patient(tmp_path, Settings(), {})
    (found,) = program.versions(patient)
    assert found.status is Status.OK and "cedarpy" not in found.says
    real = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda name: "4.13.0" if name == "cedarpy" else real(name)
    )
    (found,) = program.versions(patient)
    assert found.status is Status.PROBLEM and "cedarpy is 4.13.0, not <4.13,>=4.12" in found.says

    def gone(name: str) -> str:
        if name == "psycopg":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", gone)
    assert next(program.versions(patient)).status is Status.OK  # SQLite needs no driver
    shared = Patient(tmp_path, Settings(database_url="postgresql://u@h/d"), {})
    assert "psycopg is missing" in next(program.versions(shared)).says
    monkeypatch.setattr(program.platform, "python_version", lambda: "3.10.4")
    assert "Python is 3.10.4, not >=3.11" in next(program.versions(patient)).says


@requirement("REG-1")
@pytest.mark.parametrize(
    ("version", "wanted", "fit"),
    [
        ("4.12", ">=4.12,<4.13", True), ("4.12.7", ">=4.12,<4.13", True), ("4.13", "<4.13", False),
        ("4.9", ">=4.12", False), ("3.0.0", ">=2.3,<3", False), ("6", ">=6.0", True), ("1", "", True),
        ("2.0.0", "==2", True), ("2.1", "==2", False), ("5.0rc1", ">=5", True),
    ],
)  # fmt: skip
def test_releases_in_ranges(version: str, wanted: str, fit: bool) -> None:
    assert program.fits(version, wanted) is fit


@requirement("EVD-9")
def test_swap_and_core_files(tmp_path: Path) -> None:
    assert program.swap_finding(HEAD, kept_out=False).status is Status.OK
    assert (
        program.swap_finding(f"{HEAD}/dev/zram0 partition 99 0 5\n", kept_out=False).status
        is Status.OK
    )
    on = f"{HEAD}/dev/vdb partition 2097148 0 -2\n"
    found = program.swap_finding(on, kept_out=False)
    assert found.status is Status.WARN and "/dev/vdb (2047 MiB)" in found.says
    assert program.swap_finding(on, kept_out=True).status is Status.OK
    import resource

    kept = resource.getrlimit(resource.RLIMIT_CORE)
    patient = Patient(tmp_path, Settings(), {})
    resource.setrlimit(resource.RLIMIT_CORE, (0, kept[1]))
    try:
        assert {each.id: each.status for each in program.memory(patient)}["core"] is Status.OK
        if kept[1] != 0:
            resource.setrlimit(resource.RLIMIT_CORE, (kept[1], kept[1]))
            assert {each.id: each.status for each in program.memory(patient)}["core"] is Status.WARN
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, kept)


@requirement("GW-14")
def test_names_that_are_not_served() -> None:
    def said(**settings: object) -> dict[str, Status]:
        patient = Patient(Path("/"), Settings(**settings), {})  # type: ignore[arg-type]
        return {each.id: each.status for each in reach.bind(patient)}

    assert said() == {"bind": Status.OK}
    assert said(host="0.0.0.0") == {"bind": Status.WARN, "hosts": Status.WARN}
    served = frozenset({"gw.example"})
    assert said(host="0.0.0.0", allowed_hosts=served) == {"bind": Status.WARN}
    tls = {"tls_certificate": Path("/c"), "tls_key": Path("/k")}
    assert said(host="0.0.0.0", allowed_hosts=served, **tls) == {"bind": Status.OK}


@requirement("GW-14")
def test_tls_files_and_the_port_that_speaks_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    (certificate, key), (_, other) = authority.issue("server", 1), authority.issue("other")
    Home(tmp_path / "home").state.close()
    settings = tmp_path / "home" / "exeat.toml"

    def write(private: Path, port: int, more: str = "") -> None:
        lines = f'port = {port}\ntls_certificate = "{certificate}"\ntls_key = "{private}"\n'
        settings.write_text(lines + more)

    write(other, 0)
    found = look(tmp_path / "home")["tls"]
    assert found.status is Status.PROBLEM and "is not the key of" in found.says
    write(key, 0)
    key.chmod(0o644)
    found_all = look(tmp_path / "home")
    assert found_all["tls"].status is Status.WARN  # the test's certificate lasts one day
    assert "chmod" in found_all["tls.key"].remedy
    key.chmod(0o600)
    assert "tls.key" not in look(tmp_path / "home")
    with running(Gateway(tmp_path / "home")) as gateway:
        write(key, gateway.port)
        found = look(tmp_path / "home")["port"]
        assert found.status is Status.OK and "ready" in found.says
        settings.write_text(f"port = {gateway.port}\n")  # asked without TLS it is not understood
        assert look(tmp_path / "home")["port"].status is Status.PROBLEM
    write(key, 0, f'tls_client_ca = "{authority.path}"\n')
    with running(Gateway(tmp_path / "home")) as gateway:
        write(key, gateway.port, f'tls_client_ca = "{authority.path}"\n')
        found = look(tmp_path / "home")["port"]
        assert found.status is Status.SKIPPED and "certificate" in found.says


@requirement("GW-14")
def test_how_long_a_certificate_lasts() -> None:
    now = datetime(2027, 3, 1, tzinfo=UTC)
    nanos = int(now.timestamp() * 1e9)
    for begins, ends, status in (
        (-9, 300, Status.OK), (-9, 13, Status.WARN), (-9, -1, Status.PROBLEM), (1, 90, Status.PROBLEM)
    ):  # fmt: skip
        span = now + timedelta(days=begins), now + timedelta(days=ends)
        assert reach.certificate_finding(*span, nanos).status is status, (begins, ends)


@requirement("EVD-4")
def test_no_driver_for_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "exeat.storage.ledger_postgres", None)
    patient = Patient(tmp_path, Settings(database_url="postgresql://u@h/d"), {})
    for check in (record.ledger, place.flush):
        found = next(iter(check(patient)))
        assert found.status is Status.PROBLEM and "exeat[postgres]" in found.remedy


@requirement("EVD-4")
def test_a_record_in_the_database_that_was_altered(database: Database, tmp_path: Path) -> None:
    import psycopg

    home = Home(tmp_path / "home", database.url)
    server = home.server("m", command=[sys.executable, "-V"])
    home.pin_all(server, [{"name": "t", "description": "T.", "inputSchema": {"type": "object"}}])
    home.policy('@id("all") permit(principal, action, resource);')
    key = home.agent("bot", ["m"])
    (home.path / "exeat.toml").write_text(f'port = 0\ndatabase_url = "{database.url}"\n')
    with running(Gateway(home.path)) as gateway:
        wire = Wire(gateway.port, key, "/mcp/m")
        wire.ask("tools/list")
        wire.http.close()
        assert look(home.path)["ledger:gw1"].status is Status.OK  # beside a running gateway
        assert gateway.stop() == 0
    found = look(home.path)
    assert [each for each in found.values() if each.status is Status.PROBLEM] == []
    assert "signed up to" in found["ledger:gw1"].says
    assert "to the database takes" in found["flush"].says  # not this machine's disk
    assert found["disk"].status is found["filesystem"].status is Status.SKIPPED
    assert found["keys.signing:gw1"].status is found["keys.master:gw1"].status is Status.OK
    last = "(SELECT max(first) FROM ledger_batches)"
    with psycopg.connect(database.url, autocommit=True) as db:
        (kept,) = db.execute(f"SELECT frontier FROM ledger_batches WHERE first = {last}").fetchone()  # type: ignore[misc,arg-type]
        db.execute(f"UPDATE ledger_batches SET frontier = %b WHERE first = {last}", (kept[::-1],))  # type: ignore[arg-type]
        found_ = look(home.path)["ledger:gw1"]
        assert found_.status is Status.PROBLEM and "database" in found_.remedy
        db.execute(f"DELETE FROM ledger_batches WHERE first = {last}")  # type: ignore[arg-type]
    assert look(home.path)["ledger:gw1"].status is Status.PROBLEM  # a checkpoint knows of more
    home.state.close()
    database.cut()
    patient = Patient(home.path, load_settings(home.path), {})
    assert next(record.ledger(patient)).status is Status.PROBLEM
    found_ = next(place.flush(patient))
    assert found_.status is Status.PROBLEM and "cannot be reached" in found_.says

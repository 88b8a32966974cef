"""``exeat doctor``: each thing is made wrong, and the finding says so with a next step."""

import json
import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from gateways import Gateway, Wire, environ, ledger_path, running
from homes import ADA, BOB, Home
from requirements import requirement

from exeat.app.doctor import governed, place, program, reach, record
from exeat.app.doctor.check import Finding, Patient, Status
from exeat.app.doctor.examine import examine
from exeat.app.settings import Settings
from exeat.app.vault import open_vault
from exeat.cli import main as command_line
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import AgentId, ServerId
from exeat.core.kills import Target
from exeat.core.secret import TENANT, SecretId
from exeat.evidence.quota import LedgerLimits
from exeat.gateway.isolation import NONE
from exeat.governance.secrets import set_secret
from exeat.identity.vault.model import VaultKey
from exeat.storage.ledger import SqliteLedgerStore
from exeat.storage.migrations import LATEST

DEFINITION = {"name": "get_time", "description": "The time.", "inputSchema": {"type": "object"}}
DAY_NS = 86_400 * 10**9


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Two people, a server whose command exists, a pinned tool, an agent, a policy."""
    made = Home(tmp_path / "home")
    made.server("time", command=[sys.executable, "-V"])
    made.pin_all(ServerId("time"), [DEFINITION])
    made.policy('@id("all") permit(principal, action, resource);')
    made.agent("clock", ["time"])
    (made.path / "exeat.toml").write_text("port = 0\n")
    yield made
    made.state.close()


@pytest.fixture
def used(home: Home) -> Home:
    """The same after a gateway ran on it and was stopped."""
    with running(Gateway(home.path)) as gateway:
        assert gateway.stop() == 0
    return home


def look(home: Home, **variables: str) -> dict[str, Finding]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EXEAT_")}
    found = list(examine(home.path, {**kept, **variables}))
    for each in found:
        assert each.says.endswith((".", "…", ")")) or each.id.startswith("policy"), each
        assert each.remedy or each.status in (Status.OK, Status.SKIPPED), each
        assert "Traceback" not in each.says
    return {each.id: each for each in found}


def at(home: Home, check: str, **variables: str) -> tuple[str, str]:
    found = look(home, **variables)
    assert check in found, sorted(found)
    return found[check].status.value, found[check].says + " " + found[check].remedy


@requirement("REG-1")
def test_a_sound_home_has_no_problem_and_nothing_is_changed(used: Home) -> None:
    used.state.close()  # nobody has it open now
    before = {p: p.stat().st_mtime_ns for p in used.path.rglob("*") if p.is_file()}
    assert not [p for p in before if p.name.endswith("-wal")]
    found = look(used)
    assert [f for f in found.values() if f.status is Status.PROBLEM] == []
    assert found["ledger:gw1"].status is found["state"].status is Status.OK
    assert found["keys.signing:gw1"].status is found["keys.master:gw1"].status is Status.OK
    assert {p: p.stat().st_mtime_ns for p in used.path.rglob("*") if p.is_file()} == before


@requirement("REG-1")
def test_no_home(tmp_path: Path) -> None:
    found = list(examine(tmp_path / "none", {}))
    assert found[-1].id == "home" and found[-1].status is Status.PROBLEM
    assert "exeat init" in found[-1].remedy


@requirement("REG-1")
def test_settings(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home.path / "exeat.toml"
    file.write_text("prot = 8717\n")
    assert at(home, "settings:prot")[0] == "problem" and "port" in at(home, "settings:prot")[1]
    file.write_text("port = = 1\n")
    assert at(home, "settings")[0] == "problem"
    file.write_text("port = 99999\n")
    assert "port" in at(home, "settings")[1]
    file.write_text("port = 0\n")
    status, says = at(home, "settings:EXEAT_HOTS", EXEAT_HOTS="x")
    assert status == "warn" and "EXEAT_HOST" in says
    monkeypatch.setenv("EXEAT_ALLOWED_HOSTS", "gateway.example")  # not JSON
    status, says = at(home, "settings")
    assert status == "problem" and "allowed_hosts" in says


@requirement("GW-12")
def test_permissions(used: Home) -> None:
    key = used.path / "keys" / "master.key"
    key.chmod(0o644)
    (used.path / "state.db").chmod(0o640)
    used.path.chmod(0o755)
    found = look(used)
    assert found["permissions:home/keys/master.key"].status is Status.PROBLEM
    assert "chmod 600" in found["permissions:home/keys/master.key"].remedy
    assert found["permissions:home/state.db"].status is Status.WARN
    assert found["permissions:home"].status is Status.PROBLEM
    assert found["keys.master:gw1"].status is Status.PROBLEM  # the gateway refuses such a key


@requirement("EVD-9")
def test_disk_against_the_marks_of_the_ledger() -> None:
    limits = LedgerLimits()
    assert place.disk_finding(limits.free_reserved_bytes - 1, limits).status is Status.PROBLEM
    assert place.disk_finding(limits.free_scarce_bytes - 1, limits).status is Status.WARN
    assert place.disk_finding(limits.free_scarce_bytes, limits).status is Status.OK
    assert place.disk_finding(limits.free_scarce_bytes, limits, 3).status is Status.PROBLEM


@requirement("EVD-3")
@pytest.mark.parametrize(
    ("kind", "word"), [("tmpfs", "memory"), ("overlay", "layer"), ("nfs4", "network"), ("ext4", "")]
)
def test_file_systems_on_which_durable_is_not_durable(kind: str, word: str) -> None:
    mounts = (
        f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / /srv/my\\040home rw shared:1 - {kind} x rw\n"
    )
    assert place.file_system_of(Path("/srv/other"), mounts) == "ext4"
    assert place.file_system_of(Path("/srv/my home/ledger"), mounts) == kind
    found = place.file_system_finding(kind)
    assert (found.status is Status.WARN) == bool(word) and word in found.says


@requirement("EVD-3")
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory file system here")
def test_a_home_in_memory_is_found() -> None:
    where = Path(f"/dev/shm/exeat-doctor-{os.getpid()}")
    home = Home(where)
    try:
        assert at(home, "filesystem")[0] == "warn"
    finally:
        home.state.close()
        shutil.rmtree(where)


@requirement("GW-1")
def test_flush(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ms" in at(home, "flush")[1]
    assert place.flush_finding(0.05).status is Status.WARN
    real = os.fdatasync

    def refuse(descriptor: int) -> None:
        real(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    assert at(home, "flush")[0] == "problem"
    assert not list(home.path.glob("**/.doctor-*"))


@requirement("EVD-9")
def test_the_clock_against_the_last_entry(used: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert at(used, "clock:gw1")[0] == "ok"
    patient = Patient(used.path, Settings(), {}, now=time.time_ns() - 3600 * 10**9)
    clock = [each for each in record.ledger(patient) if each.id == "clock:gw1"]
    assert clock[0].status is Status.PROBLEM and "behind" in clock[0].says


@requirement("REG-1")
def test_port_free_foreign_and_ours(used: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        number = foreign.getsockname()[1]
        (used.path / "exeat.toml").write_text(f"port = {number}\n")
        status, says = at(used, "port")
        assert status == "problem" and "not exeat" in says
    assert at(used, "port")[0] == "ok"
    with running(Gateway(used.path, port=number)) as gateway:
        found = look(used)
        assert found["port"].status is Status.OK and "ready" in found["port"].says
        assert str(gateway.process.pid) in found["lock"].says
        assert found["ledger:gw1"].status is Status.OK
        (used.path / "exeat.toml").write_text(f"port = {number + 1}\n")
        assert at(used, "port")[0] == "warn"
        gateway.kill()
    status, says = at(used, "lock")
    assert status == "ok" and "no process any more" in says
    (used.path / "gw1.lock").write_text(f"{os.getpid()}\n")
    assert "another process" in at(used, "lock")[1]


@requirement("REG-1")
def test_bind() -> None:
    for host, wanted in (("127.0.0.1", Status.OK), ("::1", Status.OK), ("0.0.0.0", Status.WARN)):
        patient = Patient(Path("/"), Settings(host=host), {})
        assert next(reach.bind(patient)).status is wanted


@requirement("GW-14")
def test_descriptors_of_the_gateway_that_runs(home: Home) -> None:
    limited = ["sh", "-c", "ulimit -n 300; exec sleep 60"]
    process = subprocess.Popen(limited)
    try:
        deadline = time.monotonic() + 10
        asked = (process.pid, "Max open files", resource.RLIMIT_NOFILE)
        while program.limit_of(*asked)[0] != 300 and time.monotonic() < deadline:
            time.sleep(0.01)
        patient = Patient(home.path, Settings(), {}, pid=process.pid)
        found = next(place.descriptors(patient))
        assert found.status is Status.WARN and "300" in found.says
        fewer = replace(patient, settings=Settings(connections_max=10))
        assert next(place.descriptors(fewer)).status is Status.OK
    finally:
        process.kill()
        process.wait()


@requirement("REG-3")
def test_state(home: Home) -> None:
    database = home.path / "state.db"
    for version, status in ((99, "problem"), (0, "warn"), (LATEST, "ok")):
        with sqlite3.connect(database) as db:
            db.execute("UPDATE state SET schema_version = ?", (version,))
        db.close()
        assert at(home, "state")[0] == status
    home.state.close()
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    database.write_bytes(b"no database" * 1000)
    assert at(home, "state")[0] == "problem"
    database.unlink()
    status, says = at(home, "state")
    assert status == "problem" and "exeat init" in says
    assert not database.exists()
    (home.path / "exeat.toml").write_text('database_url = "postgresql://u@127.0.0.1:9/none"\n')
    status, says = at(home, "state")
    assert status == "problem" and "u@127" not in says


@requirement("EVD-4")
def test_a_ledger_that_was_altered_or_cut(used: Home) -> None:
    path = ledger_path(used.path)
    kept = path.read_bytes()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM batches WHERE first = (SELECT max(first) FROM batches)")
    db.close()
    assert at(used, "ledger:gw1")[0] == "problem"
    path.write_bytes(kept[: len(kept) // 2])
    assert at(used, "ledger:gw1")[0] == "problem"
    path.write_bytes(kept)
    assert at(used, "ledger:gw1")[0] == "ok"


@requirement("EVD-4")
def test_a_ledger_whose_tail_is_gone(home: Home) -> None:
    with running(Gateway(home.path)) as gateway:
        wire = Wire(gateway.port, home.key(AgentId("clock")), "/mcp/time")
        wire.ask("tools/list")
        wire.http.close()
        gateway.kill()
    assert at(home, "ledger:gw1")[0] == "ok"
    (home.path / "ledger" / "gw1.db.tail").unlink()
    status, says = at(home, "ledger:gw1")
    assert status == "problem" and "tail is gone" in says


@requirement("EVD-3")
def test_a_ledger_that_was_begun_and_holds_nothing(home: Home) -> None:
    store = SqliteLedgerStore(ledger_path(home.path))
    store.open()
    store.close()
    assert at(home, "ledger:gw1")[0] == "skipped"


@requirement("EVD-4")
def test_keys_that_are_gone_or_of_another_home(used: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    with running(Gateway(other.path)) as gateway:
        gateway.stop()
    other.state.close()
    keys = used.path / "keys"
    for name, check in (("gw1.ed25519", "keys.signing:gw1"), ("master.key", "keys.master:gw1")):
        kept = (keys / name).read_bytes()
        shutil.copy(other.path / "keys" / name, keys / name)
        assert at(used, check)[0] == "problem", check
        (keys / name).unlink()
        assert at(used, check)[0] == "problem", check
        if name == "gw1.ed25519":  # under another name, that ledger is only read
            (used.path / "exeat.toml").write_text('instance = "gw2"\nport = 0\n')
            assert at(used, check)[0] == "warn"
            (used.path / "exeat.toml").write_text("port = 0\n")
        (keys / name).write_bytes(kept)
        (keys / name).chmod(0o600)
        assert at(used, check)[0] == "ok", check
    (keys / "state.key").write_text("short\n")
    assert at(used, "keys.state")[0] == "problem"


@requirement("POL-1")
def test_policy(home: Home, tmp_path: Path) -> None:
    assert at(home, "policy")[0] == "ok"
    home.policy('@id("one") permit(principal, action == Action::"time/get_time", resource);')
    assert at(home, "policy")[0] == "ok"
    home.registry.retire(AgentId("clock"), home.act())
    home.registry.remove_server(ServerId("time"), home.act())
    status, says = at(home, "policy")
    assert status == "problem" and "test.cedar:1:1" in says and "[one]" in says
    empty = Home(tmp_path / "empty")
    assert at(empty, "policy")[0] == "warn"
    empty.state.close()


@requirement("REG-2", "REG-9")
def test_agents_and_keys(home: Home) -> None:
    found = look(home)
    assert found["agents"].status is Status.OK
    assert any(f.id.startswith("key:") and f.status is Status.WARN for f in found.values())  # 1 day
    home.registry.issue_key(AgentId("clock"), None, 30 * 86_400, home.act())
    assert sum(id.startswith("key:") for id in look(home)) == 1
    checks = (governed.state, governed.agents)
    soon = Patient(home.path, Settings(), {}, now=time.time_ns() + 360 * DAY_NS)
    later = replace(soon, now=time.time_ns() + 400 * DAY_NS)
    for patient, status in ((soon, Status.WARN), (later, Status.PROBLEM)):
        said = {each.id: each for check in checks for each in check(patient)}
        assert said["agent:clock"].status is status
    home.registry.depart(BOB, home.act())
    status, says = at(home, "agent:clock")
    assert status == "warn" and "deputy" in says
    home.registry.register_person("zoe", ["admin"], home.act())
    home.registry.depart(ADA, home.act())
    assert at(home, "agent:clock")[0] == "problem"


@requirement("APP-9")
def test_what_is_killed(home: Home) -> None:
    assert at(home, "kills")[0] == "ok"
    agent = home.registry.kill(Target.AGENT, "clock", home.act())
    every = home.registry.kill(Target.ALL, "", home.act())
    status, says = at(home, f"kill:{agent.id}")
    assert status == "warn" and f"Agent clock is stopped by kill {agent.id}" in says
    assert "Everything is stopped" in at(home, f"kill:{every.id}")[1]


@requirement("REG-6")
def test_tools(home: Home) -> None:
    server = ServerId("time")
    other = {**DEFINITION, "name": "other"}
    home.registry.observe_definitions(server, [DEFINITION, other], home.act())
    status, says = at(home, "tools:time")
    assert status == "warn" and "never reviewed" in says
    changed = {**DEFINITION, "description": "Now it is something else."}
    home.pin_all(server, [other])
    home.registry.observe_definitions(server, [changed, other], home.act())
    assert "changed since their review" in at(home, "tools:time")[1]


@requirement("GW-11")
def test_servers(home: Home) -> None:
    assert at(home, "server:time")[0] == "ok"
    home.server("gone", command=["no-such-program-anywhere"])
    assert "not found" in at(home, "server:gone")[1]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        number = listening.getsockname()[1]
        home.server("web", url=f"http://127.0.0.1:{number}/mcp")
        assert at(home, "server:web")[0] == "ok"
    assert at(home, "server:web")[0] == "problem"
    spec = ServerSpec(
        ServerId("secret"), Transport.STDIO, command=(sys.executable,), env_from=("BANK_TOKEN",)
    )
    home.registry.add_server(spec, ADA, 50, (), home.act())
    assert at(home, "environment:BANK_TOKEN")[0] == "problem"
    assert "server:secret" not in look(home)
    assert at(home, "server:secret", BANK_TOKEN="hush-hush")[0] == "ok"
    assert "hush" not in str(look(home, BANK_TOKEN="hush-hush"))


@requirement("GW-12")
def test_isolation(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "isolation:time" in look(home)
    monkeypatch.setattr(reach, "proven", lambda chosen: NONE)
    status, says = at(home, "isolation:time")
    assert status == "warn" and "could read" in says


@requirement("REG-1")
def test_a_check_that_fails_is_a_finding(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> SimpleNamespace:
        raise RuntimeError("boom")

    monkeypatch.setattr(os, "statvfs", broken)
    found = look(home)
    assert found["disk"].status is Status.PROBLEM and "boom" in found["disk"].says
    assert "agents" in found


@requirement("REG-1")
def test_the_command(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["exeat", "doctor", "--home", str(home.path), *arguments])
        with pytest.raises(SystemExit) as end:
            command_line.main()
        return int(end.value.code or 0), capsys.readouterr().out

    for name in list(os.environ):
        if name.startswith("EXEAT_"):
            monkeypatch.delenv(name)
    code, out = run()
    assert code == 0 and "0 problems" in out and "→" in out
    home.server("gone", command=["no-such-program-anywhere"])
    code, out = run("--json")
    assert code == 1
    said = {each["id"]: each for each in json.loads(out)}
    assert set(said["server:gone"]) == {"id", "status", "says", "remedy"}
    assert run()[0] == 1


@requirement("EVD-3")
def test_a_gateway_under_load_is_not_disturbed(home: Home) -> None:
    """The ledger is read again and again while its tail is written, moved and begun anew."""
    with running(Gateway(home.path, heartbeat_s="0.02")) as gateway:
        wire = Wire(gateway.port, home.key(AgentId("clock")), "/mcp/time")
        patient = Patient(home.path, Settings(), environ())
        for _ in range(60):
            for _ in range(5):
                wire.ask("tools/list")
            found = {each.id: each for each in record.ledger(patient)}
            assert found["ledger:gw1"].status is Status.OK, found["ledger:gw1"]
        wire.http.close()
        assert gateway.stop() == 0


@requirement("ID-10")
def test_vault(home: Home) -> None:
    assert at(home, "vault")[0] == "ok"
    sealed = open_vault(home.path, Settings(), home.state, {})
    spec = ServerSpec(
        ServerId("web"), Transport.HTTP, url="http://127.0.0.1:9/", headers_secret={"X-Key": "k"}
    )
    home.registry.add_server(spec, ADA, 50, (), home.act())
    assert at(home, "secret:k")[0] == "problem"
    set_secret(sealed, SecretId(TENANT, "", "web", "k"), b"hush-hush", home.act())
    found = look(home)
    assert found["vault"].status is Status.OK and "secret:k" not in found
    key = home.path / "keys" / "vault.key"
    kept = key.read_text()
    key.write_text(VaultKey(b"x" * 32).text())
    status, says = at(home, "vault")
    assert status == "problem" and "1 of 1 secrets do not open: k." in says and "hush" not in says
    key.write_text(kept)
    with sealed.store.change() as tx:  # a rotation that was stopped
        tx.use_key("0" * 16, home.act().event("vault.key_rotated", "vault", None, None))
    assert at(home, "vault")[0] == "warn"
    key.unlink()
    assert "is not in the file" in at(home, "vault")[1]


@requirement("APP-4")
def test_a_policy_that_asks_people_needs_a_key_to_seal_what_they_are_asked(home: Home) -> None:
    said, why = at(home, "approvals")
    assert said == "ok" and "No policy in force asks people" in why
    home.policy(
        '@id("read") permit(principal, action == Action::"time/get_time", resource) when'
        ' { context.session.controls.contains(Control::"approved_by_owner") };'
    )
    said, why = at(home, "approvals")
    assert said == "ok" and "approved_by_owner" in why  # exeat makes the key itself
    assert not (home.path / "keys" / "vault.key").exists()  # and the doctor does not
    settings = home.path / "exeat.toml"
    settings.write_text('port = 0\nvault_key_env = "MY_VAULT_KEY"\n')
    said, why = at(home, "approvals")
    assert said == "warn" and "MY_VAULT_KEY is not set" in why and "approvals_unavailable" in why
    key = VaultKey(os.urandom(32)).text()
    assert at(home, "approvals", MY_VAULT_KEY=key)[0] == "ok"
    settings.write_text("port = 0\n")
    sealed = open_vault(home.path, Settings(), home.state)
    set_secret(sealed, SecretId(TENANT, "", "", "k"), b"hush-hush", home.act())
    assert at(home, "approvals")[0] == "ok"
    (home.path / "keys" / "vault.key").write_text(f"{key}\n")
    said, why = at(home, "approvals")
    assert said == "warn" and "is not in the file" in why and "Put it back" in why

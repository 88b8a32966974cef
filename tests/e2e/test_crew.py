"""``exeat up --workers N`` as a whole, on SQLite and on PostgreSQL: a supervisor, and a log per worker."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from crews import (
    World,
    alive,
    answered,
    legacy_call,
    named,
    sessions_of_all,
    until,
    workers_of,
)
from faulting.database import Database
from gateways import (
    Gateway,
    Wire,
    denied,
    running,
    start_matrix_server,
    url_of,
)
from requirements import requirement

from exeat.app.lock import holder
from exeat.core.ids import AgentId
from exeat.evidence.model import DecisionLeaf, EventLeaf, LogLeaf, OutcomeLeaf

WORKERS = 2
NAMES = ("gw1-1", "gw1-2")
ALL = '@id("all") permit(principal, action, resource);'


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)]
)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    postgresql = request.param == "postgresql"
    database: Database | None = request.getfixturevalue("database") if postgresql else None
    made = World(tmp_path_factory.mktemp("crew"), database)
    with running(start_matrix_server()) as upstream:
        made.home.pin_all(made.home.server("m", url=url_of(upstream)))
        made.home.policy(ALL)
        made.key = made.home.agent("bot", ["m"])
        yield made
    made.home.state.close()


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    with running(world.up(WORKERS)) as made:
        yield made


def connections(world: World, gateway: Gateway) -> list[Wire]:
    """To both workers: enough that the kernel gave each of them some."""
    wires = [Wire(gateway.port, world.key, "/mcp/m") for _ in range(24)]
    for wire in wires:
        assert "result" in wire.call("add", a=1, b=1)
    return wires


def kinds(leaves: list[Any]) -> list[str]:
    return [leaf.what for leaf in leaves if isinstance(leaf, LogLeaf)]


@requirement("EVD-1")
def test_each_worker_writes_a_log_of_its_own(world: World, gateway: Gateway) -> None:
    connections(world, gateway)
    logs = world.entries()
    assert tuple(sorted(logs)) == NAMES
    for name, leaves in logs.items():
        assert any(isinstance(leaf, DecisionLeaf) for leaf in leaves), name
        assert leaves[0].facts["key"].startswith(f"exeat/{name}+")
    for path in ("/healthz", "/readyz"):
        for _ in range(6):
            probe = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=15)
            probe.request("GET", path)
            assert probe.getresponse().status == 200
            probe.close()


@requirement("REG-3", "EVD-1")
def test_a_change_is_entered_once_and_in_force_on_every_worker(
    world: World, gateway: Gateway
) -> None:
    wires = connections(world, gateway)
    for round_ in range(6):
        name = f"temp{round_}"
        world.home.agent(name, ["m"])
        world.home.registry.suspend(AgentId(name), world.home.act())
    world.home.registry.suspend(AgentId("bot"), world.home.act())
    for wire in wires:
        until(lambda w=wire: denied(w.call("add", a=1, b=1)) == "agent_not_active")
    world.home.registry.resume(AgentId("bot"), world.home.act())
    for wire in wires:
        until(lambda w=wire: "result" in w.call("add", a=1, b=1))

    def events() -> list[tuple[str, str]]:
        return [
            (leaf.subject, leaf.event)
            for leaves in world.entries().values()
            for leaf in leaves
            if isinstance(leaf, EventLeaf) and leaf.subject.startswith("agent:temp")
        ]

    until(lambda: not world.home.state.outbox.take(1))
    found = events()
    assert len(found) >= 6 * 4
    assert sorted(found) == sorted(set(found)), "an event was entered twice"


@requirement("EVD-3")
def test_one_instance_has_one_gateway(world: World, gateway: Gateway) -> None:
    """A worker's name is taken like any other, also from another home on the same database."""
    home = world.home.path
    if world.url is not None:
        home = world.home.path.with_name("other")
        shutil.copytree(world.home.path, home, ignore=shutil.ignore_patterns("workers", "*.lock"))
    for instance, more in (("gw1-1", "1"), ("gw1", "2")):
        done = world.process("up", "--port", 0, home=home, instance=instance, workers=more)
        assert done.status == 1
        assert "pid " in done.stderr
    assert "result" in Wire(gateway.port, world.key, "/mcp/m").call("add", a=1, b=1)


@requirement("GW-12")
def test_no_other_process_of_the_user_can_join_the_port(gateway: Gateway) -> None:
    """A stdio server that listened there, too, would be given agents' keys."""
    for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, option, 1)
            with pytest.raises(OSError, match="in use"):
                thief.bind(("127.0.0.1", gateway.port))
                thief.listen()


@requirement("EVD-1", "EVD-4")
def test_commands_read_every_log(world: World, gateway: Gateway, tmp_path: Path) -> None:
    connections(world, gateway)
    done = world.cli("evidence", "verify")
    assert done.status == 0, done.stdout + done.stderr
    assert done.stdout.count("SOUND") >= WORKERS and "NOT SOUND" not in done.stdout
    audit = json.loads(world.cli("evidence", "audit", "--json", "--last", "0").stdout)
    assert {row["instance"] for row in audit} == set(NAMES)
    assert [row["time"] for row in audit] == sorted(row["time"] for row in audit)
    last = world.cli("evidence", "audit").stdout.splitlines()[-1].split()[0]
    assert last.startswith("gw1-")
    shown = json.loads(world.cli("evidence", "show", last, "--values").stdout)
    assert shown["entry"]["index"] == int(last.rpartition("-")[2])
    assert shown["values"]["arguments"]
    assert "permit" in world.process("policy", "explain", last).stdout
    unsaid = world.cli("evidence", "show", "7")
    assert unsaid.status == 1 and "gw1-1-7" in unsaid.stderr
    proofs = json.loads(world.process("answer", "bot", "--json").stdout)["proofs"]
    assert {proof["decision"].rpartition("-")[0] for proof in proofs} <= set(NAMES)
    assert len(proofs) > 1
    assert "Name one of them with --instance" in world.cli("evidence", "checkpoint").stderr
    assert (
        "There are: gw1-1, gw1-2" in world.cli("evidence", "checkpoint", "--instance", "x").stderr
    )
    copy = tmp_path / "copy.db"
    assert world.cli("evidence", "export", copy, "--instance", "gw1-2").status == 0
    assert world.cli("evidence", "verify", copy).status == 0


@requirement("EVD-4")
def test_a_checkpoint_kept_elsewhere_is_held_against_the_log_of_its_name(
    world: World, gateway: Gateway, tmp_path: Path
) -> None:
    kept, keys = [], []
    for name in NAMES:
        note = world.cli("evidence", "checkpoint", "--instance", name).stdout
        assert note.startswith(f"exeat/{name}\n")
        kept.append(tmp_path / name)
        kept[-1].write_text(note)
        keys.append(world.entries()[name][0].facts["key"])
    both = [part for path in kept for part in ("--checkpoint", path)]
    both += [part for key in keys for part in ("--key", key)]
    done = world.cli("evidence", "verify", *both)
    assert done.status == 0, done.stdout
    lone = world.cli("evidence", "verify", "--instance", "gw1-1", "--checkpoint", kept[1])
    assert lone.status == 1 and "refused" in lone.stdout
    forged = tmp_path / "forged"
    forged.write_text(kept[0].read_text().replace("exeat/gw1-1\n", "exeat/gw1-9\n"))
    done = world.cli("evidence", "verify", "--checkpoint", forged)
    assert done.status == 1
    assert "exeat/gw1-9, and no ledger here is of that name" in done.stdout


@requirement("EVD-1")
def test_the_doctor_knows_the_workers(world: World, gateway: Gateway) -> None:
    pids = [named(world.home.path, name) for name in NAMES]
    assert sorted(pids) == sorted(workers_of(gateway))
    for settings in ({}, {"workers": "2"}):
        found = world.doctor(port=str(gateway.port), **settings)
        for name, pid in zip(NAMES, pids, strict=True):
            assert f"{name}: pid {pid}" in found["lock"]["says"]
            for check in (f"ledger:{name}", f"keys.signing:{name}", f"keys.master:{name}"):
                assert found[check]["status"] == "ok", found[check]
        assert found["lock"]["status"] == found["port"]["status"] == "ok"
        assert f"pid {pids[0]}" in found["descriptors"]["says"]
        assert "keys.signing:gw1" not in found
    found = world.doctor(port=str(gateway.port), workers="3")
    assert found["lock"]["status"] == "warn" and "not its workers gw1-3" in found["lock"]["says"]
    assert found["keys.signing:gw1-1"]["status"] == "ok"
    assert not Path(world.home.path / "gw1-3.lock").exists()


@pytest.mark.long
@requirement("EVD-1", "EVD-4")
def test_a_backup_holds_every_log_and_can_be_gone_on_with(
    world: World, gateway: Gateway, tmp_path: Path
) -> None:
    made = world.cli("backup", tmp_path / "all.tar", "--with-keys")
    assert made.status == 0, made.stderr
    assert "left out" not in made.stderr
    home = tmp_path / "new"
    done = world.cli("restore", tmp_path / "all.tar", "--home", home)
    assert done.status == 0, done.stderr
    if world.url is None:
        assert all(f"ledger {name}: " in done.stdout for name in NAMES)
        assert world.cli("evidence", "verify", home).stdout.count("SOUND") == WORKERS
        with running(Gateway(home, workers="2")) as again:
            assert "result" in Wire(again.port, world.key, "/mcp/m").call("add", a=1, b=1)
            assert again.stop() == 0
        assert world.cli("evidence", "verify", home).status == 0
    else:
        assert {path.name for path in (home / "ledger").iterdir()} >= {
            f"{name}.checkpoint" for name in NAMES
        }


@requirement("EVD-3", "EVD-1", "GW-13")
def test_a_killed_worker_is_started_again_and_takes_its_log_up(
    world: World, gateway: Gateway
) -> None:
    """Its sessions are gone, and their clients are told to begin anew; the others' go on."""
    sessions = sessions_of_all(lambda: Wire(gateway.port, world.key, "/mcp/m"), WORKERS)
    before = set(workers_of(gateway))
    victim = named(world.home.path, "gw1-1")
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(now := set(workers_of(gateway))) == WORKERS and victim not in now)
    assert before - {victim} <= set(workers_of(gateway))
    until(lambda: "recovered" in kinds(world.entries()["gw1-1"]))
    for _ in range(12):
        wire = Wire(gateway.port, world.key, "/mcp/m")
        assert "result" in until(lambda w=wire: answered(w))
        told = legacy_call(Wire(gateway.port, world.key, "/mcp/m"), sessions["gw1-1"], 5)
        assert told["error"]["message"] == "Session not found; initialize again"
        wire = Wire(gateway.port, world.key, "/mcp/m")
        assert legacy_call(wire, sessions["gw1-2"], 5)["result"]
    assert "a worker ended and is started again" in gateway.output
    assert "recovered" not in kinds(world.entries()["gw1-2"])


@requirement("EVD-1", "EVD-3")
def test_a_stop_drains_and_closes_every_log(world: World, gateway: Gateway) -> None:
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output, gateway.output
    for name, leaves in world.entries().items():
        assert kinds(leaves)[-1] == "closed", name
        permits = {
            leaf.index
            for leaf in leaves
            if isinstance(leaf, DecisionLeaf) and leaf.verdict == "permit"
        }
        assert permits == {leaf.decision for leaf in leaves if isinstance(leaf, OutcomeLeaf)}
    assert list((world.home.path / "workers").iterdir()) == []
    found = world.doctor(workers="2")
    assert found["lock"]["status"] == "ok"
    assert found["keys.signing:gw1-2"]["status"] == "ok"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """A home on SQLite without server and agent."""
    made = World(tmp_path, None)
    yield made
    made.home.state.close()


@requirement("EVD-3")
def test_workers_do_not_outlive_their_supervisor(bare: World) -> None:
    """However it went: no gateway is left that nobody can stop."""
    with running(bare.up(WORKERS)) as gateway:
        workers = workers_of(gateway)
        assert len(workers) == WORKERS
        gateway.process.kill()
        try:
            until(lambda: not any(alive(pid) for pid in workers))
        finally:
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    for name, leaves in bare.entries().items():
        assert kinds(leaves)[-1] == "closed", name


@requirement("EVD-1")
def test_what_cannot_start_says_why_and_leaves_nothing(bare: World) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another gateway would
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = bare.process("up", "--workers", "2", "--port", port)
        assert refused.status == 1
        assert f"cannot listen on 127.0.0.1:{port}" in refused.stderr
    long = bare.cli("up", "--workers", "2", "--port", 0, instance="a" * 29)
    assert long.status == 1 and "no room for the number of a worker" in long.stderr
    for number in ("0", "65"):
        wrong = bare.cli("up", "--workers", number)
        assert wrong.status == 1 and "setting 'workers'" in wrong.stderr
    nowhere = bare.cli("up", "--workers", "2", "--port", 0, host="256.0.0.1")
    assert nowhere.status == 1 and "cannot listen on 256.0.0.1" in nowhere.stderr
    half = bare.cli("up", "--workers", "2", "--port", 0, tls_key="there-is-none")
    assert half.status == 1 and "tls_certificate" in half.stderr
    assert not (bare.home.path / "gw1-1.lock").exists()
    key = bare.home.path / "keys" / "gw1-2.ed25519"
    key.write_text("no key\n")
    key.chmod(0o600)
    broken = bare.process("up", "--port", 0, workers="2")
    assert broken.status == 1
    assert "worker gw1-2: " in broken.stderr
    assert holder(bare.home.path, "gw1-1")[1] is False


@pytest.mark.long
@requirement("GW-14")
def test_systemd_hears_of_the_whole_and_a_renewed_certificate_reaches_every_worker(
    bare: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    pem, key = authority.issue("server")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(bare.up(WORKERS, tls_certificate=str(pem), tls_key=str(key))) as gateway:
            assert heard(systemd) == (b"READY=1", gateway.process.pid)
            old = shown(authority, gateway.port)
            authority.issue("server")
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: old not in [shown(authority, gateway.port) for _ in range(WORKERS * 8)])
            assert gateway.stop() == 0
            assert heard(systemd) == (b"STOPPING=1", gateway.process.pid)
            systemd.setblocking(False)
            with pytest.raises(BlockingIOError):
                heard(systemd)  # no worker speaks for the whole


def heard(systemd: socket.socket) -> tuple[bytes, int]:
    """What was said, and by which process."""
    said, ancillary, _, _ = systemd.recvmsg(64, socket.CMSG_SPACE(12))
    return said, struct.unpack("3i", ancillary[0][2])[0]


def shown(authority: Authority, port: int) -> bytes:
    """The certificate of whichever worker takes the connection."""
    context = ssl.create_default_context(cafile=authority.path)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=15) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""

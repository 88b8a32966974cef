"""Approvals and budgets across kills, a database that is gone, and two gateways (APP-4, APP-8, APP-11)."""

import base64
import contextlib
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulting.database import Database
from gateways import Gateway, Server, Wire, decisions, denied, environ, running, text, verified
from offices import DEADLINE_S, VAULT_KEY, Office
from requirements import requirement

pytestmark = pytest.mark.long
SHARED = """
budgets:
  - {id: notes, actions: [c/note], counts: calls, limit: "7", window: 1h}
"""
PAID = """
budgets:
  - {id: pays, actions: [c/pay], counts: calls, limit: "2", window: 1h}
"""
DIES = {
    # consumed and reserved; nothing is recorded
    "before the record": (
        "from exeat.gateway.pipeline import Pipeline as P; real=P._record\n"
        "def _record(self, submission, request, decision, used):\n"
        "    dies = used is not None and used.reserved\n"
        "    die() if dies else real(self, submission, request, decision, used)\n"
        "P._record=_record\n"
    ),
    # the permit is durable; nothing is sent
    "before the call": (
        "from exeat.gateway.call import Call as C\n"
        "real=C._send\n"
        "C._send=lambda self, enforced: die() if enforced.reserved else real(self, enforced)\n"
    ),
}
LAUNCH = (
    "import os, signal, typer\n"
    "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
    "{patch}"
    "from exeat.cli.up import up\ntyper.run(up)\n"
)


class DyingGateway(Server):
    """`exeat up` that is killed (SIGKILL) at one place on the way of a call."""

    def __init__(self, home: Path, where: str) -> None:
        argv = [sys.executable, "-c", LAUNCH.format(patch=DIES[where])]
        argv += ["--home", str(home), "--port", "0"]
        super().__init__(argv, "exeat is up: ", environ(EXEAT_HOLD_WAIT_S="0"))
        self.port = int(self.line.strip().rpartition(" ")[2].split(":")[2].split("/")[0])


@pytest.fixture(autouse=True)
def _closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VAULT_KEY, base64.b64encode(b"v" * 32).decode())
    yield
    Wire.close_all()


def pays(wire: Wire, amount: float = 500) -> Any:
    return wire.call("pay", amount=amount, to="bob")


@requirement("APP-11", "APP-8", "GW-1")
@pytest.mark.parametrize("where", sorted(DIES))
def test_a_kill_after_the_approval_was_consumed_carries_nothing_out(
    tmp_path: Path, where: str
) -> None:
    """Used once, spent once, and no call that is not on record."""
    office = Office(tmp_path, controls=PAID)
    with running(DyingGateway(office.home.path, where)) as dying:
        office.gateway = dying
        wire = office.wire()
        assert denied(pays(wire)) == "approval_required"
        first = office.asked()
        office.approve(first)
        with pytest.raises(Exception):  # noqa: B017 - whatever the broken connection says
            pays(wire)
        dying.process.wait(DEADLINE_S)
    assert office.carried_out() == []
    with running(Gateway(office.home.path, hold_wait_s="0")) as office.gateway:
        wire = office.wire()
        assert denied(pays(wire)) == "approval_required", "the approval was used"
        office.approve(office.asked())
        assert not denied(pays(wire))
        assert denied(pays(wire)) == "approval_required"
        office.approve(office.asked())
        assert denied(pays(wire)) == "budget_exhausted", "what the killed call took stays spent"
        office.gateway.stop()
    assert len(office.carried_out()) == 1
    permits = [
        (leaf.approval, outcome)
        for leaf, _, outcome in decisions(office.home.path)
        if leaf.verdict == "permit"
    ]
    assert permits[-1][1] == "ok" and len(permits) == (1 if where == "before the record" else 2)
    if where == "before the call":
        assert permits[0] == (first, "unknown")
    assert verified(office.home.path).sound
    office.close()


@requirement("APP-4", "GW-11")
def test_a_database_that_is_gone_denies_and_the_gateway_works_again(
    tmp_path: Path, database: Database
) -> None:
    office = Office(tmp_path, database.another())
    gateway = Gateway(office.home.path, hold_wait_s="60", **office.place)
    with running(gateway) as office.gateway:
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(pays(office.wire())))
        waiting.start()
        hold = office.asked()
        database.stop()
        try:
            other = pays(office.wire(), 600)
            reason = denied(other) or str(other["error"]["data"]["reason"])
            assert reason in ("approvals_unavailable", "state_stale", "ledger_unavailable"), other
            assert office.carried_out() == [] and not found
        finally:
            database.start()
        office.approve(hold)
        waiting.join(60)
        again = found[0]
        if denied(again) or "error" in again:  # it was refused while nothing could be recorded
            assert office.carried_out() == []
            again = pays(office.wire())
            if denied(again) == "approval_required":
                office.approve(office.asked())
                again = pays(office.wire())
        assert not denied(again) and "error" not in again, again
        assert [each["amount"] for each in office.carried_out()] == [500]
    office.close()


def together(*work: Any) -> list[Any]:
    """What each says, begun at the same time."""
    barrier, found = threading.Barrier(len(work)), [None] * len(work)

    def run(at: int) -> None:
        barrier.wait(DEADLINE_S)
        found[at] = work[at]()

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(work))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return found


@pytest.fixture
def two(tmp_path: Path, database: Database) -> Iterator[tuple[Office, list[Gateway]]]:
    office = Office(tmp_path, database.another(), SHARED)
    started = []
    try:
        for name in ("gw1", "gw2"):
            folder = tmp_path / name
            folder.mkdir()
            started.append(Gateway(folder, instance=name, hold_wait_s="0", **office.place))
        yield office, started
    finally:
        for each in started:
            each.kill()
        office.close()


@requirement("APP-4", "APP-8", "APP-11")
def test_two_gateways_use_one_approval_once_and_share_a_budget_exactly(
    two: tuple[Office, list[Gateway]],
) -> None:
    office, gateways = two
    wires = [office.wire(each) for each in gateways]
    for turn in range(4):
        amount = 500 + turn
        assert denied(pays(wires[turn % 2], amount)) == "approval_required"
        office.approve(office.asked())
        answers = together(*(lambda w=w, a=amount: pays(w, a) for w in wires))
        assert sorted(denied(each) for each in answers) == ["", "approval_required"], answers
        for hold in office.waiting():  # what the other one asked for
            office.exeat("approvals", "deny", hold, "--as", "ada", "--reason", "it was made")
    assert sorted(each["amount"] for each in office.carried_out()) == [500, 501, 502, 503]

    def notes(wire: Wire) -> list[str]:
        return [denied(wire.call("note", text=str(number))) for number in range(5)]

    many = [office.wire(each) for each in gateways for _ in range(2)]
    said = [word for words in together(*(lambda w=w: notes(w) for w in many)) for word in words]
    assert said.count("") == 7 and said.count("budget_exhausted") == 13
    assert sum(each["tool"] == "note" for each in office.carried_out()) == 7


@requirement("APP-4", "APP-8", "GW-1")
def test_a_locked_database_denies_and_names_what_cannot_be_read(tmp_path: Path) -> None:
    office = Office(tmp_path)
    with running(Gateway(office.home.path, hold_wait_s="0")) as office.gateway:
        wire = office.wire()
        assert denied(pays(wire)) == "approval_required"
        office.approve(office.asked())
        lock = sqlite3.connect(office.home.path / "state.db", isolation_level=None)
        with contextlib.closing(lock):
            lock.execute("BEGIN EXCLUSIVE")
            counted = wire.call("note", text="x")
            assert denied(counted) in ("budgets_unavailable", "state_stale"), counted
            assert "again shortly" in text(counted)
            assert denied(pays(wire)) in ("approvals_unavailable", "state_stale")
            assert office.carried_out() == []
            lock.execute("ROLLBACK")
        end = time.monotonic() + DEADLINE_S
        while denied(pays(wire)):
            assert time.monotonic() < end, "it never went on"
        assert len(office.carried_out()) == 1
        office.gateway.stop()
    assert verified(office.home.path).sound
    office.close()

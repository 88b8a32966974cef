"""Two workers of one gateway, attacked: retries of one approval at once, calls at once on one budget, and a
gateway that dies in the middle (APP-2, APP-8, APP-11, GW-1)."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway, Wire, denied, running
from offices import Office
from requirements import requirement

from exeat.evidence.keys import load_master
from exeat.evidence.model import DecisionLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.storage.ledger import SqliteLedgerReader

pytestmark = pytest.mark.long
AT_ONCE = 12
LOGS = ("gw1-1", "gw1-2")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


def gateway_of(office: Office) -> Gateway:
    return Gateway(office.home.path, workers=str(len(LOGS)), hold_wait_s="0")


def permitted(home: Path) -> list[DecisionLeaf]:
    """On record, in the log of either worker."""
    master, found = load_master(home / "keys" / "master.key"), list[DecisionLeaf]()
    for name in LOGS:
        source = SqliteLedgerReader(home / "ledger" / f"{name}.db")
        leaves = [each.leaf for each in EvidenceReader(source, f"exeat/{name}", master).entries()]
        source.close()
        found += [each for each in leaves if isinstance(each, DecisionLeaf)]
    return [each for each in found if each.verdict == "permit"]


def at_once(office: Office, call: Callable[[Wire, int], Any]) -> list[Any]:
    """Of AT_ONCE connections; None: it got no answer."""
    wires = [office.wire() for _ in range(AT_ONCE)]
    for wire in wires:
        wire.call("note")  # it is connected; such a call is denied and takes nothing
    found: list[Any] = [None] * AT_ONCE
    gate = threading.Barrier(AT_ONCE)

    def run(number: int) -> None:
        gate.wait()
        with suppress(OSError, HTTPException):  # the gateway may die first
            found[number] = call(wires[number], number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def approved(office: Office, **arguments: Any) -> str:
    held = office.wire().call("pay", **arguments)
    assert denied(held) == "approval_required"
    hold = str(json.loads(office.exeat("approvals", "list", "--json"))[0]["id"])
    office.exeat("approvals", "approve", hold, "--as", "ada", "--reason", "right")
    return hold


@requirement("APP-2", "APP-11")
def test_of_many_retries_at_once_one_uses_the_approval(office: Office) -> None:
    with running(gateway_of(office)) as gateway:
        office.gateway = gateway
        hold = approved(office, amount=500, to="bob")
        found = at_once(office, lambda wire, n: wire.call("pay", amount=500, to="bob"))
        assert sum(not denied(each) for each in found) == 1
        assert gateway.stop() == 0
    assert [each["amount"] for each in office.carried_out()] == [500]
    assert [leaf.approval for leaf in permitted(office.home.path)] == [hold]


@requirement("APP-8")
def test_of_many_calls_at_once_as_many_as_fit_are_made(office: Office) -> None:
    with running(gateway_of(office)) as gateway:
        office.gateway = gateway
        found = at_once(office, lambda wire, n: wire.call("note", text=str(n)))
        assert sum(not denied(each) for each in found) == 3
        assert gateway.stop() == 0
    assert len(office.carried_out()) == 3


@requirement("APP-8", "APP-11", "GW-1")
def test_what_a_killed_gateway_did_is_approved_on_record_and_within_the_budget(
    office: Office,
) -> None:
    """Whatever the moment: nothing leaves twice, unrecorded, or beyond the limit."""
    with running(gateway_of(office)) as gateway:
        office.gateway = gateway
        approved(office, amount=500, to="bob")

        def call(wire: Wire, number: int) -> Any:
            if number == 0:
                gateway.kill()
                return None
            if number % 2:
                return wire.call("pay", amount=500, to="bob")
            return wire.call("note", text=str(number))

        at_once(office, call)
    with running(gateway_of(office)) as gateway:
        office.gateway = gateway
        for number in range(4):
            office.wire().call("note", text=f"again {number}")
            office.wire().call("pay", amount=500, to="bob")
        assert gateway.stop() == 0
    done = office.carried_out()
    assert sum(each["tool"] == "pay" for each in done) <= 1
    assert sum(each["tool"] == "note" for each in done) <= 3
    on_record = permitted(office.home.path)
    assert len(on_record) >= len(done)
    assert sum(bool(leaf.approval) for leaf in on_record) <= 1

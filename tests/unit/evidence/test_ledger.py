"""The ledger: durable before it answers, refusing when it cannot be, whole after a crash (EVD-3)."""

import asyncio
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import rfc8785
from ledger_world import AGENT, DENY, REQUEST, UNREGISTERED, World
from requirements import requirement

from exeat.core.errors import LedgerUnavailable
from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.evidence.canonical import decode_leaf, encode_leaf
from exeat.evidence.model import DecisionLeaf, OutcomeLeaf, Receipt
from exeat.evidence.note import Verifier
from exeat.evidence.quota import LedgerLimits
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import LedgerBroken
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader, export_ledger

pytestmark = pytest.mark.anyio


async def filled(path: Path, calls: int = 12) -> World:
    world = World(path).start()
    for number in range(calls):
        receipt = await world.decide(decision=DENY) if number % 3 == 2 else await world.decide()
        assert isinstance(receipt, Receipt)
        if number % 3 != 2:
            await world.settle(receipt)
    await world.ledger.close()
    return world


@requirement("EVD-3", "GW-1")
async def test_a_receipt_means_that_the_entry_is_in_the_file(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    receipt = await world.decide()
    assert isinstance(receipt, Receipt)
    other = SqliteLedgerReader(tmp_path / "l.db")
    found = EvidenceReader(other).entry(receipt.index)
    assert isinstance(found.leaf, DecisionLeaf)
    assert found.leaf_hash == receipt.leaf_hash
    assert found.leaf.agent.id == AGENT.id
    await world.ledger.close()


@requirement("EVD-3")
async def test_callers_share_a_commit(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    await asyncio.gather(*(world.ask()[1] for _ in range(200)))
    assert max(world.store.sizes) >= 100
    await world.ledger.close()


@requirement("GW-1", "EVD-3")
@pytest.mark.parametrize("persisted", [False, True])
async def test_a_failing_disk_refuses_and_recovers(tmp_path: Path, persisted: bool) -> None:
    world = World(tmp_path / "l.db").start()
    assert isinstance(await world.decide(), Receipt)
    world.store.trouble, world.store.persisted = "disk full", persisted
    refused = await world.decide()
    assert isinstance(refused, LedgerUnavailable)
    assert "disk full" in str(refused)
    assert isinstance(await world.decide(), LedgerUnavailable)
    world.store.trouble = ""
    await world.healed()
    assert isinstance(await world.decide(), Receipt)
    await world.ledger.close()
    assert verify(SqliteLedgerReader(tmp_path / "l.db")).sound


@requirement("EVD-3")
async def test_a_crash_leaves_the_outcome_unknown_and_says_so(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    receipt = await world.decide()
    assert isinstance(receipt, Receipt)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("l.db*"):  # what a kill -9 would leave on the disk
        shutil.copy(file, crashed / file.name)
    await world.ledger.close()
    again = World(crashed / "l.db").start()
    await again.ledger.close()
    outcomes = [
        entry.leaf
        for entry in EvidenceReader(SqliteLedgerReader(crashed / "l.db")).entries()
        if isinstance(entry.leaf, OutcomeLeaf)
    ]
    assert [(o.decision, o.status, o.cause) for o in outcomes] == [
        (receipt.index, "unknown", "crash")
    ]


@requirement("EVD-1")
async def test_entries_are_canonical_json(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    for entry in EvidenceReader(SqliteLedgerReader(tmp_path / "l.db")).entries():
        plain = msgspec.to_builtins(entry.leaf)
        assert rfc8785.dumps(plain) == msgspec.json.encode(entry.leaf)


@requirement("EVD-1")
async def test_values_are_committed_to_and_not_written(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    receipt = await world.decide(UNREGISTERED)
    await world.ledger.close()
    raw = (tmp_path / "l.db").read_bytes()
    assert b"/srv/books" not in raw
    assert b"secret_tool_of_eve" not in raw
    source = SqliteLedgerReader(tmp_path / "l.db")
    opened = EvidenceReader(source, "exeat.example/gw-1", b"m" * 32)
    assert isinstance(receipt, Receipt)
    assert opened.entry(receipt.index).values["arguments"] == REQUEST.arguments


def tampered(path: Path, change: str) -> Path:
    copy = path.with_name("copy.db")
    export_ledger(path, copy)
    db = sqlite3.connect(copy)
    rows = db.execute("SELECT first, leaves FROM batches ORDER BY first").fetchall()
    first, leaves = rows[len(rows) // 2]
    match change:
        case "edit":
            edited = bytes(leaves).replace(b'"owner":"ada"', b'"owner":"eve"')
            edited = edited if edited != leaves else bytes(leaves).replace(b'"v":1', b'"v":2')
            db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (edited, first))
        case "cut":
            db.execute("DELETE FROM batches WHERE first = ?", (first,))
        case "swap":
            other, text = rows[len(rows) // 2 + 1]
            db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (text, first))
            db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (leaves, other))
        case "tail":
            db.execute("DELETE FROM batches WHERE first >= ?", (first,))
            db.execute("DELETE FROM checkpoints WHERE size > ?", (first,))
    db.commit()
    db.close()
    return copy


@requirement("EVD-4")
@pytest.mark.parametrize("change", ["edit", "cut", "swap", "tail"])
async def test_tampering_is_found_with_a_checkpoint_held_elsewhere(
    tmp_path: Path, change: str
) -> None:
    world = await filled(tmp_path / "l.db")
    source = SqliteLedgerReader(tmp_path / "l.db")
    held = tuple(note for _, note in source.checkpoints())[-1:]
    key = Verifier.parse(str(world.signer.verifier))
    assert verify(source, key=key, held=held).sound
    report = verify(SqliteLedgerReader(tampered(tmp_path / "l.db", change)), key=key, held=held)
    assert not report.sound


@requirement("EVD-3", "EVD-4")
async def test_a_torn_tail_is_refused_at_start(tmp_path: Path) -> None:
    await filled(tmp_path / "l.db")
    db = sqlite3.connect(tmp_path / "l.db")
    last, leaves = db.execute("SELECT first, leaves FROM batches ORDER BY first DESC").fetchone()
    torn = bytes(leaves)[:-3] + b"xyz"
    db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (torn, last))
    db.commit()
    db.close()
    with pytest.raises(LedgerBroken):
        World(tmp_path / "l.db").start()


@requirement("EVD-9")
async def test_noise_is_counted_not_entered_one_by_one(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    for _ in range(5000):
        world.ledger.count("unauthenticated", {"path": "/mcp"})
    await world.ledger.close()
    kinds = [e.leaf.kind for e in EvidenceReader(SqliteLedgerReader(tmp_path / "l.db")).entries()]
    assert kinds.count("counts") == 1
    assert len(kinds) < 10


@requirement("EVD-9")
async def test_scarce_space_is_kept_for_permits(tmp_path: Path) -> None:
    limits = LedgerLimits(heartbeat_s=3600)
    world = World(tmp_path / "l.db", limits).start()
    world.store.free = limits.free_scarce_bytes - 1
    for _ in range(2000):  # the free space is looked at every so many entries
        await world.decide()
        if isinstance(await world.decide(decision=DENY), LedgerUnavailable):
            break
    refused = await world.decide(decision=DENY)
    assert isinstance(refused, LedgerUnavailable)
    assert isinstance(await world.decide(), Receipt)
    await world.ledger.close()


@requirement("EVD-9")
async def test_time_that_runs_backwards_is_noticed_across_restarts(tmp_path: Path) -> None:
    world = await filled(tmp_path / "l.db")
    again = World(tmp_path / "l.db")
    again.start()
    assert not again.ledger.clock_trusted(world.clock.now - 60 * 1_000_000_000)
    assert again.ledger.clock_trusted(world.clock.now + 1)
    await again.ledger.close()


@requirement("REG-3")
async def test_a_change_of_the_registry_is_an_entry(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    event = Event("agent.suspended", "agent:bot", PersonId("ada"), "cli", 1, "leaked", None, {})
    world.ledger.record_event(event, done.set_result)
    assert isinstance(await done, Receipt)
    await world.ledger.close()
    assert b'"event":"agent.suspended"' in (tmp_path / "l.db").read_bytes()


@requirement("ID-11", "EVD-1")
async def test_each_decision_names_how_its_server_is_kept_from_others(tmp_path: Path) -> None:
    """An entry of exeat 0.1 has no such member, and is read as it was written."""
    world = World(tmp_path / "l.db").start()
    server = replace(REQUEST.server, mode="permit-enforced")
    receipt = await world.decide(request=replace(REQUEST, server=server))
    assert isinstance(receipt, Receipt)
    found = EvidenceReader(SqliteLedgerReader(tmp_path / "l.db")).entry(receipt.index).leaf
    assert isinstance(found, DecisionLeaf) and found.action.upstream_mode == "permit-enforced"
    older = replace(REQUEST.server, mode="")
    receipt = await world.decide(request=replace(REQUEST, server=older))
    assert isinstance(receipt, Receipt)
    raw = encode_leaf(
        EvidenceReader(SqliteLedgerReader(tmp_path / "l.db")).entry(receipt.index).leaf
    )
    assert b"upstream_mode" not in raw and decode_leaf(raw).kind == "decision"
    await world.ledger.close()

"""The holder of the disk, or even of the key, rewrites history (EVD-4)."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_world import DENY, MASTER, ORIGIN, World
from requirements import requirement

from exeat.core.errors import LedgerUnavailable
from exeat.evidence.merkle import Frontier, leaf_hash
from exeat.evidence.model import DecisionLeaf, Receipt
from exeat.evidence.note import Checkpoint, Signer
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import LedgerBroken, StoreFailed, pack_leaves, unpack_leaves
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader, SqliteLedgerStore, export_ledger

pytestmark = pytest.mark.anyio
Change = Callable[[int, bytes], bytes]


async def written(path: Path) -> World:
    world = World(path).start()
    await world.settle(await world.decide())
    await world.decide(decision=DENY)
    await world.settle(await world.decide())
    await world.ledger.close()
    return world


def rewrite(path: Path, change: Change, signer: Signer | None) -> None:
    """Change leaves and make every stored hash fit; with a key, sign all checkpoints anew."""
    db = sqlite3.connect(path)
    frontier, roots = Frontier(), {}
    for first, packed in db.execute("SELECT first, leaves FROM batches ORDER BY first").fetchall():
        leaves = [change(first + n, leaf) for n, leaf in enumerate(unpack_leaves(packed))]
        for leaf in leaves:
            frontier.append(leaf_hash(leaf))
            roots[frontier.size] = frontier.root()
        db.execute(
            "UPDATE batches SET leaves = ?, frontier = ? WHERE first = ?",
            (pack_leaves(leaves), frontier.pack(), first),
        )
    for (size,) in db.execute("SELECT size FROM checkpoints").fetchall():
        if signer is not None:
            note = signer.sign(Checkpoint(ORIGIN, size, roots[size]).text())
            db.execute("UPDATE checkpoints SET note = ? WHERE size = ?", (note, size))
    db.commit()
    db.close()


def edit(old: bytes, new: bytes, at: int | None = None) -> Change:
    return lambda index, leaf: leaf.replace(old, new) if at in (None, index) else leaf


@requirement("EVD-4")
async def test_a_rewritten_ledger_does_not_fit_what_was_signed(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await written(path)
    rewrite(path, edit(b'"reason":"forbidden"', b'"reason":"no_policy"'), None)
    report = verify(SqliteLedgerReader(path))
    assert any("not those that were signed" in each for each in report.problems)
    with pytest.raises(LedgerBroken, match="not those that were signed"):
        World(path).start()


@requirement("EVD-4")
async def test_even_the_holder_of_the_key_is_held_to_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    world = await written(path)
    held = (path.with_name("l.db.checkpoint").read_bytes(),)
    key = world.signer.verifier
    assert verify(SqliteLedgerReader(path), key=key, held=held).held == 8
    rewrite(path, edit(b'"reason":"forbidden"', b'"reason":"no_policy"'), world.signer)
    assert verify(SqliteLedgerReader(path), key=key).sound  # alone, this cannot be seen
    report = verify(SqliteLedgerReader(path), key=key, held=held)
    assert any("checkpoint kept apart" in each for each in report.problems)


@requirement("EVD-4")
async def test_a_cut_end_shows_against_the_checkpoint_beside(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await written(path)
    published = path.with_name("l.db.checkpoint").read_bytes()
    db = sqlite3.connect(path)
    db.execute("DELETE FROM batches WHERE first >= 5")
    db.execute("DELETE FROM checkpoints WHERE size > 5")
    db.commit()
    db.close()
    assert verify(SqliteLedgerReader(path)).sound
    report = verify(SqliteLedgerReader(path), published=(published,))
    assert report.problems == [
        "the ledger was cut: a checkpoint kept apart has 8 entries, and 5 are left"
    ]
    assert report.held is None


@requirement("EVD-4")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (edit(b'"at":"179', b'"at":"178', at=4), "dated before"),
        (edit(b'"index":4', b'"index":5', at=4), "calls itself 5"),
        (edit(b'"decision":2', b'"decision":4', at=3), "outcome without its permit"),
        (edit(b'"decision":5', b'"decision":2', at=6), "outcome without its permit"),
        (edit(b'"verdict":"permit"', b'"verdict":"deny"', at=2), "outcome without its permit"),
    ],
)
async def test_a_signed_contradiction_is_still_one(
    tmp_path: Path, change: Change, problem: str
) -> None:
    path = tmp_path / "l.db"
    world = await written(path)
    rewrite(path, change, world.signer)
    report = verify(SqliteLedgerReader(path), key=world.signer.verifier)
    assert any(problem in each for each in report.problems)


@requirement("EVD-4")
async def test_another_keys_ledger_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await written(path)
    other = Signer(ORIGIN, b"o" * 32).verifier
    assert not verify(SqliteLedgerReader(path), key=other).sound


@requirement("EVD-4")
async def test_sealed_values_cannot_move_to_another_entry(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await written(path)
    db = sqlite3.connect(path)
    (sealed,) = db.execute("SELECT sealed FROM batches WHERE first = 0").fetchone()
    db.execute("UPDATE batches SET sealed = ? WHERE first = 5", (sealed,))
    db.commit()
    db.close()
    reader = EvidenceReader(SqliteLedgerReader(path), ORIGIN, MASTER)
    assert reader.entry(2).values["arguments"]
    with pytest.raises(LedgerBroken, match="altered"):
        reader.entry(5)


@requirement("EVD-4")
async def test_an_erased_key_erases_the_values_and_leaves_the_proof(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    await written(path)
    db = sqlite3.connect(path)
    db.execute("UPDATE subject_keys SET wrapped = x'' WHERE subject = 'person:ada'")
    db.commit()
    db.close()
    assert EvidenceReader(SqliteLedgerReader(path), ORIGIN, MASTER).entry(2).values == {}
    assert verify(SqliteLedgerReader(path)).sound
    again = World(path).start()  # and a new key is made for what comes after
    receipt = await again.decide()
    assert isinstance(receipt, Receipt)
    await again.ledger.close()
    reader = EvidenceReader(SqliteLedgerReader(path), ORIGIN, MASTER)
    assert reader.entry(receipt.index).values["arguments"]


class Reopening(SqliteLedgerStore):
    """Says when it was opened for the second time; its checkpoint fails once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.opened, self.twice, self.fail = 0, threading.Event(), False

    def open(self) -> None:
        super().open()
        self.opened += 1

    def free_bytes(self) -> int:
        if self.opened == 2:
            self.twice.set()
        return super().free_bytes()

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        if self.fail:
            self.fail = False
            raise StoreFailed("disk I/O error")
        super().keep_checkpoint(size, note)


@requirement("EVD-3", "GW-1")
async def test_what_was_handed_over_during_a_failure_is_not_entered_after_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.db"
    store = Reopening(path)
    world = World(path)
    world.ledger._committer._store = store  # the world's own store is never opened
    world.start()
    await world.decide(decision=DENY)
    store.fail = True
    world.ledger.heartbeat()
    await asyncio.sleep(0)  # the heartbeat is handed over
    _, late = world.ask()  # gathers behind it
    store.twice.wait(10)  # the loop is busy while the committer fails and opens again
    answer = await late
    await world.healed()
    last = await world.decide()
    assert isinstance(last, Receipt)
    await world.settle(last)
    await world.ledger.close()
    permits = [
        e.index
        for e in EvidenceReader(SqliteLedgerReader(path)).entries()
        if isinstance(e.leaf, DecisionLeaf) and e.leaf.verdict == "permit"
    ]
    assert isinstance(answer, LedgerUnavailable)
    assert permits == [last.index]
    assert verify(SqliteLedgerReader(path)).sound


@requirement("EVD-4")
async def test_an_export_proves_the_same_and_holds_no_values(tmp_path: Path) -> None:
    path, copy = tmp_path / "l.db", tmp_path / "stranger.db"
    world = await written(path)
    size = export_ledger(path, copy)
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    shutil.move(copy, alone / "given.db")
    report = verify(SqliteLedgerReader(alone / "given.db"), key=world.signer.verifier)
    assert report.sound
    assert report.entries == size
    reader = EvidenceReader(SqliteLedgerReader(alone / "given.db"), ORIGIN, MASTER)
    assert all(not entry.values for entry in reader.entries())

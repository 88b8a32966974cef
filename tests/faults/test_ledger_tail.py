"""The tail of the ledger file: durable at once, moved in bulk, whole or refused (EVD-3)."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import DENY, World
from requirements import requirement

from exeat.core.errors import LedgerUnavailable
from exeat.evidence.model import DecisionLeaf, Receipt
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import LedgerBroken, OpenState, Row, StoreFailed
from exeat.evidence.verify import verify
from exeat.storage import ledger as ledgers
from exeat.storage import tail as tails
from exeat.storage.ledger import SqliteLedgerReader, SqliteLedgerStore
from exeat.storage.tail import Tail, read_tail

pytestmark = pytest.mark.anyio
NAME = "a" * 32


def decisions(path: Path) -> list[int]:
    entries = EvidenceReader(SqliteLedgerReader(path)).entries()
    return [entry.index for entry in entries if isinstance(entry.leaf, DecisionLeaf)]


async def crashed(folder: Path, count: int = 5) -> tuple[Path, list[int]]:
    """A copy of a ledger that was never closed, its last decisions in the tail only."""
    path, copy = folder / "live" / "l.db", folder / "copy"
    path.parent.mkdir()
    world = World(path).start()
    made = [await world.decide() for _ in range(count)]
    copy.mkdir()
    for file in path.parent.glob("l.db*"):
        shutil.copy(file, copy / file.name)
    await world.ledger.close()
    return copy / "l.db", [each.index for each in made if isinstance(each, Receipt)]


@requirement("EVD-3")
async def test_readers_see_what_is_only_in_the_tail(tmp_path: Path) -> None:
    path, made = await crashed(tmp_path)
    stored = sqlite3.connect(path).execute("SELECT max(first + count) FROM batches").fetchone()[0]
    assert stored <= made[-1]  # so the tail matters
    assert decisions(path) == made
    assert verify(SqliteLedgerReader(path)).sound


@requirement("EVD-3", "GW-1")
async def test_a_crash_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path, made = await crashed(tmp_path)
    again = World(path).start()
    await again.ledger.close()
    assert decisions(path) == made
    assert not path.with_name("l.db.tail").exists()  # closed well: one file
    assert verify(SqliteLedgerReader(path)).sound


@requirement("EVD-3")
async def test_a_torn_last_record_was_never_acknowledged(tmp_path: Path) -> None:
    path, made = await crashed(tmp_path)
    tail = path.with_name("l.db.tail")
    data = bytearray(tail.read_bytes())
    data[data.rfind(b"\x89EXR") + 60] ^= 1
    tail.write_bytes(data)
    again = World(path).start()
    assert isinstance(await again.decide(decision=DENY), Receipt)
    await again.ledger.close()
    assert decisions(path)[: len(made) - 1] == made[:-1]
    assert verify(SqliteLedgerReader(path)).sound


def bend_middle(tail: Path) -> None:
    data = bytearray(tail.read_bytes())
    data[data.find(b"\x89EXR") + 60] ^= 1
    tail.write_bytes(data)


@requirement("EVD-3", "EVD-4")
@pytest.mark.parametrize("how", ["middle", "gone", "other"])
async def test_a_damaged_tail_is_refused_and_kept(tmp_path: Path, how: str) -> None:
    path, _ = await crashed(tmp_path)
    tail = path.with_name("l.db.tail")
    if how == "middle":
        bend_middle(tail)
    elif how == "gone":
        tail.unlink()
    else:
        Tail.create(tail, NAME).close()
    left = tail.read_bytes() if tail.exists() else None
    with pytest.raises(LedgerBroken, match=r"l\.db\.tail") as refusal:
        World(path).start()
    assert refusal.value.remedy
    assert (tail.read_bytes() if tail.exists() else None) == left
    with pytest.raises(LedgerBroken):
        decisions(path)


@requirement("EVD-3", "GW-1")
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_tail_that_is_taken_away_denies(tmp_path: Path, how: str) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    assert isinstance(await world.decide(), Receipt)
    tail = path.with_name("l.db.tail")
    kept = tail.read_bytes()
    tail.unlink()
    if how == "replaced":
        tail.write_bytes(kept)
    answer = await world.decide()
    assert isinstance(answer, LedgerUnavailable)
    assert "l.db.tail" in str(answer)
    await world.ledger.close()


@requirement("EVD-3")
async def test_a_full_tail_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "TAIL_BYTES", 16 * 1024)
    path = tmp_path / "l.db"
    world = World(path).start()
    made = [await world.decide() for _ in range(40)]
    stored = sqlite3.connect(path).execute("SELECT max(first + count) FROM batches").fetchone()[0]
    assert stored > 10
    assert decisions(path) == [each.index for each in made if isinstance(each, Receipt)]
    await world.ledger.close()
    assert verify(SqliteLedgerReader(path)).sound


@requirement("EVD-3")
async def test_a_disk_that_fails_in_the_tail_denies_and_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    kept = await world.decide()

    def refuses(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as trouble:
        trouble.setattr(tails.os, "fdatasync", refuses)
        answer = await world.decide()
    assert isinstance(answer, LedgerUnavailable)
    assert "Input/output error" in str(answer)
    await world.healed()
    last = await world.decide()
    assert isinstance(kept, Receipt)
    assert isinstance(last, Receipt)
    await world.ledger.close()
    assert {kept.index, last.index} <= set(decisions(path))
    assert verify(SqliteLedgerReader(path)).sound


@requirement("EVD-3")
def test_a_short_write_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Tail.create(tmp_path / "t", NAME)
    monkeypatch.setattr(tails.os, "pwritev", lambda *_: 7)
    with pytest.raises(StoreFailed, match="only a part"):
        tail.append(Row(0, 1, b"leaf", b"", b"f"))


ROWS = st.lists(
    st.tuples(st.integers(1, 3), st.binary(max_size=40), st.binary(max_size=40)), max_size=12
)


@requirement("EVD-3")
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, ROWS, st.integers(0, 400))
def test_what_is_read_is_a_prefix_of_what_was_written(
    tmp_path: Path, before: list[tuple[int, bytes, bytes]], after: list[tuple[int, bytes, bytes]],
    cut: int,
) -> None:  # fmt: skip
    """Whatever lay in the file before, and wherever the last write was torn."""
    tail, first = Tail.create(tmp_path / "t", NAME), 0
    for count, leaves, sealed in before:
        tail.append(Row(first, count, leaves, sealed, b"f" * 32))
        first += count
    tail.rewind()
    start, written = first, []
    for count, leaves, sealed in after:
        written.append(Row(first, count, leaves, sealed, b"f" * 32))
        tail.append(written[-1])
        first += count
    assert list(read_tail(tmp_path / "t", NAME, start)) == written
    if written:
        data = bytearray((tmp_path / "t").read_bytes())
        end = tail._at
        begin = end - tails._length(written[-1])
        torn = min(begin + cut, end - 1)
        data[torn:end] = bytes(b ^ 0xFF for b in data[torn:end])
        (tmp_path / "t").write_bytes(data)
        assert list(read_tail(tmp_path / "t", NAME, start)) == written[:-1]
    tail.close()


def plain_row(first: int) -> Row:
    return Row(first, 1, b"\0\1x", b"", b"f" * 32)


@requirement("EVD-3", "EVD-4")
@pytest.mark.parametrize("moved", [True, False])
def test_a_reader_is_not_misled_while_the_tail_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    """Between its two looks the writer moves the tail and begins it anew: not damage.  A tail that
    lost entries without such a move is."""
    path = tmp_path / "l.db"
    store = SqliteLedgerStore(path)
    store.open()
    for first in range(3):
        store.append(plain_row(first), (), None)
    looks = []

    def late(where: Path, name: str, start: int) -> Iterator[Row]:
        looks.append(start)
        if len(looks) == 1:
            if moved:
                store.append(plain_row(3), (), OpenState(0, b""))
            else:
                assert store._tail is not None
                store._tail.rewind()
            store.append(plain_row(4), (), None)
            store.append(plain_row(5), (), None)
        return read_tail(where, name, start)

    monkeypatch.setattr(ledgers, "read_tail", late)
    reader = SqliteLedgerReader(path)
    if moved:
        assert [row.first for row in reader.rows()] == [0, 1, 2, 3, 4, 5]
        assert len(looks) > 1
    else:
        with pytest.raises(LedgerBroken, match="damaged"):
            list(reader.rows())
    reader.close()
    store._tail = None  # it was bent on purpose
    store.close()

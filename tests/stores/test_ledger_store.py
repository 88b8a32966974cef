"""One suite for the record's store, on SQLite and on PostgreSQL (EVD-1, EVD-3)."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faulting.database import Database
from ledger_places import Place
from ledger_world import ORIGIN, SEED, Clock
from ledger_world import World as LedgerWorld
from requirements import requirement

from exeat.core.errors import LedgerUnavailable, StateUnavailable
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import DecisionLeaf, LogLeaf, Receipt
from exeat.evidence.note import Checkpoint, Signer
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import (
    OpenState,
    Row,
    StoreFailed,
    SubjectKey,
    pack_leaves,
)
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader, export_ledger
from exeat.storage.state import open_state

pytestmark = pytest.mark.anyio


def row(first: int, *leaves: bytes) -> Row:
    return Row(first, len(leaves), pack_leaves(leaves), b"sealed%d" % first, b"f" * 32)


@requirement("EVD-3")
def test_what_was_appended_is_read_in_order_by_anybody(place: Place) -> None:
    store = place.store()
    store.open()
    written = [row(0, b"a", b"b"), row(2, b"c"), row(3, b"d", b"e", b"f")]
    for each in written:
        store.append(each, (), None)
    for reader in (store, place.reader()):
        assert list(reader.rows()) == written
        assert list(reader.rows(2)) == written[1:]
        assert list(reader.rows(4)) == written[2:]
        assert list(reader.rows(6)) == []
        assert reader.row_before(3) == written[1]
        assert reader.row_before(1) is None
        assert reader.row_before(2**60) == written[2]


@requirement("EVD-3")
def test_keys_state_and_checkpoints_come_back(place: Place) -> None:
    store = place.store()
    store.open()
    keys = [SubjectKey(2**62 + 5, "person:ada", b"w1"), SubjectKey(7, "agent:x", b"w2")]
    store.append(row(0, b"a"), keys, OpenState(0, b"\x90"))
    store.append(row(1, b"b"), [SubjectKey(8, "person:bob", b"w3")], OpenState(1, b"\x91"))
    assert store.key_of("person:ada") == keys[0]
    assert store.key_of("person:bob") == SubjectKey(8, "person:bob", b"w3")
    assert store.key_of("nobody") is None
    assert store.open_state() == OpenState(1, b"\x91")
    assert store.last_checkpoint() is None
    note = Signer(ORIGIN, SEED).sign(Checkpoint(ORIGIN, 2, b"r" * 32).text())
    store.keep_checkpoint(2, note)
    store.keep_checkpoint(1, b"older")
    assert store.last_checkpoint() == (2, note)
    assert store.published() == b"older"
    reader = place.reader()
    assert [size for size, _ in reader.checkpoints()] == [1, 2]
    assert reader.subject_key(2**62 + 5) == keys[0]
    assert reader.subject_key(99) is None
    assert store.free_bytes() > 0
    assert store.durability() in ("local", "replicated", "no fsync")


@requirement("EVD-3")
def test_a_second_writer_is_refused_and_the_first_goes_on(place: Place) -> None:
    first, second = place.store(), place.store()
    first.open()
    with pytest.raises(StoreFailed, match=r"another (process|gateway) writes"):
        second.open()
    second.close()
    first.append(row(0, b"a"), (), None)
    first.close()
    third = place.store()
    third.open()
    assert [each.first for each in third.rows()] == [0]


@requirement("EVD-3")
def test_a_writer_that_was_taken_for_dead_appends_no_more(shared: Place) -> None:
    old = shared.store()
    old.open()
    old.append(row(0, b"a"), (), None)
    old._db, kept = None, old._db  # type: ignore[attr-defined]
    shared.end_sessions()
    new = shared.store()
    new.open()
    new.append(row(1, b"b"), (), None)
    from exeat.storage.ledger_postgres import connect

    assert kept is not None
    kept.close()
    assert shared.url is not None
    old._db = connect(shared.url)  # type: ignore[attr-defined]  # it wakes up, and is wrong about the log
    for late in (row(1, b"x"), row(2, b"y")):
        with pytest.raises(StoreFailed, match="took this log over"):
            old.append(late, (), None)
    assert [each.leaves for each in new.rows()] == [pack_leaves([b"a"]), pack_leaves([b"b"])]


@requirement("EVD-3")
def test_two_rows_never_take_one_place(shared: Place) -> None:
    store = shared.store()
    store.open()
    store.append(row(0, b"a"), (), None)
    with pytest.raises(StoreFailed, match="another gateway wrote to this log"):
        store.append(row(0, b"z"), (), None)


@requirement("EVD-3")
def test_errors_say_nothing_of_addresses_or_values(shared: Place) -> None:
    from exeat.storage.ledger_postgres import PostgresLedgerStore

    store = PostgresLedgerStore("postgresql://ada:hunter2@127.0.0.1:1/x", ORIGIN, "me")
    with pytest.raises(StoreFailed) as refused:
        store.open()
    assert str(refused.value) == "the database cannot be reached"
    store.close()


@requirement("EVD-3")
def test_a_database_that_does_not_wait_for_its_disk_is_refused(shared: Place) -> None:
    import psycopg

    assert shared.url is not None
    with psycopg.connect(shared.url, autocommit=True) as admin:
        (name,) = admin.execute("SELECT current_database()").fetchone() or ("",)
        admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # type: ignore[arg-type]
    with pytest.raises(StoreFailed, match="synchronous_commit"):
        shared.store().open()


class World(LedgerWorld):
    """The real ledger on the store of the place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.folder / "unused.db")
        self.clock = Clock()
        self.ledger = Ledger(
            self.ledger._instance, place.store(), self.signer, b"m" * 32,
            clock=self.clock, random=lambda n: bytes(n), limits=self.ledger._limits,
        )  # fmt: skip


@requirement("EVD-1", "EVD-3", "EVD-4")
async def test_a_whole_life_verifies_and_exports(place: Place) -> None:
    world = World(place).start()
    receipts = await asyncio.gather(*(world.decide() for _ in range(20)))
    for receipt in receipts[:15]:
        await world.settle(receipt)
    await world.ledger.close()
    again = World(place).start()
    assert isinstance(await again.decide(), Receipt)
    await again.ledger.close()
    report = verify(place.reader(), key=world.signer.verifier)
    assert report.problems == []
    assert (report.permits, report.unknown, report.waiting) == (21, 5, 1)
    copy = place.folder / "stranger.db"
    assert export_ledger(place.reader(), copy) == report.entries
    assert verify(SqliteLedgerReader(copy), key=world.signer.verifier).root == report.root


@requirement("EVD-1")
def test_a_successor_waits_for_a_session_that_is_just_ending(shared: Place) -> None:
    import psycopg

    assert shared.url is not None
    first, second = shared.store(), shared.store()
    first.open()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    def end() -> None:
        with psycopg.connect(shared.url or "", autocommit=True) as admin:
            while admin.execute(waiting).fetchone() == (0,):
                pass
        first.close()

    thread = threading.Thread(target=end)
    thread.start()
    second.open()
    thread.join()
    second.append(row(0, b"a"), (), None)


@requirement("EVD-3", "GW-1")
async def test_sessions_that_end_cost_no_entry_and_tell_no_lie(shared: Place) -> None:
    """The database ends every session again and again; what was acknowledged is there, once."""
    world = World(shared).start()
    told: list[Receipt] = []
    stop = threading.Event()

    def bounce() -> None:
        while not stop.wait(0.05):
            shared.end_sessions()

    thread = threading.Thread(target=bounce)
    thread.start()
    refused = 0
    try:
        while len(told) < 60 or refused < 5:
            answers = await asyncio.gather(*(world.decide() for _ in range(5)))
            told += [each for each in answers if isinstance(each, Receipt)]
            refused += sum(isinstance(each, LedgerUnavailable) for each in answers)
    finally:
        stop.set()
        thread.join()
    await world.healed()
    await world.ledger.close()
    found = {
        entry.index: entry.leaf_hash
        for entry in EvidenceReader(shared.reader()).entries()
        if isinstance(entry.leaf, DecisionLeaf)
    }
    assert all(found[receipt.index] == receipt.leaf_hash for receipt in told)
    assert verify(shared.reader(), key=world.signer.verifier).problems == []


@requirement("EVD-9")
async def test_the_record_says_what_durable_means(shared: Place) -> None:
    world = World(shared).start()
    await world.ledger.close()
    opened = [
        entry.leaf.facts
        for entry in EvidenceReader(shared.reader()).entries()
        if isinstance(entry.leaf, LogLeaf) and entry.leaf.what == "opened"
    ]
    assert opened[0]["settings"]["durability"] == "no fsync"  # the tests' own server runs so


@requirement("EVD-3", "EVD-4")
async def test_entries_that_a_failover_lost_stop_the_log(shared: Place) -> None:
    """A standby that lagged took over: what was acknowledged is gone, and nothing is put in its place."""
    import psycopg

    world = World(shared).start()
    told = [await world.decide() for _ in range(5)]
    assert all(isinstance(each, Receipt) for each in told)
    assert shared.url is not None
    with psycopg.connect(shared.url, autocommit=True) as admin:
        held = admin.execute(
            "DELETE FROM ledger_batches WHERE first >= %s RETURNING *", (told[3].index,)
        ).fetchall()
    shared.end_sessions()
    refused = await _until_said(world, "does not hold all of them")
    assert world.ledger.fault is not None
    assert "durable" in str(refused)
    with psycopg.connect(shared.url, autocommit=True) as admin:  # the old primary is back
        for each in held:
            admin.execute("INSERT INTO ledger_batches VALUES (%s, %s, %s, %s, %s, %s)", each)
    await world.healed()
    assert isinstance(await world.decide(), Receipt)
    await world.ledger.close()
    report = verify(shared.reader(), key=world.signer.verifier)
    assert (report.problems, report.permits) == ([], 6)


async def _until_said(world: World, words: str) -> LedgerUnavailable:
    """Asks until the refusal says so; fails if anything is acknowledged before."""
    for _ in range(400):
        answer = await world.decide()
        assert isinstance(answer, LedgerUnavailable), f"acknowledged: {answer}"
        if words in str(answer):
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"never said: {answer}")


@requirement("EVD-3")
@pytest.mark.parametrize("change", ["driver", "options"])
def test_state_and_record_read_one_address_alike(shared: Place, change: str) -> None:
    import psycopg

    assert shared.url is not None
    with psycopg.connect(shared.url, autocommit=True) as admin:
        admin.execute("CREATE SCHEMA own")
    schemas, url = ["public"], shared.url.replace("postgresql://", "postgresql+psycopg://")
    if change == "options":  # beside those of the address as it was
        schemas, url = ["own", "public"], shared.url + "&options=-csearch_path%3Down"
    store = Place(shared.folder, url).store()
    store.open()
    store.close()
    with psycopg.connect(shared.url) as admin:
        found = admin.execute(
            "SELECT schemaname FROM pg_tables WHERE tablename IN ('state', 'ledger_batches')"
        ).fetchall()
    assert sorted(found) == [(schema,) for schema in schemas for _ in range(2)]


@requirement("EVD-3")
def test_an_address_that_is_none_is_said(tmp_path: Path) -> None:
    from exeat.storage.ledger_postgres import PostgresLedgerStore

    with pytest.raises(StoreFailed, match="not one of PostgreSQL") as refused:
        PostgresLedgerStore(
            "postgresql://ada:hunter2@127.0.0.1/x?nonsense=1", ORIGIN, "me", tmp_path / "c"
        ).open()
    assert "hunter2" not in str(refused.value)


@requirement("EVD-3", "APP-10")
def test_state_and_record_come_back_from_a_connection_that_fell_silent(
    database: Database, tmp_path: Path
) -> None:
    """The connections that were open never answer again; each costs one error, not the gateway."""
    state = open_state(tmp_path / "home", database.url)
    place = Place(tmp_path, database.url)
    reader, store = place.reader(), place.store()
    epoch = state.epoch()
    store.open()
    store.append(row(0, b"a"), (), None)
    assert len(list(reader.rows())) == 1
    database.silence()
    with pytest.raises(StoreFailed, match="cannot be reached"):
        list(reader.rows())
    with pytest.raises(StoreFailed, match="cannot be reached"):
        store.append(row(1, b"b"), (), None)
    store.close()
    store.open()
    assert len(list(reader.rows())) == len(list(store.rows()))
    assert _again(state.epoch) == epoch
    place.close()
    state.close()


def _again(ask: Callable[[], int]) -> int:
    """Now, or after the one error that a dead connection costs."""
    try:
        return ask()
    except StateUnavailable:
        return ask()


@requirement("EVD-3")
def test_only_its_own_last_session_is_ended_for_a_log(shared: Place) -> None:
    """The number that it had may have become another session's."""
    import psycopg

    assert shared.url is not None
    store = shared.store()
    store.open()
    last = store._db  # type: ignore[attr-defined]  # stays open, as where the server did not hear
    with psycopg.connect(shared.url, autocommit=True) as other:
        other.execute("UPDATE ledger_writers SET backend = pg_backend_pid()")
        with pytest.raises(StoreFailed, match="another gateway writes this log"):
            store.open()
        other.execute("UPDATE ledger_writers SET backend = %s", (last.info.backend_pid,))
    store.open()
    with pytest.raises(psycopg.OperationalError):
        last.execute("SELECT 1")
    last.close()

"""The disk fails at every point, and nothing is told done that is not (EVD-3, EVD-9, GW-1)."""

import asyncio
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from ledger_world import CONTEXT, DENY, PERMIT, REQUEST, World
from requirements import requirement

from exeat.core.errors import LedgerUnavailable
from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.evidence.ledger import REFUSED
from exeat.evidence.model import DecisionLeaf, LogLeaf, OutcomeFacts, OutcomeLeaf, Receipt
from exeat.evidence.quota import LedgerLimits, Room, room
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import LedgerBroken
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader

pytestmark = pytest.mark.anyio
CAUSES = ["database or disk is full", "attempt to write a readonly database", "disk I/O error",
          "database is locked"]  # fmt: skip


def outcomes(path: Path) -> dict[int, tuple[str, str]]:
    entries = EvidenceReader(SqliteLedgerReader(path)).entries()
    return {
        e.leaf.decision: (e.leaf.status, e.leaf.cause)
        for e in entries
        if isinstance(e.leaf, OutcomeLeaf)
    }


def sound(path: Path) -> bool:
    report = verify(SqliteLedgerReader(path))
    assert report.problems == []
    return report.sound


@requirement("EVD-3", "GW-1")
@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("persisted", [False, True])
async def test_every_waiting_entry_fails_with_the_cause(
    tmp_path: Path, cause: str, persisted: bool
) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    kept = await world.decide()
    assert isinstance(kept, Receipt)
    world.store.trouble, world.store.persisted = cause, persisted
    asked = [world.ask() for _ in range(5)]
    answers = await asyncio.gather(*(future for _, future in asked))
    assert all(isinstance(a, LedgerUnavailable) and cause in str(a) for a in answers)
    index, future = world.ask()
    assert index == REFUSED
    assert isinstance(await future, LedgerUnavailable)
    world.store.trouble = ""
    await world.healed()
    after = await world.decide()
    assert isinstance(after, Receipt)
    await world.settle(after)
    await world.settle(kept)
    await world.ledger.close()
    refused = {} if not persisted else dict.fromkeys(range(asked[0][0], asked[0][0] + 5),
                                                     ("failed", "ledger_failed"))  # fmt: skip
    assert outcomes(path) == {kept.index: ("ok", ""), after.index: ("ok", ""), **refused}
    assert sound(path)


@requirement("EVD-3")
@pytest.mark.parametrize("persisted", [False, True])
async def test_an_outcome_survives_the_failure(tmp_path: Path, persisted: bool) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    first, second = await world.decide(), await world.decide()
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    world.store.trouble, world.store.persisted = "disk I/O error", persisted
    settled = asyncio.ensure_future(world.settle(first))  # in the batch that fails
    await asyncio.sleep(0)
    while world.ledger.fault is None:
        await asyncio.sleep(0.001)
    world.ledger.record_outcome(OutcomeFacts(second, "tool_error"))  # while nothing can be written
    world.store.trouble = ""
    assert isinstance(await settled, Receipt)
    await world.healed()
    await world.ledger.close()
    assert outcomes(path) == {first.index: ("ok", ""), second.index: ("tool_error", "")}
    assert sound(path)


@requirement("EVD-3")
async def test_a_checkpoint_that_cannot_be_kept_stops_and_heals(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    assert isinstance(await world.decide(decision=DENY), Receipt)
    world.store.on_checkpoint = "database or disk is full"
    world.ledger.heartbeat()
    while world.store.on_checkpoint:
        await asyncio.sleep(0.001)
    while world.ledger.fault is None:
        await asyncio.sleep(0.001)
    await world.healed()
    assert isinstance(await world.decide(), Receipt)
    await world.ledger.close()
    assert sound(path)


@requirement("EVD-3")
async def test_an_event_that_fails_is_told_so_that_the_outbox_keeps_it(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    await world.decide(decision=DENY)
    world.store.trouble = "disk I/O error"
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    event = Event("agent.made", "agent:x", PersonId("ada"), "cli", 1, "why", None, {"a": 1})
    world.ledger.record_event(event, told.set_result)
    assert isinstance(await told, LedgerUnavailable)
    world.store.trouble = ""
    await world.healed()
    await world.ledger.close()


@requirement("EVD-3")
async def test_one_callers_bad_callback_costs_the_others_nothing(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))

    def bad(_: object) -> None:
        raise ValueError("a caller's own fault")

    world.ledger.record_decision(REQUEST, PERMIT, CONTEXT, bad)
    assert isinstance(await world.decide(), Receipt)
    assert complaints == ["a ledger callback failed"]
    await world.ledger.close()


@requirement("EVD-9")
async def test_denials_and_permits_have_their_own_share_of_the_queue(tmp_path: Path) -> None:
    limits = LedgerLimits(heartbeat_s=3600, waiting_max=100, waiting_share_max=10)
    world = World(tmp_path / "l.db", limits)
    world.store.hold = threading.Event()
    world.start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first batch is handed over and held
    denials = [world.ask(decision=DENY) for _ in range(30)]
    assert [index == REFUSED for index, _ in denials] == [False] * 10 + [True] * 20
    permits = [world.ask() for _ in range(10)]
    assert all(index != REFUSED for index, _ in permits)
    assert world.ask()[0] == REFUSED
    world.store.hold.set()
    assert all([isinstance(await f, Receipt) for _, f in permits])
    await world.ledger.close()


@requirement("EVD-9")
def test_room_has_hysteresis() -> None:
    limits = LedgerLimits(free_scarce_bytes=200, free_reserved_bytes=100, hysteresis_bytes=50)
    seen, now = [], Room.ENOUGH
    for free in (300, 199, 220, 251, 99, 120, 151, 249, 250):
        now = room(now, free, limits)
        seen.append(now)
    E, S, R = Room.ENOUGH, Room.SCARCE, Room.RESERVED
    assert seen == [E, S, S, E, R, R, S, S, E]


@requirement("EVD-9", "EVD-3")
async def test_the_reserve_is_for_outcomes_and_events(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    running = await world.decide()
    assert isinstance(running, Receipt)
    world.store.free = 1
    world.ledger.heartbeat()
    assert isinstance(await world.decide(), Receipt)  # durable together with the heartbeat
    assert isinstance(await world.decide(), LedgerUnavailable)
    assert isinstance(await world.decide(decision=DENY), LedgerUnavailable)
    assert isinstance(await world.settle(running), Receipt)
    world.store.free = 10**12
    world.ledger.heartbeat()
    while isinstance(await world.decide(), LedgerUnavailable):
        await asyncio.sleep(0.001)
    await world.ledger.close()
    assert sound(path)


@requirement("EVD-3")
async def test_a_second_writer_is_kept_out(tmp_path: Path) -> None:
    world = World(tmp_path / "l.db").start()
    with pytest.raises(LedgerUnavailable, match="another process"):
        World(tmp_path / "l.db").start()
    await world.ledger.close()


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        return
    if how == "gone":
        path.unlink()
        return
    db = sqlite3.connect(path)
    first, leaves, frontier = db.execute(
        "SELECT first, leaves, frontier FROM batches ORDER BY first DESC LIMIT 1"
    ).fetchone()
    if how == "last batch dropped":
        db.execute("DELETE FROM batches WHERE first = ?", (first,))
        db.execute("DELETE FROM checkpoints WHERE size > ?", (first,))
        db.execute("UPDATE open_state SET size = 0, packed = x'90'")
    elif how == "byte flipped":
        bent = bytes(leaves[:-5]) + bytes([leaves[-5] ^ 1]) + bytes(leaves[-4:])
        db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (bent, first))
    elif how == "short row":
        db.execute("UPDATE batches SET leaves = ? WHERE first = ?", (leaves[:-7], first))
    elif how == "frontier bent":
        bent = bytes([frontier[0] ^ 1]) + frontier[1:]
        db.execute("UPDATE batches SET frontier = ? WHERE first = ?", (bent, first))
    db.commit()
    db.close()


@requirement("EVD-3", "EVD-4")
@pytest.mark.parametrize(
    "how",
    ["truncated", "gone", "last batch dropped", "byte flipped", "short row", "frontier bent"],
)
async def test_a_damaged_ledger_is_refused_and_says_what_to_do(tmp_path: Path, how: str) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    for _ in range(40):
        receipt = await world.decide()
        await world.settle(receipt)
    await world.ledger.close()
    damage(path, how)
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(LedgerBroken) as refusal:
        World(path).start()
    assert refusal.value.remedy
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir() if f.name in left} == left


@requirement("EVD-3")
async def test_a_crash_in_the_middle_is_bounded_by_the_last_heartbeat(tmp_path: Path) -> None:
    path, crashed = tmp_path / "l.db", tmp_path / "crashed"
    world = World(path).start()
    before = await world.decide()
    world.ledger.heartbeat()
    after = await world.decide()
    done = await world.decide()
    await world.settle(done)
    assert isinstance(before, Receipt)
    assert isinstance(after, Receipt)
    crashed.mkdir()
    for file in tmp_path.glob("l.db*"):
        shutil.copy(file, crashed / file.name)
    await world.ledger.close()
    again = World(crashed / "l.db").start()
    await again.ledger.close()
    found = outcomes(crashed / "l.db")
    assert found[before.index] == found[after.index] == ("unknown", "crash")
    said = [
        e.leaf.what
        for e in EvidenceReader(SqliteLedgerReader(crashed / "l.db")).entries()
        if isinstance(e.leaf, LogLeaf)
    ]
    assert said == ["enrolled", "opened", "opened", "recovered", "closed"]
    assert sound(crashed / "l.db")


@requirement("EVD-3")
async def test_outcomes_name_their_decision_by_hash(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    world = World(path).start()
    await world.settle(await world.decide())
    await world.ledger.close()
    entries = list(EvidenceReader(SqliteLedgerReader(path)).entries())
    (decision,) = [e for e in entries if isinstance(e.leaf, DecisionLeaf)]
    (outcome,) = [e.leaf for e in entries if isinstance(e.leaf, OutcomeLeaf)]
    assert outcome.decision_hash == decision.leaf_hash.hex()

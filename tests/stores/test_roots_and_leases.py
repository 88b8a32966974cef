"""Work that one gateway does for all, and the roots over all logs, on both databases (EVD-1)."""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa
from ledger_places import Place
from ledger_world import World
from requirements import requirement
from structlog.testing import capture_logs

from exeat.app.rooting import Rooting
from exeat.core.errors import Conflict
from exeat.evidence.note import Checkpoint, Signer
from exeat.evidence.roots import SignedRoot, check_roots, joined, pack_heads, read_heads, sign_root
from exeat.storage.leases import Leases

ONE, TWO = Signer("exeat/gw1", b"1" * 32), Signer("exeat/gw2", b"2" * 32)
KEYS = {each.verifier.name: each.verifier for each in (ONE, TWO)}


def head(origin: str, size: int) -> Checkpoint:
    return Checkpoint(origin, size, bytes([size]) * 32)


def chain(*steps: list[Checkpoint]) -> list[SignedRoot]:
    roots: list[SignedRoot] = []
    for number, now in enumerate(steps):
        last = roots[-1] if roots else None
        heads = joined(last.heads if last else (), now)
        roots.append(sign_root(last, heads, 1000 + number, (ONE, TWO)[number % 2]))
    return roots


GOOD = chain(
    [head("exeat/gw1", 3)],
    [head("exeat/gw1", 4), head("exeat/gw2", 1)],
    [head("exeat/gw2", 2)],
)


@requirement("EVD-1")
def test_roots_are_kept_in_order_once(reopen: Any) -> None:
    state, other = reopen(), reopen()
    assert state.roots.last() is None
    for root in GOOD:
        state.roots.keep(root)
    with pytest.raises(Conflict, match="does not follow"):
        other.roots.keep(GOOD[2])
    assert list(other.roots.all()) == GOOD
    assert other.roots.last() == GOOD[-1]


@requirement("EVD-1")
def test_a_root_forgets_no_log() -> None:
    assert [(h.origin, h.size) for h in GOOD[2].heads] == [("exeat/gw1", 4), ("exeat/gw2", 2)]
    problems, wanted = check_roots(GOOD, KEYS, [GOOD[1].note])
    assert problems == []
    assert {origin: sorted(sizes) for origin, sizes in wanted.items()} == {
        "exeat/gw1": [3, 4],
        "exeat/gw2": [1, 2],
    }
    assert Checkpoint.parse(GOOD[1].note.decode().partition("\n\n")[0] + "\n").size == 2


@requirement("EVD-1")
def test_a_log_that_is_shorter_than_it_was_stays_as_it_was_seen() -> None:
    before = (head("exeat/gw1", 5), head("exeat/gw2", 2))
    now = [head("exeat/gw1", 3), Checkpoint("exeat/gw2", 2, b"x" * 32)]
    assert joined(before, now) == before


@requirement("EVD-1", "EVD-4")
@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda r: r[1:], "before it is missing"),
        (lambda r: [r[0], r[2]], "before it is missing"),
        (lambda r: [replace(r[0], heads=(head("exeat/gw1", 9),)), *r[1:]], "not those that were"),
        (lambda r: [r[0], replace(r[1], heads=r[1].heads[:1]), r[2]], "not those that were"),
        (
            lambda r: [r[0], sign_root(r[0], (head("exeat/gw2", 1),), 5, ONE)],
            "exeat/gw1 had 3 entries",
        ),
        (
            lambda r: [r[0], sign_root(r[0], (head("exeat/gw1", 2),), 5, ONE)],
            "exeat/gw1 had 3 entries",
        ),
        (lambda r: [sign_root(None, r[0].heads, 5, Signer("eve", b"e" * 32))], "no gateway that"),
        (
            lambda r: [sign_root(None, r[0].heads, 5, Signer("exeat/gw1", b"e" * 32))],
            "not signed by exeat/gw1",
        ),
        (lambda r: [r[0], replace(r[1], note=r[1].note.replace(b"at 1001", b"at 1002"))], "not fit"),
        (lambda r: [*r[:2], sign_root(r[0], r[2].heads, 1002, ONE)], "before it is missing|not those"),
        (lambda r: r[:2], "kept elsewhere"),
    ],
)  # fmt: skip
def test_forged_roots_are_found(forge: Any, says: str) -> None:
    import re

    problems, _ = check_roots(forge(list(GOOD)), KEYS, [GOOD[2].note])
    assert any(re.search(says, problem) for problem in problems), problems


@requirement("EVD-1")
def test_heads_survive_their_form() -> None:
    assert read_heads(pack_heads(GOOD[1].heads)) == GOOD[1].heads
    assert base64.b64encode(GOOD[1].heads[0].root).decode() in pack_heads(GOOD[1].heads)


@requirement("EVD-1", "REG-3")
def test_one_of_several_holds_a_lease(reopen: Any) -> None:
    leases = [reopen().leases for _ in range(4)]
    barrier, held = Barrier(4), list[int]()

    def take(number: int) -> None:
        barrier.wait()
        if leases[number].hold("work", f"gw{number}", 60):
            held.append(number)

    threads = [Thread(target=take, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    (winner,) = held
    loser = (winner + 1) % 4
    assert leases[winner].hold("work", f"gw{winner}", 60)
    assert leases[loser].hold("other work", f"gw{loser}", 60)
    leases[loser].give_up("work", f"gw{loser}")
    assert not leases[loser].hold("work", f"gw{loser}", 60)
    leases[winner].give_up("work", f"gw{winner}")
    assert leases[loser].hold("work", f"gw{loser}", 60)


@requirement("EVD-1")
def test_a_lease_that_ended_is_free(reopen: Any) -> None:
    state = reopen()
    assert state.leases.hold("work", "gone", -1.0)
    assert Leases(state._engine).hold("work", "new", 60)


@pytest.mark.anyio
@requirement("EVD-1")
async def test_a_gateway_roots_what_every_log_signed(place: Place, tmp_path: Path) -> None:
    from exeat.storage.state import open_state

    worlds: list[World] = []
    for name in ("gw1", "gw2"):
        world = place.world(f"exeat/{name}", name.encode().ljust(32)).start()
        await world.settle(await world.decide())
        await world.ledger.close()
        worlds.append(world)
    state = open_state(place.folder, place.url)
    rooting = Rooting(state, worlds[0].signer, place.folder, place.url, 60)
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, rooting.write)
    assert not await loop.run_in_executor(None, rooting.write)  # nothing grew
    other = Rooting(state, worlds[1].signer, place.folder, place.url, 60)
    assert not await loop.run_in_executor(None, other.write)  # another has the lease
    (root,) = state.roots.all()
    assert [h.origin for h in root.heads] == ["exeat/gw1", "exeat/gw2"]
    keys = {w.signer.verifier.name: w.signer.verifier for w in worlds}
    assert check_roots([root], keys)[0] == []
    published = place.folder / "ledger" / "roots"
    assert published.read_bytes() == root.note
    with state._engine.begin() as tx:  # somebody with rights on the database removes them
        tx.execute(sa.text("DELETE FROM roots"))
    await grow(worlds[0], place)
    with pytest.raises(Conflict, match="not in the database any more"):
        await loop.run_in_executor(None, rooting.write)
    assert published.read_bytes() == root.note
    state.roots.keep(root)
    assert await loop.run_in_executor(None, rooting.write)
    state.close()


async def grow(world: World, place: Place) -> None:
    again = place.world(world.signer.verifier.name, b"gw1".ljust(32)).start()
    await again.decide()
    await again.ledger.close()


@pytest.mark.anyio
@requirement("EVD-1", "EVD-4")
async def test_a_checkpoint_of_a_stranger_comes_under_no_root(place: Place) -> None:
    from exeat.storage.state import open_state

    worlds: list[World] = []
    for name in ("gw1", "gw2"):
        world = place.world(f"exeat/{name}", name.encode().ljust(32)).start()
        await world.decide()
        await world.ledger.close()
        worlds.append(world)
    forged = Signer("exeat/gw2", b"e" * 32).sign(Checkpoint("exeat/gw2", 10**9, b"r" * 32).text())
    store: Any = place.store("exeat/gw2")
    store.open()
    store.keep_checkpoint(10**9, forged)
    store.close()
    state = open_state(place.folder, place.url)
    rooting = Rooting(state, worlds[0].signer, place.folder, place.url, 60)
    with capture_logs() as logged:
        assert await asyncio.get_running_loop().run_in_executor(None, rooting.write)
    (root,) = state.roots.all()
    assert [head.origin for head in root.heads] == ["exeat/gw1"]
    assert any("gw2" in str(each.get("log")) for each in logged)
    state.close()

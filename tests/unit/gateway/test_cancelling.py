"""Whoever leaves or cancels, and what becomes of the call (GW-9)."""

import asyncio

import pytest
from requirements import requirement
from worlds import Seen, World, until

pytestmark = pytest.mark.anyio


async def hang(seen: Seen) -> None:
    """No answer; the connection stays."""


@requirement("GW-9")
async def test_a_modern_client_that_leaves_cancels_its_call(world: World) -> None:
    await world.ask(world.tool())
    world.upstream.script = hang
    async with world.connect() as client:
        client.write(world.tool())
        await until(lambda: len(world.upstream.calls) == 2)
    await until(lambda: world.upstream.calls[1].connection in world.upstream.lost)
    await until(lambda: world.ledger.ended[-1] == ("cancelled", "client_closed"))


@requirement("GW-9")
async def test_a_modern_client_that_leaves_before_the_record_is_not_served(world: World) -> None:
    await world.ask(world.tool())
    world.ledger.hold = True
    async with world.connect() as client:
        client.write(world.tool())
        await until(lambda: bool(world.ledger.held))
    await until(lambda: not world.edge.connections)
    world.ledger.release()
    await until(lambda: world.ledger.ended[-1] == ("failed", "client_closed"))
    assert len(world.upstream.calls) == 1


@requirement("GW-9")
async def test_a_legacy_client_that_leaves_cancels_nothing() -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen) -> None:
        await gate.wait()
        seen.result({"content": []})

    async with World(legacy=True) as world:
        session = await world.session()
        world.upstream.script = slow
        async with world.connect() as client:
            client.write(world.old("tools/call", {"name": "add"}, session))
            await until(lambda: bool(world.upstream.calls))
        await until(lambda: not world.edge.connections)
        gate.set()
        await until(lambda: world.ledger.ended == [("ok", "")])


def _methods(world: World) -> list[str]:
    return [seen.method for seen in world.upstream.calls]


@requirement("GW-9")
@pytest.mark.parametrize("named", [7, "7"])
async def test_cancelled_reaches_the_upstream_for_the_very_id(named: object) -> None:
    async with World(legacy=True) as world:
        session = await world.session()

        async def script(seen: Seen) -> None:
            if seen.method.startswith("notifications/"):
                seen.accept()

        world.upstream.script = script
        asking = asyncio.ensure_future(
            world.ask(world.old("tools/call", {"name": "add"}, session, id=named))
        )
        await until(lambda: bool(world.upstream.calls))
        other = "7" if named == 7 else 7
        for each in (other, [7], None, named):
            note = {"requestId": each}
            answer = await world.ask(world.old("notifications/cancelled", note, session, id=None))
            assert answer.status == 202
        assert (await asking).error["message"] == "Request cancelled"
        await until(lambda: _methods(world).count("notifications/cancelled") == 1)
        sent = world.upstream.calls[0].message["id"]
        assert world.upstream.calls[-1].message["params"]["requestId"] == sent
        assert world.ledger.ended == [("cancelled", "client_cancelled")]


@requirement("GW-9")
async def test_a_call_cancelled_before_its_record_is_never_sent() -> None:
    async with World(legacy=True) as world:
        session = await world.session()
        world.ledger.hold = True
        asking = asyncio.ensure_future(
            world.ask(world.old("tools/call", {"name": "add"}, session, id=7))
        )
        await until(lambda: bool(world.ledger.held))
        await world.ask(world.old("notifications/cancelled", {"requestId": 7}, session, id=None))
        world.ledger.release()
        assert (await asking).error["message"] == "Request cancelled"
        assert world.upstream.calls == []
        assert world.ledger.ended == [("failed", "client_cancelled")]


@requirement("GW-11")
async def test_a_call_that_timed_out_before_its_record_is_never_sent() -> None:
    async with World(legacy=True) as world:
        session = await world.session()
        world.ledger.hold = True
        asking = asyncio.ensure_future(world.ask(world.old("tools/call", {"name": "add"}, session)))
        await until(lambda: bool(world.ledger.held))
        for call in list(world.front.calls):
            call.too_late()
        answer = await asking
        assert answer.error["data"]["sent"] is False
        world.ledger.release()
        await until(lambda: bool(world.ledger.outcomes))
        assert world.upstream.calls == []

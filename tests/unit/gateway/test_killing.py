"""A kill stops what comes and ends what is under way (APP-9)."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from held_calls import answered, waiting
from requirements import requirement
from worlds import ADA, BOB, NOW, UP, Seen, World, until

from exeat.core.decision import Reason
from exeat.core.facts import PersonFacts
from exeat.core.grant import Held, Pending
from exeat.core.ids import AgentId, ServerId
from exeat.core.kills import Kills, Target
from exeat.core.request import AccessRequest, TokenFacts
from exeat.gateway.authority import within_token
from exeat.gateway.gate import Gate
from exeat.gateway.killing import end_killed, killed
from exeat.gateway.settings import GatewaySettings
from exeat.policy.bundle import compile_bundle

pytestmark = pytest.mark.anyio
HITS = [
    (Target.AGENT, "bot"), (Target.OWNER, ADA), (Target.SERVER, UP), (Target.TOOL, "up/add"),
    (Target.RUN, "bot/-"), (Target.ALL, ""),
]  # fmt: skip
OTHERS = [
    (Target.AGENT, "eve"), (Target.OWNER, BOB), (Target.USER, ADA), (Target.SERVER, "other"),
    (Target.TOOL, "up/secret"), (Target.RUN, "bot/ada"), (Target.AGENT, ""), (Target.USER, ""),
]  # fmt: skip


def kill(world: World, target: Target, name: str) -> dict[str, int]:
    """As the gateway does when a poll brings it."""
    world.kills = Kills({(target, str(name)): "k-1"})
    world.state.view = world.view()
    return dict(end_killed(world.front))


async def hang(seen: Seen) -> None:
    """No answer; the connection stays."""


def reason(answer: Any) -> str:
    return str(answer.json["result"]["_meta"]["exeat/denied"]["reason"])


@requirement("APP-9", "GW-9")
@pytest.mark.parametrize(("target", "name"), HITS)
async def test_a_call_in_flight_is_cancelled(world: World, target: Target, name: str) -> None:
    await world.ask(world.tool())
    world.upstream.script = hang
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: len(world.upstream.calls) == 2)
    assert kill(world, target, name) == {"k-1": 1}
    told = (await asking).json["error"]
    assert told["data"]["reason"] == "killed" and "carried out is unknown" in told["message"]
    await until(lambda: world.upstream.calls[1].connection in world.upstream.lost)
    assert world.ledger.ended[-1] == ("cancelled", "killed")
    assert not world.front.calls


@requirement("APP-9")
@pytest.mark.parametrize(("target", "name"), OTHERS)
async def test_what_is_not_meant_goes_on(world: World, target: Target, name: str) -> None:
    gate = asyncio.Event()

    async def slow(seen: Seen) -> None:
        await gate.wait()
        seen.result({"content": [], "resultType": "complete"})

    world.upstream.script = slow
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.upstream.calls))
    assert kill(world, target, name) == {}
    gate.set()
    assert "result" in (await asking).json
    assert world.ledger.ended == [("ok", "")]
    assert "content" in (await world.ask(world.tool())).json["result"]


@requirement("APP-9", "POL-3")
@pytest.mark.parametrize(("target", "name"), HITS)
async def test_nothing_new_is_permitted(world: World, target: Target, name: str) -> None:
    await world.ask(world.tool())
    kill(world, target, name)
    answer = await world.ask(world.tool())
    assert reason(answer) == "killed"
    assert "do not retry" in answer.json["result"]["content"][0]["text"]
    assert "k-1" not in answer.body.decode()
    assert len(world.upstream.calls) == 1
    assert world.ledger.decisions[-1][1].detail == "stopped by kill k-1"


@requirement("APP-9")
@pytest.mark.parametrize(("target", "name"), HITS)
async def test_no_method_is_left_out(world: World, target: Target, name: str) -> None:
    """Lists, resources, handshakes: of a killed tool, only its calls."""
    kill(world, target, name)
    listed = await world.ask(world.modern("tools/list", {}))
    read = await world.ask(world.modern("resources/read", {"uri": "file:///a"}))
    found = await world.ask(world.modern("server/discover", {}))
    if target is Target.TOOL:
        assert "killed" not in (listed.body + read.body + found.body).decode()
        return
    for answer in (listed, read, found):
        assert answer.error["data"]["reason"] == "killed"


@requirement("APP-9", "GW-1")
async def test_a_call_that_is_not_yet_recorded_never_leaves(world: World) -> None:
    await world.ask(world.tool())
    world.ledger.hold = True
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.ledger.held))
    kill(world, Target.AGENT, "bot")
    world.ledger.release()
    assert "it was not carried out" in (await asking).json["error"]["message"]
    await until(lambda: world.ledger.ended[-1][0] == "failed")
    assert len(world.upstream.calls) == 1


@requirement("APP-9", "GW-7")
@pytest.mark.parametrize(("target", "name"), HITS)
async def test_a_held_call_ends_at_the_server(target: Target, name: str) -> None:
    """It waits for its client to come back with an answer."""
    async with waiting() as (world, server, result):
        assert kill(world, target, name) == {"k-1": 1}
        await until(lambda: bool(server.told))
        assert [each["method"] for each in server.told] == ["notifications/cancelled"]
        world.kills = Kills()
        world.state.view = world.view()
        assert (await world.ask(answered(world, result))).error["code"] == -32602


@requirement("APP-9", "GW-13")
@pytest.mark.parametrize(("target", "name"), [(Target.AGENT, "bot"), (Target.ALL, ""), (Target.SERVER, UP)])  # fmt: skip
async def test_sessions_and_their_streams_end(target: Target, name: str) -> None:
    async with World(legacy=True) as world:
        mine, others = await world.session(), await world.session("eve")
        world.upstream.script = hang
        async with world.connect() as client, asyncio.timeout(10):
            head = (
                "GET /mcp/up HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer bot\r\n"
                "accept: text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n"
                f"mcp-session-id: {mine}\r\n\r\n"
            )
            client.write(head.encode())
            assert (await client.head())[0] == 200
            await until(lambda: bool(world.front.clients.streams))
            kill(world, target, name)
            while await client.chunk():
                pass
        kept = {session.id for session in world.front.sessions}
        assert kept == ({others} if target is Target.AGENT else set())


@requirement("APP-9")
async def test_a_subscription_ends(world: World) -> None:
    async def listening(seen: Seen) -> None:
        seen.stream()

    world.upstream.script = listening
    asking = asyncio.ensure_future(
        world.ask(world.modern("subscriptions/listen", {"notifications": {}}))
    )
    await until(lambda: bool(world.upstream.calls))
    assert kill(world, Target.AGENT, "bot") == {"k-1": 1}
    await asking
    assert world.ledger.ended[-1] == ("cancelled", "killed")


@requirement("APP-9")
@pytest.mark.parametrize(("target", "name"), [(Target.AGENT, "bot"), (Target.RUN, "bot/-"), (Target.ALL, "")])  # fmt: skip
async def test_a_subscription_to_the_gateway_itself_ends(
    world: World, target: Target, name: str
) -> None:
    listen = world.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    async with world.connect() as client, asyncio.timeout(10):
        client.write(listen.replace(b"POST /mcp/up ", b"POST /mcp "))
        assert (await client.head())[0] == 200
        assert b"acknowledged" in await client.chunk()
        kill(world, target, name)
        while await client.chunk():
            pass
    assert not world.front.clients.streams


@requirement("APP-9", "ID-5")
async def test_users_and_those_who_delegated_are_met_too(world: World) -> None:
    await world.ask(world.tool())
    plain = world.ledger.decisions[0][0]
    token = TokenFacts("https://id", "c", None, NOW + 10**15, actors=(AgentId("eve"),))
    caller = replace(plain.caller, user=PersonFacts(ADA, True), token=token)
    access = replace(plain, caller=caller, run="")
    for (target, name), stops in {
        (Target.USER, ADA): True, (Target.AGENT, "eve"): True, (Target.RUN, "bot/ada"): True,
        (Target.USER, BOB): False, (Target.AGENT, "other"): False, (Target.RUN, "r2"): False,
    }.items():  # fmt: skip
        kill(world, target, name)
        assert bool(killed(world.state.view, access, "bot/ada")) is stops, (target, name)
    kill(world, Target.RUN, "r2")
    assert killed(world.state.view, replace(access, run="r2"), "bot/ada") == "k-1"


@requirement("APP-9", "ID-5")
@pytest.mark.parametrize(
    ("target", "name", "stops"),
    [
        (Target.AGENT, "eve", True), (Target.OWNER, BOB, True), (Target.AGENT, "other", False),
        (Target.OWNER, "carol", False),
    ],
)  # fmt: skip
async def test_what_a_stopped_agent_delegated_is_stopped(
    world: World, target: Target, name: str, stops: bool
) -> None:
    """Also for calls that come later: the agent at the end of the chain was not stopped itself."""
    await world.ask(world.tool())
    request, decision = world.ledger.decisions[0]
    snapshot, eve = world.state.view.snapshot, AgentId("eve")
    first = replace(request.caller.agent, id=eve, owner=BOB)
    token = TokenFacts("https://id", "c", None, NOW + 10**15, actors=(eve,))
    request = replace(request, caller=replace(request.caller, token=token))
    kills = Kills({(target, str(name)): "k-1"})
    snapshot = replace(snapshot, agents={**snapshot.agents, eve: first}, kills=kills)
    found = within_token(request, decision, snapshot)
    assert decision.permitted and found.permitted is not stops
    assert not stops or (found.reason is Reason.KILLED and "k-1" in found.detail)


@requirement("APP-9", "GW-13")
@pytest.mark.parametrize(("dead", "found"), [({"aa"}, True), ({"up"}, True), ({"aa", "up"}, False)])
async def test_one_killed_server_does_not_close_the_aggregate(
    world: World, dead: set[str], found: bool
) -> None:
    """Whether it is the first or the last of them."""
    other = ServerId("aa")
    snapshot = world.view().snapshot
    bot = snapshot.agents[AgentId("bot")]
    scope = replace(bot.scope, servers=frozenset({other, UP}))
    servers = {**snapshot.servers, other: replace(snapshot.servers[UP], id=other)}
    world.upstreams.follow({UP: world.spec, other: replace(world.spec, id=other)})
    kills = Kills({(Target.SERVER, name): "k-1" for name in dead})
    agents = {**snapshot.agents, bot.id: replace(bot, scope=scope)}
    world.state.view = SimpleNamespace(
        snapshot=replace(snapshot, agents=agents, servers=servers, kills=kills),
        pdp=compile_bundle(snapshot.policy, snapshot.tools, servers, kills=kills),
    )
    asked = world.modern("server/discover", {}).replace(b"POST /mcp/up ", b"POST /mcp ")
    assert ("result" in (await world.ask(asked)).json) is found
    listing = world.modern("tools/list", {}).replace(b"POST /mcp/up ", b"POST /mcp ")
    assert ("result" in (await world.ask(listing)).json) is found


class Asking:
    """People who are asked, and do not answer."""

    def claim(self, held: Held, request: AccessRequest, then: Callable[[Any], None]) -> None:
        then(Pending("h-1", NOW + 10**15, ("ada",)))

    def states(self, holds: tuple[str, ...], then: Callable[[Any], None]) -> None:
        then({})


@requirement("APP-9", "APP-1")
@pytest.mark.parametrize(("target", "name"), HITS)
async def test_a_call_that_waits_for_people_is_given_up(target: Target, name: str) -> None:
    held = """@id("asked") permit(principal, action, resource)
        when { context.session.controls.contains(Control::"approved_by_owner") };"""
    settings = replace(GatewaySettings(), hold_wait_s=600.0)
    async with World(policy=held, settings=settings) as world, asyncio.timeout(20):
        world.pipeline.gate = Gate(Asking(), None)
        asking = asyncio.ensure_future(world.ask(world.tool()))
        await until(lambda: bool(world.front.holds._waiting))
        assert kill(world, target, name) == {"k-1": 1}
        assert "error" in (await asking).json
        assert not world.front.holds._waiting and not world.front.calls
        assert not world.upstream.calls

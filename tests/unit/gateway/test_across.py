"""Questions across eras: refused, taken back, repeated and unwanted ones (GW-4, GW-7, GW-9)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from held_calls import ELICIT, OFFERS, Waiting, answered, ask, waiting
from requirements import requirement
from worlds import Answer, Client, Seen, World, until

from exeat.core.facts import Lifecycle
from exeat.gateway.rounds import ROUNDS_MAX

pytestmark = pytest.mark.anyio
FORBID = 'forbid(principal, action == Action::"elicitation/create", resource);'


# ---- a legacy server asks a modern client


@requirement("GW-4", "GW-7")
async def test_the_answer_goes_to_the_server_that_waits_and_its_result_to_the_retry() -> None:
    async with waiting() as (world, server, result):
        retrying = asyncio.ensure_future(world.ask(answered(world, result)))
        await until(lambda: len(server.told) == 1)
        assert server.told[0]["id"] == "s1"
        assert server.told[0]["result"]["content"] == {"name": "Ada"}
        server.ends("hello Ada")
        final = (await retrying).json["result"]
        assert (final["content"][0]["text"], final["resultType"]) == ("hello Ada", "complete")
        assert len(server.streams) == 1  # the call was made once
        assert world.ledger.ended == [
            ("ok", "asked"), ("ok", "input_required"), ("ok", "answered"), ("ok", ""),
        ]  # fmt: skip


@requirement("GW-7")
async def test_a_forbidden_answer_ends_the_held_call_at_the_server() -> None:
    async with waiting() as (world, server, result):
        world.policy += FORBID
        world.state.view = world.view()
        denied = (await world.ask(answered(world, result))).json["result"]
        assert denied["_meta"]["exeat/denied"]["reason"] == "forbidden"
        await until(lambda: bool(server.told))
        assert [each["method"] for each in server.told] == ["notifications/cancelled"]
        again = await world.ask(answered(world, result))
        assert again.error["code"] == -32602
        assert "Ada" not in str(server.told)


@requirement("GW-7")
async def test_a_forbidden_question_is_not_put_and_the_server_is_told() -> None:
    server = Waiting()
    async with World(legacy=True, policy=World().policy + FORBID) as world:
        world.upstream.script = server.script
        calling = asyncio.ensure_future(world.ask(ask(world)))
        await until(lambda: bool(server.told))
        assert server.told[0]["error"]["data"]["reason"] == "forbidden"
        server.ends("then not")
        assert (await calling).json["result"]["content"][0]["text"] == "then not"


@requirement("GW-4")
async def test_a_server_that_does_not_wait_has_its_result_delivered_with_the_retry() -> None:
    async with waiting() as (world, server, result):
        server.ends("too slow")
        (turn,) = world.front.held._turns.values()
        await until(lambda: turn.end is not None)
        final = (await world.ask(answered(world, result))).json["result"]
        assert final["content"][0]["text"] == "too slow"
        assert server.told == []
        assert world.ledger.ended[-2:] == [("ok", ""), ("failed", "not_sent")]


@requirement("GW-7")
@pytest.mark.parametrize("wrong", ["principal", "arguments", "state", "twice"])
async def test_a_held_call_is_taken_over_only_by_its_own(wrong: str) -> None:
    async with waiting() as (world, server, result):
        raw = answered(world, result)
        if wrong == "principal":
            raw = raw.replace(b"Bearer bot", b"Bearer eve")
        elif wrong == "arguments":
            given = {"q1": {"action": "decline"}}
            state = result["requestState"]
            raw = ask(world, arguments={"x": 1}, inputResponses=given, requestState=state)
        elif wrong == "state":
            changed = {**result, "requestState": result["requestState"][:-6] + "AAAAAA"}
            raw = answered(world, changed)
        else:
            first = asyncio.ensure_future(world.ask(raw))
            await until(lambda: len(server.told) == 1)
        assert (await world.ask(raw)).error["code"] == -32602
        assert len(server.told) == (1 if wrong == "twice" else 0)
        if wrong == "twice":
            server.ends("once")
            assert "once" in str((await first).json)


# ---- a modern server asks a legacy client


@asynccontextmanager
async def legacy_client(script: Any) -> AsyncIterator[tuple[World, Client, str]]:
    """A legacy client whose call of ``add`` is under way at a server that is only modern."""

    async def refuses(seen: Seen) -> None:
        seen.error(-32022)

    async with World() as world, asyncio.timeout(20):
        world.upstream.own["initialize"] = refuses
        world.upstream.script = script
        session = await world.session(capabilities=OFFERS)
        async with world.connect() as client:
            client.write(world.old("tools/call", {"name": "add"}, session, id=5))
            yield world, client, session


async def message(client: Client) -> Any:
    return json.loads((await client.chunk()).partition(b"data: ")[2].strip())


async def reply(world: World, session: str, asked: Any, **answer: Any) -> Answer:
    head = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
    return await world.ask(world.raw({"jsonrpc": "2.0", "id": asked["id"], **answer}, head))


def asks(rounds: int, key: str = "k") -> Any:
    async def script(seen: Seen) -> None:
        done = int((seen.message["params"].get("requestState") or "0").rpartition("-")[2])
        if done < rounds:
            state = f"round-{done + 1}"
            asked = {"inputRequests": {key: ELICIT}, "requestState": state}
            seen.result({"resultType": "input_required", **asked})
        else:
            given = json.dumps(seen.message["params"].get("inputResponses"))
            content = [{"type": "text", "text": given}]
            seen.result({"content": content, "resultType": "complete"})

    return script


@requirement("GW-4", "GW-7")
async def test_a_legacy_client_answers_round_after_round_on_the_stream_of_its_call() -> None:
    async with legacy_client(asks(2)) as (world, client, session):
        await client.head()
        for _ in range(2):
            asked = await message(client)
            assert (asked["method"], asked["params"]) == (ELICIT["method"], ELICIT["params"])
            answer = {"action": "accept", "content": {"name": "Ada"}}
            assert (await reply(world, session, asked, result=answer)).status == 202
        final = await message(client)
        assert final["id"] == 5
        assert "Ada" in final["result"]["content"][0]["text"]
        assert "resultType" not in final["result"]
        last = world.upstream.calls[-1].message["params"]
        assert (last["requestState"], len(world.upstream.calls)) == ("round-2", 3)
        methods = [request.method for request, _ in world.ledger.decisions[-7:]]
        asked_answered = ["elicitation/create", "elicitation/create", "tools/call"]
        assert methods == ["tools/call", *asked_answered, *asked_answered]


@requirement("GW-7")
@pytest.mark.parametrize("how", ["error", "forbidden", "suspended"])
async def test_an_answer_that_is_none_ends_the_call_and_nothing_is_sent_again(how: str) -> None:
    async with legacy_client(asks(1)) as (world, client, session):
        await client.head()
        asked = await message(client)
        if how == "forbidden":
            world.policy += FORBID
            world.state.view = world.view()
        answer: dict[str, Any] = {"result": {"action": "accept", "content": {"name": "Ada"}}}
        if how == "error":
            answer = {"error": {"code": -1, "message": "the person said no"}}
        elif how == "suspended":
            world.state.view = world.view(lifecycle=Lifecycle.SUSPENDED)
        await reply(world, session, asked, **answer)
        final = await message(client)
        assert final["id"] == 5
        if how == "error":
            assert final["error"] == {"code": -1, "message": "the person said no"}
        else:
            assert final["result"]["isError"] is True
        assert len(world.upstream.calls) == 1
        assert not world.front.calls


@requirement("GW-9")
async def test_a_legacy_client_cancels_while_it_is_asked() -> None:
    async with legacy_client(asks(1)) as (world, client, session):
        await client.head()
        asked = await message(client)
        await world.ask(world.old("notifications/cancelled", {"requestId": 5}, session, id=None))
        assert (await message(client))["error"]["code"] == -31499
        await reply(world, session, asked, result={"action": "decline"})
        assert world.ledger.counts["answer_unasked"] == 1
        assert not world.front.calls
        assert len(world.upstream.calls) == 1


@requirement("GW-7", "GW-11")
async def test_a_server_that_asks_without_end_is_cut_off() -> None:
    async with legacy_client(asks(10**6)) as (world, client, session):
        await client.head()
        for _ in range(ROUNDS_MAX):
            asked = await message(client)
            await reply(world, session, asked, result={"action": "decline"})
        final = await message(client)
        assert "asks without end" in final["error"]["message"]
        assert not world.front.calls


@requirement("GW-7")
async def test_a_client_is_not_asked_for_what_it_does_not_offer() -> None:
    sample = {"method": "sampling/createMessage", "params": {}}

    async def script(seen: Seen) -> None:
        seen.result({"resultType": "input_required", "inputRequests": {"k": sample}})

    async with legacy_client(script) as (world, client, _):
        final = (await client.answer()).json
        assert (
            "sampling/createMessage, which this client does not serve" in final["error"]["message"]
        )
        methods = [request.method for request, _ in world.ledger.decisions]
        assert methods == ["tools/call"]


# ---- subscriptions


@requirement("GW-7")
async def test_a_forbidden_resource_is_not_subscribed_to_at_a_legacy_server() -> None:
    seen_there: list[str] = []

    async def script(seen: Seen) -> None:
        if seen.message is None:
            seen.stream()
            return
        seen_there.append(f"{seen.method} {seen.message['params'].get('uri')}")
        seen.result({})

    forbid = 'forbid(principal, action == Action::"resources/subscribe", resource == Resource::"up/n://secret");'
    async with World(legacy=True, policy=World().policy + forbid) as world, asyncio.timeout(10):
        world.upstream.script = script
        wanted = {"resourceSubscriptions": ["n://secret", "n://open"], "toolsListChanged": True}
        async with world.connect() as client:
            client.write(world.modern("subscriptions/listen", {"notifications": wanted}, id="L"))
            await client.head()
            told = await message(client)
        assert told["method"] == "notifications/subscriptions/acknowledged"
        honored = {"toolsListChanged": True, "resourceSubscriptions": ["n://open"]}
        assert told["params"]["notifications"] == honored
        await until(lambda: len(seen_there) >= 2)  # the client has closed its stream
        assert seen_there == ["resources/subscribe n://open", "resources/unsubscribe n://open"]

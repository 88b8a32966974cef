"""What a server says beside its answer: notifications pass or not, questions are decided (GW-7, GW-4)."""

import asyncio
from typing import Any

import pytest
from requirements import requirement
from worlds import PERMIT_ALL, Seen, World, agent, sse, until

from exeat.core.facts import Lifecycle

pytestmark = pytest.mark.anyio


@requirement("GW-7")
async def test_known_notifications_pass_and_unknown_ones_do_not(world: World) -> None:
    async def talk(seen: Seen) -> None:
        seen.reply(
            sse(
                '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}',
                '{"jsonrpc":"2.0","method":"notifications/evil","params":{}}',
                '{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete"}}',
            ),
            "text/event-stream",
        )

    world.upstream.script = talk
    answer = await world.ask(world.tool())
    assert answer.fields["content-type"] == "text/event-stream"
    assert [each.get("method", "answer") for each in answer.events] == [
        "notifications/progress", "answer",
    ]  # fmt: skip
    assert world.ledger.counts["server_notification_unknown"] == 1


NO_QUESTIONS = (
    PERMIT_ALL
    + 'forbid(principal, action == Action::"elicitation/create", resource);'
    + 'forbid(principal, action == Action::"sampling/createMessage", resource);'
)


@requirement("GW-7")
@pytest.mark.parametrize("permitted", [False, True])
async def test_a_servers_question_is_decided_before_the_client_sees_it(permitted: bool) -> None:
    question = '{"jsonrpc":"2.0","id":"q1","method":"sampling/createMessage","params":{"x":1}}'

    async def script(seen: Seen) -> None:
        if seen.method == "tools/call":
            seen.stream(question)
            asked.append(seen)
        else:
            seen.accept()

    asked: list[Seen] = []
    policy = PERMIT_ALL if permitted else NO_QUESTIONS
    async with World(legacy=True, policy=policy) as world:
        session = await world.session(capabilities={"sampling": {}})
        world.upstream.script = script
        async with asyncio.timeout(10), world.connect() as client:
            client.write(world.old("tools/call", {"name": "add"}, session))
            await until(lambda: bool(asked))
            if permitted:
                await client.head()
                event = await client.chunk()
                assert b"sampling/createMessage" in event and b"q1" not in event
                reply = {"jsonrpc": "2.0", "id": "exeat-1", "result": {"answer": 42}}
                head = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
                stolen = await world.ask(world.raw(reply, head, "eve"))
                assert stolen.status == 404
                await world.ask(world.raw(reply, head))
            await until(lambda: len(world.upstream.calls) == 2)
            told = world.upstream.calls[1].message
            assert told["id"] == "q1"
            asked[0].writer.write(sse('{"jsonrpc":"2.0","id":%d,"result":{"content":[]}}' % (
                asked[0].message["id"]
            )))  # fmt: skip
            rest = await client.chunk() if permitted else (await client.answer()).body
        if permitted:
            assert told["result"] == {"answer": 42}
        else:
            assert told["error"]["code"] == -31001
            assert b"sampling" not in rest
        assert b'"result"' in rest


@requirement("GW-7")
@pytest.mark.parametrize("permitted", [False, True])
async def test_a_modern_question_is_decided_and_its_state_sealed(permitted: bool) -> None:
    policy = PERMIT_ALL if permitted else NO_QUESTIONS

    async def asks(seen: Seen) -> None:
        if "inputResponses" in seen.message["params"]:
            seen.result({"content": [], "resultType": "complete"})
            return
        questions = {"q": {"method": "elicitation/create", "params": {"message": "pin?"}}}
        seen.result(
            {"resultType": "input_required", "inputRequests": questions, "requestState": "s-1"}
        )

    async with World(policy=policy) as world:
        world.upstream.script = asks
        answer = await world.ask(world.tool())
        if not permitted:
            assert b"pin?" not in answer.body
            assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "forbidden"
            assert world.ledger.ended[-1] == ("unknown", "input_denied")
            return
        state = answer.json["result"]["requestState"]
        assert "s-1" not in state

        def retry(key: str = "bot", arguments: Any = None, token: str = state) -> bytes:
            params = {
                "name": "add", "arguments": arguments or {}, "requestState": token,
                "inputResponses": {"q": {"action": "accept"}},
            }  # fmt: skip
            return world.modern("tools/call", params, key=key)

        calls = len(world.upstream.calls)
        for bad in (
            retry("eve"),
            retry(arguments={"n": 1}),
            retry(token=state[:-2]),
            retry(token="s-1"),
        ):
            assert (await world.ask(bad)).error["code"] == -32602
        assert len(world.upstream.calls) == calls
        assert "result" in (await world.ask(retry())).json
        assert world.upstream.calls[-1].message["params"]["requestState"] == "s-1"
        world.now += 601 * 10**9
        assert (await world.ask(retry())).error["code"] == -32602


@requirement("GW-7")
async def test_a_question_of_a_suspended_agents_call_is_refused() -> None:
    """The call was permitted; by the time of the question the agent is suspended."""
    asked: list[Seen] = []

    async def script(seen: Seen) -> None:
        if seen.method == "tools/call":
            seen.stream()
            asked.append(seen)
        else:
            seen.accept()

    async with World(legacy=True) as world:
        session = await world.session(capabilities={"roots": {}})
        world.upstream.script = script
        async with world.connect() as client:
            client.write(world.old("tools/call", {"name": "add"}, session))
            await until(lambda: bool(asked))
            world.state.view = world.view(lifecycle=Lifecycle.SUSPENDED)
            asked[0].writer.write(sse('{"jsonrpc":"2.0","id":5,"method":"roots/list","params":{}}'))
            await until(lambda: len(world.upstream.calls) == 2)
            assert world.upstream.calls[1].message["error"]["data"]["reason"] == "agent_not_active"
            assert agent("bot").lifecycle is Lifecycle.ACTIVE

"""The permit that leaves with a call: what it is bound to, and when none leaves (ID-11)."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from permits import KEYS, SIGNER
from requirements import requirement
from worlds import NOW, UP, World, definition, until

from exeat.core.facts import tool_action
from exeat.gateway.permits import Permits
from exeat.permit import Permit, PermitRefused, Seen, verify_call
from exeat.registry.rules.pins import definition_digest

pytestmark = pytest.mark.anyio
AT = "https://up.example/mcp"
ADD = {"a": {"type": "number"}, "é": {}, "ﬀ": {}}
NOW_S = NOW / 10**9


@pytest.fixture(params=["modern", "legacy"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    tools = [definition("add", ADD), definition("other")]
    async with World(permit=AT, legacy=request.param == "legacy", tools=tools) as made:
        numbers = itertools.count(1)
        made.front.permits = Permits(
            SIGNER,
            "exeat/gw1",
            10,
            lambda: made.now,
            lambda size: next(numbers).to_bytes(size, "big"),
        )
        yield made


def shown(world: World, at: int = -1) -> list[str]:
    lines = world.upstream.seen[at].head.decode().split("\r\n")
    return [line.partition(": ")[2] for line in lines if line.lower().startswith("exeat-permit:")]


def check(world: World, at: int = -1, **changes: Any) -> Permit:
    """As the tool server would, on the bytes that it got."""
    call = world.upstream.calls[at]
    (permit,) = shown(world, world.upstream.seen.index(call))
    given = {"keys": KEYS, "audience": AT, "seen": Seen(), "permit": permit, "now": NOW_S}
    params = {**call.message["params"], **changes.pop("params", {})}
    return verify_call(params, **{**given, **changes})


@requirement("ID-11")
async def test_it_is_bound_to_the_decision_and_to_what_leaves(world: World) -> None:
    odd = {"a": 1.50, "é": ["\U0001f600", 2**60, None, {"b": -0.0}], "ﬀ": 1e21}
    answer = await world.ask(world.tool(arguments=odd))
    assert answer.status == 200 and not answer.json["result"].get("isError"), answer.json
    tool = world.state.view.snapshot.tools[tool_action(UP, "add")]
    assert check(world, definition=definition_digest(tool.definition)) == Permit(
        id="1".zfill(32), issuer="exeat/gw1", audience=AT, agent="bot", user="", run="bot/-",
        decision="d0", tool="add", definition=tool.pin, arguments=check(world).arguments, beside="",
        issued_at=int(NOW_S), expires_at=int(NOW_S) + 10,
    )  # fmt: skip
    for changes in (
        {"params": {"name": "other"}},
        {"params": {"arguments": {**odd, "a": 1.51}}},
        {"params": {"task": {}}},
        {"audience": "https://elsewhere.example"},
        {"definition": "0" * 64},
        {"now": NOW_S + 13},
    ):
        with pytest.raises(PermitRefused):
            check(world, **changes)


@requirement("ID-11")
async def test_each_call_has_its_own_and_nothing_else_has_one(world: World) -> None:
    for _ in range(2):
        await world.ask(world.tool())
    await world.ask(world.modern("resources/list", {}))
    permits = [shown(world, at) for at in range(len(world.upstream.seen))]
    with_one = [each[0] for each in permits if each]
    methods = [seen.method for seen, each in zip(world.upstream.seen, permits, strict=True) if each]
    assert methods == ["tools/call"] * 2 and len(set(with_one)) == 2


@requirement("ID-11")
async def test_a_clients_own_permit_goes_nowhere(world: World) -> None:
    params = {"name": "add", "arguments": {}, "_meta": {"exeat/permit": "forged"}}
    await world.ask(world.modern("tools/call", params, fields={"exeat-permit": "forged"}))
    assert check(world).agent == "bot" and "forged" not in str(world.upstream.calls[-1])


@requirement("ID-11")
async def test_it_is_made_after_the_decision_is_durable(world: World) -> None:
    await world.ask(world.tool())
    made: list[int] = []
    assert world.front.permits is not None
    sign = world.front.permits.sign
    world.front.permits.sign = lambda *given: (made.append(1), sign(*given))[1]  # type: ignore[method-assign]
    world.ledger.hold = True
    async with world.connect() as client:
        client.write(world.tool())
        await until(lambda: len(world.ledger.held) == 1)
        assert made == []
        world.ledger.release()
        await client.answer()
    assert made == [1]
    world.ledger.hold, world.ledger.failure = False, "disk full"
    await world.ask(world.tool())
    assert made == [1]


@requirement("ID-11")
async def test_without_a_key_such_a_server_is_not_called(world: World) -> None:
    world.front.permits = None
    answer = await world.ask(world.tool())
    assert "no key to sign one" in answer.error["message"] and answer.error["data"]["sent"] is False
    assert world.upstream.calls == [] and world.ledger.ended == [("failed", "not_sent")]


@requirement("ID-11")
async def test_a_server_that_demands_none_gets_none() -> None:
    async with World() as world:
        world.front.permits = Permits(SIGNER, "exeat/gw1", 10, lambda: NOW, bytes)
        assert "result" in (await world.ask(world.tool())).json
        assert shown(world) == []


@requirement("ID-11")
async def test_what_the_server_refuses_is_told_to_the_client(world: World) -> None:
    async def refuse(seen: Any) -> None:
        error = {
            "code": -31403,
            "message": "Refused: The permit has expired.",
            "data": {"reason": "expired"},
        }
        body = json.dumps({"jsonrpc": "2.0", "id": seen.message["id"], "error": error}).encode()
        head = f"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        seen.writer.write(head.encode() + b"\r\n\r\n" + body)

    world.upstream.script = refuse
    answer = await world.ask(world.tool())
    assert answer.error["code"] == -31403 and "expired" in answer.error["message"]
    assert world.ledger.ended == [("rpc_error", "")]


@requirement("ID-11", "GW-7")
async def test_each_round_of_a_call_has_a_permit_that_binds_its_answers() -> None:
    async def asks(seen: Any) -> None:
        if "inputResponses" in seen.message["params"]:
            seen.result({"content": [], "resultType": "complete"})
        else:
            asked = {"roots": {"method": "roots/list", "params": {}}}
            state = {"requestState": "s-1"}
            seen.result({"resultType": "input_required", "inputRequests": asked, **state})

    async with World(permit=AT) as world:
        numbers = itertools.count(1)
        world.front.permits = Permits(
            SIGNER, "exeat/gw1", 10, lambda: NOW, lambda size: next(numbers).to_bytes(size, "big")
        )
        world.upstream.script = asks
        call = {"name": "add", "arguments": {}}
        state = (await world.ask(world.modern("tools/call", call))).json["result"]["requestState"]
        again = {**call, "inputResponses": {"roots": {"roots": []}}, "requestState": state}
        assert (await world.ask(world.modern("tools/call", again))).json["result"]["content"] == []
        first, second = check(world, 0), check(world, 1)
        assert first.beside == "" and second.beside and first.id != second.id
        assert first.decision != second.decision
        for changes in ({"inputResponses": {}}, {"requestState": "s-2"}):
            with pytest.raises(PermitRefused, match="other arguments"):
                check(world, 1, params=changes)

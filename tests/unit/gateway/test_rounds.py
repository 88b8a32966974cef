"""Calls in several rounds (2026-07-28, MRTR): what a server asks, and what a client answers, is egress
and decided like any action (GW-7)."""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from requirements import requirement
from worlds import NOW, Answer, Seen, World, until

from exeat.core.facts import Lifecycle
from exeat.core.grant import Held, Pending
from exeat.core.request import AccessRequest
from exeat.gateway.gate import Gate

pytestmark = pytest.mark.anyio
ASKED = {
    "name": {"method": "elicitation/create", "params": {"message": "name?"}},
    "roots": {"method": "roots/list", "params": {}},
}
ANSWERS: dict[str, Any] = {
    "name": {"action": "accept", "content": {"name": "Ada"}},
    "roots": {"roots": []},
}
_CALLS: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "add", "arguments": {}}),
    ("prompts/get", {"name": "add", "arguments": {}}),
    ("resources/read", {"uri": "memo:x"}),
]


@pytest.fixture
async def world(world: World) -> World:
    world.upstream.script = asks()
    return world


def asks(state: str | None = None, asked: dict[str, Any] = ASKED) -> Any:
    """A server that asks until it is answered."""

    async def script(seen: Seen) -> None:
        if "inputResponses" in seen.message["params"]:
            seen.result({"content": [], "resultType": "complete"})
            return
        own = {} if state is None else {"requestState": state}
        seen.result({"resultType": "input_required", "inputRequests": asked, **own})

    return script


async def first(world: World, method: str = "tools/call", params: Any = None) -> str:
    """The state after the first round."""
    answer = await world.ask(world.modern(method, params or _CALLS[0][1]))
    result = answer.json["result"]
    assert (result["resultType"], result["inputRequests"]) == ("input_required", ASKED)
    return str(result["requestState"])


async def retry(
    world: World, state: str | None, given: Any, method: str = "tools/call", params: Any = None
) -> Answer:
    members = {} if state is None else {"requestState": state}
    return await world.ask(
        world.modern(method, {**(params or _CALLS[0][1]), "inputResponses": given, **members})
    )


def sent(world: World) -> dict[str, Any]:
    """The members of the last request upstream that make it a retry."""
    params = world.upstream.calls[-1].message["params"]
    return {key: params[key] for key in ("inputResponses", "requestState") if key in params}


def decided(world: World, start: int) -> list[tuple[str, Any, bool]]:
    return [
        (request.method, request.arguments.get("exeat/answer"), decision.permitted)
        for request, decision in world.ledger.decisions[start:]
    ]


@requirement("GW-7")
@pytest.mark.parametrize(("method", "params"), _CALLS)
@pytest.mark.parametrize("own", [None, "", "s-1", '["s-1",{"x":"roots/list"}]'])
async def test_each_answer_is_decided_and_recorded_before_the_call_that_carries_it(
    world: World, own: str | None, method: str, params: dict[str, Any]
) -> None:
    """Whether or not the server has a state of its own, which only it is given back."""
    world.upstream.script = asks(own)
    state = await first(world, method, params)
    before = len(world.ledger.decisions)
    assert "result" in (await retry(world, state, ANSWERS, method, params)).json
    given = {"inputResponses": ANSWERS}
    assert sent(world) == (given if own is None else {**given, "requestState": own})
    assert decided(world, before) == [
        ("elicitation/create", ANSWERS["name"], True),
        ("roots/list", ANSWERS["roots"], True),
        (method, None, True),
    ]
    assert world.ledger.ended[-3:-1] == [("ok", "answered")] * 2
    assert world.ledger.ended[-1][0] == "ok"


@requirement("GW-7", "GW-10")
async def test_an_address_that_a_server_has_a_person_open_is_opened_by_nobody_here(
    world: World,
) -> None:
    """A URL elicitation, icons and links of a server: decided and passed on as they are, never followed."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        url = f"http://127.0.0.1:{inside.getsockname()[1]}/x"
        params = {"mode": "url", "message": "open", "url": url, "elicitationId": "e1"}
        asked = {"open": {"method": "elicitation/create", "params": params}}
        world.upstream.script = asks(None, asked)
        answer = await world.ask(world.modern(*_CALLS[0]))
        assert answer.json["result"]["inputRequests"] == asked
        link = {"type": "resource_link", "uri": url, "name": "x", "icons": [{"src": url}]}

        async def linking(seen: Seen) -> None:
            seen.result({"content": [link], "resultType": "complete"})

        world.upstream.script = linking
        answer = await world.ask(world.modern(*_CALLS[0]))
        assert answer.json["result"]["content"] == [link]
        with pytest.raises(BlockingIOError):
            inside.accept()


@requirement("GW-1", "GW-7")
async def test_no_answer_leaves_before_its_record_is_durable(world: World) -> None:
    state = await first(world)
    before = world.upstream.bytes_in
    world.ledger.hold = True
    asking = asyncio.ensure_future(retry(world, state, ANSWERS))
    for number in range(3):
        await until(lambda: bool(world.ledger.held))
        assert len(world.ledger.held) == 1, number
        assert world.upstream.bytes_in == before
        world.ledger.release()
    assert "result" in (await asking).json


@requirement("GW-7")
@pytest.mark.parametrize("method", ["elicitation/create", "roots/list"])
@pytest.mark.parametrize("change", ["suspended", "forbidden", "no ledger"])
async def test_an_answer_that_is_denied_stops_the_call(
    world: World, method: str, change: str
) -> None:
    state = await first(world)
    calls, ended = len(world.upstream.calls), len(world.ledger.ended)
    if change == "forbidden":
        world.policy += f'forbid(principal, action == Action::"{method}", resource);'
    stopped = {"lifecycle": Lifecycle.SUSPENDED} if change == "suspended" else {}
    world.state.view = world.view(**stopped)
    world.ledger.failure = "disk full" if change == "no ledger" else ""
    answer = await retry(world, state, ANSWERS)
    assert len(world.upstream.calls) == calls
    if change == "no ledger":
        assert answer.error["code"] == -31503
        return
    reason = answer.json["result"]["structuredContent"]["denied"]["reason"]
    assert reason == ("forbidden" if change == "forbidden" else "agent_not_active")
    permitted = change == "forbidden" and method == "roots/list"  # the first of two was
    assert world.ledger.ended[ended:] == [("failed", "not_sent")] * permitted
    assert not world.front.calls


@requirement("GW-7")
async def test_answers_of_a_call_that_is_denied_are_recorded_as_not_sent(world: World) -> None:
    state = await first(world)
    calls, ended = len(world.upstream.calls), len(world.ledger.ended)
    world.policy += 'forbid(principal, action == Action::"up/add", resource);'
    world.state.view = world.view()
    assert (await retry(world, state, ANSWERS)).error["message"] == "Unknown tool: add"
    assert len(world.upstream.calls) == calls
    assert world.ledger.ended[ended:] == [("failed", "not_sent")] * 2


@requirement("GW-2", "GW-7")
async def test_what_nobody_asked_for_leaves_nobody(world: World) -> None:
    """No method can be named for it, so no policy could read it."""
    state = await first(world)
    assert "result" in (await retry(world, state, {**ANSWERS, "more": {"secret": 1}})).json
    assert sent(world) == {"inputResponses": ANSWERS}
    before = len(world.ledger.decisions)
    for key, extra in ((None, ANSWERS), (state, {"more": {"secret": 1}}), (state, {})):
        answer = await retry(world, key, extra)
        assert answer.json["result"]["resultType"] == "input_required"
        assert sent(world) == {}
    assert not any(b"secret" in str(seen.message).encode() for seen in world.upstream.seen)
    assert all(answer is None for _, answer, _ in decided(world, before))
    assert world.ledger.counts["answer_unasked"] == 3


@requirement("GW-7")
async def test_an_answer_belongs_to_the_questions_of_its_own_call(world: World) -> None:
    state = await first(world)
    calls = len(world.upstream.calls)
    for other in ({"name": "secret", "arguments": {}}, {"name": "add", "arguments": {"n": 1}}):
        refused = await retry(world, state, ANSWERS, params=other)
        assert refused.error["code"] == -32602
    assert len(world.upstream.calls) == calls


@requirement("GW-4", "GW-7")
async def test_a_legacy_client_has_no_rounds(world: World) -> None:

    async def modern_only(seen: Seen) -> None:
        seen.error(-32601)

    world.upstream.own["initialize"] = modern_only
    session = await world.session()
    params = {"name": "add", "arguments": {}, "inputResponses": ANSWERS}
    answer = await world.ask(world.old("tools/call", params, session))
    assert answer.error["code"] == -31502
    assert sent(world) == {}


@requirement("GW-11")
@pytest.mark.parametrize("own", [1, [], {"a": 1}, True])
async def test_a_malformed_state_asks_nothing(world: World, own: Any) -> None:
    world.upstream.script = asks(own)
    assert (await world.ask(world.tool())).error["code"] == -31502
    assert [method for method, _, _ in decided(world, 0)] == ["tools/call"]


@requirement("GW-7")
@pytest.mark.parametrize("state", [5, "s", None, {}])
async def test_a_method_without_rounds_keeps_its_parameters(state: Any) -> None:
    """What an extension calls ``requestState`` is its own, and decided on like any argument."""
    async with World(extra_methods=frozenset({"x/do"})) as world:
        params = {"requestState": state, "inputResponses": {"a": 1}}
        assert "result" in (await world.ask(world.modern("x/do", params))).json
        assert sent(world) == params
        assert world.ledger.decisions[-1][0].arguments == params


class Noting:
    """People who are asked: what they were asked about."""

    def __init__(self) -> None:
        self.bindings: list[str] = []

    def claim(self, held: Held, request: AccessRequest, then: Callable[[Any], None]) -> None:
        self.bindings.append(held.binding.digest)
        then(Pending("h-1", NOW + 10**15, ("ada",)))

    def states(self, holds: tuple[str, ...], then: Callable[[Any], None]) -> None:
        then({})


@requirement("APP-2", "APP-11")
@pytest.mark.parametrize(("method", "params"), _CALLS)
async def test_an_approval_of_a_call_is_none_of_where_it_stood_at_its_server(
    world: World, method: str, params: dict[str, Any]
) -> None:
    """A server's state can say what was confirmed, and it leaves even where no answer does."""
    world.upstream.script = asks("s-1")
    state = await first(world, method, params)
    noting = Noting()
    world.pipeline.gate, world.policy = Gate(noting, None), HELD
    world.state.view = world.view()
    world.front.settings = replace(world.front.settings, hold_wait_s=0.0)
    await world.ask(world.modern(method, params))
    await world.ask(world.modern(method, {**params, "requestState": state}))
    await world.ask(world.modern(method, {**params, "requestState": state}))
    plain, carried, again = noting.bindings
    assert plain != carried and carried == again


HELD = """@id("asked") permit(principal, action, resource)
    when { context.session.controls.contains(Control::"approved_by_owner") };"""

"""Whole calls through a real gateway: decided, recorded, and only then done (GW-1, GW-7, GW-8)."""

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from requirements import requirement
from worlds import PERMIT_ALL, Seen, World, definition, until

from exeat.core.facts import Lifecycle
from exeat.core.ids import AgentId
from exeat.gateway.pipeline import DENIALS_MAX

pytestmark = pytest.mark.anyio
HIDE = PERMIT_ALL + '@id("hide") forbid(principal, action == Action::"up/secret", resource);'


# ---- GW-1


@requirement("GW-1")
async def test_no_ledger_no_byte(world: World) -> None:
    await world.ask(world.tool())
    before = world.upstream.bytes_in
    world.ledger.failure = "disk full"
    answer = await world.ask(world.tool())
    assert answer.error["code"] == -31503
    assert "disk full" in answer.error["message"]
    assert world.upstream.bytes_in == before
    listed = await world.ask(world.modern("tools/list", {}))
    assert listed.error["code"] == -31503
    assert world.upstream.bytes_in == before


@requirement("GW-1")
async def test_not_a_byte_before_the_record_is_durable(world: World) -> None:
    await world.ask(world.tool())
    before = world.upstream.bytes_in
    world.ledger.hold = True
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.ledger.held))
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.upstream.bytes_in == before
    world.ledger.release()
    assert "result" in (await asking).json
    assert world.upstream.bytes_in > before


@requirement("GW-1")
@pytest.mark.parametrize(
    "change", ["suspended", "gone", "revoked", "expired", "forbidden", "stale", "tool", "server"]
)
async def test_a_change_between_record_and_effect_stops_the_action(
    world: World, change: str
) -> None:
    await world.ask(world.tool())
    calls = len(world.upstream.calls)
    world.ledger.hold = True
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.ledger.held))
    if change == "forbidden":
        world.policy = "forbid(principal, action, resource);"
    view = world.view(lifecycle=Lifecycle.SUSPENDED) if change == "suspended" else world.view()
    if change == "gone":
        del view.snapshot.agents[AgentId("bot")]
    elif change in ("revoked", "expired"):
        key = hashlib.sha256(b"bot").digest()
        facts = view.snapshot.credentials.pop(key)
        if change == "expired":
            view.snapshot.credentials[key] = replace(facts, expires_at=world.now)
    elif change == "tool":
        view.snapshot.tools.clear()
    elif change == "server":
        view.snapshot.servers.clear()
    elif change == "stale":
        world.state.fresh = False
    world.state.view = view
    world.ledger.release()
    answer = await asking
    assert "error" in answer.json or answer.json["result"]["isError"] is True
    assert len(world.upstream.calls) == calls
    assert world.ledger.ended[-1] == ("failed", "state_changed")


@requirement("APP-10", "GW-1")
async def test_a_state_that_grew_old_while_the_record_was_written_stops_the_action(
    world: World,
) -> None:
    await world.ask(world.tool())
    calls = len(world.upstream.calls)
    world.ledger.hold = True
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.ledger.held))
    world.state.fresh = False
    world.ledger.release()
    answer = await asking
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "state_stale"
    assert len(world.upstream.calls) == calls
    assert world.ledger.ended[-1] == ("failed", "state_stale")


@requirement("GW-1")
async def test_a_suspension_while_the_server_is_still_being_opened_stops_the_action(
    world: World,
) -> None:
    """The first call waits for the probe; what it is decided on is not what was true before it."""
    gate = asyncio.Event()

    async def slow(seen: Seen) -> None:
        await gate.wait()
        seen.result({"supportedVersions": ["2026-07-28"], "capabilities": {}})

    world.upstream.own["server/discover"] = slow
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.upstream.seen))
    world.state.view = world.view(lifecycle=Lifecycle.SUSPENDED)
    gate.set()
    answer = await asking
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "agent_not_active"
    assert world.upstream.calls == []


@requirement("GW-1", "POL-1")
async def test_stale_state_denies(world: World) -> None:
    await world.ask(world.tool())
    world.state.fresh = False
    answer = await world.ask(world.tool())
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "state_stale"
    assert len(world.upstream.calls) == 1
    assert (await world.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 503
    assert (await world.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")).status == 200


# ---- GW-2: what leaves is ours


@requirement("GW-2", "POL-4")
async def test_what_leaves_is_what_was_decided_written_anew() -> None:
    body = (
        b'{ "jsonrpc":"2.0", "id":1, "method":"tools/call", "evil":1, "params":{"name":"add",'
        b'"arguments":{"n": 1.10, "\\u0065":"\\u00e9"}, "_meta":{"io.modelcontextprotocol/'
        b'protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"x":1}}}'
    )
    fields = {
        "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "add",
        "x-evil": "1", "cookie": "a=b",
    }  # fmt: skip
    schema = {"n": {"type": "number"}, "e": {"type": "string"}}
    async with World(tools=[definition("add", schema)]) as world:
        answer = await world.ask(world.raw(body, fields))
        assert answer.json["result"] == {"content": [], "resultType": "complete"}
        (seen,) = world.upstream.calls
        assert not any(word in seen.head for word in (b"evil", b"cookie", b"Bearer"))
        assert set(seen.message) == {"jsonrpc", "id", "method", "params"}
        assert seen.message["params"]["arguments"] == {"n": 1.1, "e": "é"}
        assert "x" not in seen.message["params"]["_meta"]
        request, _ = world.ledger.decisions[-1]
        assert str(request.arguments["n"]) == "1.10"


@requirement("POL-3")
async def test_the_first_call_of_all_is_denied_for_its_own_reason(world: World) -> None:
    """Before anybody has looked at the server, nothing is known of its definitions."""
    answer = await world.ask(world.tool(arguments={"undeclared": 1}))
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "arguments_untyped"
    assert world.upstream.seen == []


@requirement("GW-1")
async def test_a_server_that_is_replaced_between_record_and_effect_is_not_called(
    world: World,
) -> None:
    await world.ask(world.tool())
    world.ledger.hold = True
    asking = asyncio.ensure_future(world.ask(world.tool()))
    await until(lambda: bool(world.ledger.held))
    world.upstreams.follow({})
    await asyncio.sleep(0)
    world.ledger.release()
    assert (await asking).error["data"]["sent"] is False
    assert len(world.upstream.calls) == 1


# ---- REG-6, GW-8


@requirement("REG-6")
async def test_a_changed_definition_stops_the_tool(world: World) -> None:
    assert "result" in (await world.ask(world.tool())).json
    world.upstream.tools = [{**definition("add"), "description": "now evil"}, definition("secret")]
    listed = await world.ask(world.modern("tools/list", {}))
    assert [each["name"] for each in listed.json["result"]["tools"]] == ["secret"]
    answer = await world.ask(world.tool())
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "definition_changed"
    assert len(world.upstream.calls) == 1


@requirement("REG-6")
async def test_a_list_that_comes_late_shows_nothing_newer(world: World) -> None:
    """Of two lists the one that was asked for first is answered last: with what was so before."""
    assert "result" in (await world.ask(world.tool())).json
    waiting: list[Seen] = []
    before = list(world.upstream.tools)

    async def first_late(seen: Seen) -> None:
        if not waiting:
            waiting.append(seen)
            return
        seen.result({"tools": world.upstream.tools, "resultType": "complete"})

    world.upstream.own["tools/list"] = first_late
    late = asyncio.ensure_future(world.ask(world.modern("tools/list", {})))
    await until(lambda: bool(waiting))
    world.upstream.tools = [{**definition("add"), "description": "now evil"}, definition("secret")]
    await world.ask(world.modern("tools/list", {}))
    waiting[0].result({"tools": before, "resultType": "complete"})
    assert "add" in {each["name"] for each in (await late).json["result"]["tools"]}
    answer = await world.ask(world.tool())
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "definition_changed"


@requirement("REG-6")
async def test_a_page_that_comes_late_counts_for_tools_that_no_later_one_showed(
    world: World,
) -> None:
    assert "result" in (await world.ask(world.tool())).json
    waiting: list[Seen] = []

    async def first_late(seen: Seen) -> None:
        if not waiting:
            waiting.append(seen)
            return
        seen.result({"tools": [definition("secret")], "resultType": "complete"})

    world.upstream.own["tools/list"] = first_late
    late = asyncio.ensure_future(world.ask(world.modern("tools/list", {})))
    await until(lambda: bool(waiting))
    await world.ask(world.modern("tools/list", {}))
    changed = {**definition("add"), "description": "now evil"}
    waiting[0].result({"tools": [changed], "resultType": "complete"})
    await late
    answer = await world.ask(world.tool())
    assert answer.json["result"]["structuredContent"]["denied"]["reason"] == "definition_changed"


_MIRRORED = definition("secret", {"who": {"type": "string", "x-mcp-header": "Who"}})


@requirement("GW-8")
@pytest.mark.parametrize("legacy_client", [False, True])
@pytest.mark.parametrize("secret", [definition("secret"), _MIRRORED])
@pytest.mark.parametrize("arguments", [{}, {"who": "x"}, {"who": 1}, {"other": {"a": [1]}}])
async def test_hidden_and_unknown_tools_answer_alike(
    secret: dict[str, Any], arguments: dict[str, Any], legacy_client: bool
) -> None:
    """Also where the hidden tool's schema has more to say of headers and arguments."""
    async with World(tools=[definition("add"), secret], policy=HIDE) as world:
        session = await world.session() if legacy_client else ""
        answers = []
        for name in ("secret", "absent"):
            if legacy_client:
                raw = world.old("tools/call", {"name": name, "arguments": arguments}, session)
            else:
                raw = world.tool(name, arguments)
            answer = await world.ask(raw)
            answers.append(
                (
                    answer.status,
                    sorted(answer.fields.items() - {("date", answer.fields["date"])}),
                    answer.body.replace(name.encode(), b"NAME"),
                )
            )
        assert answers[0] == answers[1]
        assert b"Unknown tool: NAME" in answers[0][2]
        assert world.upstream.calls == []
        listed = await world.ask(world.modern("tools/list", {}))
        assert [each["name"] for each in listed.json["result"]["tools"]] == ["add"]


@requirement("GW-2")
async def test_a_visible_tools_headers_must_agree_with_its_arguments() -> None:
    async with World(
        tools=[definition("add", {"who": {"type": "string", "x-mcp-header": "Who"}})]
    ) as world:
        raw = world.tool("add", {"who": "x"})
        assert (await world.ask(raw)).error["code"] == -32020
        assert world.upstream.calls == []
        good = world.tool("add", {"who": "é"}, fields={"mcp-param-who": "=?base64?w6k=?="})
        assert "result" in (await world.ask(good)).json
        assert b"mcp-param-who: =?base64?w6k=?=" in world.upstream.calls[0].head
        twice = world.tool("add", {"who": "x"}, fields={"mcp-param-who": "x", "Mcp-Param-Who": "x"})
        assert (await world.ask(twice)).error["code"] == -32020


@requirement("GW-8")
async def test_denials_are_capped_per_run(world: World) -> None:
    async with world.connect() as client:
        for number in range(DENIALS_MAX + 1):
            client.write(world.tool("absent", id=number))
            answer = await client.answer()
    denied = answer.json["result"]["structuredContent"]["denied"]
    assert denied["reason"] == "denials_capped"
    assert "result" in (await world.ask(world.tool())).json  # what is permitted goes on
    assert "error" in (await world.ask(world.tool("absent", key="eve"))).json  # another run
    world.now += 61 * 10**9
    assert (await world.ask(world.tool("absent"))).error["message"] == "Unknown tool: absent"


@requirement("GW-7")
async def test_an_unknown_method_is_decided_and_denied(world: World) -> None:
    answer = await world.ask(world.modern("tasks/explode", {}))
    assert (answer.status, answer.error["code"]) == (404, -32601)
    assert str(world.ledger.decisions[-1][1].reason) == "method_unknown"
    assert world.upstream.calls == []


# ---- GW-13


@requirement("GW-13")
async def test_sessions_belong_to_their_principal(world: World) -> None:
    session = await world.session()
    unknown = await world.ask(world.old("tools/call", {"name": "add"}, "0" * 48))
    others = await world.ask(world.old("tools/call", {"name": "add"}, session, key="eve"))
    assert unknown.status == others.status == 404
    assert unknown.body == others.body
    assert "result" in (await world.ask(world.old("tools/call", {"name": "add"}, session))).json
    none = await world.ask(world.old("tools/call", {"name": "add"}, ""))
    assert none.status == 400
    end = b"DELETE /mcp/up HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nMcp-Session-Id: %b\r\n\r\n"
    assert (await world.ask(end % (b"eve", session.encode()))).status == 404
    assert (await world.ask(end % (b"bot", session.encode()))).status in (200, 202, 204)
    assert (await world.ask(world.old("ping", {}, session))).status == 404


@requirement("GW-13")
async def test_no_key_no_answer(world: World) -> None:
    for key in ("nobody", ""):
        answer = await world.ask(world.tool(key=key))
        assert answer.status == 401
        assert answer.fields["www-authenticate"].startswith("Bearer")
    world.now += 2 * 10**15
    assert (await world.ask(world.tool())).status == 401
    assert world.ledger.decisions == [] and world.upstream.seen == []


# ---- lists


@requirement("GW-8", "GW-11")
@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list"])
@pytest.mark.parametrize(
    "items", [[{"title": "no name"}], [{"name": 1, "uri": []}], "text", None, [1], [{"name": "p", "uri": "u:x"}]]
)  # fmt: skip
async def test_odd_lists_are_answered(
    world: World, method: str, items: Any, aggregate: bool
) -> None:
    await world.ask(world.tool())
    key = method.partition("/")[0]

    async def odd(seen: Seen) -> None:
        seen.result({key: items, "resultType": "complete", "cacheScope": "public"})

    world.upstream.own[method] = odd
    raw = world.modern(method, {})
    answer = await world.ask(raw.replace(b"/mcp/up", b"/mcp") if aggregate else raw)
    if "result" in answer.json:
        assert answer.json["result"]["cacheScope"] == "private"
        assert len(answer.json["result"][key]) == (
            items == [{"name": "p", "uri": "u:x"}] and method != "tools/list"
        )
    else:
        assert answer.error["code"] == -31502


@requirement("GW-11")
@pytest.mark.parametrize("code", [-32000, "x", None, 1.5, [], True])
async def test_a_list_refused_with_an_odd_error_is_answered(world: World, code: Any) -> None:
    await world.ask(world.tool())

    async def odd(seen: Seen) -> None:
        seen.error(code)

    world.upstream.own["tools/list"] = odd
    answer = await world.ask(world.modern("tools/list", {}))
    assert type(answer.error["code"]) is int

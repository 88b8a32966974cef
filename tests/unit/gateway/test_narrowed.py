"""What leaves is what was decided, budgets follow what left, and results pass the filter (POL-4, POL-9, APP-8)."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from held_calls import ELICIT, OFFERS
from holding import (
    ASKING,
    BROKEN,
    BUDGET,
    CHARGED,
    HELD,
    NARROW,
    NARROW_HELD,
    PROFILES,
    REDACTED,
    Holding,
    reason,
    verdicts,
)  # fmt: skip
from permits import KEYS, SIGNER
from requirements import requirement
from worlds import NOW, Answer, Seen, definition, sse, until

from exeat.core.facts import Lifecycle, ServerSpec
from exeat.core.upstream_auth import AuthMode, Credential, Refused, UpstreamAuth
from exeat.gateway.permits import Permits
from exeat.permit import Seen as SeenPermits
from exeat.permit import verify_call

pytestmark = pytest.mark.anyio
ASKED = {"limit": 400, "query": "all"}
SENT = {"limit": 5, "query": "all"}
MAIL = "ada@mail.org"
SECRET = {"content": [{"type": "text", "text": f"to {MAIL}"}]}
META = {"io.modelcontextprotocol/clientCapabilities": OFFERS}
ERAS = pytest.mark.parametrize("server", ["modern", "legacy"])
CLIENTS = pytest.mark.parametrize("client", ["modern", "legacy"])


class Renewed:
    """Credentials: ``old``, and ``new`` when the test lets it come."""

    def __init__(self) -> None:
        self.now = "Bearer old"
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    def account(self, spec: ServerSpec, principal: str) -> "Renewed":
        return self

    def current(self) -> Credential | None:
        return Credential(self.now)

    async def obtain(self, refused: Refused | None) -> Credential:
        if refused is not None:
            self.asked.set()
            await self.let.wait()
            self.now = "Bearer new"
        return Credential(self.now)

    async def consented(self, seconds: float) -> bool:
        return True


async def ask(world: Holding, client: str, arguments: Any = None, **more: Any) -> Answer:
    return await world.ask(await find(world, client, arguments, **more))


async def find(world: Holding, client: str, arguments: Any = None, **more: Any) -> bytes:
    params = {"name": "find", "arguments": arguments or ASKED, **more}
    if client == "modern":
        return world.modern("tools/call", {**params, "_meta": META})
    return world.old("tools/call", params, await world.session(capabilities=OFFERS))


def left(world: Holding) -> list[Any]:
    return [seen.message["params"]["arguments"] for seen in world.upstream.calls]


def results(**result: Any) -> Any:
    async def script(seen: Seen) -> None:
        seen.result({"resultType": "complete", **result})

    return script


# ---- what leaves


@requirement("POL-4", "POL-9")
@ERAS
@CLIENTS
async def test_exactly_the_narrowed_call_leaves_and_the_agent_is_told(
    server: str, client: str
) -> None:
    async with Holding(policy=NARROW, legacy=server == "legacy") as world:
        answer = await ask(world, client)
        assert left(world) == [SENT]
        result = answer.json["result"]
        told = result["_meta"]["exeat/narrowed"]
        assert told["changes"] == {"limit": {"asked": 400, "sent": 5}}
        assert "limit: 400 → 5" in result["content"][-1]["text"]
        ((request, decision),) = world.ledger.decisions
        assert (request.arguments, decision.narrowed) == (ASKED, SENT)
        small = await ask(world, client, {"limit": 3})
        assert "exeat/narrowed" not in small.json["result"].get("_meta", {})


@requirement("POL-4")
@ERAS
@CLIENTS
async def test_what_was_approved_is_the_narrowed_call(server: str, client: str) -> None:
    async with Holding(policy=NARROW_HELD, wait=0, legacy=server == "legacy") as world:
        assert reason(await ask(world, client)) == "approval_required"
        (held,) = world.people.asked.values()
        assert held.narrowed == SENT and held.arguments == ASKED
        world.people.say("approved")
        assert not reason(await ask(world, client, {**ASKED, "limit": 300}))
        assert left(world) == [SENT]


@requirement("POL-4", "ID-11")
async def test_headers_and_permits_are_made_of_what_leaves() -> None:
    tools = [definition("find", {"limit": {"type": "integer", "x-mcp-header": "Limit"}})]
    at = "https://up.example/mcp"
    async with Holding(policy=NARROW, tools=tools, permit=at) as world:
        numbers = itertools.count(1)
        world.front.permits = Permits(
            SIGNER, "exeat/gw1", 10, lambda: NOW, lambda n: next(numbers).to_bytes(n, "big")
        )
        params = {"name": "find", "arguments": {"limit": 400}}
        raw = world.modern("tools/call", params, fields={"mcp-param-limit": "400"})
        assert not reason(await world.ask(raw))
        (call,) = world.upstream.calls
        lines = call.head.decode().lower().split("\r\n")
        assert [x for x in lines if x.startswith("mcp-param-")] == ["mcp-param-limit: 5"]
        (permit,) = [
            line.partition(": ")[2]
            for line in call.head.decode().split("\r\n")
            if line.lower().startswith("exeat-permit:")
        ]
        assert call.message["params"]["arguments"] == {"limit": 5}
        verify_call(
            call.message["params"], permit=permit, keys=KEYS, audience=at, seen=SeenPermits(),
            now=NOW / 10**9,
        )  # fmt: skip


@requirement("POL-4", "APP-10")
async def test_another_narrowing_than_the_recorded_one_does_not_leave() -> None:
    async with Holding(policy=NARROW, controls=BUDGET) as world:
        world.ledger.hold = True
        asking = asyncio.ensure_future(ask(world, "modern"))
        await until(lambda: bool(world.ledger.held))
        world.changed(NARROW.replace("<= 5", "<= 4"))
        world.ledger.release()
        assert reason(await asking) == "policy_error"
        assert left(world) == [] and world.ledger.ended == [("failed", "state_changed")]
        assert world.purse.said == [("released", "r1")]


@requirement("APP-8", "APP-10")
@pytest.mark.parametrize("before", ["", BUDGET.replace('"3"', '"4"')])
async def test_a_budget_that_comes_into_force_meanwhile_is_not_passed_by(before: str) -> None:
    async with Holding(policy=CHARGED, controls=before) as world:
        world.ledger.hold = True
        asking = asyncio.ensure_future(ask(world, "modern"))
        await until(lambda: bool(world.ledger.held))
        world.controls = BUDGET
        world.changed()
        world.ledger.release()
        assert reason(await asking) == "policy_error" and left(world) == []


@requirement("POL-4", "ID-9")
@pytest.mark.parametrize("changed", [False, True])
async def test_after_a_refused_credential_the_same_call_leaves_or_none(changed: bool) -> None:
    held, auth = Renewed(), UpstreamAuth(AuthMode.AUTHORIZATION_CODE)
    async with Holding(policy=NARROW, auth=auth, credentials=held) as world:

        async def picky(seen: Seen) -> None:
            if b"Bearer new" in seen.head:
                seen.result({"content": [], "resultType": "complete"})
            else:
                seen.writer.write(
                    b"HTTP/1.1 401 No\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n"
                )

        world.upstream.script = picky
        asking = asyncio.ensure_future(ask(world, "modern"))
        await held.asked.wait()
        if changed:
            world.changed(NARROW.replace("<= 5", "<= 4"))
        held.let.set()
        answer = await asking
        assert left(world) == ([SENT] if changed else [SENT, SENT])
        assert ("error" in answer.json) is changed


@requirement("POL-4", "GW-4")
async def test_a_legacy_servers_call_is_not_taken_over_under_another_narrowing() -> None:
    told: list[Any] = []

    async def asks(seen: Seen) -> None:
        if seen.method == "tools/call":
            seen.stream(json.dumps({"jsonrpc": "2.0", "id": "s1", **ELICIT}))
        else:
            told.append(seen.message)
            seen.accept()

    async with Holding(policy=NARROW + ASKING, legacy=True) as world:
        world.upstream.script = asks
        result = (await ask(world, "modern")).json["result"]
        given = {"q1": {"action": "accept", "content": {"name": "Ada"}}}
        world.changed((NARROW + ASKING).replace("<= 5", "<= 4"))
        answer = await ask(
            world, "modern", inputResponses=given, requestState=result["requestState"]
        )
        assert "narrowed since" in answer.error["message"]
        await until(lambda: bool(told))
        assert [each["method"] for each in told] == ["notifications/cancelled"]
        assert world.ledger.ended[-2:] == [("unknown", "upstream_failed"), ("failed", "not_sent")]


@requirement("POL-9")
@pytest.mark.parametrize("body", ['{"a":1,"a":2}', '{"content":[],"n":NaN}', "[]"])
async def test_a_malformed_result_of_a_narrowed_call_is_nonsense(body: str) -> None:
    async def script(seen: Seen) -> None:
        head = f'{{"jsonrpc":"2.0","id":{json.dumps(seen.message["id"])},"result":'
        seen.reply(head.encode() + body.encode() + b"}")

    async with Holding(policy=NARROW) as world:
        world.upstream.script = script
        answer = await ask(world, "modern")
        assert "nonsense" in answer.error["message"]
        assert world.ledger.ended == [("unknown", "upstream_failed")]


@requirement("POL-9")
async def test_a_large_result_of_a_narrowed_call_says_so_too() -> None:
    async with Holding(policy=NARROW) as world:
        world.upstream.script = results(content=[{"type": "text", "text": "x" * 2_000_000}])
        answer = await ask(world, "modern")
        assert "limit: 400 → 5" in answer.json["result"]["content"][-1]["text"]


# ---- budgets


@requirement("APP-8")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("ok", "settled"), ("tool error", "settled"), ("rpc error", "settled"), ("cut", "kept"),
        ("client gone", "kept"), ("nonsense", "kept"),
    ],
)  # fmt: skip
async def test_what_left_stays_spent(how: str, said: str) -> None:
    async def script(seen: Seen) -> None:
        if how == "rpc error":
            seen.error(-32000)
        elif how == "cut":
            seen.cut()
        elif how == "nonsense":
            seen.reply(b"[]")
        elif how != "client gone":
            seen.result({"content": [], "isError": how == "tool error", "resultType": "complete"})

    async with Holding(policy=CHARGED, controls=BUDGET) as world:
        world.upstream.script = script
        if how == "client gone":
            async with world.connect() as client:
                client.write(await find(world, "modern"))
                await until(lambda: bool(world.upstream.calls))
        else:
            await ask(world, "modern")
        await until(lambda: world.purse.said == [(said, "r1")])


@requirement("APP-8", "GW-1")
@pytest.mark.parametrize("how", ["ledger", "closed", "client gone", "suspended"])
async def test_what_did_not_leave_is_given_back_once(how: str) -> None:
    async with Holding(policy=CHARGED, controls=BUDGET) as world:
        world.ledger.hold = True
        if how == "ledger":
            world.ledger.failure = "disk full"
        async with world.connect() as client:
            client.write(await find(world, "modern"))
            await until(lambda: bool(world.ledger.held))
            if how == "closed":
                (call,) = world.front.calls
                world.upstreams.follow({})
                await until(lambda: call.route.upstream.closed)
            elif how == "suspended":
                world.changed(lifecycle=Lifecycle.SUSPENDED)
            elif how == "client gone":
                await client.close()
                await until(lambda: not world.edge.connections)
            world.ledger.release()
            if how != "client gone":
                answer = await client.answer()
                assert "error" in answer.json or answer.json["result"]["isError"]
        await until(lambda: world.purse.said == [("released", "r1")])
        assert world.upstream.calls == []


@requirement("APP-8")
async def test_no_room_and_no_database_deny_and_an_approved_call_pays_too() -> None:
    policy = HELD + CHARGED
    async with Holding(policy=policy, controls=BUDGET, wait=0) as world:
        world.purse.failure = BROKEN
        assert reason(await ask(world, "modern")) == "budgets_unavailable"
        world.purse.failure = None
        for _ in range(2):
            assert not reason(await ask(world, "modern"))
        assert reason(await world.ask(world.pay())) == "approval_required"
        assert world.purse.made == 2, "a held call takes nothing"
        world.people.say("approved")
        assert not reason(await world.ask(world.pay()))
        spent = await ask(world, "modern")
        assert reason(spent) == "budget_exhausted" and "all used" in str(spent.json)
        assert len(world.upstream.calls) == 3
        assert verdicts(world) == ["deny", "permit", "permit", "hold", "permit", "deny"]


# ---- the filter


def clean(answer: Answer) -> str:
    text = answer.body.decode()
    assert MAIL not in text and MAIL not in json.dumps(
        answer.json if answer.body[:1] == b"{" else ""
    )
    return text


@requirement("POL-9")
@ERAS
@CLIENTS
async def test_results_errors_and_notifications_are_looked_at(server: str, client: str) -> None:
    async with Holding(policy=REDACTED, legacy=server == "legacy") as world:
        world.upstream.script = results(**SECRET)
        assert "[redacted:email]" in clean(await ask(world, client))

        async def fails(seen: Seen) -> None:
            seen.error(-32000, f"no mail to {MAIL}", {"to": MAIL})

        world.upstream.script = fails
        assert "[redacted:email]" in clean(await ask(world, client))

        async def tells(seen: Seen) -> None:
            note = {
                "jsonrpc": "2.0", "method": "notifications/message",
                "params": {"level": "info", "data": MAIL},
            }  # fmt: skip
            done = {"resultType": "complete", **SECRET}
            last = {"jsonrpc": "2.0", "id": seen.message["id"], "result": done}
            seen.stream(json.dumps(note), json.dumps(last))

        world.upstream.script = tells
        answer = await ask(world, client)
        assert clean(answer).count("[redacted:email]") == 2


@requirement("POL-9")
@CLIENTS
async def test_a_large_result_is_looked_at_as_a_whole_or_withheld(client: str) -> None:
    async with Holding(policy=REDACTED) as world:
        for size in (2_000_000, 5_000_000, 17_000_000):
            text = "x " * (size // 2) + MAIL
            world.upstream.script = results(content=[{"type": "text", "text": text}])
            clean(await ask(world, client))


@requirement("POL-9", "GW-7")
async def test_no_task_slips_past_the_filter() -> None:
    extra = frozenset({"tasks/get", "tasks/result"})
    async with Holding(policy=REDACTED, legacy=True, extra_methods=extra) as world:
        world.upstream.script = results(task={"taskId": "t-1", "status": "working"})
        asked = await ask(world, "legacy", task={"ttl": 9})
        assert reason(asked) == "obligation_unknown" and world.upstream.calls == []
        unasked = await ask(world, "legacy")
        assert "nonsense" in unasked.error["message"] and "taskId" not in unasked.body.decode()
    async with Holding(policy=REDACTED, extra_methods=extra) as world:
        world.upstream.script = results(resultType="task", taskId="t-1", status="working")
        answer = await ask(world, "modern")
        assert "nonsense" in answer.error["message"]


@requirement("POL-9", "GW-7")
@CLIENTS
async def test_the_questions_of_a_modern_server_are_looked_at(client: str) -> None:
    """And nothing else comes with them."""
    question = {"method": "elicitation/create", "params": {"message": f"mail {MAIL}?"}, "x": MAIL}

    async def asks(seen: Seen) -> None:
        seen.result(
            {
                "resultType": "input_required",
                "inputRequests": {"q": question},
                "note": MAIL,
                **SECRET,
            }
        )

    async with Holding(policy=REDACTED + ASKING) as world:
        world.upstream.script = asks
        async with world.connect() as one:
            one.write(await find(world, client))
            if client == "modern":
                answer = await one.answer()
                assert "[redacted:email]" in clean(answer)
                assert set(answer.json["result"]) == {"resultType", "inputRequests", "requestState"}
            else:
                await one.head()
                piece = await one.chunk()
                assert b"[redacted:email]" in piece and MAIL.encode() not in piece
        asked = [r.arguments for r, _ in world.ledger.decisions if r.method.startswith("elicit")]
        assert asked and MAIL not in str(asked)


@requirement("POL-9", "GW-7")
async def test_the_name_of_a_question_tells_nothing() -> None:
    async def asks(seen: Seen) -> None:
        question = {"method": "elicitation/create", "params": {"message": "?"}}
        seen.result({"resultType": "input_required", "inputRequests": {MAIL: question}})

    async with Holding(policy=REDACTED + ASKING) as world:
        world.upstream.script = asks
        assert "nonsense" in clean(await ask(world, "modern"))


@requirement("POL-9", "GW-7")
@CLIENTS
async def test_the_questions_and_the_later_result_of_a_legacy_server_are_looked_at(
    client: str,
) -> None:
    told: list[Any] = []
    streams: list[Seen] = []

    async def asks(seen: Seen) -> None:
        if seen.method == "tools/call":
            streams.append(seen)
            question = {"method": "elicitation/create", "params": {"message": f"mail {MAIL}?"}}
            seen.stream(json.dumps({"jsonrpc": "2.0", "id": "s1", **question}))
        else:
            told.append(seen.message)
            seen.accept()

    def ends() -> None:
        last = {"jsonrpc": "2.0", "id": streams[0].message["id"], "result": SECRET}
        streams[0].writer.write(sse(json.dumps(last)))

    given = {"action": "accept", "content": {"name": "Ada"}}
    async with Holding(policy=REDACTED + ASKING, legacy=True) as world, asyncio.timeout(20):
        world.upstream.script = asks
        if client == "modern":
            first = await ask(world, "modern")
            result = first.json["result"]
            assert "[redacted:email]" in clean(first)
            more = {"inputResponses": {"q1": given}, "requestState": result["requestState"]}
            second = asyncio.ensure_future(ask(world, "modern", **more))
            await until(lambda: bool(told))
            ends()
            assert "[redacted:email]" in clean(await second)
            return
        async with world.connect() as one:
            one.write(await find(world, "legacy"))
            await one.head()
            piece = await one.chunk()
            assert b"[redacted:email]" in piece and MAIL.encode() not in piece
            ends()
            piece = await one.chunk()
            assert b"[redacted:email]" in piece and MAIL.encode() not in piece


@requirement("POL-9", "GW-7")
async def test_a_question_that_cannot_be_looked_at_is_not_put() -> None:
    told: list[Any] = []

    async def asks(seen: Seen) -> None:
        if seen.method == "tools/call":
            question = {"method": "elicitation/create", "params": {"message": "x" * 5_000_000}}
            seen.stream(json.dumps({"jsonrpc": "2.0", "id": "s1", **question}))
        else:
            told.append(seen.message)
            seen.accept()

    async with Holding(policy=REDACTED + ASKING, legacy=True) as world, world.connect() as one:
        world.upstream.script = asks
        one.write(await find(world, "legacy"))
        await until(lambda: bool(told))
        assert "as policy asks" in told[0]["error"]["message"]
        assert [r.method for r, _ in world.ledger.decisions] == ["tools/call"]


@requirement("POL-9")
async def test_pieces_of_what_is_looked_at_as_a_whole_do_not_pass() -> None:
    async def hang(seen: Seen) -> None:
        """No answer."""

    async with Holding(policy=REDACTED) as world, world.connect() as one:
        world.upstream.script = hang
        one.write(await find(world, "modern"))
        await until(lambda: bool(world.upstream.calls))
        (call,) = world.front.calls
        call.link_piece(MAIL.encode())
        assert "as a whole" in clean(await one.answer())
        assert world.ledger.ended == [("unknown", "upstream_failed")]


# ---- questions that policy would hold


@requirement("APP-1", "GW-7")
async def test_a_question_that_is_held_is_refused_and_comes_again() -> None:
    held = ASKING.replace(
        "resource);",
        'resource) when { context.session.controls.contains(Control::"approved_by_owner") };',
    )

    async def asks(seen: Seen) -> None:
        seen.result({"resultType": "input_required", "inputRequests": {"q": ELICIT}})

    async with Holding(policy=CHARGED + held, wait=0) as world:
        world.upstream.script = asks
        first = await ask(world, "modern")
        assert reason(first) == "approval_required" and "h1" in str(first.json)
        assert world.ledger.ended == [("unknown", "input_denied")]
        world.people.say("approved")
        second = await ask(world, "modern")
        assert second.json["result"]["inputRequests"] == {"q": ELICIT}
        assert PROFILES and verdicts(world) == ["permit", "hold", "permit", "permit"]


# ---- the endpoint of all servers


@requirement("APP-4", "POL-4")
async def test_the_aggregate_holds_narrows_and_redacts_as_well() -> None:
    async with Holding(policy=NARROW_HELD, wait=0) as world:

        def all_of(name: str, arguments: Any) -> bytes:
            params = {"name": name, "arguments": arguments, "_meta": META}
            return world.modern("tools/call", params).replace(b"POST /mcp/up ", b"POST /mcp ")

        listed = world.modern("tools/list", {}).replace(b"POST /mcp/up ", b"POST /mcp ")
        names = [each["name"] for each in (await world.ask(listed)).json["result"]["tools"]]
        (name,) = [each for each in names if each.endswith("find")]
        assert reason(await world.ask(all_of(name, ASKED))) == "approval_required"
        world.people.say("approved")
        answer = await world.ask(all_of(name, ASKED))
        assert left(world) == [SENT] and "limit: 400 → 5" in str(answer.json)
        assert world.upstream.calls[0].message["params"]["name"] == "find"

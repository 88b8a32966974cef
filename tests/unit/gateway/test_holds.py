"""How the client of a call that waits for people is served, and what ends the wait (APP-4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from holding import ASKING, BROKEN, CHARGED, HELD, URLS, Holding, reason, verdicts
from requirements import requirement
from worlds import ADA, UP, Answer, Client, Seen, until

from exeat.core.kills import Kills, Target
from exeat.gateway import holds
from exeat.gateway.killing import end_killed
from exeat.gateway.methods import META_CLIENT

pytestmark = pytest.mark.anyio
PAGE = "https://gate.example.com/holds"
TOKEN = {"progressToken": "p"}


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "LOOK_EVERY_S", 0.005)


@asynccontextmanager
async def kept(world: Holding, raw: bytes) -> AsyncIterator[Client]:
    """The client of a call that is kept open."""
    async with asyncio.timeout(20), world.connect() as client:
        client.write(raw)
        await until(lambda: bool(world.front.holds._waiting))
        yield client


def nobody_waits(world: Holding) -> bool:
    return not world.front.holds._waiting and not world.front.calls


# ---- not kept open


@requirement("APP-4", "APP-1")
async def test_without_a_wait_the_model_is_told_and_its_retry_finds_the_answer() -> None:
    async with Holding(wait=0) as world:
        held = await world.ask(world.pay())
        assert reason(held) == "approval_required"
        text = held.json["result"]["content"][0]["text"]
        assert text.startswith("Held by exeat: ") and "h1" in text and "Then retry" in text
        assert held.json["result"]["isError"] and world.upstream.calls == []
        world.people.say("approved")
        assert not reason(await world.ask(world.pay()))
        assert reason(await world.ask(world.pay())) == "approval_required"
        assert len(world.upstream.calls) == 1
        assert verdicts(world) == ["hold", "permit", "hold"]
        assert [context.approval for context in world.ledger.contexts] == ["", "h1", ""]
        assert world.ledger.ended == [("ok", "")]


@requirement("APP-3", "APP-4")
async def test_what_its_user_alone_confirms_is_never_called_an_approval() -> None:
    alone = HELD.replace("approved_by_owner", "confirmed_by_user")
    async with Holding(wait=0, policy=alone, people_there=(ADA,)) as world:
        held = await world.ask(world.pay())
        text = held.json["result"]["content"][0]["text"]
        assert text.startswith("Held by exeat: its user has to confirm this call first")
        assert "Its user has to confirm it (confirmation h1)" in text
        assert "approv" not in text.replace("approval_required", "")


@requirement("APP-2", "APP-11")
async def test_nothing_that_was_not_shown_goes_with_what_was_approved() -> None:
    said = {"baggage": "tenant=other", META_CLIENT: {"name": "admin", "version": "1"}}
    trace = {"traceparent": "00-11111111111111111111111111111111-1111111111111111-01"}
    policy = HELD + CHARGED
    async with Holding(wait=0, policy=policy) as world:
        find = {"name": "find", "arguments": {"query": "x"}, "_meta": {**said, **trace}}
        await world.ask(world.modern("tools/call", find))
        await world.ask(world.pay(meta={**said, **trace}))
        world.people.say("approved")
        await world.ask(world.pay(meta={**said, **trace}))
        plain, approved = (each.message["params"]["_meta"] for each in world.upstream.calls)
        assert plain["baggage"] == "tenant=other" and plain[META_CLIENT]["name"] == "admin"
        assert "baggage" not in approved and approved[META_CLIENT]["name"] == "exeat"
        assert approved["traceparent"] == plain["traceparent"] == trace["traceparent"]


@requirement("APP-4")
@pytest.mark.parametrize(
    ("word", "said"),
    [("denied", "approval_denied"), ("nobody", "approval_denied"), ("capped", "holds_capped")],
)
async def test_a_no_is_a_denial(word: str, said: str) -> None:
    async with Holding(wait=0) as world:
        await world.ask(world.pay())
        world.people.say(word)
        assert reason(await world.ask(world.pay())) == said
        assert world.upstream.calls == []


# ---- kept open


@requirement("APP-4")
@pytest.mark.parametrize("old", [False, True])
async def test_a_call_is_kept_open_and_made_when_people_have_approved(old: bool) -> None:
    async with Holding(legacy=old) as world:
        raw = world.old_pay(await world.session()) if old else world.pay()
        async with kept(world, raw) as client:
            world.people.say("approved")
            answer = await client.answer()
        assert not reason(answer) and len(world.upstream.calls) == 1
        assert verdicts(world) == ["hold", "permit"] and nobody_waits(world)


@requirement("APP-4")
async def test_a_no_ends_the_wait() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        world.people.say("denied")
        assert reason(await client.answer()) == "approval_denied"
        assert nobody_waits(world) and world.upstream.calls == []


@requirement("APP-4")
async def test_the_wait_has_an_end_also_when_people_are_asked_again() -> None:
    async with Holding(wait=30) as world, kept(world, world.pay()) as client:
        ((call, waiting),) = world.front.holds._waiting.items()
        first = waiting.until
        world.people.say("used")  # by somebody else: the same call is asked for anew
        await until(lambda: len(world.people.asked) == 2)
        await until(lambda: call in world.front.holds._waiting)
        assert world.front.holds._waiting[call].until == first
        world.front.holds._waiting[call].until = 0
        answer = await client.answer()
        assert reason(answer) == "approval_required" and "h2" in str(answer.json)
        assert nobody_waits(world)


@requirement("APP-4")
@pytest.mark.parametrize("token", ["p", 7])
async def test_who_asked_for_progress_gets_it_and_it_always_grows(
    token: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holds, "PROGRESS_EVERY_S", 0.01)
    async with (
        Holding() as world,
        kept(world, world.pay(meta={"progressToken": token})) as client,
    ):
        status, fields = await client.head()
        assert status == 200 and fields["content-type"] == "text/event-stream"
        told = [Answer(200, {}, await client.chunk()).events[0] for _ in range(3)]
        assert {each["method"] for each in told} == {"notifications/progress"}
        assert {each["params"]["progressToken"] for each in told} == {token}
        steps = [each["params"]["progress"] for each in told]
        assert steps == sorted(set(steps)) and steps[-1] < 1
        assert "the agent's owner (h1)" in told[0]["params"]["message"]
        assert "ada" not in str(told), "people are not named"
        world.people.say("approved")
        while piece := await client.chunk():
            last = Answer(200, {}, piece).events[0]
        assert last["result"]["resultType"] == "complete"


@requirement("APP-4")
async def test_who_did_not_is_kept_alive_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "PROGRESS_EVERY_S", 0.01)
    async with Holding() as world, kept(world, world.pay()) as client:
        await client.head()
        assert (await client.chunk()).startswith(b":")
        world.people.say("denied")
        while piece := await client.chunk():
            last = piece
        assert b"approval_denied" in last


@requirement("APP-4")
async def test_states_that_cannot_be_read_end_no_wait_and_give_nothing() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        world.people.blind = True
        world.people.say("approved")
        seen = world.people.looks
        await until(lambda: world.people.looks > seen + 2)
        assert world.upstream.calls == [] and not nobody_waits(world)
        world.people.blind = False
        assert not reason(await client.answer())


@requirement("APP-4")
async def test_approvals_that_fail_deny() -> None:
    async with Holding(wait=0) as world:
        world.people.failure = BROKEN
        assert reason(await world.ask(world.pay())) == "approvals_unavailable"
        world.people.failure = None
        assert reason(await world.ask(world.pay())) == "approval_required"
        world.people.say("approved")
        world.people.failure = BROKEN
        assert reason(await world.ask(world.pay())) == "approvals_unavailable"
        world.people.failure = None
        assert not reason(await world.ask(world.pay()))
        assert len(world.upstream.calls) == 1 and len(world.people.used) == 1


@requirement("APP-4")
async def test_a_gateway_without_approvals_denies() -> None:
    async with Holding(wait=0) as world:
        world.pipeline.gate = type(world.pipeline.gate)(None, None)
        assert reason(await world.ask(world.pay())) == "approvals_unavailable"


# ---- what ends it


@requirement("APP-4", "GW-9")
@pytest.mark.parametrize("old", [False, True])
async def test_nothing_is_sent_for_a_client_that_is_gone(old: bool) -> None:
    async with Holding(legacy=old) as world:
        raw = world.old_pay(await world.session()) if old else world.pay()
        async with kept(world, raw):
            pass
        await until(lambda: nobody_waits(world))
        world.people.say("approved")
        looks = world.people.looks
        await asyncio.sleep(0)
        assert world.upstream.calls == [] and world.people.used == []
        assert world.people.looks == looks


@requirement("APP-4", "GW-9")
async def test_a_client_that_leaves_while_its_approval_is_fetched_is_not_served() -> None:
    async with Holding() as world:
        async with kept(world, world.pay()):
            world.people.kept_back = []
            world.people.say("approved")
            await until(lambda: bool(world.people.kept_back))
        await until(lambda: not world.edge.connections)
        world.people.let()
        await until(lambda: world.ledger.ended == [("failed", "client_closed")])
        assert world.upstream.calls == [] and world.people.used == ["h1"]


@requirement("APP-4", "GW-9")
async def test_a_legacy_client_may_cancel_while_it_waits() -> None:
    async with Holding(legacy=True) as world:
        session = await world.session()
        async with kept(world, world.old_pay(session, id=9)) as client:
            cancelled = world.old("notifications/cancelled", {"requestId": 9}, session, id=None)
            assert (await world.ask(cancelled)).status == 202
            assert (await client.answer()).error["code"] == -31499
        world.people.say("approved")
        assert nobody_waits(world) and world.upstream.calls == []
        assert not reason(await world.ask(world.old_pay(session, id=9))), "the id is free again"


@requirement("APP-4")
async def test_a_gateway_that_stops_says_what_to_do() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        await world.front.close()
        answer = await client.answer()
        assert reason(answer) == "approval_required" and "h1" in str(answer.json)
        world.people.say("approved")
        assert world.upstream.calls == []


@requirement("APP-4", "ID-4")
async def test_a_credential_that_ends_while_it_waits_opens_nothing() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        view = world.view()
        view.snapshot = replace(
            view.snapshot,
            credentials={
                digest: each
                for digest, each in view.snapshot.credentials.items()
                if each.agent != "bot"
            },
        )
        world.state.view = view
        world.people.say("approved")
        assert reason(await client.answer()) == "agent_not_active"
        assert world.upstream.calls == []


@requirement("APP-4", "APP-9")
async def test_a_kill_ends_the_wait_at_once() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        world.kills = Kills({(Target.SERVER, UP): "k1"})
        world.changed()
        assert dict(end_killed(world.front)) == {"k1": 1}
        assert (await client.answer()).error["code"] == -31499
        world.people.say("approved")
        assert nobody_waits(world) and world.upstream.calls == []


@requirement("APP-4", "APP-9")
async def test_a_kill_that_came_before_the_approval_denies() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        world.kills = Kills({(Target.SERVER, UP): "k1"})
        world.changed()
        world.people.say("approved")
        assert reason(await client.answer()) == "killed"
        assert world.upstream.calls == [] and world.people.used == []


@requirement("APP-2", "APP-4")
async def test_an_approval_under_another_policy_is_none() -> None:
    other = HELD.replace('@id("held")', '@id("other")')
    async with Holding() as world, kept(world, world.pay()) as client:
        world.changed(other)
        world.people.say("approved")
        await until(lambda: len(world.people.asked) == 2)
        assert world.upstream.calls == [] and world.people.used == []
        world.people.say("approved")
        assert not reason(await client.answer())
        assert world.people.used == ["h2"]


@requirement("APP-2")
@pytest.mark.parametrize("what", ["policy", "owner"])
async def test_what_changes_while_an_approval_is_fetched_denies(what: str) -> None:
    other = HELD.replace('@id("held")', '@id("other")')
    async with Holding(wait=0) as world:
        await world.ask(world.pay())
        world.people.say("approved")
        world.people.kept_back = []
        asking = asyncio.ensure_future(world.ask(world.pay()))
        await until(lambda: bool(world.people.kept_back))
        if what == "policy":
            world.changed(other)
        else:
            world.changed(deputy_live=False)
        world.people.let()
        assert reason(await asking) == "approval_denied"
        assert world.upstream.calls == [] and world.people.used == ["h1"]


@requirement("APP-2", "APP-10")
async def test_what_changes_while_an_approved_call_is_recorded_denies() -> None:
    other = HELD.replace('@id("held")', '@id("other")')
    async with Holding(wait=0) as world:
        await world.ask(world.pay())
        world.people.say("approved")
        world.ledger.hold = True
        asking = asyncio.ensure_future(world.ask(world.pay()))
        await until(lambda: bool(world.ledger.held))
        world.changed(other)
        world.ledger.release()
        assert reason(await asking) == "policy_error"
        assert world.upstream.calls == []
        assert world.ledger.ended == [("failed", "state_changed")]


@requirement("APP-4")
async def test_a_server_that_was_closed_meanwhile_uses_up_no_approval() -> None:
    async with Holding() as world, kept(world, world.pay()) as client:
        world.upstreams.follow({})
        await until(lambda: next(iter(world.front.calls)).route.upstream.closed)
        world.people.say("approved")
        answer = await client.answer()
        assert "not carried out" in answer.error["message"]
        assert world.people.used == [] and world.upstream.calls == [] and nobody_waits(world)


@requirement("APP-4")
async def test_a_connection_that_was_lost_meanwhile_is_made_again() -> None:
    async with Holding(legacy=True) as world:
        session = await world.session()
        async with kept(world, world.old_pay(session)) as client:
            (call,) = world.front.calls
            assert call._link is not None
            call._link.close()  # type: ignore[attr-defined]
            assert not call._link.usable
            world.people.say("approved")
            assert not reason(await client.answer())
        assert len(world.upstream.calls) == 1


# ---- asked to look at a page


@requirement("APP-4")
async def test_a_modern_client_that_opens_pages_is_shown_one_and_its_retry_waits() -> None:
    async with Holding(url=PAGE) as world:
        result = (await world.ask(world.pay(meta=URLS))).json["result"]
        assert result["resultType"] == "input_required"
        ((key, question),) = result["inputRequests"].items()
        assert key == "exeat/approval" and question["method"] == "elicitation/create"
        assert question["params"]["mode"] == "url"
        assert question["params"]["url"] == f"{PAGE}/h1"
        retry = world.pay(
            meta=URLS,
            inputResponses={key: {"action": "accept"}},
            requestState=result["requestState"],
        )
        async with kept(world, retry) as client:
            world.people.say("approved")
            answer = await client.answer()
        assert answer.json["result"]["resultType"] == "complete"
        (sent,) = world.upstream.calls
        assert not {"inputResponses", "requestState"} & set(sent.message["params"])
        assert world.ledger.counts.get("answer_unasked") is None


@requirement("APP-4")
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_person_who_looked_away_is_no_approval(action: str) -> None:
    async with Holding(url=PAGE, wait=0) as world:
        result = (await world.ask(world.pay(meta=URLS))).json["result"]
        retry = world.pay(
            meta=URLS,
            inputResponses={"exeat/approval": {"action": action}},
            requestState=result["requestState"],
        )
        answer = await world.ask(retry)
        if action == "decline":
            assert answer.error["code"] == -32602 and "did not want to wait" in str(answer.json)
        else:
            assert reason(answer) == "approval_required"
        assert world.upstream.calls == []


@requirement("APP-4")
async def test_no_answer_of_the_requester_approves() -> None:
    """A state made up, of another call, or none: what counts lies in the database alone."""
    async with Holding(url=PAGE, wait=0) as world:
        yes = {"exeat/approval": {"action": "accept", "content": {"approved": True}}}
        assert reason(await world.ask(world.pay(inputResponses=yes))) == "approval_required"
        result = (await world.ask(world.pay(meta=URLS))).json["result"]
        state = result["requestState"]
        other = await world.ask(world.pay(6, inputResponses=yes, requestState=state))
        assert other.error["code"] == -32602
        same = await world.ask(world.pay(inputResponses=yes, requestState=state))
        assert reason(same) == "approval_required"
        assert world.upstream.calls == []


@requirement("APP-4")
@pytest.mark.parametrize("offers", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
async def test_who_opens_no_pages_is_not_asked_to(offers: Any) -> None:
    meta = {"io.modelcontextprotocol/clientCapabilities": offers}
    async with Holding(url=PAGE, wait=0) as world:
        assert reason(await world.ask(world.pay(meta=meta))) == "approval_required"
    async with Holding(wait=0) as world:  # nor if there is no page
        assert reason(await world.ask(world.pay(meta=URLS))) == "approval_required"


@requirement("APP-4")
async def test_a_legacy_client_that_opens_pages_gets_its_own_error() -> None:
    async with Holding(legacy=True, url=PAGE, wait=0) as world:
        session = await world.session(capabilities={"elicitation": {"url": {}}})
        error = (await world.ask(world.old_pay(session))).error
        assert error["code"] == -32042
        (elicitation,) = error["data"]["elicitations"]
        assert elicitation["mode"] == "url" and elicitation["url"] == f"{PAGE}/h1"
        assert (
            elicitation["elicitationId"] == "h1" and "the agent's owner" in elicitation["message"]
        )
        assert error["data"]["reason"] == "approval_required" and error["data"]["decision"] == "d0"
        world.people.say("approved")
        assert not reason(await world.ask(world.old_pay(session, id=2)))


@requirement("APP-4")
async def test_a_legacy_client_that_opens_pages_is_kept_waiting_first() -> None:
    async with Holding(legacy=True, url=PAGE) as world:
        session = await world.session(capabilities={"elicitation": {"url": {}}})
        async with kept(world, world.old_pay(session, meta=TOKEN)) as client:
            next(iter(world.front.holds._waiting.values())).until = 0
            assert (await client.answer()).error["code"] == -32042


@requirement("APP-4", "GW-7")
async def test_answers_to_a_servers_questions_are_not_lost_in_a_wait() -> None:
    """A call that carries them is kept open, and not asked to look at a page first."""

    async def asks(seen: Seen) -> None:
        if "inputResponses" in seen.message["params"]:
            seen.result({"content": [], "resultType": "complete"})
            return
        question = {"method": "elicitation/create", "params": {"message": "who?"}}
        seen.result({"resultType": "input_required", "inputRequests": {"q": question}})

    asked = '@id("asks") permit(principal, action == Action::"elicitation/create", resource);'
    async with Holding(url=PAGE, policy=HELD + asked) as world:
        world.upstream.script = asks
        meta = {
            "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}, "form": {}}}
        }
        first = (await world.ask(world.pay(meta=meta))).json["result"]
        world.people.say("approved")
        seen = {"exeat/approval": {"action": "accept"}}
        retry = world.pay(meta=meta, inputResponses=seen, requestState=first["requestState"])
        second = (await world.ask(retry)).json["result"]
        assert list(second["inputRequests"]) == ["q"]
        given = {"q": {"action": "accept", "content": {"name": "Ada"}}}
        third = world.pay(meta=meta, inputResponses=given, requestState=second["requestState"])
        async with kept(world, third) as client:
            world.people.say("approved")
            assert (await client.answer()).json["result"]["resultType"] == "complete"
        assert world.upstream.calls[-1].message["params"]["inputResponses"] == given
        answers = [r.arguments for r, _ in world.ledger.decisions if "exeat/answer" in r.arguments]
        assert len(answers) == 2, "decided again after the wait"
        assert ("ok", "answered") in world.ledger.ended


@requirement("APP-4", "GW-4", "GW-7")
async def test_a_legacy_clients_answers_are_decided_again_after_the_wait() -> None:
    """They went nowhere when the call was held, and what was permitted then may not be so any more."""

    async def asks(seen: Seen) -> None:
        if "inputResponses" in seen.message["params"]:
            seen.result({"content": [], "resultType": "complete"})
            return
        question = {"method": "elicitation/create", "params": {"message": "who?"}}
        seen.result({"resultType": "input_required", "inputRequests": {"q": question}})

    async with Holding(policy=HELD + ASKING) as world:
        world.upstream.script = asks
        session = await world.session(capabilities={"elicitation": {"form": {}}})
        async with kept(world, world.old_pay(session)) as client:
            world.people.say("approved")
            await client.head()
            (question,) = Answer(200, {}, await client.chunk()).events
            said = {"action": "accept", "content": {"name": "Ada"}}
            head = {"mcp-session-id": session, "mcp-protocol-version": "2025-11-25"}
            message = {"jsonrpc": "2.0", "id": question["id"], "result": said}
            assert (await world.ask(world.raw(message, head))).status == 202
            await until(lambda: len(world.people.asked) == 2)
            await until(lambda: bool(world.front.holds._waiting))
            assert ("failed", "not_sent") in world.ledger.ended
            world.people.say("approved")
            (last,) = Answer(200, {}, await client.chunk()).events
        assert "content" in last["result"]
        sent = world.upstream.calls[-1].message["params"]["inputResponses"]
        assert sent == {"q": said}
        answers = [d for r, d in world.ledger.decisions if "exeat/answer" in r.arguments]
        assert [each.permitted for each in answers] == [True, True]
        assert world.ledger.ended[-2:] == [("ok", "answered"), ("ok", "")]

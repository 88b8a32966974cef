"""Observe mode lets through what policy alone refuses, marked for ever, within bounds (POL-7, POL-10)."""

from dataclasses import replace
from typing import Any

import pytest
from ledger_world import CONTEXT, PERMIT, REQUEST
from policies.policy_world import AGENT, NOW, World, version
from requirements import requirement

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.facts import Effect, Lifecycle, PersonFacts, PinState
from exeat.core.ids import ActionId, PersonId
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.entries import EntryWriter
from exeat.evidence.model import Instance
from exeat.policy.bundle import compile_bundle
from exeat.policy.observe import observed

DAY_NS = 86_400 * 10**9
WATCHED = replace(AGENT, observe_until=NOW + DAY_NS)
NOTHING = '@id("none") permit(principal == Agent::"other", action, resource);'
FORBIDS = '@id("no") forbid(principal, action, resource);'
USERS = '@id("all") permit(principal, action, resource); @id("u") permit(principal == Person::"ada", action, resource);'


@requirement("POL-7")
@pytest.mark.parametrize(
    ("policy", "would"),
    [(NOTHING, "observe:deny:not_permitted"), (FORBIDS, "observe:deny:forbidden")],
)
def test_what_cedar_refuses_is_permitted_and_says_so(world: Any, policy: str, would: str) -> None:
    decision = world(policy=policy, agent=WATCHED).decide("fs/read", {"path": "/w"})
    assert (decision.verdict, decision.reason) == (Verdict.PERMIT, Reason.OBSERVED)
    assert decision.would == (would,)
    assert world(policy=policy).decide("fs/read", {"path": "/w"}).verdict is Verdict.DENY


@requirement("POL-7")
def test_a_user_whom_no_rule_permits_is_observed_too(world: Any) -> None:
    w = world(policy=USERS, agent=WATCHED, user=PersonFacts(PersonId("bob"), True))
    assert w.decide("bank/balance").would == ("observe:deny:user_not_permitted",)


@requirement("POL-7")
def test_a_hold_is_observed() -> None:
    w = World(agent=WATCHED)
    held = Decision(Verdict.HOLD, Reason.APPROVAL_REQUIRED, hold=(("approved_by_owner",),))
    found = observed(w.call("fs/write"), held)
    assert (found.permitted, found.hold) == (True, ())
    assert found.would == ("observe:hold:approval_required",)


@requirement("POL-10")
@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.OBSERVED}))
def test_no_other_denial_gives_way(reason: Reason) -> None:
    w = World(agent=WATCHED)
    denied = Decision(Verdict.DENY, reason)
    lets = {Reason.NOT_PERMITTED, Reason.FORBIDDEN, Reason.USER_NOT_PERMITTED}
    assert observed(w.call("fs/read"), denied).permitted is (reason in lets)


@requirement("POL-10")
@pytest.mark.parametrize("action", ["bank/transfer", "fs/read"])
@pytest.mark.parametrize("effect", ["delete", "send", "pay", "execute", "write", "read"])
def test_what_deletes_sends_pays_or_executes_never_gives_way(action: str, effect: str) -> None:
    w = World(policy=NOTHING, agent=WATCHED)
    tool = replace(w.tools[ActionId(action)], effect=Effect(effect))
    w.tools[ActionId(action)] = tool
    arguments = {"amount": 1, "to": "x"} if action == "bank/transfer" else {"path": "/w"}
    assert w.decide(action, arguments).permitted is (effect in {"write", "read"})
    assert (
        not World(
            policy=NOTHING,
            agent=WATCHED,
            tools={**w.tools, ActionId(action): replace(tool, profile_confirmed=False)},
        )
        .decide(action, arguments)
        .permitted
    ), "an unconfirmed profile may do anything"


@requirement("POL-10")
def test_identity_pins_and_arguments_refuse_as_ever(world: Any) -> None:
    read = ("fs/read", {"path": "/w"})
    for gone in (
        replace(WATCHED, lifecycle=Lifecycle.SUSPENDED),
        replace(WATCHED, owner_live=False, deputy_live=False),
        replace(WATCHED, ends_at=NOW),
    ):
        assert not world(policy=NOTHING, agent=gone).decide(*read).permitted
    w = world(policy=NOTHING, agent=WATCHED)
    w.tools[ActionId("fs/read")] = replace(w.tools[ActionId("fs/read")], state=PinState.CHANGED)
    assert w.decide(*read).reason is Reason.DEFINITION_CHANGED
    w = world(policy=NOTHING, agent=WATCHED)
    assert w.decide("fs/read", {"path": 1}).reason is Reason.ARGUMENTS_INVALID
    assert world(policy=None, agent=WATCHED).decide(*read).reason is Reason.NO_POLICY


@requirement("POL-10")
@pytest.mark.parametrize(
    ("until", "permitted"),
    [
        (NOW, False),
        (NOW + 1, True),
        (NOW + 7 * DAY_NS, True),
        (NOW + 7 * DAY_NS + 1, False),
        (0, False),
    ],
)
def test_it_ends_by_itself_and_never_lasts_longer_than_seven_days(
    world: Any, until: int, permitted: bool
) -> None:
    w = world(policy=NOTHING, agent=replace(AGENT, observe_until=until))
    call = w.call("fs/read", {"path": "/w"})
    assert w.pdp.decide(call).permitted is permitted
    assert not w.pdp.decide(replace(call, clock_trusted=False)).permitted
    visible = w.pdp.could_permit(
        call.caller, call.server, "tools/call", call.action, call.tool, call.target, NOW
    )
    assert visible is permitted, "what an observed agent may call stands in its lists"


@requirement("POL-7", "POL-5")
def test_an_observed_agent_has_its_shadows_told_against_the_real_verdict(world: Any) -> None:
    shadow = NOTHING + '@id("s") @shadow("x") permit(principal, action, resource);'
    decision = world(policy=shadow, agent=WATCHED).decide("bank/balance")
    assert decision.would == ("observe:deny:not_permitted", "shadow:permit:s")


@requirement("POL-7")
def test_evidence_marks_it_for_ever() -> None:
    instance = Instance("gw", "exeat/gw", "00000000", "0.1", "d" * 64, 5000, {})
    writer = EntryWriter(instance, lambda count: bytes(count))
    for reason, mode in ((Reason.OBSERVED, "observe"), (Reason.PERMITTED, "enforce")):
        leaf, _ = writer.decision((1, 2), REQUEST, replace(PERMIT, reason=reason), CONTEXT)
        assert decode_leaf(leaf).mode == mode  # type: ignore[union-attr]


@requirement("POL-10")
def test_budgets_bind_an_observed_agent(world: Any) -> None:
    w = world(policy=NOTHING, agent=WATCHED)
    budget = (
        "budgets:\n- {id: few, actions: [fs/read], limit: 5, window: 1h}\n"
        "- {id: sum, actions: [fs/read], counts: amount, argument: limit, limit: 9, window: 1h}\n"
    )
    made = replace(version(NOTHING), files={"a.cedar": NOTHING, "controls.yaml": budget})
    pdp = compile_bundle(made, w.tools, w.servers, people=w.people)
    decision = pdp.decide(w.call("fs/read", {"path": "/w", "limit": 2}))
    assert decision.reason is Reason.OBSERVED
    assert [charge.budget for charge in decision.charges] == ["few", "sum"]
    assert "budget:few=1" in decision.obligations
    wrong = pdp.decide(w.call("fs/read", {"path": "/w", "limit": -2}))
    assert wrong.reason is Reason.AMOUNT_INVALID and wrong.verdict is Verdict.DENY

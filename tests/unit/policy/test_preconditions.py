"""No policy can permit past a precondition; the first failure names the reason."""

from dataclasses import replace
from typing import Any

import pytest
from requirements import requirement

from exeat.core.decision import Reason, Verdict
from exeat.core.facts import Effect, Lifecycle, PersonFacts, PinState
from exeat.core.ids import ActionId, PersonId

PERMIT_ALL = '@id("all") permit(principal, action, resource);'


@requirement("REG-2", "REG-4", "REG-9", "POL-3")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lifecycle": Lifecycle.SUSPENDED}, Reason.AGENT_NOT_ACTIVE),
        ({"lifecycle": Lifecycle.DRAFT}, Reason.AGENT_NOT_ACTIVE),
        ({"ends_at": 1}, Reason.AGENT_EXPIRED),
        ({"owner_live": False, "deputy_live": False}, Reason.OWNER_NOT_LIVE),
        ({"accepted": "older"}, Reason.SCOPE_NOT_ACCEPTED),
        ({"accepted": "", "digest": ""}, Reason.SCOPE_NOT_ACCEPTED),
        ({"servers": frozenset({"bank"})}, Reason.OUT_OF_SCOPE),
        ({"effects": frozenset({Effect.PAY})}, Reason.OUT_OF_SCOPE),
        ({"actions": frozenset({ActionId("bank/transfer")})}, Reason.OUT_OF_SCOPE),
    ],
)
def test_an_agent_that_is_not_answered_for_is_denied(
    world: Any, change: dict[str, Any], reason: Reason
) -> None:
    small = world(PERMIT_ALL)
    assert small.decide("fs/read", {"path": "/w"}).permitted
    scope = {k: v for k, v in change.items() if hasattr(small.agent.scope, k)}
    rest = {k: v for k, v in change.items() if k not in scope}
    small.agent = replace(small.agent, scope=replace(small.agent.scope, **scope), **rest)
    decision = small.decide("fs/read", {"path": "/w"})
    assert (decision.verdict, decision.reason) == (Verdict.DENY, reason)
    assert decision.remedy
    request = small.call("fs/read")
    tool = request.tool
    assert not small.pdp.could_permit(
        request.caller, request.server, "tools/call", tool.action, tool, tool.name, request.now
    )


@requirement("REG-2")
def test_a_deputy_alone_answers(world: Any) -> None:
    small = world(PERMIT_ALL)
    small.agent = replace(small.agent, owner_live=False)
    assert small.decide("fs/read", {"path": "/w"}).permitted


@requirement("REG-6")
@pytest.mark.parametrize(
    ("state", "pin", "observed", "reason"),
    [
        (PinState.NEW, "p", "p", Reason.DEFINITION_UNPINNED),
        (PinState.PINNED, "", "", Reason.DEFINITION_UNPINNED),
        (PinState.CHANGED, "p", "p", Reason.DEFINITION_CHANGED),
        (PinState.PINNED, "p", "q", Reason.DEFINITION_CHANGED),
        (PinState.PINNED, "p", "", Reason.DEFINITION_CHANGED),
    ],
)
def test_only_the_pinned_definition_is_called(
    world: Any, state: PinState, pin: str, observed: str, reason: Reason
) -> None:
    small = world(PERMIT_ALL)
    name = ActionId("fs/read")
    small.tools[name] = replace(small.tools[name], state=state, pin=pin)
    request = replace(small.call("fs/read", {"path": "/w"}), observed_pin=observed)
    assert small.pdp.decide(request).reason is reason


@requirement("GW-7", "REG-4")
def test_unknown_things_and_inactive_servers_are_denied(world: Any) -> None:
    small = world(PERMIT_ALL)
    assert small.decide("fs/nope").reason is Reason.ACTION_UNKNOWN
    assert small.pdp.decide(small.method("evil/do")).reason is Reason.METHOD_UNKNOWN
    server = replace(small.servers["fs"], extra_methods=frozenset({"evil/do"}))
    extra = world(PERMIT_ALL, servers={**small.servers, "fs": server})
    assert extra.pdp.decide(extra.method("evil/do")).permitted
    idle = replace(small.call("fs/read"), server=replace(small.servers["fs"], active=False))
    assert small.pdp.decide(idle).reason is Reason.SERVER_NOT_ACTIVE


@requirement("REG-2")
def test_a_user_who_has_left_is_denied(world: Any) -> None:
    small = world(PERMIT_ALL, user=PersonFacts(PersonId("eve"), live=False))
    assert small.decide("fs/read", {"path": "/w"}).reason is Reason.USER_NOT_LIVE


@requirement("EVD-9")
def test_a_clock_that_runs_backwards_denies(world: Any) -> None:
    small = world(PERMIT_ALL)
    request = replace(small.call("fs/read", {"path": "/w"}), clock_trusted=False)
    assert small.pdp.decide(request).reason is Reason.CLOCK_BACKWARDS


@requirement("POL-1")
def test_without_a_policy_everything_is_denied_and_says_so(world: Any) -> None:
    assert world(None).decide("fs/read", {"path": "/w"}).reason is Reason.NO_POLICY
    assert world("// nothing\n").decide("fs/read", {"path": "/w"}).reason is Reason.NO_POLICY
    unreadable = world('@id("a") permit(principal, action, resource) when { ;').pdp
    assert unreadable.findings
    small = world('@id("a") permit(principal, action resource);' + PERMIT_ALL)
    decision = small.decide("fs/read", {"path": "/w"})
    assert decision.reason is Reason.POLICY_ERROR
    assert "p0.cedar:1" in decision.detail


@requirement("GW-8")
@pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list"])
def test_lists_are_answered_filtered(world: Any, method: str) -> None:
    small = world(PERMIT_ALL)
    assert small.pdp.decide(small.method(method)).reason is Reason.LIST_FILTERED
    small.agent = replace(small.agent, lifecycle=Lifecycle.RETIRED)
    assert small.pdp.decide(small.method(method)).reason is Reason.AGENT_NOT_ACTIVE

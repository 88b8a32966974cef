"""Compilation against a registry that moves on, could_permit, arguments, and totality."""

from dataclasses import replace
from typing import Any

import pytest
from requirements import requirement

from exeat.core.decision import Reason
from exeat.core.facts import Effect
from exeat.core.ids import ActionId
from exeat.policy.bundle import compile_bundle

PERMIT_ALL = '@id("all") permit(principal, action, resource);'
GUARDED = (
    '@id("etc") forbid(principal, action == Action::"fs/read", resource)'
    ' when { context.input has path && context.input.path like "/etc/*" };'
)


def renamed(small: Any, name: str) -> None:
    """The tool's argument ``path`` has another name in the newly pinned definition."""
    old = small.tools[ActionId("fs/read")]
    schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
    definition = {"name": "read", "inputSchema": schema}
    small.tools[old.action] = replace(old, pin="pin-2", definition=definition)


@requirement("POL-1")
def test_a_forbid_that_no_longer_validates_denies_what_it_covers(world: Any) -> None:
    small = world(PERMIT_ALL + GUARDED)
    assert small.decide("fs/read", {"path": "/w"}).permitted
    moved = world(PERMIT_ALL + GUARDED)
    renamed(moved, "file")
    decision = moved.decide("fs/read", {"file": "/etc/passwd"})
    assert (decision.reason, decision.policies) == (Reason.FORBIDDEN, ("etc",))
    assert [finding.policy for finding in moved.pdp.findings] == ["etc"]
    assert moved.decide("bank/balance").permitted


@requirement("POL-1")
def test_a_permit_that_no_longer_validates_permits_nothing(world: Any) -> None:
    small = world(
        '@id("r") permit(principal, action == Action::"fs/read", resource)'
        " when { !(context.input has limit && context.input.limit > 5) };"
    )
    assert small.decide("fs/read", {"path": "/w"}).permitted
    moved = world(small.policy)
    renamed(moved, "path")
    assert not moved.decide("fs/read", {"path": "/w"}).permitted
    assert moved.pdp.findings


@requirement("POL-1")
def test_a_policy_for_a_tool_that_is_gone_is_reported_and_harmless(world: Any) -> None:
    small = world(PERMIT_ALL + '@id("x") forbid(principal, action == Action::"fs/gone", resource);')
    assert small.decide("fs/read", {"path": "/w"}).permitted
    assert [finding.policy for finding in small.pdp.findings] == ["x"]


@requirement("POL-2")
def test_recompiling_reuses_and_changes_nothing(world: Any) -> None:
    small = world(PERMIT_ALL + GUARDED)
    first = small.pdp
    again = compile_bundle(
        first.version, small.tools, small.servers, people=small.people, previous=first
    )
    request = small.call("fs/read", {"path": "/etc/x"})
    assert again.decide(request) == first.decide(request)
    assert all(new is old for new, old in zip(again.policies, first.policies, strict=True))


@requirement("POL-2", "REG-6")
def test_recompiling_notices_every_change(world: Any) -> None:
    policy = (
        PERMIT_ALL
        + GUARDED
        + '@id("e") forbid(principal, action in Action::"effect:delete", resource);'
    )
    policy += (
        '@id("boss") forbid(principal, action, resource) when { principal.owner in Role::"left" };'
    )
    small = world(policy)
    first = small.pdp
    request = small.call("fs/read", {"path": "/w"})
    assert first.decide(request).permitted

    def again(**people: Any) -> Any:
        everyone = {**small.people, **people}
        return compile_bundle(
            first.version, small.tools, small.servers, people=everyone, previous=first
        )

    ada = replace(small.people["ada"], roles=frozenset({"left"}))
    assert again(ada=ada).decide(request).policies == ("boss",)
    assert again().decide(request).permitted
    small.tools[request.action] = replace(request.tool, effect=Effect.DELETE)
    assert again().decide(small.call("fs/read", {"path": "/w"})).policies == ("e",)
    renamed(small, "file")
    assert again().decide(small.call("fs/read", {"file": "/w"})).policies == ("e", "etc")


@requirement("POL-2")
def test_the_input_digest_covers_every_fact(world: Any) -> None:
    small = world(PERMIT_ALL)
    request = small.call("fs/read", {"path": "/w"})
    changed = [
        replace(request, arguments={"path": "/v"}),
        replace(request, now=request.now + 1),
        replace(request, caller=replace(request.caller, user=small.people["bob"])),
        replace(request, server=replace(request.server, trust=9)),
        replace(request, observed_pin="other"),
        replace(
            request,
            caller=replace(
                request.caller, agent=replace(request.caller.agent, groups=frozenset({"g"}))
            ),
        ),
    ]
    digests = {small.pdp.decide(each).input_digest for each in (request, *changed)}
    assert len(digests) == len(changed) + 1
    assert (
        small.pdp.decide(request).input_digest == world(PERMIT_ALL).pdp.decide(request).input_digest
    )


@requirement("POL-9")
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({}, Reason.ARGUMENTS_INVALID),
        ({"path": 5}, Reason.ARGUMENTS_INVALID),
        ({"path": "/w", "sudo": True}, Reason.ARGUMENTS_UNTYPED),
    ],
)
def test_arguments_are_checked_before_policy(
    world: Any, arguments: dict[str, Any], reason: Reason
) -> None:
    decision = world(PERMIT_ALL).decide("fs/read", arguments)
    assert decision.reason is reason
    assert "Argument" in decision.remedy or "argument" in decision.remedy


@requirement("POL-1")
def test_decide_never_raises(world: Any) -> None:
    small = world(
        '@id("t") permit(principal, action, resource) when '
        '{ context.session.now > datetime("2020-01-01") };'
    )
    assert small.decide("bank/balance").permitted
    broken = replace(small.call("bank/balance"), now=10**40)
    small.agent = replace(small.agent, ends_at=10**41)
    broken = replace(broken, caller=small.call("bank/balance").caller)
    assert small.pdp.decide(broken).reason is Reason.POLICY_ERROR
    odd = replace(small.call("bank/balance"), arguments={"\ud800": object()})
    assert small.pdp.decide(odd).reason is Reason.POLICY_ERROR


@requirement("GW-8")
@pytest.mark.parametrize(
    ("policy", "visible"),
    [
        (PERMIT_ALL, True),
        ('@id("a") permit(principal in Group::"others", action, resource);', False),
        ('@id("a") permit(principal, action == Action::"bank/balance", resource);', False),
        (f'{GUARDED}@id("a") permit(principal, action in Action::"fs/*", resource);', True),
        (PERMIT_ALL + '@id("f") forbid(principal, action in Action::"fs/*", resource);', False),
        (
            PERMIT_ALL + '@id("f") forbid(principal, action in Action::"call_tool", resource)'
            ' when { resource.effect == Effect::"read" };',
            False,
        ),
        (
            '@id("a") permit(principal, action in Action::"call_tool", resource)'
            ' when { resource.effect == Effect::"pay" };',
            False,
        ),
    ],
)
def test_lists_hide_only_what_could_never_be_permitted(
    world: Any, policy: str, visible: bool
) -> None:
    small = world(policy)
    request = small.call("fs/read")
    asked = (request.caller, request.server, "tools/call", request.action, request.tool, "read")
    assert small.pdp.could_permit(*asked, request.now) is visible
    assert small.pdp.could_permit(*asked, request.now) is visible


@requirement("GW-7")
def test_prompts_and_resources_are_told_apart_by_name(world: Any) -> None:
    small = world(
        '@id("p") permit(principal, action == Action::"prompts/get", '
        'resource == Prompt::"fs/good");'
        '@id("r") permit(principal, action == Action::"resources/read", resource in Server::"fs");'
        '@id("f") forbid(principal, action == Action::"resources/read", '
        'resource == Resource::"fs/file:///secret");'
    )
    pdp = small.pdp
    for _ in range(2):
        assert pdp.decide(small.method("prompts/get", "good")).permitted
        assert not pdp.decide(small.method("prompts/get", "evil")).permitted
        assert pdp.decide(small.method("resources/read", "file:///open")).permitted
        assert pdp.decide(small.method("resources/read", "memo:insights")).permitted
        assert not pdp.decide(small.method("resources/read", "file:///secret")).permitted
    detour = pdp.decide(small.method("resources/read", "file:///x/../secret"))
    assert detour.reason is Reason.ARGUMENT_NOT_CANONICAL


@requirement("POL-9")
def test_the_memo_never_covers_time_arguments_or_other_facts(world: Any) -> None:
    small = world(
        '@id("early") permit(principal, action == Action::"bank/balance", resource)'
        ' when { context.session.now < datetime("2026-10-01") };'
        '@id("boss") permit(principal, action == Action::"fs/write", resource)'
        ' when { context.session has user && context.session.user in Role::"finance" };'
    )
    early = small.call("bank/balance")
    late = replace(early, now=early.now + 30 * 86_400 * 10**9)
    late = replace(
        late, caller=replace(late.caller, agent=replace(late.caller.agent, ends_at=10**19))
    )
    early = replace(early, caller=late.caller)
    verdicts = [small.pdp.decide(each).permitted for each in (early, late, early, late)]
    assert verdicts == [True, False, True, False]

    small.user = small.people["ada"]
    write = {"path": "/w", "content": "x"}
    assert small.decide("fs/write", write).permitted
    small.user = replace(small.user, roles=frozenset())
    assert not small.decide("fs/write", write).permitted

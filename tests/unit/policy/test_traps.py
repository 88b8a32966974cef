"""The five traps of decisions.md, and what must never be permitted through them."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from requirements import requirement

from exeat.core.decision import Reason, Verdict
from exeat.core.facts import tool_action

READ = 'action == Action::"fs/read"'
PERMIT_ALL = '@id("all") permit(principal, action, resource);\n'


@requirement("POL-1", "POL-3")
def test_trap_1_an_erroring_forbid_denies(world: Any) -> None:
    policy = (
        PERMIT_ALL
        + f'@id("bad") forbid(principal, {READ}, resource)'
        + " when { context.input has limit && context.input.limit + 9223372036854775807 < 0 };"
    )
    decision = world(policy).decide("fs/read", {"path": "/w/a", "limit": 1})
    assert decision.verdict is Verdict.DENY
    assert decision.reason is Reason.POLICY_ERROR
    assert "bad" in decision.detail or "overflow" in decision.detail


@requirement("POL-1", "POL-9")
@pytest.mark.parametrize(
    "value",
    [
        {"__entity": {"type": "Agent", "id": "root"}},
        {"__extn": {"fn": "decimal", "arg": "1.0"}},
        {"__expr": "true"},
    ],
)
@pytest.mark.parametrize("argument", ["amount", "to", "memo"])
def test_trap_2_an_escape_never_reaches_cedar(world: Any, value: Any, argument: str) -> None:
    policy = (
        '@id("p") permit(principal, action == Action::"bank/transfer", resource)'
        ' when { context.input.amount.lessThan(decimal("5.0")) && context.input.to == "x"'
        ' && (if context.input has memo then context.input.memo == "m" else true) };'
    )
    arguments = {"amount": Decimal("1.5"), "to": "x", "memo": "m"}
    assert world(policy).decide("bank/transfer", arguments).permitted
    decision = world(policy).decide("bank/transfer", {**arguments, argument: value})
    assert decision.reason in {Reason.ARGUMENTS_INVALID, Reason.ARGUMENTS_UNTYPED}


@requirement("POL-9")
@pytest.mark.parametrize(
    "path",
    [
        "/workspace/../etc/passwd",
        "/workspace/./a",
        "/workspace//a",
        "/workspace/%2e%2e/etc",
        "/workspace/%252e/etc",
        "/workspace/a\\..\\b",
        "/workspace/a\x00",
        "/workspace/a\u202e",
        "/workspace/\uff0e\uff0e/etc",
        "/workspace/$HOME",
        "/workspace/ ",
        "/workspace/..",
        "/workspace/a/",
        "/workspace/secret. ",
    ],
)
def test_trap_3_a_path_that_does_not_plainly_denote_itself_is_refused(
    world: Any, path: str
) -> None:
    like = '{ context.input.path like "/workspace/*" }'
    policy = f'@id("ws") permit(principal, {READ}, resource) when {like};'
    assert world(policy).decide("fs/read", {"path": "/workspace/a b.txt"}).permitted
    decision = world(policy).decide("fs/read", {"path": path})
    assert decision.reason is Reason.ARGUMENT_NOT_CANONICAL
    assert path not in decision.remedy


@requirement("POL-9")
def test_trap_3_a_policy_s_own_literal_makes_an_argument_a_path(world: Any) -> None:
    policy = (
        '@id("to") permit(principal, action == Action::"bank/transfer", resource)'
        ' when { context.input.to like "/home/*" };'
    )
    decision = world(policy).decide("bank/transfer", {"amount": 1, "to": "/home/../etc"})
    assert decision.reason is Reason.ARGUMENT_NOT_CANONICAL


@requirement("POL-9")
def test_trap_3_typed_facts_are_canonical_and_demanded(world: Any) -> None:
    policy = (
        f'@id("ok") permit(principal, {READ}, resource);'
        f'@id("no") forbid(principal, {READ}, resource)'
        ' when { context.path.path.canonical == "/etc" };'
    )
    assert world(policy).decide("fs/read", {"path": "/etc/"}).reason is Reason.FORBIDDEN
    assert world(policy).decide("fs/read", {"path": "/var"}).permitted
    refused = world(policy).decide("fs/read", {"path": "/x/../etc"})
    assert refused.reason is Reason.ARGUMENT_NOT_CANONICAL


@requirement("POL-9")
def test_trap_4_an_oversize_value_that_a_policy_reads_denies(world: Any) -> None:
    policy = PERMIT_ALL + (
        '@id("keys") forbid(principal, action == Action::"fs/write", resource)'
        ' when { context.input.content like "*BEGIN PRIVATE KEY*" };'
    )
    big = "x" * 9000 + "BEGIN PRIVATE KEY"
    decision = world(policy).decide("fs/write", {"path": "/w", "content": big})
    assert decision.reason is Reason.ARGUMENT_OVERSIZE
    unread = world(PERMIT_ALL).decide("fs/write", {"path": "/w", "content": big})
    assert unread.permitted


@requirement("POL-1")
@pytest.mark.parametrize("group", ["call_tool", "fs/*", "effect:read"])
def test_trap_5_a_forbid_on_an_action_group_fires(world: Any, group: str) -> None:
    policy = PERMIT_ALL + (f'@id("stop") forbid(principal, action in Action::"{group}", resource);')
    decision = world(policy).decide("fs/read", {"path": "/w"})
    assert (decision.reason, decision.policies) == (Reason.FORBIDDEN, ("stop",))


@requirement("POL-1")
def test_trap_5_a_forbid_on_a_group_named_in_a_condition_fires(world: Any) -> None:
    policy = PERMIT_ALL + (
        '@id("stop") forbid(principal, action, resource) when { action in Action::"fs/*" };'
    )
    assert world(policy).decide("fs/read", {"path": "/w"}).reason is Reason.FORBIDDEN
    assert world(policy).decide("bank/balance").permitted


@requirement("GW-7")
@pytest.mark.parametrize("name", ["*"])
def test_a_server_cannot_name_a_tool_into_an_action_group(world: Any, name: str) -> None:
    small = world('@id("g") permit(principal, action in Action::"fs/*", resource);')
    (first, *_) = small.tools.values()
    forged = replace(first, name=name, action=tool_action("fs", name))
    small.tools[forged.action] = forged
    assert small.decide("fs/*", {"path": "/w"}).reason is Reason.ACTION_UNKNOWN

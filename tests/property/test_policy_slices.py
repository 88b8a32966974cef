"""A slice and the full set agree, and so do memo and engine (POL-2, POL-9)."""

from dataclasses import replace
from typing import Any

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.policy_world import World
from requirements import requirement

from exeat.core.decision import Reason
from exeat.core.facts import PersonFacts
from exeat.core.ids import PersonId
from exeat.policy.question import Outcome, answer
from exeat.policy.slices import Slice

PRINCIPALS = st.sampled_from(
    [
        "principal",
        "principal is Agent",
        'principal == Agent::"bot"',
        'principal == Agent::"other"',
        'principal in Group::"payments"',
        'principal is Agent in Group::"others"',
    ]
)
ACTIONS = st.sampled_from(
    [
        "action",
        'action == Action::"fs/read"',
        'action == Action::"bank/balance"',
        'action in Action::"call_tool"',
        'action in Action::"fs/*"',
        'action in [Action::"effect:read", Action::"bank/transfer"]',
        'action in Action::"mcp"',
        'action == Action::"prompts/get"',
    ]
)
RESOURCES = st.sampled_from(
    [
        "resource",
        "resource is Tool",
        'resource in Server::"fs"',
        'resource == Tool::"bank/balance"',
        'resource is Prompt in Server::"fs"',
        'resource == Prompt::"fs/good"',
    ]
)
CONDITIONS = st.sampled_from(
    [
        "",
        'when { principal.environment == "prod" }',
        'when { principal.owner in Role::"finance" }',
        'when { context.session has user && context.session.user in Role::"finance" }',
        'unless { context.session.environment == "test" }',
        'when { context.session.now > datetime("2020-01-01") }',
        "when { context has input && context.input has limit && context.input.limit > 3 }",
        "when { context has input && context.input has amount && context.input.amount > 100 }",
    ]
)


@st.composite
def policies(draw: st.DrawFn) -> str:
    texts = []
    for number in range(draw(st.integers(1, 7))):
        effect = draw(st.sampled_from(["permit", "permit", "forbid"]))
        scope = f"{draw(PRINCIPALS)}, {draw(ACTIONS)}, {draw(RESOURCES)}"
        texts.append(f'@id("p{number}") {effect}({scope}) {draw(CONDITIONS)};')
    return "\n".join(texts)


def requests(world: World, *, user: bool) -> list[Any]:
    if user:
        world.user = world.people[PersonId("ada")]
    return [
        world.call("fs/read", {"path": "/w", "limit": 5}),
        world.call("bank/balance"),
        world.call("bank/transfer", {"amount": 1, "to": "x"}),
        world.method("prompts/get", "good"),
        world.method("prompts/get", "evil"),
        world.method("roots/list"),
    ]


def in_full(world: World, request: Any) -> Outcome:
    """The outcome over all policies at once, without slices."""
    pdp = world.pdp
    route = pdp.route(request.caller, request.server, request.method, request.action, request.tool)
    full = Slice(pdp.policies)
    route.slice, kept = full, pdp.slice_of(request)
    route.encoder = None
    try:
        return answer(full, pdp.question(route, request))
    finally:
        route.slice, route.encoder = kept, None


@requirement("POL-2")
@settings(max_examples=60, deadline=None)
@given(policies(), st.booleans())
def test_a_slice_decides_like_the_full_set(text: str, user: bool) -> None:
    world = World(text)
    for request in requests(world, user=user):
        decision = world.pdp.decide(request)
        if not world.pdp.policies:
            assert decision.reason is Reason.NO_POLICY
            continue
        full = in_full(world, request)
        assert (decision.reason, decision.policies) == (full.reason, full.policies)


@requirement("POL-9", "POL-2")
@settings(max_examples=60, deadline=None)
@given(policies())
def test_the_memo_decides_like_the_engine(text: str) -> None:
    world = World(text)
    pdp = world.pdp
    asked = requests(world, user=True)
    world.agent = replace(world.agent, groups=frozenset({"others"}), environment="test")
    asked += requests(world, user=False)
    world.user = PersonFacts(PersonId("ada"), live=True)
    asked += requests(world, user=False)
    asked += [world.call("bank/transfer", {"amount": n, "to": "x"}) for n in (1, 50, 900, 5_000)]
    asked += [world.call("fs/read", {"path": path}) for path in ("/w/a", "/etc/passwd", "/w/../x")]
    remembered = [pdp.decide(request) for request in [*asked, *asked]]
    pdp.memo_enabled = False
    assert [pdp.decide(request) for request in [*asked, *asked]] == remembered


@requirement("POL-9")
@settings(max_examples=60, deadline=None)
@given(policies())
def test_what_lists_hide_is_never_permitted(text: str) -> None:
    world = World(text)
    for request in requests(world, user=True):
        visible = world.pdp.could_permit(
            request.caller,
            request.server,
            request.method,
            request.action,
            request.tool,
            request.target,
            request.now,
        )
        assert visible or not world.pdp.decide(request).permitted


@requirement("POL-2")
def test_cedar_numbers_policies_by_position() -> None:
    """Slice.ids relies on it."""
    text = "\n".join(f'@id("x{n}") permit(principal, action, resource);' for n in range(12))
    names = list(cedarpy.policies_to_pst(text).static_policies)
    assert sorted(names) == sorted(f"policy{n}" for n in range(12))

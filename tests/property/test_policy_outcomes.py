"""Narrowing and controls: only confirmed monotone arguments change, each downwards in its own order, nothing
is dropped, and Cedar authorizes the result anew; the verdict is independent of order (POL-2, POL-9)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from policies.policy_world import TOOLS, World, tool
from requirements import requirement

from exeat.core.controls import Order
from exeat.core.decision import Verdict
from exeat.core.facts import Effect, ToolFacts
from exeat.policy.narrow import below, lawful

FIND = tool(
    "fs",
    "find",
    Effect.READ,
    {
        "properties": {
            "path": {"type": "string"},
            "limit": {"type": "integer"},
            "share": {"type": "number"},
            "hosts": {"type": "array", "items": {"type": "string"}},
            "dry": {"type": "boolean"},
            "other": {"type": "integer"},
        }
    },
)
ORDERS = {
    "path": Order.BELOW, "limit": Order.LESS, "share": Order.LESS, "hosts": Order.SUBSET,
    "dry": Order.FLAG,
}  # fmt: skip
PATHS = (
    "/",
    "/projects",
    "/projects/a",
    "/projects/a/b",
    "/projects-old",
    "/etc",
    "work",
    "/projects/../etc",
)
HOSTS = ("a.example", "b.example", "c.example")
CONDITIONS = (
    "context.input has limit && context.input.limit <= 10",
    "context.input has limit && 5 > context.input.limit",
    'context.input has share && context.input.share.lessThan(decimal("0.5"))',
    'context.input has path && (context.input.path like "/projects/*" || context.input.path == "/projects")',
    'context.input has hosts && ["a.example", "b.example"].containsAll(context.input.hosts)',
    "context.input has dry && context.input.dry",
    "context.input has other && context.input.other < 3",
    'context.session.controls.contains(Control::"redacted_pii")',
    'context.session.controls.contains(Control::"dry_run")',
    'context.session.controls.contains(Control::"approved_by_owner")',
)
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(PATHS),
        "limit": st.integers(-5, 1000),
        "share": st.sampled_from([Decimal(n) for n in ("0", "0.4", "0.5", "7.25")]),
        "hosts": st.lists(st.sampled_from(HOSTS), max_size=4),
        "dry": st.booleans(),
        "other": st.integers(0, 9),
    },
)


@st.composite
def policies(draw: st.DrawFn) -> list[str]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        permit = draw(st.sampled_from(["permit", "permit", "forbid"]))
        parts = draw(st.lists(st.sampled_from(CONDITIONS), min_size=1, max_size=3, unique=True))
        hint = draw(st.sampled_from(["", '@narrow("limit, path, share, hosts, dry, other")']))
        mark = draw(st.sampled_from([" && ", " || "]))
        condition = mark.join(f"({part})" for part in parts)
        clause = "when" if permit == "permit" else "unless"
        found.append(
            f'@id("p{number}") {hint} {permit}(principal, action == Action::"fs/find", resource)'
            f" {clause} {{ {condition} }};"
        )
    return found


def world(texts: list[str], **changes: Any) -> World:
    found = World("\n".join(texts))
    find: ToolFacts = replace(FIND, **{"monotone": ORDERS, **changes})
    found.tools = {each.action: each for each in (*TOOLS, find)}
    return found


@requirement("POL-9")
@settings(max_examples=150, deadline=None)
@given(policies(), ARGUMENTS)
def test_what_is_narrowed_is_lawful_and_authorized_anew(texts: list[str], given: Any) -> None:
    found = world(texts)
    decision = found.decide("fs/find", given)
    after = decision.narrowed
    if after is None:
        return
    assert decision.verdict is not Verdict.DENY
    assert set(given) <= set(after), "nothing is dropped"
    for name in after:
        if name not in given:
            assert ORDERS[name] is Order.FLAG and after[name] is True
        elif after[name] != given[name]:
            assert below(ORDERS[name], given[name], after[name])
    assert after.get("other") == given.get("other"), "not confirmed, so not touched"
    assert lawful(found.tools[FIND.action], given, after)
    controls = {each[8:] for each in decision.obligations if each.startswith("control:")}
    ways = decision.hold or ((),)
    for way in ways:
        again = replace(found.call("fs/find", after), controls=frozenset(controls | set(way)))
        as_is = found.pdp.decide(again)
        assert as_is.permitted and as_is.narrowed is None, "Cedar permits exactly what leaves"


@requirement("POL-9")
@settings(max_examples=60, deadline=None)
@given(policies(), ARGUMENTS, st.sampled_from(["pay", "send", "delete", "unconfirmed", "none"]))
def test_what_may_not_be_narrowed_never_is(texts: list[str], given: Any, why: str) -> None:
    changes: dict[str, Any] = {
        "unconfirmed": {"profile_confirmed": False},
        "none": {"monotone": {}},
    }.get(why, {"effect": Effect(why) if why in set(Effect) else Effect.READ})
    assert world(texts, **changes).decide("fs/find", given).narrowed is None


@requirement("APP-1", "POL-2")
@settings(max_examples=100, deadline=None)
@given(policies(), ARGUMENTS, st.randoms())
def test_the_outcome_is_independent_of_order_and_memo(
    texts: list[str], given: Any, random: Any
) -> None:
    one = world(texts)
    turned = list(texts)
    random.shuffle(turned)
    other = world(turned)
    other.pdp.memo_enabled = False
    first = [one.decide("fs/find", given) for _ in range(2)]
    second = other.decide("fs/find", given)
    assert first[0] == first[1]
    said = [(d.verdict, d.reason, d.hold, d.narrowed, d.obligations) for d in (first[0], second)]
    assert said[0] == said[1]


@requirement("APP-1")
@settings(max_examples=100, deadline=None)
@given(policies(), ARGUMENTS)
def test_a_hold_is_what_its_approval_permits(texts: list[str], given: Any) -> None:
    found = world(texts)
    decision = found.decide("fs/find", given)
    if decision.verdict is not Verdict.HOLD:
        return
    assert not found.decide("fs/find", given).permitted
    for way in decision.hold:
        approved = replace(found.call("fs/find", given), controls=frozenset(way))
        permitted = found.pdp.decide(approved)
        assert permitted.permitted and permitted.narrowed == decision.narrowed

"""Which budgets a call takes from, and how much (APP-8)."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from policies.policy_world import PEOPLE, World
from requirements import requirement

from exeat.core.controls import QUANTITY_MAX, Budget, Charge, Controls, Counts, Per
from exeat.core.decision import Reason
from exeat.core.ids import PersonId
from exeat.policy.budgets import charges
from exeat.policy.controls import read_controls
from exeat.policy.encode import Refused

BOB = PEOPLE[PersonId("bob")]


def budget(**changed: Any) -> Budget:
    plain: dict[str, Any] = {
        "id": "b", "actions": ("call_tool",), "per": Per.AGENT, "counts": Counts.CALLS,
        "limit": 10, "window_s": 60,
    }  # fmt: skip
    return Budget(**{**plain, **changed})


def taken(one: Budget, arguments: Any = None, *, action: str = "bank/transfer", world: Any = None,
          run: str = "") -> tuple[Charge, ...]:  # fmt: skip
    world = world or World()
    given = {"amount": 5, "to": "x"} if arguments is None else arguments
    request = replace(world.call(action, given), run=run)
    return charges(Controls(budgets=(one,)), request, given)


@requirement("APP-8")
@pytest.mark.parametrize(
    ("actions", "binds"),
    [
        (("bank/transfer",), True),
        (("call_tool",), True),
        (("bank/*",), True),
        (("effect:pay",), True),
        (("fs/*", "effect:pay"), True),
        (("bank/balance",), False),
        (("fs/*",), False),
        (("effect:read",), False),
        (("mcp",), False),
        (("transfer",), False),
    ],
)
def test_a_budget_binds_its_tools_and_groups(actions: tuple[str, ...], binds: bool) -> None:
    assert bool(taken(budget(actions=actions))) is binds


@requirement("APP-8")
def test_a_budget_binds_methods_too() -> None:
    request = World().method("resources/read", "file:///a")
    for actions, binds in (("mcp",), 1), (("resources/read",), 1), (("call_tool",), 0):
        assert len(charges(Controls(budgets=(budget(actions=actions),)), request, {})) == binds


@requirement("APP-8")
@pytest.mark.parametrize(
    ("agents", "binds"),
    [
        ((), True),
        (("bot",), True),
        (("payments",), True),
        (("other", "bot"), True),
        (("other",), False),
    ],
)
def test_a_budget_binds_its_agents_and_their_groups(agents: tuple[str, ...], binds: bool) -> None:
    assert bool(taken(budget(agents=frozenset(agents)))) is binds


@requirement("APP-8")
@pytest.mark.parametrize(
    ("per", "user", "run", "key"),
    [
        (Per.AGENT, BOB, "r1", "agent:bot"),
        (Per.USER, BOB, "", "user:bob"),
        (Per.USER, None, "", "agent:bot"),
        (Per.TOOL, None, "", "tool:bank/transfer"),
        (Per.RUN, BOB, "r1", "run:r1"),
        (Per.RUN, BOB, "", "run:bot/bob"),
        (Per.RUN, None, "", "run:bot/-"),
    ],
)
def test_whose_share_it_is(per: Per, user: Any, run: str, key: str) -> None:
    (charge,) = taken(budget(per=per), world=World(user=user), run=run)
    assert charge == Charge("b", key, 1, 10, 60)


@requirement("APP-8")
@pytest.mark.parametrize(
    ("value", "units"),
    [
        (5, 50_000),
        (0, 0),
        (Decimal("0E-999999999"), 0),
        (Decimal("0.0001"), 1),
        (Decimal("12.3400"), 123_400),
        (Decimal("1.50000000"), 15_000),
        (Decimal("1E+3"), 10_000_000),
        (QUANTITY_MAX // 10_000, QUANTITY_MAX // 10_000 * 10_000),
    ],
)
def test_amounts_are_exact(value: Any, units: int) -> None:
    one = budget(counts=Counts.AMOUNT, argument="amount")
    (charge,) = taken(one, {"amount": value, "to": "x"})
    assert charge.amount == units


@requirement("APP-8")
@pytest.mark.parametrize(
    "value",
    [
        -1, Decimal("-0.0001"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), "5", "", True,
        False, None, 2**63, -(2**63), Decimal("0.00001"), Decimal("1.00005"), Decimal("1E+400000"),
        Decimal("1E-400000"), [5], {"value": 5}, 10**30, Decimal("922337203685477.5808"), 5.0,
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_amount_is_refused(value: Any) -> None:
    one = budget(counts=Counts.AMOUNT, argument="amount")
    with pytest.raises(Refused) as refused:
        taken(one, {"amount": value, "to": "x"})
    assert refused.value.reason is Reason.AMOUNT_INVALID
    assert refused.value.argument == "amount"


@requirement("APP-8")
def test_a_missing_amount_is_refused() -> None:
    one = budget(counts=Counts.AMOUNT, argument="transfer.amount")
    for arguments in ({}, {"transfer": {}}, {"transfer": 5}, {"transfer.amount": 5}):
        with pytest.raises(Refused, match="missing"):
            taken(one, arguments)


@requirement("APP-8")
def test_amounts_in_a_list_are_added_up() -> None:
    one = budget(counts=Counts.AMOUNT, argument="payments.amount")
    payments = [{"amount": 2}, {"amount": Decimal("0.5")}]
    assert taken(one, {"payments": payments})[0].amount == 25_000
    with pytest.raises(Refused, match="missing"):
        taken(one, {"payments": [*payments, {}]})
    most = {"amount": QUANTITY_MAX // 10_000}
    with pytest.raises(Refused, match="too large"):
        taken(one, {"payments": [most, most]})


def members(*values: Any, argument: str = "to") -> list[str]:
    one = budget(counts=Counts.DISTINCT, argument=argument)
    return [c.member for v in values for c in taken(one, {"amount": 1, "to": v})]


@requirement("APP-8")
def test_the_same_address_counts_once() -> None:
    assert len(set(members("Bob@example.com", "bob@example.com"))) == 1
    assert len(set(members("https://example.com", "https://example.com/"))) == 1
    assert len(set(members("bob@example.com", "rob@example.com", "example.com", "DE1", "de1"))) == 5
    assert len(set(members(1, "1", None, [1.5], {"a": 1}, {"a": 2}, True))) == 7
    for member in members("bob@example.com", "rob"):
        assert len(member) == 64
        assert "bob" not in member


@requirement("APP-8")
def test_each_of_a_list_counts_once() -> None:
    assert len(members(["a", "b", "a"])) == 2
    assert members([]) == []
    nested = budget(counts=Counts.DISTINCT, argument="mail.to")
    listed = {"mail": [{"to": ["a", "b"]}, {"to": "c"}, {}]}
    assert len(taken(nested, listed)) == 4  # what is missing, the server would choose
    with pytest.raises(Refused, match="more than 1000"):
        members([str(n) for n in range(1001)])


@requirement("APP-8")
@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("a@x.org, b@x.org", 2),
        ("a@x.org;b@x.org;A@x.org", 2),
        ("a@x.org\nb@x.org", 2),
        ("a@x.org b@x.org", 2),
        ("Bob <a@x.org>, Carol Doe <c@x.org>", 2),
        ("https://a.org/,https://b.org/", 2),
        ("a@x.org, +431234567, +437654321", 3),
        ("https://x.org/?a=1,2;3", 1),
        ("Bob Doe <a@x.org>", 1),
        ("Doe, Bob", 3),  # one name or two: never fewer than it could be
    ],
)
def test_several_in_one_text_are_several(text: str, count: int) -> None:
    """A server could read a list in it, and the limit would be none."""
    assert len(set(members(text))) == count


@requirement("APP-8")
def test_orders_of_a_list_are_no_new_values_and_texts_with_commas_no_old_ones() -> None:
    assert len(set(members("a@x.org,b@x.org", "b@x.org,a@x.org", "a@x.org"))) == 2
    assert len(set(members("a,b", "b,a", "a", "b"))) == 4


@requirement("APP-8")
def test_an_argument_with_a_dot_in_its_name_is_counted() -> None:
    """And no such argument stands in for the one at that path, which counts as missing."""
    one = budget(counts=Counts.DISTINCT, argument="mail.to")
    found = [taken(one, {"mail.to": to}) for to in ("a@x.org", "b@x.org")]
    assert len({charge.member for charges in found for charge in charges}) == 3
    assert len(taken(one, {"mail.to": "a@x.org", "mail": {"to": ["b@x.org", "c@x.org"]}})) == 3
    amount = budget(counts=Counts.AMOUNT, argument="pay.sum")
    (charge,) = taken(amount, {"pay.sum": 0, "pay": {"sum": 7}})
    assert charge.amount == 70_000


@requirement("APP-8")
def test_of_rows_and_bytes_the_most_is_reserved() -> None:
    for counts in (Counts.ROWS, Counts.BYTES):
        (charge,) = taken(budget(counts=counts, limit=1000, reserve=300))
        assert charge == Charge("b", "agent:bot", 300, 1000, 60)


@requirement("APP-8")
def test_a_member_of_one_budget_says_nothing_in_another() -> None:
    one = budget(counts=Counts.DISTINCT, argument="to")
    (a,), (b,) = taken(one), taken(replace(one, id="c"))
    assert a.member != b.member


@requirement("APP-8")
def test_the_example_of_the_documentation_is_one() -> None:
    page = Path(__file__).parents[3] / "docs" / "how-to" / "set-budgets.md"
    text = page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    controls, findings = read_controls({"controls.yaml": text})
    assert not findings
    found = {each.id: (each.counts, each.per, each.limit) for each in controls.budgets}
    assert found == {
        "payments": (Counts.AMOUNT, Per.AGENT, 10_005_000),
        "strangers": (Counts.DISTINCT, Per.USER, 20),
        "calls": (Counts.CALLS, Per.AGENT, 300),
        "customers": (Counts.ROWS, Per.TOOL, 10_000),
    }

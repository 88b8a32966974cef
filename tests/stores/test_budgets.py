"""Budgets on both databases: all or none, within the sliding window, given back, durable (APP-8)."""

from collections.abc import Iterable
from typing import Any

import pytest
import sqlalchemy as sa
from requirements import requirement

from exeat.core.controls import QUANTITY_MAX, Budget, Charge, Counts, Exhausted, Per
from exeat.core.errors import Invalid, StateUnavailable
from exeat.storage.budgets import SqlBudgets

S = 10**9


class Desk:
    """A budget of ``limit`` per ``window_s`` on a clock that stands until it is moved."""

    def __init__(self, state: Any, limit: int = 3, window_s: int = 10) -> None:
        self.now = 1_000 * S
        self.limit, self.window_s = limit, window_s
        self.budgets = SqlBudgets(state._engine, lambda: self.now)
        self.calls = 0

    def charge(self, amount: int = 1, member: str = "", **other: Any) -> Charge:
        plain: dict[str, Any] = {"budget": "b", "key": "agent:bot", "limit": self.limit,
                                 "window_s": self.window_s}  # fmt: skip
        return Charge(**{**plain, **other, "amount": amount, "member": member})

    def take(self, *charges: Charge, by: str = "bot/-") -> Exhausted | None:
        self.calls += 1
        return self.budgets.reserve(charges or (self.charge(),), f"c{self.calls}", by)

    def members(self, names: Iterable[str]) -> Exhausted | None:
        return self.take(*(self.charge(member=name) for name in names))

    def spent(self, counts: Counts = Counts.CALLS, budget: str = "b") -> dict[str, int]:
        declared = Budget(budget, ("call_tool",), Per.AGENT, counts, self.limit, self.window_s)
        return {share.key: share.spent for share in self.budgets.shares(declared)}


@pytest.fixture
def desk(state: Any) -> Desk:
    return Desk(state)


def totals(desk: Desk) -> dict[tuple[str, str], int]:
    with desk.budgets._engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT budget, share, spent FROM budget_totals"))
        return {(row.budget, row.share): row.spent for row in rows}


@requirement("APP-8")
def test_the_limit_holds_and_says_when_there_is_room(desk: Desk) -> None:
    assert [desk.take() for _ in range(3)] == [None] * 3
    free_at = desk.now + 10 * S
    assert desk.take() == Exhausted("b", "agent:bot", 3, 3, free_at)
    desk.now = free_at - 1
    assert desk.take() is not None
    desk.now = free_at
    assert desk.take() is None
    assert desk.spent() == {"agent:bot": 1}


@requirement("APP-8")
def test_the_window_slides(desk: Desk) -> None:
    """No window of ten seconds ever holds more than three."""
    granted: list[int] = []
    for step in range(200):
        desk.now = (1_000 + step * 7 % 3 + step) * S
        if desk.take() is None:
            granted.append(desk.now)
    highest = max(sum(t <= at < t + 10 * S for at in granted) for t in granted)
    assert highest == 3
    assert len(granted) > 40


@requirement("APP-8")
def test_a_call_takes_from_all_its_budgets_or_from_none(desk: Desk) -> None:
    wide = desk.charge(key="tool:x", budget="a", limit=100)
    assert desk.take(wide, desk.charge(3)) is None
    refused = desk.take(desk.charge(1), wide)
    assert refused is not None
    assert refused.budget == "b"
    assert desk.spent(budget="a") == {"tool:x": 1}
    assert totals(desk) == {("a", "tool:x"): 1, ("b", "agent:bot"): 3}


@requirement("APP-8")
def test_shares_are_apart(desk: Desk) -> None:
    assert desk.take(desk.charge(3)) is None
    assert desk.take(desk.charge(3, key="agent:other")) is None
    assert desk.take(desk.charge(3, budget="c")) is None
    assert desk.take(desk.charge(1, key="agent:other")) is not None


@requirement("APP-8")
def test_free_at_waits_for_enough(desk: Desk) -> None:
    for amount in (1, 2):
        assert desk.take(desk.charge(amount)) is None
        desk.now += S
    first = 1_010 * S
    assert desk.take(desk.charge(1)) == Exhausted("b", "agent:bot", 3, 3, first)
    assert desk.take(desk.charge(2)) == Exhausted("b", "agent:bot", 3, 3, first + S)
    assert desk.take(desk.charge(4)) == Exhausted("b", "agent:bot", 3, 3, 0)
    desk.now = first
    assert desk.take(desk.charge(2)) is not None
    assert desk.take(desk.charge(1)) is None


@requirement("APP-8")
def test_a_member_counts_once_from_its_last_use(desk: Desk) -> None:
    assert desk.members("ab") is None
    desk.now += 6 * S
    assert desk.members("a") is None
    assert desk.members("cd") == Exhausted("b", "agent:bot", 3, 2, 1_010 * S)
    assert desk.members("ac") is None
    assert desk.spent(Counts.DISTINCT) == {"agent:bot": 3}
    desk.now = 1_010 * S  # b is over, a is not: it was used since
    assert desk.spent(Counts.DISTINCT) == {"agent:bot": 2}
    assert desk.members("de") is not None
    assert desk.members("d") is None
    assert totals(desk) == {("b", "agent:bot"): 3}
    desk.now = 1_016 * S
    assert desk.members("xy") is None
    assert desk.members("z") is not None


@requirement("APP-8")
def test_members_of_one_call_are_all_or_none(desk: Desk) -> None:
    refused = desk.members("abcd")
    assert refused == Exhausted("b", "agent:bot", 3, 0, 0)
    assert desk.members("aab") is None
    assert desk.members("cd") is not None
    assert desk.members("c") is None


@requirement("APP-8")
def test_what_never_left_is_given_back_once(desk: Desk) -> None:
    assert desk.take(desk.charge(2), desk.charge(5, budget="c", limit=9)) is None
    desk.budgets.release("c1")
    desk.budgets.release("c1")
    desk.budgets.release("never")
    assert totals(desk) == {("b", "agent:bot"): 0, ("c", "agent:bot"): 0}
    assert desk.take(desk.charge(3)) is None


@requirement("APP-8")
def test_a_member_that_another_call_used_stays(desk: Desk) -> None:
    assert desk.members("ab") is None
    desk.now += S
    assert desk.members("bc") is None
    desk.budgets.release("c2")
    assert desk.spent(Counts.DISTINCT) == {"agent:bot": 2}
    assert totals(desk) == {("b", "agent:bot"): 2}
    assert desk.members("d") is None
    desk.now = 1_010 * S  # b was used last by the call that never left: it is over with a
    assert desk.members("xy") is None


@requirement("APP-8")
def test_what_was_not_used_is_given_back(desk: Desk) -> None:
    rows = desk.charge(3)
    assert desk.take(rows, desk.charge(1, budget="calls", limit=9)) is None
    desk.budgets.settle("c1", None)
    desk.budgets.settle("c1", {})
    assert desk.take(rows) is not None
    desk.budgets.settle("c1", {"b": 1})
    desk.budgets.settle("c1", {"b": 1})
    assert totals(desk) == {("b", "agent:bot"): 1, ("calls", "agent:bot"): 1}
    desk.budgets.settle("c1", {"b": 2})  # never more than is still reserved
    assert desk.take(desk.charge(2)) is None
    assert desk.take(desk.charge(1)) is not None


@requirement("APP-8")
def test_settling_takes_nothing_below_zero_or_above_what_was_reserved(desk: Desk) -> None:
    assert desk.take(desk.charge(2)) is None
    desk.budgets.settle("c1", {"b": 99})
    assert totals(desk) == {("b", "agent:bot"): 2}
    desk.budgets.settle("c1", {"b": -5})
    assert totals(desk) == {("b", "agent:bot"): 0}


@requirement("APP-8")
def test_quantities_cannot_overflow(state: Any) -> None:
    desk = Desk(state, QUANTITY_MAX)
    assert desk.take(desk.charge(QUANTITY_MAX - 1)) is None
    assert desk.take(desk.charge(QUANTITY_MAX)) == Exhausted(
        "b", "agent:bot", QUANTITY_MAX, QUANTITY_MAX - 1, desk.now + 10 * S
    )
    assert desk.take(desk.charge(1)) is None
    lowered = desk.take(desk.charge(1, limit=1))
    assert lowered == Exhausted("b", "agent:bot", 1, QUANTITY_MAX, desk.now + 10 * S)
    with pytest.raises(Invalid):
        desk.take(desk.charge(QUANTITY_MAX, budget="x"), desk.charge(1, budget="x"))
    with pytest.raises(Invalid):
        desk.take(desk.charge(-1, budget="x"))


@requirement("APP-8")
def test_a_lowered_limit_binds_at_once(desk: Desk) -> None:
    assert desk.take(desk.charge(3)) is None
    assert desk.take(desk.charge(1, limit=2)) is not None
    assert desk.take(desk.charge(1, limit=4)) is None


@requirement("APP-8")
def test_time_that_runs_back_frees_nothing(desk: Desk) -> None:
    assert desk.take(desk.charge(3)) is None
    desk.now -= 500 * S
    assert desk.take() is not None
    desk.now = 1_010 * S
    assert desk.take(desk.charge(3)) is None
    desk.now -= S  # recorded at the latest time that was seen, so it lives its whole window
    desk.budgets.release(f"c{desk.calls}")
    assert desk.take(desk.charge(3)) is None
    desk.now = 1_020 * S - 1
    assert desk.take() is not None


@requirement("APP-8")
def test_a_call_reserves_once(desk: Desk) -> None:
    assert desk.budgets.reserve([desk.charge()], "same") is None
    with pytest.raises(StateUnavailable):
        desk.budgets.reserve([desk.charge()], "same")
    assert totals(desk) == {("b", "agent:bot"): 1}


@requirement("APP-8")
def test_what_is_over_is_forgotten_and_nothing_else(desk: Desk) -> None:
    assert desk.take(desk.charge(1, key="run:old")) is None
    assert desk.take(desk.charge(9, key="run:refused")) is not None
    desk.now += 5 * S
    assert desk.take() is None
    desk.now = 1_010 * S
    assert desk.budgets.prune() == 2
    assert totals(desk) == {("b", "agent:bot"): 1}
    assert desk.budgets.prune() == 0
    assert desk.take(desk.charge(3)) is not None


@requirement("APP-8")
def test_people_see_who_took_it(desk: Desk) -> None:
    assert desk.take(by="bot/ada") is None
    desk.now += S
    assert desk.take(desk.charge(2, key="agent:other"), by="other/-") is None
    declared = Budget("b", ("call_tool",), Per.AGENT, Counts.CALLS, 3, 10)
    shares = desk.budgets.shares(declared)
    assert [(s.key, s.spent, s.calls, s.free_at) for s in shares] == [
        ("agent:other", 2, 1, 1_011 * S),
        ("agent:bot", 1, 1, 1_010 * S),
    ]
    uses = desk.budgets.uses(declared, 10)
    assert [(u.by, u.call, u.amount, u.at) for u in uses] == [
        ("other/-", "c2", 2, 1_001 * S),
        ("bot/ada", "c1", 1, 1_000 * S),
    ]
    desk.now = 1_011 * S
    assert desk.budgets.shares(declared) == ()


@requirement("APP-8")
def test_another_process_finds_it_spent(reopen: Any) -> None:
    first, other = Desk(reopen()), Desk(reopen())
    assert first.take(first.charge(3)) is None
    other.calls = 50
    assert other.take() is not None


@requirement("APP-8")
def test_the_clock_is_the_databases(state: Any) -> None:
    desk = Desk(state)
    assert state.budgets.reserve([desk.charge(3)], "now") is None
    refused = state.budgets.reserve([desk.charge(1)], "then")
    import time

    assert refused is not None
    assert abs(refused.free_at - time.time_ns() - 10 * S) < 10 * S
    assert state.budgets.prune() == 0
    assert state.budgets.reserve([], "nothing") is None


@requirement("APP-8", "POL-8")
def test_a_look_says_what_reserving_would_and_takes_nothing(desk: Desk) -> None:
    """Counts, amounts and distinct values; now, when full, and when there is room again."""
    some = [desk.charge(member=name, budget="d") for name in ("a", "b")]
    for charges in ([desk.charge(2)], some, [desk.charge(2), *some]):
        assert desk.budgets.look(charges) is None
    assert totals(desk) == {}
    desk.take(desk.charge(2), *some)
    before = totals(desk)
    desk.now += 4 * S
    for charges in (
        [desk.charge(1)], [desk.charge(2)], [desk.charge(9)],
        [desk.charge(member="a", budget="d")],
        [desk.charge(member=name, budget="d") for name in ("a", "c")],
        [desk.charge(member=name, budget="d") for name in ("a", "c", "e")],
    ):  # fmt: skip
        looked = desk.budgets.look(charges)
        assert totals(desk) == before
        desk.calls += 1
        assert looked == desk.budgets.reserve(charges, f"c{desk.calls}")
        desk.budgets.release(f"c{desk.calls}")
    desk.now += 7 * S
    assert desk.budgets.look([desk.charge(3)]) is None
    assert desk.budgets.look([]) is None

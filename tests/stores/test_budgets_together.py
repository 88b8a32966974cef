"""APP-8: whoever reserves at the same time, no window ever holds more than the limit; and a process that
dies gives nothing back."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Barrier, Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_places import Place
from requirements import requirement

from exeat.core.controls import Budget, Charge, Counts, Per
from exeat.storage.budgets import SqlBudgets
from exeat.storage.state import open_state

S = 10**9
THREADS = 6
NAMES = itertools.count(1)
KINDS = [Counts.AMOUNT, Counts.DISTINCT]
PLANS = st.lists(
    st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["keep", "keep", "release", "settle"])),
        min_size=THREADS,
        max_size=2 * THREADS,
    ),
    min_size=2,
    max_size=4,
)
"""Moments; at each, calls that come together: how much they take, and what becomes of them."""


@dataclass(frozen=True)
class Taken:
    at: int
    members: frozenset[str]
    amount: int


class Rush:
    """Threads on two engines, each with some of a moment's calls, let go at once."""

    def __init__(self, states: list[Any], counts: Counts, limit: int, window_s: int) -> None:
        self.now = 1_000 * S
        self.desks = [SqlBudgets(state._engine, lambda: self.now) for state in states]
        self.counts, self.limit, self.window_s = counts, limit, window_s
        self.name = f"b{next(NAMES)}"
        self.taken: list[Taken] = []
        self.refused: list[int] = []
        self.failed: list[BaseException] = []

    def charges(self, number: int, amount: int) -> list[Charge]:
        def one(units: int, member: str = "") -> Charge:
            return Charge(self.name, "agent:bot", units, self.limit, self.window_s, member)

        if self.counts is Counts.AMOUNT:
            return [one(amount)]
        return [one(1, f"m{(number + n) % 7}") for n in range(amount)]

    def moment(self, calls: list[tuple[int, str]]) -> None:
        barrier = Barrier(THREADS)

        def run(worker: int) -> None:
            desk = self.desks[worker % 2]
            barrier.wait()
            try:
                for number in range(worker, len(calls), THREADS):
                    self.one(desk, number, *calls[number])
            except BaseException as error:
                self.failed.append(error)

        threads = [Thread(target=run, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def one(self, desk: SqlBudgets, number: int, amount: int, then: str) -> None:
        call, charges = f"{self.name}-{next(NAMES)}", self.charges(number, amount)
        if desk.reserve(charges, call) is not None:
            self.refused.append(self.now)
            return
        if then == "release":
            desk.release(call)
            return
        if then == "settle" and self.counts is Counts.AMOUNT:
            amount = 1
            desk.settle(call, {self.name: 1})
        members = frozenset(each.member for each in charges) - {""}
        self.taken.append(Taken(self.now, members, amount))

    def fullest(self) -> int:
        windows = [
            [t for t in self.taken if start <= t.at < start + self.window_s * S]
            for start in {t.at for t in self.taken}
        ]
        if self.counts is Counts.DISTINCT:
            return max((len(set().union(*(t.members for t in w))) for w in windows), default=0)
        return max((sum(t.amount for t in w) for w in windows), default=0)


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def states(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[list[Any]]:
    """Two processes' engines on one database."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").another()
    home = tmp_path_factory.mktemp("home")
    opened = [open_state(home, url) for _ in range(2)]
    yield opened
    for state in opened:
        state.close()


@requirement("APP-8")
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=PLANS, counts=st.sampled_from(KINDS), limit=st.integers(2, 9), step=st.integers(1, 7))
def test_no_window_holds_more_than_the_limit(
    states: list[Any], plan: list[list[tuple[int, str]]], counts: Counts, limit: int, step: int
) -> None:
    rush = Rush(states, counts, limit, window_s=10)
    for calls in plan:
        rush.moment(calls)
        rush.now += step * S
    assert not rush.failed
    assert rush.fullest() <= limit
    rush.now -= step * S
    declared = Budget(rush.name, ("call_tool",), Per.AGENT, counts, limit, 10)
    known = [share.spent for share in rush.desks[0].shares(declared)]
    assert sum(known) <= limit


@requirement("APP-8")
def test_of_many_at_once_exactly_as_many_as_fit(states: list[Any]) -> None:
    rush = Rush(states, Counts.AMOUNT, limit=20, window_s=10)
    rush.moment([(1, "keep")] * 60)
    assert not rush.failed
    assert (len(rush.taken), len(rush.refused)) == (20, 40)


@requirement("APP-8")
def test_calls_with_several_budgets_do_not_wait_for_each_other_for_ever(states: list[Any]) -> None:
    """Each takes from both shares, named in either order: all end, and neither is exceeded."""
    rush = Rush(states, Counts.AMOUNT, limit=15, window_s=10)
    name = rush.name

    def charges(number: int, amount: int) -> list[Charge]:
        both = [Charge(f"{name}{end}", "agent:bot", amount, 15, 10) for end in "xy"]
        return both if number % 2 else both[::-1]

    rush.charges = charges  # type: ignore[method-assign]
    rush.moment([(1, "keep")] * 48)
    assert not rush.failed
    assert len(rush.taken) == 15


CHILD = """
import itertools, pathlib, sys
from exeat.core.controls import Charge
from exeat.storage.state import open_state
state = open_state(pathlib.Path(sys.argv[1]), sys.argv[2] or None)
for n in itertools.count(1):
    refused = state.budgets.reserve([Charge("b", "agent:bot", 1, 10**6, 3600)], f"c{n}")
    assert refused is None
    print(n, flush=True)
"""


@requirement("APP-8")
def test_what_a_killed_process_reserved_stays_spent(place: Place) -> None:
    """Nobody settles it: the gateway was killed with the call in flight."""
    state = open_state(place.folder, place.url)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place.folder), place.url or ""],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = 0
    while said < 25:
        said = int(child.stdout.readline())
    child.kill()
    said = max([said, *map(int, child.stdout.read().split())])
    child.wait()
    child.stdout.close()
    budget = Budget("b", ("call_tool",), Per.AGENT, Counts.CALLS, 10**6, 3600)
    (share,) = state.budgets.shares(budget)
    assert said <= share.spent <= said + 1  # one may have been durable before it could say so
    full = Charge("b", "agent:bot", 1, share.spent, 3600)
    assert state.budgets.reserve([full], "next") is not None
    state.close()

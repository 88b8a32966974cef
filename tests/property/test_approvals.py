"""Whatever comes in whatever order: no use without a yes, none beyond the bounds (APP-2, APP-3, APP-6)."""

from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from approvals_world import (
    ADA,
    BOB,
    BY_FINANCE,
    BY_OWNER,
    CALL,
    DAN,
    EVE,
    HOUR,
    NOW,
    UMA,
    World,
    standing,
)
from approvals_world import held as held_call
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from requirements import requirement

from exeat.approvals.model.bounds import AtMost, Bounds
from exeat.approvals.model.exact import exact, read_exact
from exeat.approvals.model.grant import scope
from exeat.approvals.model.hold import Word
from exeat.approvals.rules import authority
from exeat.approvals.rules.fitting import fits
from exeat.core.errors import Conflict, Invalid
from exeat.core.grant import Binding, Granted
from exeat.core.ids import PersonId
from exeat.storage.state import open_state

PEOPLE = (ADA, BOB, EVE, DAN, UMA)
FIELDS = (
    "agent",
    "user",
    "run",
    "server",
    "method",
    "action",
    "pin",
    "arguments",
    "slice",
    "owner",
)


def brute(
    places: list[str], given: dict[PersonId, frozenset[str]], used: frozenset[PersonId]
) -> bool:
    """Every way in which distinct people could take the places."""
    if not places:
        return True
    return any(
        places[0] in controls and person not in used and brute(places[1:], given, used | {person})
        for person, controls in given.items()
    )


controls = st.frozensets(st.sampled_from([BY_OWNER, BY_FINANCE, "approved_by_board"]))


@requirement("APP-3")
@given(st.dictionaries(st.sampled_from(PEOPLE), controls), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_sufficing_is_that_distinct_people_can_take_every_place(
    given_: dict[PersonId, frozenset[str]], one: int, two: int
) -> None:
    known = standing().roles
    by = standing(roles={"owner": replace(known["owner"], quorum=one),
                         "finance": replace(known["finance"], quorum=two)})  # fmt: skip
    wanted = [BY_OWNER] * one + [BY_FINANCE] * two
    found = authority.suffices(((BY_OWNER, BY_FINANCE),), given_, by)
    assert (found is not None) is brute(wanted, given_, frozenset())
    (missing,) = authority.missing(((BY_OWNER, BY_FINANCE),), given_, by)
    assert (missing == ()) is (found is not None)


@requirement("APP-2", "APP-11")
@given(st.sampled_from(FIELDS), st.text(min_size=1, max_size=8))
def test_another_binding_has_another_digest(name: str, value: str) -> None:
    first = held_call().binding
    other: Binding = replace(first, **{name: f"{getattr(first, name)}{value}"})
    assert other.digest != first.digest
    assert (scope(other) != scope(first)) is (name not in ("run", "arguments"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-1000, max_value=1000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@requirement("APP-2")
@given(json_values)
def test_exact_text_is_read_back_as_it_was(value: Any) -> None:
    try:
        text = exact(value)
        again = read_exact(text)
    except Invalid:
        return  # what the strict parser would not have let in
    assert exact(again) == text


@requirement("APP-6")
@given(json_values, st.decimals(min_value=0, max_value=10**6, places=4))
def test_at_most_admits_numbers_from_nothing_to_the_bound_alone(value: Any, most: Decimal) -> None:
    bounds = Bounds({"a": AtMost(most)}, 1, 1)
    number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    assert fits({"a": value}, {"a": 0}, bounds) is (number and 0 <= Decimal(value) <= most)


class Life(RuleBasedStateMachine):
    """People and an agent act in any order; a model that only counts says what may be used."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.state = open_state(Path(self.folder.name) / "home")
        self.world = World(self.state)
        self.now = NOW
        self.holds: dict[str, int] = {}
        self.yes: Counter[int] = Counter()
        self.grant_uses = 0
        self.used: Counter[int] = Counter()
        self.used_of_grants = 0

    def _call(self, amount: int, user: PersonId) -> Any:
        return held_call({**CALL, "amount": amount}, at=self.now, user=user)

    @rule(amount=st.integers(0, 3), user=st.sampled_from((UMA, ADA)))
    def claim(self, amount: int, user: PersonId) -> None:
        found = self.world.claim(self._call(amount, user), now=self.now)
        key = amount * 10 + (user == ADA)
        if isinstance(found, Granted):
            assert found.controls == {BY_OWNER}
            if found.approvals[0].startswith("g-"):
                self.used_of_grants += 1
            else:
                self.used[key] += 1
        elif hold := found.hold:
            self.holds[hold] = key

    @rule(
        n=st.integers(0, 10),
        person=st.sampled_from(PEOPLE),
        word=st.sampled_from(Word),
        grant=st.booleans(),
    )
    def answer(self, n: int, person: PersonId, word: Word, grant: bool) -> None:
        if not self.holds:
            return
        hold, key = sorted(self.holds.items())[n % len(self.holds)]
        bounds = None
        if grant and word is Word.APPROVE:
            bounds = Bounds({"amount": AtMost(Decimal(2))}, 2, self.now + HOUR)
        try:
            outcome = self.world.say(hold, person, word, bounds=bounds, now=self.now)
        except (Conflict, Invalid):
            return
        assert person in (ADA, BOB), "nobody else may"
        assert not (person == ADA and key % 10), "she asked for it"
        if outcome.grant is not None:
            self.grant_uses += 2
        elif word is Word.APPROVE:
            self.yes[key] += 1

    @rule(by=st.sampled_from((1, HOUR // 2)))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule()
    def expire(self) -> None:
        self.world.approvals.upkeep.expire(self.now)

    @invariant()
    def nothing_is_used_that_was_not_given(self) -> None:
        assert all(self.used[key] <= self.yes[key] for key in self.used)
        assert self.used_of_grants <= self.grant_uses

    def teardown(self) -> None:
        if hasattr(self, "state"):
            self.state.close()
            self.folder.cleanup()


Life.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


@pytest.mark.long
@requirement("APP-2", "APP-3", "APP-6")
def test_in_any_order() -> None:
    run_state_machine_as_test(Life, settings=Life.TestCase.settings)

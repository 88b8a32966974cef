"""Two gateways at once: exactly one wins, and nothing is used more often than it was given (APP-2, APP-6)."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import pytest
from approvals_world import ADA, BOB, CALL, DAN, EVE, HOUR, NOW, World, held
from requirements import requirement

from exeat.approvals.model.bounds import Bounds
from exeat.approvals.model.hold import Word
from exeat.approvals.service.answers import Outcome
from exeat.core.errors import Conflict
from exeat.core.grant import Granted, Pending
from exeat.storage.state import State

T = TypeVar("T")
GATEWAYS = 4
Reopen = Callable[[], State]


@pytest.fixture
def gateways(reopen: Reopen) -> list[World]:
    return [World(reopen()) for _ in range(GATEWAYS)]


def at_once(verbs: Sequence[Callable[[], T]]) -> list[T]:
    start = Barrier(len(verbs))

    def run(verb: Callable[[], T]) -> T:
        start.wait()
        return verb()

    with ThreadPoolExecutor(len(verbs)) as pool:
        return list(pool.map(run, verbs))


@requirement("APP-2", "APP-11")
def test_one_approval_is_used_once(gateways: list[World]) -> None:
    for n in range(5):
        call = held({**CALL, "amount": n})
        hold = gateways[0].asked(call)
        gateways[1].say(hold, ADA)
        found = at_once([lambda w=w, c=call: w.claim(c) for w in gateways * 2])  # type: ignore[misc]
        assert sum(isinstance(each, Granted) for each in found) == 1
        asked = {each.hold for each in found if isinstance(each, Pending)}
        assert len(asked) == 1, "the others wait for one and the same"


@requirement("APP-12")
def test_calls_at_once_are_asked_about_once(gateways: list[World]) -> None:
    found = at_once([w.claim for w in gateways * 2])
    assert len({each.hold for each in found if isinstance(each, Pending)}) == 1
    assert gateways[0].events() == ["approval.requested"]


@requirement("APP-6")
def test_a_grant_is_never_overused(gateways: list[World]) -> None:
    hold = gateways[0].asked()
    gateways[0].say(hold, ADA, bounds=Bounds({}, 7, NOW + HOUR))

    def three(world: World) -> int:
        return sum(isinstance(world.claim(), Granted) for _ in range(3))

    assert sum(at_once([lambda w=w: three(w) for w in gateways])) == 7  # type: ignore[misc]
    assert gateways[0].events().count("grant.used") == 7
    (grant,) = gateways[0].approvals.grants.all()
    assert grant.left == 0


def said(world: World, hold: str, person: str, word: Word) -> Outcome | Conflict:
    from exeat.core.ids import PersonId

    try:
        return world.say(hold, PersonId(person), word)
    except Conflict as refused:
        return refused


@requirement("APP-2", "APP-3")
def test_two_answers_at_once_have_one_winner(gateways: list[World]) -> None:
    for n in range(5):
        hold = gateways[0].asked(held({"n": n}))
        found = at_once([
            lambda h=hold: said(gateways[0], h, ADA, Word.APPROVE),  # type: ignore[misc]
            lambda h=hold: said(gateways[1], h, BOB, Word.DENY),  # type: ignore[misc]
            lambda h=hold: said(gateways[2], h, ADA, Word.APPROVE),  # type: ignore[misc]
        ])  # fmt: skip
        (won,) = [each for each in found if isinstance(each, Outcome)]
        state = gateways[3].approvals.states([hold])[hold]
        assert state == won.hold.state.value
    kinds = gateways[0].events()
    assert kinds.count("approval.approved") + kinds.count("approval.denied") == 5


@requirement("APP-3")
def test_a_quorum_at_once_is_reached_once(gateways: list[World]) -> None:
    call = held(alternatives=(("approved_by_finance",),))
    hold = gateways[0].asked(call)
    found = at_once([
        lambda: said(gateways[0], hold, EVE, Word.APPROVE),
        lambda: said(gateways[1], hold, DAN, Word.APPROVE),
        lambda: said(gateways[2], hold, EVE, Word.APPROVE),
    ])  # fmt: skip
    outcomes = [each for each in found if isinstance(each, Outcome)]
    assert sorted(bool(each.missing) for each in outcomes) == [False, True]
    assert isinstance(gateways[3].claim(call), Granted)


@requirement("APP-2")
def test_time_and_a_person_at_once(gateways: list[World]) -> None:
    hold = gateways[0].asked()
    late = NOW + HOUR
    ended = at_once([lambda w=w: w.approvals.upkeep.expire(late) for w in gateways])  # type: ignore[misc]
    assert sum(ended) == 1
    assert gateways[0].events().count("approval.expired") == 1
    assert gateways[0].approvals.states([hold]) == {hold: "expired"}

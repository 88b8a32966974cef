"""Holds and approvals on every database: asked once, used once, whoever is first (APP-2, APP-11)."""

import pytest
from approvals_world import (
    ADA,
    BOB,
    EVE,
    HOUR,
    NOW,
    UMA,
    World,
    held,
    without,
)

from exeat.approvals.model.hold import Word
from exeat.core.errors import Conflict, NotFound
from exeat.core.grant import Declined, Granted, Pending
from exeat.storage.state import State


@pytest.fixture
def world(state: State) -> World:
    return World(state)


def test_asked_approved_used_once(world: World) -> None:
    first = world.claim()
    assert isinstance(first, Pending)
    assert first.asked == (ADA, BOB)
    assert world.approvals.states([first.hold, "h-x"]) == {first.hold: "pending", "h-x": "gone"}
    world.say(first.hold, ADA)
    assert world.approvals.states([first.hold]) == {first.hold: "approved"}
    assert world.claim() == Granted(frozenset({"approved_by_owner"}), (first.hold,))
    again = world.claim()
    assert isinstance(again, Pending)
    assert again.hold != first.hold
    assert world.events() == [
        "approval.requested", "approval.approved", "approval.used", "approval.requested",
    ]  # fmt: skip


def test_the_same_call_is_asked_about_once(world: World) -> None:
    first, second = world.claim(), world.claim()
    assert first == second
    assert isinstance(first, Pending)
    assert world.approvals.hold(first.hold).attempts == 2
    assert world.events() == ["approval.requested"]


def test_a_denial_stands_for_a_while(world: World) -> None:
    hold = world.asked()
    world.say(hold, BOB, Word.DENY)
    assert world.claim() == Declined(hold, "denied", "A person who was asked said no.")
    assert isinstance(world.claim(now=NOW + HOUR), Pending)


def test_who_asks_never_approves(world: World) -> None:
    hold = world.asked(held(user=ADA))
    with pytest.raises(Conflict, match="never approves"):
        world.say(hold, ADA)
    world.say(hold, BOB)


def test_an_approver_who_left_no_longer_counts(world: World) -> None:
    hold = world.asked()
    world.say(hold, ADA)
    again = world.claim(of=without(ADA))
    assert isinstance(again, Pending)
    assert again.hold != hold
    assert world.approvals.states([hold]) == {hold: "lapsed"}


def test_what_is_shown_is_the_call(world: World) -> None:
    hold = world.asked(held(narrowed={"to": "x", "amount": 1}))
    shown = world.approvals.shown(world.approvals.hold(hold))
    assert shown.arguments["to"].startswith("DE02")
    assert shown.narrowed == {"to": "x", "amount": 1}
    with pytest.raises(NotFound):
        world.approvals.hold("h-unknown")


def test_twice_is_refused(world: World) -> None:
    hold = world.asked(held(alternatives=(("approved_by_finance",),)))
    world.say(hold, EVE)
    with pytest.raises(Conflict, match="already answered"):
        world.say(hold, EVE)
    with pytest.raises(Conflict, match="never approves"):
        world.say(hold, UMA)

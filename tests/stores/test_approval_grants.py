"""Grants on every database: within bounds, counted, revoked, dead with what they were bound to (APP-6)."""

from decimal import Decimal
from typing import Any

import pytest
from approvals_world import (
    ADA,
    BOB,
    BOT,
    BY_FINANCE,
    BY_OWNER,
    CALL,
    DAN,
    EVE,
    HOUR,
    NOW,
    UMA,
    World,
    agent,
    held,
    standing,
    without,
)
from requirements import requirement

from exeat.approvals.model.bounds import DAY_NS, AtMost, Bounds, Same
from exeat.approvals.model.grant import Grant
from exeat.approvals.model.hold import Word
from exeat.approvals.service.answers import Outcome
from exeat.approvals.service.grants import Revocation
from exeat.core.controls import CONFIRMED_BY_USER, Channel
from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.grant import Claim, Granted, Held, Pending
from exeat.core.ids import AgentId, PersonId
from exeat.storage.state import State

BOUNDS = Bounds({"amount": AtMost(Decimal(100)), "to": Same()}, 5, NOW + HOUR)


@pytest.fixture
def world(state: State) -> World:
    return World(state)


def granted(world: World, bounds: Bounds = BOUNDS, call: Held | None = None) -> Grant:
    hold = world.asked(call)
    outcome: Outcome = world.say(hold, ADA, bounds=bounds)
    assert outcome.grant is not None
    return outcome.grant


def call(amount: Any = Decimal("1.50"), **binding: Any) -> Held:
    return held({**CALL, "amount": amount}, **binding)


def uses(world: World, *calls: Held, now: int = NOW) -> list[bool]:
    return [isinstance(world.claim(each, now=now), Granted) for each in calls]


@requirement("APP-6", "APP-11")
def test_same_recipient_at_most_a_hundred_until_six_five_times(world: World) -> None:
    grant = granted(world)
    held_call: Claim = world.claim()
    assert held_call == Granted(frozenset({BY_OWNER}), (grant.id,)), "the held call takes the first"
    asked = (call(100), call(1), call(0), call(Decimal("100.01")), call(-1))
    assert uses(world, *asked) == [True, True, False, False, False], (
        "0 is unlimited to many servers"
    )
    assert uses(world, held({**CALL, "to": "DE99", "amount": 1})) == [False]
    assert uses(world, call(5, run="run-2"), call(6), call(7)) == [True, True, False]
    left = world.approvals.grants.one(grant.id)
    assert (left.left, left.last_used) == (0, NOW)
    kinds = world.events()
    assert kinds.count("grant.used") == 5
    assert kinds[:3] == ["approval.requested", "approval.approved", "grant.issued"]


@requirement("APP-6", "APP-11")
@pytest.mark.parametrize(
    "other",
    [
        call(pin="pin-2"),
        call(slice="slice-2"),
        call(owner="bob@d"),
        call(user=DAN),
        call(user=None),
        call(agent=AgentId("other")),
        call(method="resources/read"),
        call(labels=("private",)),
        call(alternatives=((BY_FINANCE,),)),
        call(alternatives=((BY_OWNER, BY_FINANCE),)),
    ],
    ids=["definition", "policy", "owner", "user", "no user", "agent", "method", "labels", "control",
         "more controls"],
)  # fmt: skip
def test_it_is_for_nothing_else(world: World, other: Held) -> None:
    granted(world)
    of = standing(agents={BOT: agent(), AgentId("other"): agent(id=AgentId("other"))})
    assert isinstance(world.claim(other, of), Pending)
    assert uses(world, call()) == [True]


@requirement("APP-6")
def test_what_leaves_beside_the_arguments_is_bound_too(world: World) -> None:
    from dataclasses import replace

    granted(world)
    assert uses(world, replace(call(), beside="x")) == [False]
    assert uses(world, call()) == [True]


@requirement("APP-6")
def test_for_one_run_only(world: World) -> None:
    granted(world, Bounds(BOUNDS.arguments, 5, NOW + HOUR, any_run=False))
    assert uses(world, call(run="run-2"), call()) == [False, True]


@requirement("APP-6")
def test_it_ends(world: World) -> None:
    granted(world)
    assert uses(world, call(), now=NOW + HOUR - 1) == [True]
    assert uses(world, call(), now=NOW + HOUR) == [False]


@requirement("APP-6")
def test_of_two_that_fit_the_one_that_ends_first_is_used(world: World) -> None:
    later = granted(world, Bounds(BOUNDS.arguments, 1, NOW + 2 * HOUR))
    other = granted(world, BOUNDS, call(101 - 1, run="run-9", labels=("pii",)))
    first = world.claim(call())
    assert isinstance(first, Granted)
    assert first.approvals == (other.id,)
    assert world.approvals.grants.one(later.id).left == 1


@requirement("APP-6")
def test_revoked_is_over_at_once(world: World) -> None:
    grant = granted(world)
    assert uses(world, call()) == [True]
    grants = world.approvals.grants
    with pytest.raises(Conflict, match="may not revoke"):
        grants.revoke(grant.id, Revocation(EVE, "cli", "mine?"), standing(), NOW)
    with pytest.raises(NotFound):
        grants.revoke("g-x", Revocation(ADA, "cli", ""), standing(), NOW)
    grants.revoke(grant.id, Revocation(BOB, "cli:0", "enough"), standing(), NOW)
    assert uses(world, call(2)) == [False]
    with pytest.raises(Conflict, match="revoked before"):
        grants.revoke(grant.id, Revocation(BOB, "cli:0", ""), standing(), NOW)
    told = [
        each.event for each in world.state.outbox.take(100) if each.event.kind == "grant.revoked"
    ]
    assert [(each.actor, each.channel, each.reason) for each in told] == [(BOB, "cli:0", "enough")]


@requirement("APP-6")
@pytest.mark.parametrize("person", [ADA, UMA, PersonId("root")])
def test_whoever_may_take_it_back(world: World, person: PersonId) -> None:
    from exeat.core.facts import PersonFacts

    grant = granted(world)
    people = {**standing().people, PersonId("root"): PersonFacts(
        PersonId("root"), True, frozenset({"admin"})
    )}  # fmt: skip
    found = world.approvals.grants.revoke(
        grant.id, Revocation(person, "cli", ""), standing(people=people), NOW
    )
    assert found.revoked_by == person


@requirement("APP-3", "APP-6")
def test_it_rests_while_its_approver_has_no_authority(world: World) -> None:
    granted(world)
    assert isinstance(world.claim(call(), without(ADA)), Pending)
    assert uses(world, call()) == [True]


@requirement("APP-3", "APP-6")
def test_a_quorum_grants_only_what_all_of_it_proposed(world: World) -> None:
    asked = held(alternatives=((BY_FINANCE,),))
    hold = world.asked(asked)
    wider = Bounds({"amount": AtMost(Decimal(1000))}, 5, NOW + HOUR)
    world.say(hold, EVE, bounds=BOUNDS)
    found = world.approvals.hold(hold)
    assert world.approvals.proposed(found, found.answers[0]) == BOUNDS
    outcome = world.say(hold, DAN, bounds=wider)
    assert outcome.grant is None
    assert outcome.hold.state.value == "approved", "they agree on this call"
    second = world.asked(held({**CALL, "amount": 2}, ((BY_FINANCE,),)))
    world.say(second, EVE, bounds=BOUNDS)
    agreed = world.say(second, DAN, bounds=BOUNDS)
    assert agreed.grant is not None
    assert agreed.grant.controls == {BY_FINANCE}


@requirement("APP-6")
def test_bounds_that_do_not_hold_the_held_call_change_nothing(world: World) -> None:
    hold = world.asked()
    before = world.events()
    for bounds in (
        Bounds({"amount": AtMost(Decimal(1))}, 5, NOW + HOUR),
        Bounds({}, 5, NOW + 91 * DAY_NS),
        Bounds({}, 0, NOW + HOUR),
    ):
        with pytest.raises(Invalid):
            world.say(hold, ADA, bounds=bounds)
    assert world.events() == before
    assert world.approvals.states([hold]) == {hold: "pending"}


@requirement("APP-3", "APP-6")
def test_a_confirmation_never_becomes_a_grant(world: World) -> None:
    from exeat.approvals.model.standing import Standing
    from exeat.core.facts import PersonFacts

    solo = Standing({}, {UMA: PersonFacts(UMA, True)}, {BOT: agent()}, solo=True)
    hold = world.asked(held(alternatives=((CONFIRMED_BY_USER,),)), solo)
    with pytest.raises(Invalid, match="never becomes a grant"):
        world.say(hold, UMA, channel=Channel.PASSKEY, bounds=BOUNDS, of=solo)


@requirement("APP-6")
def test_a_standing_grant_covers_a_call_that_was_denied_before(world: World) -> None:
    """A grant is what people said in so many words; the denial was of one call."""
    denied = world.asked(call(3))
    world.say(denied, ADA, Word.DENY)
    assert uses(world, call(3)) == [False]
    granted(world)
    assert uses(world, call(3)) == [True]


@requirement("APP-6")
def test_list_shows_use_and_extent(world: World) -> None:
    grant = granted(world)
    world.claim(call(3), now=NOW + 7)
    (listed,) = world.approvals.grants.all()
    assert (listed.uses, listed.left, listed.last_used) == (5, 4, NOW + 7)
    extent = world.approvals.grants.extent(listed)
    assert extent.bounds == BOUNDS
    assert extent.held == CALL
    assert grant.live(NOW)
    assert not listed.live(NOW + HOUR)


@requirement("APP-6", "APP-11")
def test_nothing_is_taken_from_what_has_ended_or_is_used_up(world: World) -> None:
    """Also by who read it before."""
    grant = granted(world, Bounds({}, 1, NOW + HOUR))
    with world.approvals.store.change() as tx:
        assert tx.take(grant.id, NOW + HOUR) is None
        taken = tx.take(grant.id, NOW)
        assert taken is not None
        assert taken.left == 0
        assert tx.take(grant.id, NOW) is None
    other = granted(world, Bounds({}, 1, NOW + HOUR), call(5))
    world.approvals.grants.revoke(other.id, Revocation(ADA, "cli", ""), standing(), NOW)
    with world.approvals.store.change() as tx:
        assert tx.take(other.id, NOW) is None

"""Holds and approvals on every database: asked once, used once, by whom it may be (APP-2, APP-3, APP-11)."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa
from approvals_world import (
    ADA,
    BOB,
    BOT,
    BY_FINANCE,
    BY_OWNER,
    CALL,
    DAN,
    EVE,
    FINANCE,
    HOUR,
    MINUTE,
    NOW,
    UMA,
    Seals,
    World,
    agent,
    drawing,
    held,
    standing,
    without,
)
from requirements import requirement

from exeat.approvals.model.bounds import DAY_NS
from exeat.approvals.model.hold import SECOND_NS, HoldState, Word
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.answers import USE_WITHIN_NS
from exeat.approvals.service.approvals import Approvals
from exeat.approvals.service.claims import Caps, told
from exeat.core.controls import CONFIRMED_BY_USER, OWNER, OWNER_ROLE, Channel
from exeat.core.errors import Conflict, Invalid, NotFound, VaultFailed
from exeat.core.facts import PersonFacts
from exeat.core.grant import Declined, Granted, Held, Pending
from exeat.core.ids import AgentId, PersonId
from exeat.storage.schema_approvals import answers, grants, holds
from exeat.storage.state import State

Reopen = Callable[[], State]


@pytest.fixture
def world(state: State) -> World:
    return World(state)


@requirement("APP-2", "APP-11")
def test_asked_approved_used_once(world: World) -> None:
    first = world.claim()
    assert isinstance(first, Pending)
    assert first.asked == (ADA, BOB)
    assert first.expires_at == NOW + HOUR
    assert world.approvals.states([first.hold, "h-x"]) == {first.hold: "pending", "h-x": "gone"}
    world.say(first.hold, ADA)
    assert world.approvals.states([first.hold]) == {first.hold: "approved"}
    assert world.claim() == Granted(frozenset({BY_OWNER}), (first.hold,))
    assert world.approvals.states([first.hold]) == {first.hold: "used"}
    again = world.claim()
    assert isinstance(again, Pending)
    assert again.hold != first.hold
    assert world.events() == [
        "approval.requested", "approval.approved", "approval.used", "approval.requested",
    ]  # fmt: skip


@requirement("APP-2")
def test_another_gateway_finds_what_was_approved(reopen: Reopen) -> None:
    first, second = World(reopen()), World(reopen())
    hold = first.asked()
    second.say(hold, ADA)
    assert second.claim() == Granted(frozenset({BY_OWNER}), (hold,))
    assert isinstance(first.claim(), Pending)


@requirement("APP-2", "APP-11")
@pytest.mark.parametrize(
    "other",
    [
        held({**CALL, "amount": 1}),
        held(pin="pin-2"),
        held(slice="slice-2"),
        held(owner="bob@d"),
        held(user=DAN),
        held(user=None),
        held(run="run-2"),
        held(agent=AgentId("other")),
        held(method="resources/read"),
        held(labels=("private",)),
    ],
    ids=["arguments", "definition", "policy", "owner", "user", "no user", "run", "agent", "method",
         "labels"],
)  # fmt: skip
def test_an_approval_is_for_what_was_shown_alone(world: World, other: Held) -> None:
    hold = world.asked()
    world.say(hold, ADA)
    of = standing(agents={BOT: agent(), AgentId("other"): agent(id=AgentId("other"))})
    assert isinstance(world.claim(other, of), Pending)
    assert world.claim() == Granted(frozenset({BY_OWNER}), (hold,))


@requirement("APP-11")
def test_labels_are_a_ceiling(world: World) -> None:
    hold = world.asked(held(labels=("pii", "private")))
    world.say(hold, ADA)
    assert isinstance(world.claim(held(labels=("pii", "secret"))), Pending)
    assert isinstance(world.claim(held(labels=("pii",))), Granted)


@requirement("APP-12")
def test_the_same_call_is_asked_about_once(world: World) -> None:
    first, *others = [world.claim() for _ in range(50)]
    assert isinstance(first, Pending)
    assert set(others) == {first}
    assert world.approvals.hold(first.hold).attempts == 2, "a flood is written once a second"
    world.claim(now=NOW + SECOND_NS)
    assert world.approvals.hold(first.hold).attempts == 51
    assert world.events() == ["approval.requested"]
    more = world.claim(held(labels=("pii",)))
    assert isinstance(more, Pending)
    assert more.hold != first.hold, "an answer for fewer labels would not do"


@requirement("APP-12")
def test_an_agent_asks_only_so_much(state: State) -> None:
    world = World(state, Caps(pending=3, per_hour=5))
    asked = [world.asked(held({"n": n})) for n in range(3)]
    capped = world.claim(held({"n": 3}))
    assert isinstance(capped, Declined)
    assert capped.word == "capped"
    assert isinstance(world.claim(held({"n": 0})), Pending), "what is asked stays asked"
    of = standing(agents={BOT: agent(), AgentId("other"): agent(id=AgentId("other"))})
    assert isinstance(world.claim(held({"n": 3}, agent=AgentId("other")), of), Pending)
    for hold in asked:
        world.say(hold, ADA, Word.DENY)
    assert isinstance(world.claim(held({"n": 4})), Pending)
    assert isinstance(world.claim(held({"n": 5})), Pending)
    within = world.claim(held({"n": 6}))
    assert isinstance(within, Declined)
    assert (within.word, "within the hour" in within.says) == ("capped", True)
    later = NOW + HOUR + 1
    assert isinstance(world.claim(held({"n": 6}, at=later), now=later), Pending)
    assert world.events().count("approval.requested") == 7


@requirement("APP-12")
def test_a_denial_stands_for_a_while_and_costs_nobody_anything(world: World) -> None:
    hold = world.asked()
    world.say(hold, BOB, Word.DENY)
    for _ in range(20):
        assert world.claim() == Declined(
            hold,
            "denied",
            "A person who was asked said no, and that stands for an hour. Ask the agent's owner.",
        )
    assert world.events() == ["approval.requested", "approval.denied"]
    assert isinstance(world.claim(held(at=NOW + HOUR), now=NOW + HOUR), Pending)


@requirement("APP-3")
def test_nobody_who_could_approve(world: World) -> None:
    alone = without(BOB)
    found = world.claim(held(user=ADA), alone)
    assert isinstance(found, Declined)
    assert found.word == "nobody"
    assert world.claim(held(alternatives=(("approved_by_board",),))) == found
    assert world.events() == []


@requirement("APP-3")
def test_who_asks_never_approves_nor_denies(world: World) -> None:
    hold = world.asked(held(user=ADA))
    for word in Word:
        with pytest.raises(Conflict, match="never approves"):
            world.say(hold, ADA, word)
    world.say(hold, BOB)


@requirement("APP-3")
@pytest.mark.parametrize("person", [UMA, PersonId("bot"), PersonId("h-1")])
def test_nor_does_anybody_else(world: World, person: PersonId) -> None:
    hold = world.asked(held(user=None))
    with pytest.raises(Conflict):
        world.say(hold, person)
    with pytest.raises(Conflict, match="not enough for approved_by_owner"):
        world.say(hold, ADA, channel=Channel.WEBHOOK)
    assert world.events() == ["approval.requested"]


@requirement("APP-3")
def test_an_approver_whose_authority_ended_no_longer_counts(world: World) -> None:
    hold = world.asked()
    with pytest.raises(Conflict, match="not a live person"):
        world.say(hold, ADA, of=without(ADA))
    world.say(hold, ADA)
    again = world.claim(of=without(ADA))
    assert isinstance(again, Pending)
    assert again.hold != hold
    assert world.approvals.states([hold]) == {hold: "lapsed"}
    assert "approval.lapsed" in world.events()
    assert isinstance(world.claim(), Pending), "coming back does not revive it"


@requirement("APP-3")
def test_a_quorum_waits_for_distinct_people_and_each_must_still_stand(world: World) -> None:
    call = held(alternatives=((BY_FINANCE,),))
    hold = world.asked(call)
    first = world.say(hold, EVE)
    assert first.missing == ((BY_FINANCE,),)
    with pytest.raises(Conflict, match="eve has already answered"):
        world.say(hold, EVE)
    assert isinstance(world.claim(call), Pending)
    moved = replace(standing().people[EVE], roles=frozenset())
    after = standing(people={**standing().people, EVE: moved})
    second = world.say(hold, DAN, of=after)
    assert second.missing == ((BY_FINANCE,),), "what eve said counts no more"
    assert world.approvals.hold(hold).state.value == "pending"


@requirement("APP-3")
def test_a_quorum_that_is_reached(world: World) -> None:
    call = held(alternatives=((BY_FINANCE,),))
    hold = world.asked(call)
    world.say(hold, EVE)
    assert world.say(hold, DAN).missing == ()
    assert world.claim(call) == Granted(frozenset({BY_FINANCE}), (hold,))
    assert world.events() == [
        "approval.requested", "approval.answered", "approval.approved", "approval.used",
    ]  # fmt: skip


@requirement("APP-3")
def test_one_no_of_the_quorum_ends_it(world: World) -> None:
    hold = world.asked(held(alternatives=((BY_FINANCE,),)))
    world.say(hold, EVE)
    world.say(hold, DAN, Word.DENY)
    assert world.approvals.states([hold]) == {hold: "denied"}


@requirement("APP-3")
def test_who_said_yes_can_say_no_while_others_are_awaited_and_not_yes_again(world: World) -> None:
    hold = world.asked(held(alternatives=((BY_FINANCE,),)))
    world.say(hold, EVE)
    with pytest.raises(Conflict, match="eve has already answered"):
        world.say(hold, EVE)
    denied = world.say(hold, EVE, Word.DENY).hold
    assert [each.word for each in denied.answers] == [Word.DENY]
    assert world.approvals.hold(hold) == denied
    with pytest.raises(Conflict, match="was decided before"):
        world.say(hold, DAN)


@requirement("APP-3")
def test_any_alternative_suffices(world: World) -> None:
    call = held(alternatives=((BY_OWNER,), (BY_FINANCE,)))
    hold = world.asked(call)
    world.say(hold, EVE)
    world.say(hold, ADA)
    assert world.claim(call) == Granted(frozenset({BY_OWNER}), (hold,))


@requirement("APP-2")
def test_after_its_time_nothing_can_be_said_or_used(world: World) -> None:
    hold = world.asked()
    with pytest.raises(Conflict, match="expired, and the answer was no"):
        world.say(hold, ADA, now=NOW + HOUR)
    late = world.claim(held(at=NOW + HOUR), now=NOW + HOUR)
    assert isinstance(late, Pending)
    assert late.hold != hold
    world.say(late.hold, ADA, now=NOW + HOUR)
    unused = NOW + HOUR + USE_WITHIN_NS
    assert isinstance(world.claim(held(at=unused), now=unused), Pending)


@requirement("APP-2")
def test_time_ends_holds_with_one_event_each(world: World) -> None:
    waiting, approved = world.asked(), world.asked(held({"n": 1}))
    world.say(approved, ADA)
    assert world.approvals.upkeep.expire(NOW + HOUR - 1) == 0
    assert world.approvals.upkeep.expire(NOW + 2 * HOUR) == 2
    assert world.approvals.upkeep.expire(NOW + 2 * HOUR) == 0
    assert set(world.approvals.states([waiting, approved]).values()) == {"expired"}
    assert world.events()[-2:] == ["approval.expired", "approval.expired"]


@requirement("APP-2")
@pytest.mark.parametrize("ended", ["approve", "deny", "use", "expire"])
def test_what_was_decided_stays_decided(world: World, ended: str) -> None:
    hold = world.asked()
    if ended == "expire":
        world.approvals.upkeep.expire(NOW + HOUR)
    else:
        world.say(hold, ADA, Word.DENY if ended == "deny" else Word.APPROVE)
    if ended == "use":
        world.claim()
    before = world.events()
    for word in Word:
        with pytest.raises(Conflict, match="was decided before"):
            world.say(hold, BOB, word)
    assert world.events() == before


@requirement("APP-3")
def test_solo_mode_confirms_and_says_nowhere_that_it_approves(world: World) -> None:
    solo = Standing({OWNER: OWNER_ROLE}, {UMA: PersonFacts(UMA, True)}, {BOT: agent()}, solo=True)
    call = held(alternatives=((CONFIRMED_BY_USER,),))
    hold = world.asked(call, solo)
    for channel in (Channel.CLI, Channel.CONSOLE, Channel.WEBHOOK):
        with pytest.raises(Conflict):
            world.say(hold, UMA, channel=channel, of=solo)
    world.say(hold, UMA, channel=Channel.PASSKEY, of=solo)
    assert world.claim(call, solo) == Granted(frozenset({CONFIRMED_BY_USER}), (hold,))
    assert world.events() == ["confirmation.requested", "hold.confirmed", "confirmation.used"]
    second = world.asked(held({"n": 1}, ((CONFIRMED_BY_USER,),)), solo)
    world.say(second, UMA, Word.DENY, channel=Channel.PASSKEY, of=solo)
    assert world.events()[-1] == "confirmation.denied"
    figures = world.approvals.figures(0)
    assert (figures.approved, figures.confirmed) == (0, 1)
    assert isinstance(world.claim(held({"n": 2}, ((CONFIRMED_BY_USER,),))), Declined)


@requirement("APP-1")
def test_what_is_shown_is_the_call(world: World) -> None:
    hold = world.asked(held(narrowed={"to": "x", "amount": 1}))
    shown = world.approvals.shown(world.approvals.hold(hold))
    assert shown.arguments == CALL
    assert shown.narrowed == {"to": "x", "amount": 1}
    with pytest.raises(NotFound):
        world.approvals.hold("h-unknown")
    with pytest.raises(NotFound, match="no held call"):
        world.say("h-unknown", ADA)


@requirement("APP-1", "ID-10")
def test_arguments_rest_sealed_stay_out_of_evidence_and_are_forgotten(world: World) -> None:
    hold = world.asked()
    world.say(hold, ADA)
    with world.state._engine.connect() as connection:
        rows = [repr(tuple(row)) for table in (holds, answers, grants)
                for row in connection.execute(sa.select(table))]  # fmt: skip
    told = [repr(each.event) for each in world.state.outbox.take(100)]
    assert not any("DE02" in each or "99.50" in each for each in (*rows, *told))
    world.claim()
    assert world.approvals.upkeep.forget(NOW + 30 * DAY_NS) == 0
    assert world.approvals.upkeep.forget(NOW + 30 * DAY_NS + 1) == 1
    with pytest.raises(NotFound, match="were forgotten"):
        world.approvals.shown(world.approvals.hold(hold))
    assert world.approvals.presented(world.approvals.hold(hold), standing())["arguments"] is None
    world.approvals.upkeep.forget(NOW + 400 * DAY_NS + 1)
    assert world.approvals.states([hold]) == {hold: "gone"}


@requirement("APP-1")
def test_what_cannot_be_shown_can_be_denied_but_not_approved(world: World) -> None:
    hold = world.asked()
    blind = Approvals(world.state.approvals, Seals(b"x" * 32), drawing())
    world.approvals = blind
    with pytest.raises(VaultFailed):
        world.say(hold, ADA)
    assert world.approvals.states([hold]) == {hold: "pending"}
    world.say(hold, ADA, Word.DENY)


@requirement("APP-1")
def test_a_row_in_anothers_place_does_not_open(world: World) -> None:
    """Who can write to the database cannot have people approve a call that they were not shown."""
    harmless, other = world.asked(held({"n": 1})), world.asked(held({"n": 2}))
    with world.state._engine.begin() as connection:
        sealed = connection.execute(
            sa.select(holds.c.sealed).where(holds.c.id == harmless)
        ).scalar_one()
        connection.execute(holds.update().where(holds.c.id == other).values(sealed=sealed))
    with pytest.raises(VaultFailed):
        world.say(other, ADA)


@requirement("APP-7")
def test_figures(world: World) -> None:
    for n, (person, word, after) in enumerate(
        [
            (ADA, Word.APPROVE, 1),
            (ADA, Word.APPROVE, 2),
            (ADA, Word.DENY, 60),
            (BOB, Word.APPROVE, 30),
        ]
    ):
        hold = world.asked(held({"n": n}))
        world.say(hold, person, word, now=NOW + after * MINUTE // 60)
    world.claim(held({"n": 5}))
    world.claim(held({"n": 5}))
    found = world.approvals.figures(NOW)
    assert (found.holds, found.attempts, found.pending) == (5, 6, 1)
    assert (found.approved, found.denied, found.expired, found.median_s) == (3, 1, 0, 16.0)
    ada, bob = found.people
    assert (ada.approvals, ada.denials, ada.quick, ada.median_s) == (2, 1, 2, 2.0)
    assert (ada.rate, bob.rate, bob.quick) == (0.667, 1.0, 0)
    assert world.approvals.figures(NOW + 1).holds == 0


@requirement("APP-3")
@pytest.mark.parametrize("reason", ["x" * 501, "a\nb", "\x1b[2J", "\u202e"])
def test_a_reason_is_one_plain_line(world: World, reason: str) -> None:
    from exeat.approvals.service.answers import Said

    hold = world.asked()
    said = Said(ADA, Channel.CLI, Word.APPROVE, reason)
    with pytest.raises(Invalid):
        world.approvals.answer(hold, said, standing(), NOW)


@requirement("APP-3")
def test_a_large_role_is_named_by_its_name(world: World) -> None:
    many = {PersonId(f"p{n}"): PersonFacts(PersonId(f"p{n}"), True, frozenset({"finance"}))
            for n in range(200)}  # fmt: skip
    of = standing(people=many, roles={"finance": FINANCE})
    found = world.claim(held(alternatives=((BY_FINANCE,),)), of)
    assert isinstance(found, Pending)
    assert found.asked == ("finance",)
    assert len(world.approvals.hold(found.hold).asked) == 50


@requirement("APP-2", "APP-11")
def test_a_hold_moves_only_from_where_it_was_thought_to_be(world: World) -> None:
    """What the writers' lock makes impossible is refused all the same."""
    found = world.approvals.hold(world.asked())
    event = told("approval.used", found, NOW)
    with world.approvals.store.change() as tx:
        assert not tx.move(replace(found, state=HoldState.USED), HoldState.APPROVED, event)
    assert world.approvals.states([found.id]) == {found.id: "pending"}
    assert world.events() == ["approval.requested"]

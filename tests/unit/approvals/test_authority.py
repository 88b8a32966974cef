"""Who may give what, and when it suffices (APP-3)."""

from dataclasses import replace

import pytest
from approvals_world import (
    ADA,
    BOB,
    BOT,
    BY_FINANCE,
    BY_OWNER,
    DAN,
    EVE,
    FINANCE,
    HOUR,
    NOW,
    UMA,
    agent,
    held,
    standing,
    without,
)
from requirements import requirement

from exeat.approvals.model.hold import SECOND_NS, Answer, Hold, Word
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.core.controls import CONFIRMED_BY_USER, OWNER, OWNER_ROLE, ApproverRole, Channel
from exeat.core.facts import PersonFacts
from exeat.core.ids import PersonId

BOTH = ((BY_OWNER, BY_FINANCE),)


def hold(alternatives: tuple[tuple[str, ...], ...] = ((BY_OWNER,),), **binding: object) -> Hold:
    call = held(alternatives=alternatives, **binding)
    return Hold(
        "h-1", call.binding, alternatives, (), "pay", "external", b"", (), NOW, NOW + 8 * HOUR, ""
    )


def gives(
    person: PersonId,
    of: Hold | None = None,
    channel: Channel = Channel.CLI,
    now: int = NOW,
    by: Standing | None = None,
) -> set[str]:
    return set(authority.gives(of or hold(BOTH), person, channel, now, by or standing()))


@requirement("APP-3")
def test_owner_and_deputy_give_the_owners_control_and_finance_its_own() -> None:
    assert gives(ADA) == gives(BOB) == {BY_OWNER}
    assert gives(EVE) == gives(DAN) == {BY_FINANCE}
    assert gives(UMA) == gives(PersonId("nobody")) == set()


@requirement("APP-3")
def test_the_requester_never_gives_an_approval() -> None:
    assert gives(ADA, hold(BOTH, user=ADA)) == set()
    assert gives(EVE, hold(BOTH, user=EVE)) == set()


@requirement("APP-3")
def test_who_is_not_live_gives_nothing_and_a_former_owner_nothing() -> None:
    assert gives(ADA, by=without(ADA)) == set()
    owned = standing(agents={BOT: agent(owner=BOB, deputy=EVE)})
    assert gives(ADA, by=owned) == set()
    assert gives(EVE, by=owned) == {BY_OWNER, BY_FINANCE}


@requirement("APP-3", "APP-5")
def test_a_channel_that_is_not_good_enough_gives_nothing() -> None:
    assert gives(ADA, channel=Channel.WEBHOOK) == set()
    strict = replace(FINANCE, channels=frozenset({Channel.PASSKEY}))
    by = standing(roles={OWNER: OWNER_ROLE, "finance": strict})
    assert gives(EVE, by=by) == set()
    assert gives(EVE, channel=Channel.PASSKEY, by=by) == {BY_FINANCE}


@requirement("APP-2")
def test_after_the_roles_time_an_answer_gives_nothing() -> None:
    late = NOW + OWNER_ROLE.within_s * SECOND_NS
    assert gives(ADA, now=late - 1) == {BY_OWNER}
    assert gives(ADA, now=late) == set()
    assert gives(EVE, now=late) == {BY_FINANCE}
    assert authority.deadline(BOTH, NOW, standing()) == late
    assert authority.deadline(((BY_OWNER,), (BY_FINANCE,)), NOW, standing()) == NOW + 8 * HOUR


@requirement("APP-3")
def test_a_control_that_no_role_declares_is_nobodys() -> None:
    undeclared = ((f"{BY_OWNER}s",), ("redacted_pii",), ("approved_by_",))
    assert gives(ADA, hold(undeclared)) == set()
    assert authority.able(undeclared, held().binding, standing()) == {}
    assert authority.suffices(undeclared, {ADA: frozenset(undeclared[0])}, standing()) is None


@requirement("APP-3")
def test_a_quorum_is_of_distinct_people() -> None:
    one = {EVE: frozenset({BY_FINANCE})}
    assert authority.suffices(((BY_FINANCE,),), one, standing()) is None
    assert authority.missing(((BY_FINANCE,),), one, standing()) == ((BY_FINANCE,),)
    two = {**one, DAN: frozenset({BY_FINANCE})}
    assert authority.suffices(((BY_FINANCE,),), two, standing()) == {BY_FINANCE}


@requirement("APP-3")
def test_duties_are_separate_one_person_takes_one_place() -> None:
    """eve is deputy too; what she says counts once, wherever it is needed most."""
    by = standing(agents={BOT: agent(deputy=EVE)})
    both = frozenset({BY_OWNER, BY_FINANCE})
    finance = frozenset({BY_FINANCE})
    assert authority.suffices(BOTH, {EVE: both, DAN: finance}, by) is None
    assert authority.suffices(BOTH, {EVE: both, DAN: finance, ADA: frozenset({BY_OWNER})}, by)
    alone = standing(roles={OWNER: OWNER_ROLE, "finance": replace(FINANCE, quorum=1)})
    assert authority.suffices(BOTH, {EVE: both, DAN: finance}, alone) == both
    assert authority.suffices(BOTH, {EVE: both}, alone) is None


@requirement("APP-3")
def test_nobody_is_asked_where_a_quorum_cannot_be_reached() -> None:
    few = without(DAN)
    assert authority.able(((BY_FINANCE,),), held().binding, few) == {}
    either = ((BY_FINANCE,), (BY_OWNER,))
    assert set(authority.able(either, held().binding, few)) == {ADA, BOB}
    assert authority.able(((BY_OWNER,),), held(user=ADA).binding, without(BOB)) == {}


@requirement("APP-3")
def test_in_solo_mode_the_user_confirms_by_passkey_and_by_nothing_else() -> None:
    confirm = hold(((CONFIRMED_BY_USER,),))
    solo = Standing({OWNER: OWNER_ROLE}, {UMA: PersonFacts(UMA, True)}, {BOT: agent()}, solo=True)
    assert gives(UMA, confirm, Channel.PASSKEY, by=solo) == {CONFIRMED_BY_USER}
    for channel in set(Channel) - {Channel.PASSKEY}:
        assert gives(UMA, confirm, channel, by=solo) == set()
    assert gives(UMA, confirm, Channel.PASSKEY, by=replace(solo, solo=False)) == set()
    assert gives(ADA, confirm, Channel.PASSKEY, by=replace(standing(), solo=True)) == set()
    late = NOW + authority.CONFIRM_WITHIN_NS
    assert gives(UMA, confirm, Channel.PASSKEY, late, solo) == set()


@requirement("APP-3")
def test_what_was_said_counts_only_while_its_author_could_still_say_it() -> None:
    said = Answer(EVE, Word.APPROVE, Channel.CLI, NOW, "", frozenset({BY_FINANCE}))
    binding = held().binding
    assert authority.still([said], binding, standing()) == {EVE: {BY_FINANCE}}
    assert authority.still([said], binding, without(EVE)) == {EVE: frozenset()}
    moved = replace(standing().people[EVE], roles=frozenset({"marketing"}))
    elsewhere = standing(people={**standing().people, EVE: moved})
    assert authority.still([said], binding, elsewhere) == {EVE: frozenset()}
    stricter = {"finance": replace(FINANCE, channels=frozenset({Channel.PASSKEY}))}
    assert authority.still([said], binding, standing(roles=stricter)) == {EVE: frozenset()}


@requirement("APP-3")
def test_a_role_that_came_later_makes_an_answer_no_larger() -> None:
    said = Answer(EVE, Word.APPROVE, Channel.CLI, NOW, "", frozenset({BY_FINANCE}))
    by = standing(agents={BOT: agent(deputy=EVE)})
    assert authority.still([said], held().binding, by) == {EVE: {BY_FINANCE}}


@requirement("APP-3")
@pytest.mark.parametrize("named", [EVE, PersonId("gone")])
def test_people_who_are_named_must_be_live(named: PersonId) -> None:
    board = ApproverRole("board", people=frozenset({named}))
    by = without(EVE, standing(roles={"board": board}))
    assert authority.able((("approved_by_board",),), held().binding, by) == {}

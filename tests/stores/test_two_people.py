"""What takes two people: policy versions and observed agents, on both databases (POL-5, POL-7, POL-10)."""

from collections.abc import Callable

import pytest
from registry_world import ADA, BOB, BOT, DAY_NS, EVE, NOW, World, act
from requirements import requirement

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.registry.model.person import ADMIN
from exeat.registry.model.proposal import Standing
from exeat.storage.state import State

PERMIT = {"a.cedar": '@id("a") permit(principal, action, resource);'}
OTHER = {"a.cedar": '@id("b") forbid(principal, action, resource);'}
DAY_S = 86_400


@pytest.fixture
def team(state: State) -> World:
    """ada and bob are admins."""
    world = World(state)
    world.active()
    world.registry.set_roles(BOB, [ADMIN], act())
    return world


@requirement("POL-10")
def test_one_admin_alone_applies_and_a_team_does_not(state: State) -> None:
    world = World(state)
    assert world.registry.apply_policy(PERMIT, ADA, act()).number == 1
    world.registry.set_roles(BOB, [ADMIN], act())
    with pytest.raises(Conflict, match="takes two people"):
        world.registry.apply_policy(OTHER, BOB, act())
    assert world.registry.apply_policy(OTHER, ADA, act(), approvals=1).number == 2
    world.registry.depart(BOB, act())
    assert world.registry.apply_policy(PERMIT, ADA, act()).number == 3, "nobody else is left to ask"
    with pytest.raises(Conflict, match="takes two people"):
        world.registry.apply_policy(OTHER, ADA, act(), approvals=2)


@requirement("POL-5", "POL-10")
def test_another_person_puts_it_in_force_with_both_names(team: World) -> None:
    made = team.registry.propose_policy(PERMIT, ADA, act(reason="tighter"))
    assert team.state.snapshot().policy is None
    team.registry.approve(made.number, made.digest, act(BOB, reason="looks right"))
    policy = team.state.snapshot().policy
    assert policy is not None
    assert (policy.author, policy.approver, policy.reason) == (ADA, BOB, "tighter")
    assert dict(policy.files) == PERMIT
    assert team.events()[-4:] == [
        "proposal.opened", "proposal.approved", "policy.added", "policy.enforced"
    ]  # fmt: skip
    with pytest.raises(Conflict, match="approved already"):
        team.registry.approve(made.number, made.digest, act(BOB))


@requirement("POL-10")
@pytest.mark.parametrize("author", [ADA, BOB])
def test_neither_author_nor_proposer_approves(team: World, author: str) -> None:
    team.registry.set_roles(EVE, [ADMIN], act())
    made = team.registry.propose_policy(PERMIT, author, act())  # type: ignore[arg-type]
    for person in {ADA, author}:
        with pytest.raises(Conflict, match="wrote or proposed"):
            team.registry.approve(made.number, made.digest, act(person))  # type: ignore[arg-type]
    assert team.state.snapshot().policy is None
    team.registry.approve(made.number, made.digest, act(EVE))
    assert team.state.snapshot().policy is not None


@requirement("POL-10")
def test_what_was_not_shown_is_stale_old_or_by_somebody_gone_is_not_approved(team: World) -> None:
    registry = team.registry
    registry.set_roles(EVE, [ADMIN], act())
    made = registry.propose_policy(PERMIT, ADA, act())
    with pytest.raises(Conflict, match="not the one that was shown"):
        registry.approve(made.number, "0" * 64, act(BOB))
    with pytest.raises(Conflict, match="takes the role admin"):
        registry.set_roles(EVE, [], act())
        registry.approve(made.number, made.digest, act(EVE))
    late = act(BOB, at=NOW + 7 * DAY_NS)
    with pytest.raises(Conflict, match="days old"):
        registry.approve(made.number, made.digest, late)
    registry.apply_policy(OTHER, ADA, act(), approvals=1)
    with pytest.raises(Conflict, match="came into force since"):
        registry.approve(made.number, made.digest, act(BOB))
    again = registry.propose_policy(PERMIT, BOB, act(BOB))
    registry.depart(BOB, act())
    with pytest.raises(Conflict, match="bob has departed"):
        registry.approve(again.number, again.digest, act())
    with pytest.raises(NotFound, match="no proposal 9"):
        registry.approve(9, "", act())
    in_force = team.state.snapshot().policy
    assert in_force is not None and dict(in_force.files) == OTHER


@requirement("POL-10")
def test_a_withdrawn_proposal_is_gone_and_going_back_takes_one(team: World) -> None:
    one = team.registry.propose_policy(PERMIT, ADA, act())
    assert team.registry.withdraw(one.number, act(BOB)).standing is Standing.WITHDRAWN
    with pytest.raises(Conflict, match="withdrawn already"):
        team.registry.approve(one.number, one.digest, act(BOB))
    for files in (PERMIT, OTHER):
        made = team.registry.propose_policy(files, ADA, act())
        team.registry.approve(made.number, made.digest, act(BOB))
    team.registry.enforce_policy(1, act())
    policy = team.state.snapshot().policy
    assert policy is not None and dict(policy.files) == PERMIT


@requirement("POL-7", "POL-10")
def test_observing_an_agent_is_bounded_recorded_and_ends(state: State) -> None:
    world = World(state)
    world.active()
    assert world.registry.observe(BOT, 3 * DAY_S, act(reason="new rules")) is None
    assert state.snapshot().agents[BOT].observe_until == NOW + 3 * DAY_NS
    event = state.outbox.take(1000)[-1].event
    assert (event.kind, event.subject, event.reason) == ("agent.observed", "agent:bot", "new rules")
    assert event.after is not None and event.after["for_s"] == 3 * DAY_S
    for wrong in (0, -1, 7 * DAY_S + 1):
        with pytest.raises(Invalid, match="7 days"):
            world.registry.observe(BOT, wrong, act())
    with pytest.raises(Conflict, match="takes the role admin"):
        world.registry.observe(BOT, 60, act(BOB))
    world.registry.enforce_agent(BOT, act(BOB))  # the deputy: it only takes power away
    assert state.snapshot().agents[BOT].observe_until == 0
    with pytest.raises(Conflict, match="is not observed"):
        world.registry.enforce_agent(BOT, act())
    world.registry.retire(BOT, act())
    with pytest.raises(Conflict, match="is retired"):
        world.registry.observe(BOT, 60, act())


@requirement("POL-10")
def test_in_a_team_another_admin_begins_it(team: World) -> None:
    made = team.registry.observe(BOT, DAY_S, act())
    assert made is not None and team.state.snapshot().agents[BOT].observe_until == 0
    with pytest.raises(Conflict, match="wrote or proposed"):
        team.registry.approve(made.number, made.digest, act())
    team.registry.approve(made.number, made.digest, act(BOB, at=NOW + 5))
    assert team.state.snapshot().agents[BOT].observe_until == NOW + 5 + DAY_NS


@requirement("REG-3", "POL-7")
def test_an_incremental_snapshot_knows_who_is_observed(reopen: Callable[[], State]) -> None:
    world = World(reopen())
    world.active()
    registry, state = world.registry, world.state
    changes: list[Callable[[], object]] = [
        lambda: registry.observe(BOT, 60, act()),
        lambda: registry.suspend(BOT, act()),
        lambda: registry.depart(BOB, act()),
        lambda: registry.observe(BOT, 120, act()),
        lambda: registry.enforce_agent(BOT, act()),
    ]
    for change in changes:
        before = state.snapshot()
        change()
        assert state.snapshot() == reopen().snapshot() != before

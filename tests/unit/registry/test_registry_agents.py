"""Agents: who answers for them, their scope, their life, their keys."""

from pathlib import Path

import pytest
from registry_world import (
    ADA,
    BOB,
    BOT,
    DAY_NS,
    EVE,
    GIT,
    NOW,
    World,
    act,
    charter,
    scope,
)
from requirements import requirement

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.facts import Effect, Lifecycle
from exeat.core.ids import AgentId, PersonId
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Scope
from exeat.registry.model.key import KEY_LIFE_MAX_S, secret_digest
from exeat.storage.state import open_state


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(open_state(tmp_path))


@requirement("REG-2")
@pytest.mark.parametrize("missing", ["owner", "deputy"])
def test_no_owner_or_deputy_is_not_active(world: World, missing: str) -> None:
    drafted = world.draft(**{missing: None})
    with pytest.raises(Conflict, match=f"no {missing}"):
        world.registry.accept_scope(BOT, drafted.scope_digest, act())
    with pytest.raises(Conflict, match=f"no {missing}"):
        world.registry.activate(BOT, act())


@requirement("REG-2")
def test_no_end_date_is_not_active(world: World) -> None:
    world.registry.register_agent("bot", charter(), scope(), None, act())
    with pytest.raises(Conflict, match="no end date"):
        world.registry.activate(BOT, act())


@requirement("REG-2")
def test_a_passed_end_is_not_active(world: World) -> None:
    agent = world.draft()
    world.registry.accept_scope(BOT, agent.scope_digest, act())
    with pytest.raises(Conflict, match="end date of bot has passed"):
        world.registry.activate(BOT, act(at=NOW + 100 * DAY_NS))


@requirement("REG-2")
def test_owner_and_deputy_are_two_live_people(world: World) -> None:
    with pytest.raises(Invalid, match="both owner and deputy"):
        charter(deputy=ADA)
    world.registry.depart(EVE, act())
    with pytest.raises(Conflict, match="eve has departed"):
        world.draft(deputy=EVE)
    with pytest.raises(NotFound):
        world.draft(deputy=PersonId("ghost"))


@requirement("REG-2")
def test_who_leaves_takes_their_liveness_along(world: World) -> None:
    world.active()
    _, theirs = world.registry.depart(BOB, act())
    assert [agent.id for agent in theirs] == [BOT]
    facts = world.state.snapshot().agents[BOT]
    assert (facts.owner_live, facts.deputy_live) == (True, False)
    world.registry.suspend(BOT, act())
    with pytest.raises(Conflict, match="deputy of bot, bob, is not a live person"):
        world.registry.resume(BOT, act())


@requirement("REG-9")
def test_activation_needs_an_acceptance_by_owner_or_deputy(world: World) -> None:
    drafted = world.draft()
    with pytest.raises(Conflict, match="not accepted"):
        world.registry.activate(BOT, act())
    with pytest.raises(Conflict, match="neither owner nor deputy"):
        world.registry.accept_scope(BOT, drafted.scope_digest, act(EVE))
    with pytest.raises(Conflict, match="no longer the one that was shown"):
        world.registry.accept_scope(BOT, "0" * 64, act())
    accepted = world.registry.accept_scope(BOT, drafted.scope_digest, act(BOB))
    assert accepted.acceptance is not None
    assert (accepted.acceptance.by, accepted.acceptance.event) == (BOB, "agent:bot@2")
    assert world.registry.activate(BOT, act()).lifecycle is Lifecycle.ACTIVE


@requirement("REG-9")
@pytest.mark.parametrize(
    "change",
    [
        {"scope": scope(Effect.READ, Effect.WRITE)},
        {"scope": Scope(frozenset({GIT}), frozenset({Effect.READ}), frozenset({"git/log"}))},
        {"ends_at": NOW + 101 * DAY_NS},
        {"charter": charter(owner=EVE)},
    ],
    ids=["effects", "actions", "end", "owner"],
)
def test_another_scope_end_or_owner_voids_the_acceptance(world: World, change: dict) -> None:  # type: ignore[type-arg]
    old = world.active()
    wanted = {"charter": old.charter, "scope": old.scope, "ends_at": old.ends_at, **change}
    changed = world.registry.change_agent(BOT, **wanted, act=act())
    assert not changed.accepted and changed.acceptance is None
    assert world.state.snapshot().agents[BOT].scope.accepted == ""


@requirement("REG-9")
def test_another_purpose_keeps_the_acceptance(world: World) -> None:
    old = world.active()
    changed = world.registry.change_agent(BOT, charter(purpose="x"), old.scope, old.ends_at, act())
    assert changed.accepted


@requirement("REG-9")
def test_the_order_of_a_scope_does_not_matter_and_its_contents_do() -> None:
    one = Scope(frozenset({GIT}), frozenset({Effect.READ, Effect.PAY}))
    two = Scope(frozenset({GIT}), frozenset({Effect.PAY, Effect.READ}))
    assert one.as_json(NOW) == two.as_json(NOW)
    with pytest.raises(Invalid, match="outside the scope"):
        Scope(frozenset({GIT}), frozenset(), frozenset({"web/get"}))  # type: ignore[arg-type]


@requirement("REG-4")
def test_a_retired_agent_is_retired_for_good_and_its_keys_with_it(world: World) -> None:
    agent = world.active()
    key, _ = world.registry.issue_key(BOT, None, 60, act())
    world.registry.retire(BOT, act(BOB))
    with world.state.registry.read() as read:
        assert read.key(key.id).revoked
    assert world.state.snapshot().credentials == {}
    assert world.events()[-2:] == ["agent.retired", "key.revoked"]
    for verb in (world.registry.activate, world.registry.resume, world.registry.suspend):
        with pytest.raises(Conflict, match="retired"):
            verb(BOT, act())
    with pytest.raises(Conflict, match="retired"):
        world.registry.change_agent(BOT, charter(purpose="x"), agent.scope, None, act())
    with pytest.raises(Conflict, match="no new key"):
        world.registry.issue_key(BOT, None, 60, act())


@requirement("REG-1")
def test_a_key_is_shown_once_hashed_and_capped(world: World) -> None:
    agent = world.active()
    key, secret = world.registry.issue_key(BOT, BOB, KEY_LIFE_MAX_S, act())
    assert secret.startswith("exk_") and len(secret) == 47
    assert key.digest == secret_digest(secret)
    assert secret not in repr(world.state.outbox.take(1000)) + repr(key)
    assert world.state.snapshot().credentials[secret_digest(secret)].user == BOB
    assert key.expires_at == NOW + 90 * DAY_NS <= (agent.ends_at or 0)
    late, _ = world.registry.issue_key(BOT, None, KEY_LIFE_MAX_S, act(at=NOW + 50 * DAY_NS))
    assert late.expires_at == agent.ends_at, "no key outlives its agent"
    for life in (0, -1, KEY_LIFE_MAX_S + 1):
        with pytest.raises(Invalid, match="A key lives"):
            world.registry.issue_key(BOT, None, life, act())
    world.registry.revoke_key(key.id, act(BOB))
    assert secret_digest(secret) not in world.state.snapshot().credentials


@requirement("REG-3")
def test_only_an_admin_changes_and_owner_or_deputy_can_stop(world: World) -> None:
    world.active()
    for verb in (world.registry.suspend_server,):
        with pytest.raises(Conflict, match="takes the role admin"):
            verb(GIT, act(EVE))
    with pytest.raises(Conflict, match="takes its owner, its deputy or the role admin"):
        world.registry.suspend(BOT, act(EVE))
    with pytest.raises(NotFound, match="not a registered person"):
        world.registry.suspend(BOT, act(PersonId("ghost")))
    world.registry.suspend(BOT, act(BOB))
    with pytest.raises(Conflict, match="takes the role admin"):
        world.registry.resume(BOT, act(BOB))
    assert world.registry.resume(BOT, act()).lifecycle is Lifecycle.ACTIVE


@requirement("REG-3")
def test_the_last_admin_stays(world: World) -> None:
    with pytest.raises(Conflict, match="last admin"):
        world.registry.depart(ADA, act())
    with pytest.raises(Conflict, match="last admin"):
        world.registry.set_roles(ADA, [], act())
    world.registry.set_roles(EVE, ["admin"], act())
    assert not world.registry.depart(ADA, act())[0].live


@requirement("REG-3")
def test_every_change_says_who_why_before_and_after(world: World) -> None:
    world.active()
    event = world.state.outbox.take(1000)[-1].event
    assert (event.kind, event.subject, event.actor) == ("agent.activated", "agent:bot", ADA)
    assert (event.reason, event.channel, event.at) == ("for a test", "test", NOW)
    assert event.before is not None and event.before["lifecycle"] == "draft"
    assert event.after is not None and event.after["lifecycle"] == "active"
    for reason in ("", "  ", "two\nlines", "x" * 501):
        with pytest.raises(Invalid, match="reason"):
            Act(ADA, "test", reason, NOW)


@requirement("REG-1")
@pytest.mark.parametrize("name", ["", "Ada", "ada@example.com", "a/b", "-a", "a" * 64, "é"])
def test_ids_are_plain(world: World, name: str) -> None:
    with pytest.raises(Invalid):
        world.registry.register_person(name, [], act())
    with pytest.raises(Invalid):
        world.draft(name)
    with pytest.raises(NotFound):
        world.registry.suspend(AgentId(name), act())

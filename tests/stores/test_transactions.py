"""Transactions, epochs, revisions, outbox and snapshots, on every database (REG-3)."""

import os
from collections.abc import Callable
from dataclasses import replace
from threading import Thread

import pytest
from registry_world import ADA, BOB, BOT, GIT, NOW, World, act, charter, definition, scope
from requirements import requirement

from exeat.core.errors import Conflict, NotFound, StateUnavailable
from exeat.core.facts import Effect, Lifecycle, tool_action
from exeat.core.ids import PersonId
from exeat.registry.model.agent import Charter, Scope
from exeat.registry.model.person import Person
from exeat.registry.model.tool import Profile
from exeat.registry.rules.pins import definition_digest
from exeat.registry.service import Registry
from exeat.storage import schema
from exeat.storage.state import State

Reopen = Callable[[], State]
LOG, PIN = tool_action(GIT, "log"), definition_digest(definition("log"))
PERMIT = {"a.cedar": "permit(principal,action,resource);"}
CY = PersonId("cy")


@pytest.fixture
def world(state: State) -> World:
    return World(state)


@requirement("REG-1", "REG-9")
def test_what_was_written_is_what_another_process_decides_on(reopen: Reopen) -> None:
    world = World(reopen())
    full = Charter("Bills", "ümlaut 𝔘", ADA, BOB, ADA, frozenset({"finance"}), "prod", "m-1", "ab")
    narrow = Scope(frozenset({GIT}), frozenset({Effect.READ}), frozenset({LOG}))
    agent = world.registry.register_agent("payer", full, narrow, NOW + 10**15, act())
    world.registry.accept_scope(agent.id, agent.scope_digest, act(BOB))
    world.registry.activate(agent.id, act())
    other = reopen()
    facts = other.snapshot().agents[agent.id]
    assert (facts.lifecycle, facts.revision, facts.ends_at) == (Lifecycle.ACTIVE, 3, NOW + 10**15)
    assert (facts.owner, facts.owner_live, facts.deputy, facts.deputy_live) == (
        ADA,
        True,
        BOB,
        True,
    )
    assert (facts.groups, facts.environment, facts.sponsor) == ({"finance"}, "prod", ADA)
    assert facts.scope.accepted == facts.scope.digest == agent.scope_digest
    assert facts.scope.acceptance == "agent:payer@2"
    assert (facts.scope.servers, facts.scope.effects) == ({GIT}, {Effect.READ})
    assert facts.scope.actions == {LOG}
    with other.registry.read() as seen:
        assert (seen.agent(agent.id).charter, seen.agent(agent.id).scope) == (full, narrow)


@requirement("REG-3")
def test_a_change_raises_the_epoch_once_and_leaves_its_event(world: World) -> None:
    before, events = world.state.epoch(), len(world.events())
    world.registry.register_person("cy", ["auditor"], act(reason="new colleague"))
    assert world.state.epoch() == before + 1
    told = world.state.outbox.take(100)
    assert len(told) == events + 1
    event = told[-1].event
    assert (event.kind, event.subject, event.actor) == ("person.registered", "person:cy", ADA)
    assert (event.reason, event.at, event.before) == ("new colleague", NOW, None)
    assert event.after == {"id": "cy", "live": True, "roles": ["auditor"], "revision": 1}


@requirement("REG-3")
def test_a_crash_inside_a_change_leaves_neither_value_nor_event(world: World) -> None:
    state = world.state
    before, events = state.epoch(), state.outbox.take(100)
    with pytest.raises(KeyboardInterrupt), state.registry.change() as tx:
        tx.save_person(*Person.register("cy", [], act()))
        assert tx.person(CY).live
        raise KeyboardInterrupt
    assert (state.epoch(), state.outbox.take(100)) == (before, events)
    with state.registry.read() as seen, pytest.raises(NotFound):
        seen.person(CY)


@requirement("REG-3")
def test_verbs_together_are_one_epoch_or_nothing(world: World) -> None:
    before = world.state.snapshot()
    with pytest.raises(Conflict, match="already taken"), world.registry.together() as joined:
        joined.register_person("cy", [], act())
        joined.register_person("cy", [], act())
    assert world.state.snapshot() is before
    with world.registry.together() as joined:
        joined.register_person("cy", [], act())
        joined.set_roles(CY, ["auditor"], act())
    assert world.state.epoch() == before.epoch + 1


@requirement("REG-3")
def test_a_lost_update_is_refused(world: World) -> None:
    store = world.state.registry
    with store.read() as seen:
        mine = theirs = seen.person(BOB)
    with store.change() as tx:
        tx.save_person(*theirs.with_roles(["auditor"], act()))
    with pytest.raises(Conflict, match="no longer at revision 1"), store.change() as tx:
        tx.save_person(*mine.with_roles(["admin"], act()))
    with store.read() as seen:
        assert seen.person(BOB).roles == {"auditor"}


@requirement("REG-3")
def test_a_taken_id_and_a_taken_secret_are_refused(world: World) -> None:
    world.active()
    with pytest.raises(Conflict, match="bot is already taken"):
        world.registry.register_agent("bot", charter(), scope(), None, act())
    key, _ = world.registry.issue_key(BOT, None, 60, act())
    twin = replace(key, id="k-other")
    with pytest.raises(StateUnavailable) as refused, world.state.registry.change() as tx:
        tx.save_key(twin, twin.issued(act()))
    assert "INSERT" not in str(refused.value)
    assert key.digest.hex() not in str(refused.value)


@requirement("REG-3")
def test_writers_take_turns(reopen: Reopen) -> None:
    world = World(reopen())
    people, events = len(world.state.snapshot().people), len(world.events())
    writers = [Registry(reopen().registry, os.urandom) for _ in range(2)]

    def write(name: str, through: Registry) -> None:
        for number in range(10):
            through.register_person(f"{name}{number}", [], act())

    threads = [Thread(target=write, args=(f"p{n}-", each)) for n, each in enumerate(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(world.state.snapshot().people) == people + 20
    numbers = [waiting.number for waiting in world.state.outbox.take(100)]
    assert len(numbers) == events + 20
    assert numbers == sorted(set(numbers))


@requirement("REG-3")
def test_the_outbox_gives_each_event_until_it_is_acknowledged(world: World) -> None:
    outbox = world.state.outbox
    first, second, *rest = outbox.take(100)
    assert outbox.take(2) == (first, second) == outbox.take(2)
    outbox.acknowledge([first.number])
    outbox.acknowledge([first.number])
    assert outbox.take(100) == (second, *rest)
    outbox.acknowledge(waiting.number for waiting in (second, *rest))
    world.registry.register_person("cy", [], act())
    (last,) = outbox.take(100)
    assert last.number > max(waiting.number for waiting in (second, *rest))


@requirement("REG-3")
def test_a_reader_loads_only_what_changed(reopen: Reopen) -> None:
    world = World(reopen())
    world.active()
    reader = reopen()
    old = reader.snapshot()
    assert reader.snapshot() is old
    world.registry.suspend(BOT, act())
    new = reader.snapshot()
    assert (old.agents[BOT].lifecycle, new.agents[BOT].lifecycle) == ("active", "suspended")
    assert new.servers is old.servers
    assert new.epoch == old.epoch + 1 == reader.epoch()


@requirement("REG-2", "REG-3")
def test_an_incremental_snapshot_is_the_whole_one(reopen: Reopen) -> None:
    """Each kind of change, the departure of people and removals among them."""
    world = World(reopen())
    world.active()
    registry, state = world.registry, world.state
    changes: list[Callable[[], object]] = [
        lambda: world.pin(definition("log")),
        lambda: registry.confirm_profile(LOG, Profile(Effect.READ), PIN, act()),
        lambda: registry.issue_key(BOT, BOB, 60, act()),
        lambda: registry.apply_policy(PERMIT, ADA, act()),
        lambda: registry.depart(BOB, act()),
        lambda: registry.suspend_server(GIT, act()),
        lambda: registry.forget_tool(LOG, act()),
        lambda: registry.retire(BOT, act()),
        lambda: registry.remove_server(GIT, act()),
    ]
    for change in changes:
        before = state.snapshot()
        change()
        assert state.snapshot() == reopen().snapshot() != before
    final = state.snapshot()
    assert not (final.credentials or final.tools or final.servers or final.specs)
    assert not final.agents[BOT].deputy_live


@requirement("REG-3")
def test_policy_versions_are_numbered_and_one_is_in_force(world: World) -> None:
    state = world.state
    assert state.snapshot().policy is None
    one = world.registry.apply_policy(PERMIT, BOB, act())
    files = {"a.cedar": "", "b/c.cedar": "// ø"}
    two = world.registry.apply_policy(files, ADA, act(reason="tighter"))
    assert (one.number, two.number) == (1, 2)
    facts = state.snapshot().policy
    assert facts is not None
    assert (facts.digest, facts.number, facts.author, facts.approver) == (two.digest, 2, ADA, ADA)
    assert (facts.reason, facts.files) == ("tighter", files)
    with pytest.raises(Conflict, match="in force, as version 2"):
        world.registry.apply_policy(files, ADA, act())
    world.registry.enforce_policy(1, act())
    back = state.snapshot().policy
    assert back is not None
    assert back.digest == one.digest
    assert [version.number for version in state.policies.versions()] == [1, 2]


@requirement("REG-3")
def test_a_newer_schema_is_refused_in_words(reopen: Reopen) -> None:
    state = reopen()
    with state._engine.begin() as tx:
        tx.execute(schema.state.update().values(schema_version=99))
    with pytest.raises(StateUnavailable, match="newer exeat") as refused:
        reopen()
    assert refused.value.remedy

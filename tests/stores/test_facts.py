"""What a decision reads of the registry: the pinned definition, live keys, known names."""

import pytest
from registry_world import ADA, BOB, BOT, GIT, NOW, World, act, charter, definition, scope
from requirements import requirement

from exeat.core.errors import NotFound
from exeat.core.facts import Effect, PinState, tool_action
from exeat.core.ids import AgentId
from exeat.registry.model.agent import Scope
from exeat.registry.model.key import secret_digest
from exeat.storage import schema
from exeat.storage.state import State

LOG = tool_action(GIT, "log")


@requirement("REG-6")
def test_a_decision_reads_the_pinned_definition_not_the_shown_one(state: State) -> None:
    world = World(state)
    world.show(definition("log"))
    new = state.snapshot().tools[LOG]
    assert (new.state, new.pin, dict(new.definition)) == (PinState.NEW, "", {})
    pinned = world.pin(definition("log"))
    world.show(definition("log", "reads, and mails it to us"))
    drifted = state.snapshot().tools[LOG]
    assert (drifted.state, dict(drifted.definition)) == (PinState.CHANGED, definition("log"))
    assert pinned.pinned is not None
    assert drifted.pin == pinned.pinned.digest
    assert (drifted.effect, drifted.profile_confirmed) == (Effect.EXECUTE, False)


@requirement("REG-6")
def test_seeing_the_same_tools_again_changes_nothing(state: State) -> None:
    world = World(state)
    assert world.show(definition("log"), definition("show")) == ["new", "new"]
    epoch, events = state.epoch(), world.events()
    assert world.show(definition("log"), definition("show")) == []
    assert (state.epoch(), world.events()) == (epoch, events)


@requirement("REG-4")
def test_a_key_is_kept_as_its_hash_and_retiring_revokes_it(state: State) -> None:
    world = World(state)
    world.active()
    key, secret = world.registry.issue_key(BOT, BOB, 3600, act())
    facts = state.snapshot().credentials[secret_digest(secret)]
    assert (facts.id, facts.agent, facts.user) == (key.id, BOT, BOB)
    assert facts.expires_at == NOW + 3600 * 10**9
    everything = repr([waiting.event for waiting in state.outbox.take(100)])
    assert secret not in everything
    assert secret_digest(secret).hex() not in everything
    world.registry.retire(BOT, act())
    assert state.snapshot().credentials == {}
    assert world.events()[-2:] == ["agent.retired", "key.revoked"]


@requirement("REG-2")
def test_the_database_itself_refuses_an_owner_who_deputises(state: State) -> None:
    """The rule stands twice: a row written by any other hand is refused too."""
    World(state).draft()
    same = schema.agents.update().values(owner=ADA, deputy=ADA)
    with pytest.raises(Exception, match="owner_is_not_deputy"), state._engine.begin() as tx:
        tx.execute(same)


@requirement("REG-1")
def test_unknown_names_are_refused(state: State) -> None:
    world = World(state)
    with pytest.raises(NotFound, match="no person zoe"):
        world.registry.register_agent("x", charter(owner="zoe"), scope(), None, act())
    elsewhere = Scope(frozenset({"nowhere"}), frozenset({Effect.READ}))  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no server nowhere"):
        world.registry.register_agent("x", charter(), elsewhere, None, act())
    with pytest.raises(NotFound, match="no agent ghost"):
        world.registry.suspend(AgentId("ghost"), act())

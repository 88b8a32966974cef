"""Who is who at which issuer, tokens that were ended, and agents that nobody registered (ID-5)."""

import pytest
from registry_world import BOB, BOT, EVE, NOW, World, act
from requirements import requirement

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.identity.rules.principal import unregistered_id
from exeat.registry.model.stranger import Stranger
from exeat.storage.state import State

ISSUER = "https://id.example.com"
CIMD = "https://product.example.com/client.json"


@requirement("ID-5")
def test_a_client_is_an_agent_and_a_subject_a_person(state: State) -> None:
    world = World(state)
    world.active()
    bound = world.registry.bind(ISSUER, "c1", None, BOT, act())
    world.registry.bind_person(ISSUER, "00u1", BOB, act())
    snapshot = state.snapshot()
    assert snapshot.clients == {(ISSUER, "c1", ""): BOT}
    assert snapshot.subjects == {(ISSUER, "00u1"): BOB}
    assert world.events()[-2:] == ["client.bound", "person.bound"]
    world.registry.unbind(bound.id, act())
    assert state.snapshot().clients == {}
    everything = repr([waiting.event for waiting in state.outbox.take(100)])
    assert "00u1" not in everything  # EVD-7: it may be an e-mail address


@requirement("ID-5")
def test_a_products_client_is_bound_for_one_user_only(state: State) -> None:
    world = World(state)
    world.active()
    with pytest.raises(Invalid, match="kind of client"):
        world.registry.bind(ISSUER, CIMD, None, BOT, act())
    world.registry.bind(ISSUER, CIMD, BOB, BOT, act())
    assert state.snapshot().clients == {(ISSUER, CIMD, "bob"): BOT}


@requirement("ID-6")
def test_one_credential_per_agent(state: State) -> None:
    world = World(state)
    world.active()
    world.active("other")
    world.registry.bind(ISSUER, "c1", None, BOT, act())
    with pytest.raises(Conflict, match="bot already"):
        world.registry.bind(ISSUER, "c1", None, "other", act())  # type: ignore[arg-type]
    world.registry.bind(ISSUER, "c2", None, BOT, act())  # a new one replaces it
    assert state.snapshot().clients == {(ISSUER, "c2", ""): BOT}


@requirement("ID-5")
def test_who_may_bind(state: State) -> None:
    """The owner and the deputy for themselves; everything else takes an admin."""
    world = World(state)
    world.active()
    world.registry.bind(ISSUER, "mine", BOB, BOT, act(BOB))  # bob is the deputy
    for actor, user in ((EVE, EVE), (BOB, None), (BOB, EVE)):
        with pytest.raises(Conflict, match="admin"):
            world.registry.bind(ISSUER, "theirs", user, BOT, act(actor))
    with pytest.raises(Conflict, match="admin"):
        world.registry.bind_person(ISSUER, "s", EVE, act(EVE))


@requirement("REG-4")
def test_a_retired_agent_is_bound_to_nobody(state: State) -> None:
    world = World(state)
    world.active()
    world.registry.bind(ISSUER, "c1", None, BOT, act())
    world.registry.retire(BOT, act())
    assert state.snapshot().clients == {}
    with pytest.raises(Conflict, match="retired"):
        world.registry.bind(ISSUER, "c1", None, BOT, act())


@requirement("ID-1")
def test_an_ended_grant_is_in_the_next_snapshot(state: State) -> None:
    world = World(state)
    epoch = state.epoch()
    world.registry.end_tokens("g1", NOW + 100, act(at=NOW))
    assert state.epoch() == epoch + 1
    assert state.snapshot().endings == {"g1": NOW + 100}
    world.registry.end_tokens("g2", NOW + 900, act(at=NOW + 200))  # g1 is over by itself
    again = State(state._engine).snapshot()
    assert again.endings == {"g2": NOW + 900}
    with pytest.raises(Invalid):
        world.registry.end_tokens("", NOW, act())


@requirement("ID-5")
def test_unregistered_agents_are_kept_for_a_person_to_see(state: State) -> None:
    world = World(state)
    name = unregistered_id(ISSUER, "c9", "u")
    epoch = state.epoch()

    def saw(at: int, *tried: str) -> Stranger:
        return Stranger(name, ISSUER, "c9", None, at, at, len(tried), frozenset(tried))

    world.registry.saw_strangers([saw(5, "git/log")], act())
    world.registry.saw_strangers([saw(9, "git/push", "git/log")], act())
    found = world.registry.stranger(name.partition(":")[2])
    assert (found.first_seen, found.last_seen, found.attempts) == (5, 9, 3)
    assert (found.tried, found.servers) == ({"git/log", "git/push"}, {"git"})
    assert state.epoch() == epoch  # no decision reads it
    assert world.events().count("agent.unregistered") == 1
    world.registry.forget_stranger(name)
    with pytest.raises(NotFound, match="no unregistered agent"):
        world.registry.stranger(name)


@requirement("ID-4")
def test_a_demanded_proof_is_in_the_next_snapshot(state: State) -> None:
    world = World(state)
    world.active()
    world.registry.demand_proof(BOT, "dpop", act())
    assert state.snapshot().proofs == {BOT: "dpop"}
    world.registry.demand_proof(BOT, "", act())
    assert state.snapshot().proofs == {}
    assert State(state._engine).snapshot().proofs == {}
    with pytest.raises(Invalid, match="no proof"):
        world.registry.demand_proof(BOT, "password", act())
    with pytest.raises(Conflict, match="admin"):
        world.registry.demand_proof(BOT, "any", act(BOB))

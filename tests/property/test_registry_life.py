"""REG-2, REG-4, REG-9: whatever is tried in whatever order, an active agent is answered for."""

from hypothesis import given, settings
from hypothesis import strategies as st
from registry_world import ADA, BOB, EVE, NOW, act, charter, scope
from requirements import requirement

from exeat.core.errors import ExeatError
from exeat.core.facts import Effect, Lifecycle
from exeat.registry.model.agent import Agent, Charter, Scope

LIVE = frozenset({ADA, BOB})
PEOPLE = st.sampled_from([None, ADA, BOB, EVE])
ENDS = st.sampled_from([None, NOW - 1, NOW + 1, NOW + 2])
SCOPES = st.sampled_from([Scope(), scope(), scope(Effect.PAY)])
STEPS = st.one_of(
    st.tuples(st.just("change"), PEOPLE, PEOPLE, SCOPES, ENDS),
    st.tuples(st.just("accept"), st.sampled_from([ADA, BOB, EVE])),
    st.tuples(st.sampled_from(["activate", "suspend", "resume", "retire"])),
)


def _step(agent: Agent, step: tuple) -> Agent:  # type: ignore[type-arg]
    verb, *given_ = step
    if verb == "change":
        owner, deputy, wanted, ends = given_
        return agent.change(Charter(owner=owner, deputy=deputy), wanted, ends, act())[0]
    if verb == "accept":
        return agent.accept(agent.scope_digest, act(given_[0]))[0]
    if verb in ("activate", "resume"):
        return getattr(agent, verb)(LIVE, act())[0]  # type: ignore[no-any-return]
    return getattr(agent, verb)(act())[0]  # type: ignore[no-any-return]


@requirement("REG-2", "REG-4", "REG-9")
@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_every_life(steps: list) -> None:  # type: ignore[type-arg]
    agent, _ = Agent.register("bot", charter(), scope(), NOW + 1, act())
    for step in steps:
        before = agent
        try:
            agent = _step(before, step)
        except ExeatError:
            continue
        assert agent.revision == before.revision + 1
        assert before.lifecycle is not Lifecycle.RETIRED, "retired is for good"
        if agent.lifecycle is Lifecycle.ACTIVE and before.lifecycle is not Lifecycle.ACTIVE:
            assert {agent.charter.owner, agent.charter.deputy} == LIVE
            assert agent.ends_at is not None and agent.ends_at > NOW
        if agent.lifecycle in (Lifecycle.ACTIVE, Lifecycle.SUSPENDED):
            assert agent.charter.owner and agent.charter.deputy and agent.ends_at is not None
        if agent.accepted:
            assert agent.acceptance is not None
            assert agent.acceptance.by in (agent.charter.owner, agent.charter.deputy)
        elif step[0] in ("activate", "resume"):
            raise AssertionError("became active without an accepted scope")

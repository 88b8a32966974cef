"""Who may stop what, and how gateways learn of it, on both databases (APP-9)."""

from typing import Any

import pytest
from registry_world import ADA, BOB, BOT, EVE, GIT, NOW, World, act, definition
from requirements import requirement

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.ids import PersonId
from exeat.core.kills import Target
from exeat.storage.kills import KillEffect

S = 10**9


@pytest.fixture
def world(state: Any) -> World:
    made = World(state)
    made.active()
    made.pin(definition("log"))
    return made


@requirement("APP-9")
@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target.AGENT, "bot"), (Target.OWNER, "ada"), (Target.USER, "eve"), (Target.SERVER, "git"),
        (Target.TOOL, "git/log"), (Target.RUN, "any run's id"), (Target.ALL, ""),
    ],
)  # fmt: skip
def test_anybody_live_stops_anything(world: World, target: Target, name: str) -> None:
    before = world.state.snapshot()
    kill = world.registry.kill(target, name, act(EVE, reason="it misbehaves"))
    after = world.state.snapshot()
    assert after.epoch == before.epoch + 1
    assert dict(after.kills.of) == {(target, name): kill.id}
    assert after.agents is before.agents  # only what changed was loaded
    event = world.state.outbox.take(1000)[-1].event
    assert (event.kind, event.actor, event.reason) == ("kill.ordered", EVE, "it misbehaves")
    assert event.after == {"kill": kill.id, "target": target, "of": name, "stands": True}


@requirement("APP-9")
def test_only_an_admin_revives_and_only_once(world: World) -> None:
    kill = world.registry.kill(Target.AGENT, BOT, act(BOB))
    world.state.snapshot()
    with pytest.raises(Conflict, match="may not revive"):
        world.registry.revive(kill.id, act(BOB))
    assert world.state.snapshot().kills
    ended = world.registry.revive(kill.id, act(ADA, NOW + S))
    assert (ended.stands, ended.ended_by, ended.ended_at) == (False, ADA, NOW + S)
    assert not world.state.snapshot().kills
    with pytest.raises(Conflict, match="already"):
        world.registry.revive(kill.id, act())
    assert [e for e in world.events() if e.startswith("kill.")] == ["kill.ordered", "kill.ended"]
    with pytest.raises(NotFound) as missing:
        world.registry.revive("k-0", act())
    assert "exeat kill --list" in missing.value.remedy


@requirement("APP-9")
def test_killed_again_after_it_was_revived(world: World) -> None:
    """In one look, a gateway sees the first end and the second begin."""
    first = world.registry.kill(Target.AGENT, BOT, act())
    with pytest.raises(Conflict, match=f"stopped already, by ada \\({first.id}\\)"):
        world.registry.kill(Target.AGENT, BOT, act(BOB))
    known = world.state.snapshot()
    assert known.kills.of == {(Target.AGENT, BOT): first.id}
    world.registry.revive(first.id, act())
    second = world.registry.kill(Target.AGENT, BOT, act())
    other = world.registry.kill(Target.USER, "eve", act())
    expected = {(Target.AGENT, BOT): second.id, (Target.USER, "eve"): other.id}
    assert world.state.snapshot().kills.of == expected


@requirement("APP-9")
@pytest.mark.parametrize(
    ("target", "name", "hint"),
    [
        (Target.AGENT, "bott", "Did you mean bot?"),
        (Target.AGENT, "zzz", "exeat agent list"),
        (Target.OWNER, "adda", "Did you mean ada?"),
        (Target.USER, "evee", "Did you mean eve?"),
        (Target.SERVER, "gitt", "Did you mean git?"),
        (Target.TOOL, "log", "Did you mean git/log?"),
        (Target.TOOL, "git/lg", "Did you mean git/log?"),
    ],
)
def test_what_there_is_not_is_not_killed(
    world: World, target: Target, name: str, hint: str
) -> None:
    with pytest.raises(NotFound) as missing:
        world.registry.kill(target, name, act())
    assert hint in missing.value.remedy
    assert not world.state.snapshot().kills


@requirement("APP-9")
def test_bad_orders_are_refused(world: World) -> None:
    for target, name in [
        (Target.ALL, "bot"), (Target.AGENT, ""), (Target.RUN, ""), (Target.RUN, "x" * 300),
        (Target.RUN, "a\nb"), (Target.RUN, " "),
    ]:  # fmt: skip
        with pytest.raises(Invalid):
            world.registry.kill(target, name, act())
    with pytest.raises(NotFound):
        world.registry.kill(Target.ALL, "", act(PersonId("nobody")))
    world.registry.depart(EVE, act())
    with pytest.raises(Conflict, match="departed"):
        world.registry.kill(Target.ALL, "", act(EVE))
    assert not world.state.snapshot().kills
    assert world.registry.kill(Target.USER, EVE, act()).target is Target.USER  # who left, too


@requirement("APP-9")
def test_another_process_sees_it_whatever_it_knew(reopen: Any) -> None:
    world = World(reopen())
    world.active()
    other = reopen()
    stale = other.snapshot()
    kill = world.registry.kill(Target.SERVER, GIT, act())
    assert not stale.kills
    assert other.snapshot().kills.of == {(Target.SERVER, GIT): kill.id}
    assert reopen().snapshot().kills.of == {(Target.SERVER, GIT): kill.id}
    world.show(definition("gone"))
    world.registry.forget_tool("git/gone", act())  # type: ignore[arg-type]
    assert other.snapshot().kills.of == {(Target.SERVER, GIT): kill.id}  # loaded anew, whole


@requirement("APP-9")
def test_each_gateway_says_once_when_it_took_effect(world: World) -> None:
    kill = world.registry.kill(Target.AGENT, BOT, act())
    before = world.state.epoch()
    effects = world.state.kill_effects
    assert effects.took("gw1", NOW + S, {kill.id: 2}) == {kill.id: NOW}
    effects.took("gw2", NOW + 2 * S, {kill.id: 0})
    effects.took("gw1", NOW + 9 * S, {kill.id: 0})
    assert effects.all() == (
        KillEffect(kill.id, "gw1", NOW + S, 2),
        KillEffect(kill.id, "gw2", NOW + 2 * S, 0),
    )
    assert world.state.epoch() == before

"""The state in force is fresh only if a poll that began in time confirmed it (APP-10)."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from homes import Home
from requirements import requirement

from exeat.app.live import Live, Pace, View, load_view
from exeat.core.errors import StateUnavailable
from exeat.core.ids import AgentId

pytestmark = pytest.mark.anyio
NEVER_S = 3600.0


class Slow:
    """The real state; its answers to polls can be held back, or fail."""

    def __init__(self, home: Home) -> None:
        self._state = home.state
        self.asked, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.fails = False
        self.looks = 0

    def epoch(self) -> int:
        found = self._state.epoch()
        self.looks += 1
        self.asked.set()
        self.gate.wait(20)
        if self.fails:
            raise StateUnavailable("the database is gone")
        return found

    def snapshot(self) -> Any:
        return self._state.snapshot()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):  # a promise that is broken fails, and does not hang
        while not holds():
            await asyncio.sleep(0)


class World:
    def __init__(self, path: Path, hinted_s: float = 0) -> None:
        self.home = Home(path)
        self.home.server("m", url="http://127.0.0.1:1/mcp")
        self.home.agent("bot", ["m"])
        self.state: Any = Slow(self.home)
        self.now = 100.0
        self.changed: list[View] = []
        self.live = Live(
            self.state, load_view(self.state, None), pace=Pace(NEVER_S, 0.8, hinted_s), begun=self.now,
            loop=asyncio.get_running_loop(), on_change=self.changed.append, clock=lambda: self.now,
        )  # fmt: skip

    async def polled(self) -> None:
        """A poll from now on has ended."""
        confirmed = self.live._confirmed
        self.live.hint()
        await until(lambda: self.live._confirmed != confirmed)

    async def asking(self) -> None:
        """A poll waits for its answer."""
        self.state.asked.clear()
        self.state.gate.clear()
        self.live.hint()
        await asyncio.get_running_loop().run_in_executor(None, self.state.asked.wait, 20)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    await made.live.start()
    yield made
    made.state.gate.set()
    await made.live.close()
    made.home.state.close()


@requirement("APP-10")
async def test_a_state_is_fresh_for_800_ms_after_its_poll_began(world: World) -> None:
    assert world.live.fresh
    world.now += 0.79
    assert world.live.fresh
    world.now += 0.02
    assert not world.live.fresh
    await world.polled()
    assert world.live.fresh


@requirement("APP-10")
async def test_a_late_answer_confirms_what_was_true_when_it_was_asked_for(world: World) -> None:
    world.now += 0.1
    begun = world.now
    await world.asking()
    world.now += 0.9
    world.state.gate.set()
    await until(lambda: world.live._confirmed >= begun)
    assert not world.live.fresh
    await world.polled()
    assert world.live.fresh


@requirement("APP-10")
async def test_a_change_that_comes_while_a_poll_is_answered_is_looked_for_at_once(
    world: World,
) -> None:
    """No poll is due for an hour: only the hint can bring it."""
    await world.asking()
    world.home.registry.suspend(AgentId("bot"), world.home.act())
    world.live.hint()
    world.state.gate.set()
    await until(lambda: world.changed)
    assert world.live.view.snapshot.agents[AgentId("bot")].lifecycle == "suspended"


@requirement("APP-10")
async def test_hints_without_end_are_looked_for_no_more_often_than_it_was_set(
    tmp_path: Path,
) -> None:
    """Anybody with a role in the database can send them."""
    world = World(tmp_path / "home", hinted_s=NEVER_S)
    await world.live.start()
    world.now += NEVER_S
    await world.polled()  # the first one is followed at once
    looks = world.state.looks
    for _ in range(50):
        world.live.hint()
        await asyncio.get_running_loop().run_in_executor(None, world.home.state.epoch)
    assert world.state.looks == looks
    await world.live.close()
    world.home.state.close()


@requirement("APP-10", "POL-1")
async def test_a_database_that_fails_confirms_nothing(world: World) -> None:
    world.state.fails = True
    world.live.hint()
    await until(lambda: world.live.problem)
    assert "gone" in world.live.problem
    world.now += 0.81
    assert not world.live.fresh
    world.state.fails = False
    await world.polled()
    assert world.live.fresh
    assert world.live.problem == ""


@requirement("APP-10")
async def test_a_view_that_is_known_not_to_be_the_latest_is_not_confirmed(world: World) -> None:
    """While the change is being read, the old view ages."""
    gate, reading = threading.Event(), threading.Event()
    load = world.state.snapshot

    def slow() -> Any:
        reading.set()
        gate.wait(20)
        return load()

    world.state.snapshot = slow
    world.home.registry.suspend(AgentId("bot"), world.home.act())
    world.live.hint()
    await asyncio.get_running_loop().run_in_executor(None, reading.wait, 20)
    world.now += 0.81
    assert not world.live.fresh
    gate.set()
    await until(lambda: world.changed)

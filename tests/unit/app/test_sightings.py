"""What a server shows reaches the registry where it is news, and nothing of it is lost (REG-6)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from homes import Home
from requirements import requirement

from exeat.app.sightings import Sightings
from exeat.core.errors import StateUnavailable
from exeat.core.facts import PinState, ToolFacts, tool_action
from exeat.core.ids import ActionId, ServerId
from exeat.registry.rules.pins import digests

pytestmark = pytest.mark.anyio
SERVER, ACT = ServerId("m"), tool_action("m", "act")


def act(says: str) -> dict[str, Any]:
    return {"name": "act", "description": says, "inputSchema": {"type": "object"}}


class World:
    """``tools``: what the gateway's state in force knows; as in life, it lags until it is polled."""

    def __init__(self, path: Path) -> None:
        self.home = Home(path)
        self.home.pin_all(self.home.server("m", url="http://127.0.0.1:1/mcp"), [act("first")])
        self.sightings = Sightings(
            self.home.state.registry, asyncio.get_running_loop(), lambda: self.tools
        )
        self.tools: dict[ActionId, ToolFacts] = {}
        self.polled()
        self.writes = 0
        self.entered, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.fails = False
        write = self.sightings._registry.observe_definitions

        def slow(*given: Any) -> Any:
            self.writes += 1
            self.entered.set()
            self.gate.wait(20)
            if self.fails:
                raise StateUnavailable("the database is gone")
            return write(*given)

        self.sightings._registry.observe_definitions = slow  # type: ignore[method-assign]

    def polled(self) -> None:
        self.tools = dict(self.home.state.snapshot().tools)

    def saw(self, *definitions: dict[str, Any]) -> None:
        self.sightings.saw(SERVER, list(definitions), digests(definitions))

    async def shows(self, *definitions: dict[str, Any]) -> None:
        """The server's list, and what came of it."""
        self.saw(*definitions)
        await self.written()

    async def written(self) -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*self.sightings._writing.values())

    @property
    def state(self) -> PinState:
        return self.home.state.snapshot().tools[ACT].state

    @property
    def waits(self) -> str:
        """The definition that a person is shown."""
        with self.home.registry.view() as read:
            pending = read.tool(ACT).pending
        return "" if pending is None else str(pending.body["description"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "home")
    yield made
    made.gate.set()
    await made.sightings.close()
    made.home.state.close()


@requirement("REG-6")
@pytest.mark.parametrize("polled", [True, False], ids=["known", "not yet known"])
async def test_a_definition_that_is_the_pinned_one_again_is_kept(
    world: World, polled: bool
) -> None:
    """Also if the state in force has not heard of the change that is over."""
    await world.shows(act("another"))
    assert (world.state, world.waits) == (PinState.CHANGED, "another")
    if polled:
        world.polled()
    await world.shows(act("first"))
    assert (world.state, world.waits) == (PinState.PINNED, "")


@requirement("REG-6")
async def test_another_gateways_news_are_over_as_well(world: World) -> None:
    world.home.registry.observe_definitions(SERVER, [act("another")], world.home.act())
    world.polled()
    await world.shows(act("first"))
    assert world.state is PinState.PINNED


@requirement("REG-6")
async def test_a_person_is_shown_the_last_definition_of_several(world: World) -> None:
    for says in ("another", "a third"):
        await world.shows(act(says))
        world.polled()
        assert world.waits == says


@requirement("REG-6")
async def test_what_comes_while_another_listing_is_written_is_not_lost(world: World) -> None:
    world.gate.clear()
    world.saw(act("another"))
    await asyncio.get_running_loop().run_in_executor(None, world.entered.wait, 20)
    world.saw(act("a third"))
    world.saw(act("first"))
    world.gate.set()
    await world.written()
    assert (world.state, world.writes) == (PinState.PINNED, 2)


@requirement("REG-6")
async def test_the_same_listing_is_written_once(world: World) -> None:
    for _ in range(3):
        await world.shows(act("first"))
    assert world.writes == 0
    for _ in range(3):
        await world.shows(act("another"))
        world.polled()
    assert world.writes == 1


@requirement("REG-6")
async def test_what_could_not_be_written_is_news_again(world: World) -> None:
    await world.shows(act("another"))
    world.polled()
    world.fails = True
    await world.shows(act("a third"))
    world.fails = False
    await world.shows(act("a third"))
    assert world.waits == "a third"

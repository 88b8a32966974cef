"""An observed agent's call that policy would refuse leaves, on record as such (POL-7)."""

from dataclasses import replace
from typing import Any

import pytest
from requirements import requirement
from worlds import NOW, World, definition

from exeat.core.decision import Reason

pytestmark = pytest.mark.anyio
HOUR_NS = 3_600 * 10**9
NOTHING = '@id("other") permit(principal == Agent::"eve", action, resource);'


def watched(world: World, until: int) -> Any:
    view = world.view(observe_until=until)
    tools = {
        action: replace(tool, profile_confirmed=True)
        for action, tool in view.snapshot.tools.items()
    }
    view.snapshot = replace(view.snapshot, tools=tools)
    return view


@requirement("POL-7", "POL-10")
async def test_it_is_listed_leaves_and_is_recorded_until_the_time_is_over() -> None:
    async with World(tools=[definition("add")], policy=NOTHING) as world:
        refused = (await world.ask(world.tool("add", {}))).json
        assert refused.get("error") or refused["result"]["isError"]
        assert not world.upstream.calls
        world.state.view = watched(world, NOW + HOUR_NS)
        answer = await world.ask(world.tool("add", {}))
        assert "isError" not in answer.json["result"]
        assert len(world.upstream.calls) == 1
        _, decision = world.ledger.decisions[-1]
        assert (decision.permitted, decision.reason) == (True, Reason.OBSERVED)
        assert decision.would == ("observe:deny:not_permitted",)
        world.now = NOW + HOUR_NS
        refused = (await world.ask(world.tool("add", {}))).json
        assert refused.get("error") or refused["result"]["isError"]
        assert len(world.upstream.calls) == 1

"""POL-3: a denial is something that the client can show, whatever the tool promised to answer."""

from typing import Any

import pytest
from requirements import requirement
from worlds import PERMIT_ALL, World, definition

pytestmark = pytest.mark.anyio
PROMISED = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}
FORBID = PERMIT_ALL + (
    '@id("no") forbid(principal, action in [Action::"up/add", Action::"up/plain"], resource)'
    " when { context.input has memo };"
)


def tools() -> list[dict[str, Any]]:
    memo = {"memo": {"type": "string"}}
    return [{**definition("add", memo), "outputSchema": PROMISED}, definition("plain", memo)]


@requirement("POL-3")
async def test_a_denial_never_contradicts_the_tools_output_schema() -> None:
    """The TypeScript SDK 1.x holds it against the schema, and shows the mismatch instead."""
    async with World(tools=tools(), policy=FORBID) as world:
        answer = await world.ask(world.tool("add", {"memo": "x"}))
        result = answer.json["result"]
        assert "structuredContent" not in result
        told = result["_meta"]["exeat/denied"]
        assert told["reason"] == "forbidden"
        assert result["isError"] is True
        for said in told.values():
            assert said.rstrip(".") in result["content"][0]["text"]


@requirement("POL-3")
async def test_a_denial_of_a_tool_that_promises_nothing_is_structured_too() -> None:
    async with World(tools=tools(), policy=FORBID) as world:
        answer = await world.ask(world.tool("plain", {"memo": "x"}))
        result = answer.json["result"]
        assert result["structuredContent"]["denied"] == result["_meta"]["exeat/denied"]

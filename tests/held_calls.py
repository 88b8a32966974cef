"""A legacy server that asks a modern client, and waits (GW-4, GW-7)."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from worlds import Seen, World, sse

OFFERS = {"elicitation": {"form": {}}, "roots": {}}
META = {"io.modelcontextprotocol/clientCapabilities": OFFERS}
ELICIT = {"method": "elicitation/create", "params": {"message": "who?"}}


class Waiting:
    """A legacy server that asks, and what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.streams: list[Seen] = []

    async def script(self, seen: Seen) -> None:
        if seen.method == "tools/call":
            self.streams.append(seen)
            seen.stream(json.dumps({"jsonrpc": "2.0", "id": "s1", **ELICIT}))
        else:
            self.told.append(seen.message)
            seen.accept()

    def says(self, **message: Any) -> None:
        self.streams[-1].writer.write(sse(json.dumps({"jsonrpc": "2.0", **message})))

    def ends(self, text: str) -> None:
        content = {"content": [{"type": "text", "text": text}]}
        self.says(id=self.streams[-1].message["id"], result=content)


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[World, Waiting, Any]]:
    """A modern client has been asked ``q1``; yields its ``input_required`` result."""
    server = Waiting()
    async with World(legacy=True) as world, asyncio.timeout(20):
        world.upstream.script = server.script
        answer = await world.ask(ask(world))
        result = answer.json["result"]
        assert result["inputRequests"] == {"q1": ELICIT}
        yield world, server, result


def ask(world: World, **more: Any) -> bytes:
    return world.modern("tools/call", {"name": "add", "arguments": {}, "_meta": META, **more})


def answered(world: World, result: Any, answer: Any = None) -> bytes:
    given = {"q1": answer or {"action": "accept", "content": {"name": "Ada"}}}
    return ask(world, inputResponses=given, requestState=result["requestState"])

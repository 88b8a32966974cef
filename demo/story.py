"""What a scene of the demo needs: the agent's client, and a line in the table for each thing it tries.

Each line is checked as it is made: what the agent was told, what the ledger says, and what the office
carried out.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from office_day import Failed, Recorded, World

NOTICE_S: Final = 30.0
CALL_S: Final = 20.0


@contextlib.asynccontextmanager
async def agent(world: World, key: str) -> AsyncIterator[Client]:
    """The official SDK's client, with the agent's key, on the endpoint of all its servers."""
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=CALL_S * 2) as http,
        Client(streamable_http_client(world.url, http_client=http), mode="auto") as client,
    ):
        yield client


@dataclass(slots=True)
class Story:
    """Plays the scenes one by one; each becomes a line of the table."""

    world: World
    keys: dict[str, str]
    lines: list[tuple[str, str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    ends: set[int] = field(default_factory=set)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def line(self, tried: str, happened: str, why: str, evidence: str) -> None:
        self.lines.append((tried, happened, why, evidence))

    def scene_ends(self) -> None:
        self.ends.add(len(self.lines))

    async def settled(self, number: int) -> Recorded:
        """The entry with that number, once its outcome is on record too (it is written behind the call)."""
        deadline = time.monotonic() + CALL_S
        while True:
            entry = next(each for each in self.world.recorded() if each.number == number)
            if entry.outcome or entry.verdict != "permit" or time.monotonic() > deadline:
                return entry
            await asyncio.sleep(0.02)

    async def permitted(
        self, client: Client, tool: str, arguments: dict[str, Any], tried: str
    ) -> Recorded:
        _, entry = await self.carried_out(client, tool, arguments, tried)
        why = f"policy {', '.join(entry.policies)}"
        self.line(tried, "[green]permitted[/]", why, f"#{entry.number}")
        return entry

    async def carried_out(
        self, client: Client, tool: str, arguments: dict[str, Any], tried: str
    ) -> tuple[Any, Recorded]:
        """What the agent got, and the entry; the line is the caller's."""
        before = len(self.world.recorded())
        result = await client.call_tool(tool, arguments)
        new = self.world.recorded()[before:]
        self.expect(not result.is_error, f"{tried}: should have been carried out: {text(result)}")
        self.expect(len(new) == 1, f"{tried}: {len(new)} decisions on record instead of one")
        entry = await self.settled(new[0].number)
        self.expect(
            entry.verdict == "permit" and entry.outcome == "ok", f"{tried}: the ledger says {entry}"
        )
        return result, entry

    async def held(
        self, client: Client, tool: str, arguments: dict[str, Any], tried: str, why: str
    ) -> str:
        """Returns the hold that the agent was told of."""
        before, executed = len(self.world.recorded()), len(self.world.executed())
        result = await client.call_tool(tool, arguments)
        entry = self.world.recorded()[before]
        said = (result.meta or {}).get("exeat/denied", {})
        hold = re.search(r"\bh-[a-z0-9]+", text(result))
        self.expect(
            said.get("reason") == "approval_required" and hold is not None,
            f"{tried}: should have been held: {text(result)}",
        )
        self.expect(entry.verdict == "hold", f"{tried}: the ledger says {entry}")
        self.expect(len(self.world.executed()) == executed, f"{tried}: the server carried it out")
        self.line(tried, "[yellow]held[/]", why, f"#{entry.number}")
        if hold is None:
            raise Failed(f"{tried}: no hold is named: {text(result)}")
        return hold[0]

    async def denied(
        self, client: Client, tool: str, arguments: dict[str, Any], tried: str, reason: str
    ) -> None:
        before = len(self.world.recorded())
        executed = len(self.world.executed())
        result = await client.call_tool(tool, arguments)
        entry = self.world.recorded()[before]
        said = (result.meta or {}).get("exeat/denied", {})
        self.expect(bool(result.is_error), f"{tried}: should have been denied")
        self.expect(
            said.get("reason") == reason, f"{tried}: the agent was told {said or text(result)}"
        )
        self.expect(
            entry.verdict == "deny" and entry.reason == reason, f"{tried}: the ledger says {entry}"
        )
        self.expect(
            str(said.get("decision", "")).endswith(f"-{entry.number}"),
            f"{tried}: {said} names no entry",
        )
        self.expect(len(self.world.executed()) == executed, f"{tried}: the server carried it out")
        why = text(result).partition("Denied by exeat: ")[2].partition(" (reason")[0]
        if reason == "budget_exhausted":  # which one, and how far
            why = str(said.get("remedy", "")).partition(";")[0].lower()
        self.line(tried, "[red]denied[/]", why, f"#{entry.number}")

    async def hidden(
        self, client: Client, tool: str, arguments: dict[str, Any], tried: str
    ) -> None:
        names = {each.name for each in (await client.list_tools()).tools}
        answers = []
        for name in (tool, "office__no_such_tool"):
            try:
                answers.append(text(await client.call_tool(name, arguments)))
            except MCPError as error:
                answers.append(str(error))
        entry = self.world.recorded()[-2]
        same = answers[0].replace(tool, "X") == answers[1].replace("office__no_such_tool", "X")
        self.expect(
            tool not in names and "office__transfer" in names,
            f"{tried}: the list shows {sorted(names)}",
        )
        self.expect(same, f"{tried}: differs from an unknown tool: {answers}")
        self.expect(entry.verdict == "deny", f"{tried}: the ledger says {entry}")
        self.line(
            tried,
            "[red]hidden[/]",
            "not in its list; calling it says “unknown tool”",
            f"#{entry.number}",
        )


def text(result: Any) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


def first(error: BaseException) -> BaseException:
    """What a task group wraps."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    deadline = time.monotonic() + NOTICE_S
    while not await holds():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def asking_for_a_report(story: Story) -> AsyncIterator[asyncio.Task[None]]:
    """The assistant's call, once the office works on it."""
    done = len(story.world.executed("slow_report"))

    async def ask() -> None:
        async with agent(story.world, story.keys["assistant"]) as client:
            await client.call_tool("office__slow_report", {})

    async def begun() -> bool:
        return len(story.world.executed("slow_report")) > done

    call = asyncio.create_task(ask())
    try:
        await until(begun, "the slow report did not begin")
        yield call
    finally:
        call.cancel()

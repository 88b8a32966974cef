"""The official Python SDK's client, or FastMCP's, told what to do by one JSON object a line.

    sdk.py auto|legacy|fastmcp

``open`` connects to a URL with a key, or through a command that speaks stdio; ``list`` and ``call`` use
that connection; each is answered with one line; a call that asks for progress, with a line before it for each
notification.  What a user of the client would see is the answer, whether the client returned it or raised it.  A connection lives in a task of its own, so that the end of
one is not the end of the others.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

MODE = sys.argv[1]
PATIENCE_S = 60.0
ON_PROGRESS = "progress_handler" if MODE == "fastmcp" else "progress_callback"


async def official(stack: AsyncExitStack, order: dict[str, Any]) -> tuple[Any, str]:
    import httpx2
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client

    if "command" in order:
        first, *rest = order["command"]
        transport: Any = stdio_client(
            StdioServerParameters(command=first, args=rest, env=order["env"]), errlog=sys.stderr
        )
    else:
        headers = {"Authorization": f"Bearer {order['key']}"}
        http = httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S)
        transport = streamable_http_client(
            order["url"], http_client=await stack.enter_async_context(http)
        )
    client = await stack.enter_async_context(Client(transport, mode=MODE))
    return client, str(client.protocol_version)


async def fastmcp(stack: AsyncExitStack, order: dict[str, Any]) -> tuple[Any, str]:
    from fastmcp import Client

    client = Client(order["url"], auth=order["key"], timeout=PATIENCE_S)
    opened = await stack.enter_async_context(client)
    return opened, str(getattr(opened, "protocol_version", ""))


async def act(client: Any, order: dict[str, Any]) -> dict[str, Any]:
    if order["op"] == "list":
        listed = await client.list_tools()
        return {"names": sorted(tool.name for tool in getattr(listed, "tools", listed))}
    more = {ON_PROGRESS: told} if order.get("progress") else {}
    answer = await client.call_tool(order["tool"], order["arguments"], **more)
    text = "\n".join(getattr(block, "text", "") for block in answer.content)
    return {"text": text, "error": bool(answer.is_error)}


async def told(done: float, total: float | None, message: str | None) -> None:
    print(json.dumps({"progress": message or ""}), flush=True)


def shown(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class Connection:
    def __init__(self, order: dict[str, Any]) -> None:
        self.orders: asyncio.Queue[tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]]
        self.orders = asyncio.Queue()
        self.opened: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self.live(order))

    async def live(self, order: dict[str, Any]) -> None:
        connect = fastmcp if MODE == "fastmcp" else official
        async with AsyncExitStack() as stack:
            client, version = await connect(stack, order)
            self.opened.set_result({"version": version})
            while True:
                order, done = await self.orders.get()
                if order["op"] == "close":
                    done.set_result({})
                    return
                try:
                    done.set_result(await act(client, order))
                except Exception as error:
                    done.set_result({"text": shown(error), "error": True, "raised": True})

    async def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.orders.put_nowait((order, done))
        return await self.first(done)

    async def first(self, done: asyncio.Future[dict[str, Any]]) -> dict[str, Any]:
        """The answer, or how the connection ended without one."""
        await asyncio.wait(
            {done, self.task}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
        )
        if done.done():
            return done.result()
        if not self.task.done():
            return {"text": f"no answer within {PATIENCE_S:g} s", "error": True, "raised": True}
        error = None if self.task.cancelled() else self.task.exception()
        text = shown(error) if error is not None else "the connection ended"
        return {"text": text, "error": True, "raised": True}


async def main() -> None:
    connections: dict[str, Connection] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        if order["op"] == "open":
            connections[order["to"]] = connection = Connection(order)
            answer = await connection.first(connection.opened)
        else:
            answer = await connections[order["to"]].ask(order)
        print(json.dumps(answer), flush=True)
    for connection in connections.values():
        connection.task.cancel()
    await asyncio.gather(*(each.task for each in connections.values()), return_exceptions=True)


asyncio.run(main())

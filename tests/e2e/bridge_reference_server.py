"""A small MCP server of the official SDK, for test_bridge.py; prints its port, then serves.

Asks for the key ``k-123``; serves both eras.
"""

import asyncio
import socket
import sys
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel, Field

server = MCPServer("reference")
ended = []


class Name(BaseModel):
    name: str


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def text(size: int) -> str:
    return "x" * size


@server.tool()
def place(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    return f"placed in {region}"


@server.tool()
async def wait(context: Context) -> str:
    await context.report_progress(1, 2, "waiting")
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(1)
    return "never"


@server.tool()
def waits_ended() -> int:
    return len(ended)


@server.tool()
async def greet(context: Context) -> str:
    answer = await context.elicit("Who are you?", Name)
    return f"hello {answer.data.name}" if answer.action == "accept" else answer.action


@server.resource("note://{title}")
def note(title: str) -> str:
    return f"note {title}"


@server.prompt()
def ask(topic: str) -> str:
    return f"tell me about {topic}"


def guarded(app: Any) -> Any:
    async def check(scope: Any, receive: Any, send: Any) -> None:
        wrong = dict(scope.get("headers", ())).get(b"authorization") != b"Bearer k-123"
        if scope["type"] == "http" and wrong:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    return check


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    app = server.streamable_http_app(json_response="--json" in sys.argv)
    config = uvicorn.Config(guarded(app), log_level="error", timeout_graceful_shutdown=0)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()

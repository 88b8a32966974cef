"""A small HTTP server with tools to hold, to narrow and to redact: `clerk_server.py LOG`.

Every call that is carried out is appended to LOG as a line of JSON before it is answered.
"""

import json
import socket
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("clerk", log_level="WARNING")
ROWS = [{"name": f"n{n}", "email": f"person{n}@example.org"} for n in range(500)]


def carried_out(tool: str, **arguments: Any) -> None:
    with open(sys.argv[1], "a", encoding="utf-8") as log:
        log.write(json.dumps({"tool": tool, **arguments}) + "\n")


@server.tool()
def pay(amount: float, to: str) -> str:
    """Pay somebody."""
    carried_out("pay", amount=amount, to=to)
    return f"paid {amount} to {to}"


@server.tool()
def search(query: str, limit: int = 1000) -> dict[str, Any]:
    """Search people."""
    carried_out("search", query=query, limit=limit)
    return {"rows": ROWS[:limit]}


@server.tool()
def people(team: str) -> dict[str, Any]:
    """List people."""
    carried_out("people", team=team)
    return {"rows": ROWS[:20], "owner": "Grace <grace.hopper@example.org>"}


@server.tool()
def note(text: str) -> str:
    carried_out("note", text=text)
    return f"noted: {text}"


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    app = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=0)
    uvicorn.Server(config).run(sockets=[listening])

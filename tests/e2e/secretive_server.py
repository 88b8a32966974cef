"""A small stdio MCP server of the official SDK, for test_connected_clients.py: it knows a secret, and
tells what it is only by its digest."""

import hashlib
import os

from mcp.server.mcpserver import MCPServer

server = MCPServer("secretive")


@server.tool()
def digest() -> str:
    return hashlib.sha256(os.environ.get("WHO_TOKEN", "").encode()).hexdigest()


if __name__ == "__main__":
    server.run("stdio")

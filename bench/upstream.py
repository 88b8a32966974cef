"""A very fast MCP server for the benchmark, so that the upstream is never the bottleneck.

Raw protocol on uvloop.  Modern and legacy on one port; `/stream` answers calls as event streams, any
other path as JSON.  A call is answered with the `note` among its arguments, so that every answer can
be checked; a note that ends in `+N` gets N characters more.

    python bench/upstream.py PORT [TOOLS]
"""

import asyncio
import sys
from typing import Any, Final, cast

import msgspec
import uvloop

TOOLS_DEFAULT: Final = 40
SESSION: Final = b"bench-session"
_DECODE: Final = msgspec.json.Decoder().decode
_ENCODE: Final = msgspec.json.Encoder().encode


def tool_names(count: int) -> list[str]:
    return [f"pay_{index:04d}" for index in range(count)]


def tool(name: str) -> dict[str, Any]:
    """A tool as it stands in tools/list: 0.3 kB, three arguments."""
    return {
        "name": name,
        "description": "Pays an amount to an account and keeps the note with it.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "to": {"type": "string"},
                "amount": {"type": "integer"},
                "note": {"type": "string"},
            },
            "required": ["to", "amount", "note"],
        },
    }


class Answers:
    """What to answer to one JSON-RPC message; None for a notification."""

    def __init__(self, tools: int) -> None:
        self._tools = [tool(name) for name in tool_names(tools)]

    def to(self, message: dict[str, Any]) -> dict[str, Any] | None:
        if "id" not in message:
            return None
        method, params = message["method"], message.get("params") or {}
        modern = "io.modelcontextprotocol/protocolVersion" in (params.get("_meta") or {})
        answer = {"jsonrpc": "2.0", "id": message["id"]}
        result = self._result(method, params)
        if result is None:
            return answer | {"error": {"code": -32601, "message": f"no method {method}"}}
        return answer | {"result": result | ({"resultType": "complete"} if modern else {})}

    def _result(self, method: str, params: dict[str, Any]) -> dict[str, Any] | None:
        if method == "tools/call":
            note = params["arguments"]["note"]
            text = f"paid {note}" + "x" * int(note.partition("+")[2] or 0)
            return {"content": [{"type": "text", "text": text}], "isError": False}
        about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
        caching = {"ttlMs": 0, "cacheScope": "private"}
        match method:
            case "tools/list":
                return {"tools": self._tools, **caching}
            case "server/discover":
                return {"supportedVersions": ["2026-07-28"], **about, **caching}
            case "initialize":
                return {"protocolVersion": "2025-11-25", **about}
            case "ping":
                return {}
        return None


class Upstream(asyncio.Protocol):
    """HTTP/1.1 with Content-Length requests, kept alive, in order."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._pending = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        pending = self._pending + data if self._pending else data
        out: list[bytes] = []
        while (end := pending.find(b"\r\n\r\n")) >= 0:
            head = pending[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(pending) < end + 4 + length:
                break
            out.append(self._answer(head, pending[end + 4 : end + 4 + length]))
            pending = pending[end + 4 + length :]
        self._pending = pending
        if out:
            self._transport.write(b"".join(out))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if not head.startswith(b"post "):
            allowed = (
                b"204 No Content" if head.startswith(b"delete ") else b"405 Method Not Allowed"
            )
            return b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % allowed
        message = _DECODE(body)
        answer = self._answers.to(message)
        if answer is None:
            return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        payload = _ENCODE(answer)
        session = b""
        if message["method"] == "initialize":
            session = b"Mcp-Session-Id: %b\r\n" % SESSION
        if head.startswith(b"post /stream") and message["method"] == "tools/call":
            event = b"event: message\ndata: %b\n\n" % payload
            return (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
                b"Cache-Control: no-cache\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
            )
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
            % (session, len(payload), payload)
        )


async def serve(port: int, tools: int) -> None:
    answers = Answers(tools)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(answers), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else TOOLS_DEFAULT))

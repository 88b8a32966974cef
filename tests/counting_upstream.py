"""A small upstream that writes down every call that it carries out, before it answers.

Usage: counting_upstream.py LOG  — speaks modern MCP over HTTP on a free port, which it prints.
"""

import asyncio
import json
import os
import sys

TOOL = {
    "name": "note",
    "description": "Write a note",
    "inputSchema": {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    },
}


async def main(log: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                message = json.loads(await reader.readexactly(length))
                writer.write(answer(log, message))
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def answer(log: int, message: dict) -> bytes:
    method, result = message["method"], {"resultType": "complete"}
    if method == "server/discover":
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    elif method == "tools/list":
        result |= {"tools": [TOOL]}
    else:
        os.write(log, b"%d\n" % message["params"]["arguments"]["n"])
        result |= {"content": [{"type": "text", "text": "noted"}]}
    body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


if __name__ == "__main__":
    asyncio.run(main(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))

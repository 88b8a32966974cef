"""A small modern server that says what it was given, and what it can reach of the gateway.

Usage: secretive_server.py [LOG] — with LOG over HTTP on a free port, which it prints, appending the
fields of each tools/call to LOG; without it over stdio.  The tool ``given`` answers with the SHA-256 of
variable TOKEN (or of the Authorization field); ``look`` tries to open every path in its argument.
"""

import asyncio
import hashlib
import json
import os
import sys
from typing import Any

TOOLS = [
    {"name": "given", "description": "What I have", "inputSchema": {"type": "object"}},
    {
        "name": "look",
        "description": "What I can read",
        "inputSchema": {
            "type": "object",
            "properties": {"paths": {"type": "array", "items": {"type": "string"}}},
        },
    },
]


def answer(message: dict[str, Any], secret: str) -> dict[str, Any]:
    method, result = message["method"], {"resultType": "complete"}
    if method == "server/discover":
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    elif method == "tools/list":
        result |= {"tools": TOOLS}
    else:
        said: Any = hashlib.sha256(secret.encode()).hexdigest()
        if message["params"]["name"] == "look":
            said = [tried(path) for path in message["params"]["arguments"]["paths"]]
        result |= {"content": [{"type": "text", "text": json.dumps(said)}]}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def tried(path: str) -> str:
    try:
        with open(path.replace("PARENT", str(os.getppid())), "rb") as file:
            file.read(1)
        return "read"
    except OSError as error:
        return type(error).__name__


async def http(log: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(fields["content-length"]))
                message = json.loads(body)
                if message["method"] == "tools/call":
                    os.write(log, json.dumps(fields | {"body": message}).encode() + b"\n")
                out = json.dumps(answer(message, fields.get("authorization", ""))).encode()
                head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(f"{head}content-length: {len(out)}\r\n\r\n".encode() + out)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def stdio() -> None:
    print("my token is", os.environ.get("TOKEN"), file=sys.stderr, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            print(json.dumps(answer(message, os.environ.get("TOKEN", ""))), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(http(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)))
    else:
        stdio()

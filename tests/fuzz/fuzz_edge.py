"""Coverage-guided fuzzing of everything that reads bytes from outside (atheris).

``python tests/fuzz/fuzz_edge.py -max_total_time=60``; without atheris, ``test_fuzz_edge.py`` runs
the same targets under hypothesis.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / "src"), str(root / "tests")]

from fuzz import oracle
from fuzz.oracle import Turns
from worlds import Wire

from exeat.core.strictjson import MalformedJson
from exeat.core.strictjson import parse as strict
from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge
from exeat.gateway.fastjson import parse as fast
from exeat.gateway.http1 import (
    BadHead,
    ChunkedDecoder,
    RequestHead,
    parse_request_head,
    parse_response_head,
)
from exeat.gateway.inbound import read_post
from exeat.gateway.scan import MalformedAnswer, ResultScanner
from exeat.gateway.settings import GatewaySettings
from exeat.gateway.sse import EventParser, MalformedStream
from exeat.gateway.wire import Nonsense, read_incoming

_FIELDS: Final = {
    "host": "localhost", "content-type": "application/json", "accept": "*/*",
    "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "add",
}  # fmt: skip
_HEAD: Final = RequestHead("POST", "/mcp", _FIELDS, 0, True, "", False)


def _dispatch(connection: Connection, head: RequestHead, body: bytes) -> None:
    """Answers at once; refuses to believe in bodies that are larger than the limit."""
    if len(body) > 1000:
        raise AssertionError("a body over the limit")
    read_post(head, body)
    connection.respond(200, b"text/plain", b"ok")


def connection(data: bytes) -> None:
    """Never raises; ends in an answer per request, and closes after what it refuses."""
    turns: Any = Turns()
    loop: asyncio.AbstractEventLoop = turns
    edge = Edge(_dispatch, GatewaySettings(request_body_max_bytes=1000), loop)
    found, wire = Connection(edge), Wire()
    found.connection_made(wire)
    step = data[0] % 16 + 1 if data else 1
    for at in range(1, len(data), step):
        found.data_received(data[at : at + step])
        while turns.later:
            turns.later.pop(0)()
    found.timed_out()
    found.connection_lost(None)


def heads(data: bytes) -> None:
    for parse in (parse_request_head, parse_response_head):
        try:
            parse(data)
        except BadHead:
            pass


def streams(data: bytes) -> None:
    step = data[0] % 16 + 1 if data else 1
    chunks = [data[at : at + step] for at in range(1, len(data), step)]
    for strict_mode in (True, False):
        decoder = ChunkedDecoder(strict=strict_mode)
        try:
            for chunk in chunks:
                if not decoder.done:
                    decoder.feed(chunk)
        except ValueError:
            pass
    for reader in (EventParser(1000), ResultScanner()):
        try:
            for chunk in chunks:
                reader.feed(chunk)
        except (MalformedStream, MalformedAnswer):
            pass


def messages(data: bytes) -> None:
    read_post(_HEAD, data)
    try:
        read_incoming(data)
    except Nonsense:
        pass
    outcomes = []
    for parse in (strict, fast):
        try:
            outcomes.append(repr(parse(data)))
        except MalformedJson:
            outcomes.append("refused")
    if outcomes[0] != outcomes[1]:
        raise AssertionError("the fast parse differs from the strict one")


def requests(data: bytes) -> None:
    oracle.requests(data[1:])


def responses(data: bytes) -> None:
    oracle.responses(data[1:])


TARGETS: Final = (connection, heads, streams, messages, requests, responses)


def one(data: bytes) -> None:
    """The first byte chooses the target."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


if __name__ == "__main__":
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris, or run `make fuzz`")
    atheris.instrument_all()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

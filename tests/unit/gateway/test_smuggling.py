"""No bytes make two requests out of one, or one out of two (GW-14, GW-2)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httptools
import pytest
from fuzz.oracle import Turns
from requirements import requirement
from smuggling import Case, requests, splits
from worlds import Wire, World, connected

from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge
from exeat.gateway.http1 import RequestHead
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
CASES = requests()
BEFORE = b"POST /before HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
LIMITS = GatewaySettings(request_body_max_bytes=1000)
by_name = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


class Answers:
    """What a client reads: statuses and bodies in order, by llhttp."""

    def __init__(self, raw: bytes) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        self._parser.feed_data(raw)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 100:
            self.statuses.append(self._parser.get_status_code())
            self.bodies.append(self._body)
        self._body = b""


class Served:
    """An edge that answers at once with the number, path and body of what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes]] = []

    def __call__(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        self.seen.append((head.path, body))
        told = b"%d %b %b" % (len(self.seen), head.path.encode(), body)
        connection.respond(200, b"text/plain", told)


def expect(case: Case, served: Served, raw_answers: bytes, *, before: bool) -> None:
    wanted = list(zip(case.paths, case.bodies, strict=True))
    statuses = list(case.statuses)
    if before:
        wanted.insert(0, ("/before", b"hi"))
        statuses.insert(0, 200)
    answers = Answers(raw_answers)
    assert answers.statuses == statuses
    assert served.seen == wanted
    told = [b"%d %b %b" % (n, p.encode(), b) for n, (p, b) in enumerate(wanted, 1)]
    assert answers.bodies[: len(told)] == told


def feed(pieces: Sequence[bytes]) -> tuple[Served, Wire]:
    """In memory: each piece is a read of its own."""
    turns: Any = Turns()
    served, wire = Served(), Wire()
    edge = Edge(served, LIMITS, turns)
    connection = Connection(edge)
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        while turns.later:
            turns.later.pop(0)()
    return served, wire


@requirement("GW-14", "GW-2")
@by_name
def test_one_request_or_none_wherever_the_bytes_are_cut(case: Case) -> None:
    for before in (b"", BEFORE):
        for pieces in splits(before + case.raw):
            served, wire = feed(pieces)
            expect(case, served, wire.written, before=bool(before))
            assert wire.over is case.closes


@pytest.fixture
async def listening() -> AsyncIterator[tuple[Served, int]]:
    loop = asyncio.get_running_loop()
    served = Served()
    edge = Edge(served, LIMITS, loop)
    server = await loop.create_server(edge, "127.0.0.1", 0)
    yield served, server.sockets[0].getsockname()[1]
    server.close()
    edge.close()
    await asyncio.sleep(0)


@requirement("GW-14", "GW-2")
@pytest.mark.parametrize("how", ["alone", "pipelined", "alone in bytes", "pipelined in bytes"])
@by_name
async def test_one_request_or_none_over_a_socket(
    listening: tuple[Served, int], case: Case, how: str
) -> None:
    served, port = listening
    before = BEFORE if "pipelined" in how else b""
    raw = before + case.raw
    step = max(1, len(raw) // 200) if "bytes" in how else len(raw)
    async with asyncio.timeout(20), connected(port) as client:
        for at in range(0, len(raw), step):
            if (
                client.writer.is_closing()
            ):  # a client that was told to close may see it before its end
                break
            client.write(raw[at : at + step])
            await asyncio.sleep(0)  # the edge reads in between: it lives on the same loop
        if case.closes:
            answered = await client.closed()
        else:
            answered = b""
            while len(Answers(answered).statuses) < len(case.statuses) + bool(before):
                answered += await client.reader.read(65536)
    expect(case, served, answered, before=bool(before))


@requirement("GW-14", "GW-2")
async def test_the_upstream_never_sees_a_request_that_was_hidden_in_another() -> None:
    """Through a whole gateway; what is hidden would be permitted, had it come as a request."""
    async with World() as world:
        hidden = world.tool("secret")
        assert (await world.ask(hidden)).status == 200
        assert [seen.message["params"]["name"] for seen in world.upstream.calls] == ["secret"]
        hiding = [case for case in requests(hidden) if not case.second]
        for number, case in enumerate(hiding, 1):
            async with asyncio.timeout(20), world.connect() as client:
                client.write(world.tool("add") + case.raw)
                assert (await client.answer()).status == 200
                assert len(world.upstream.calls) == number + 1
                client.writer.write_eof()
                await client.closed()
            names = [seen.message["params"]["name"] for seen in world.upstream.calls]
            assert names[1:] == ["add"] * len(names[1:]), case.name

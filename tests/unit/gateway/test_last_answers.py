"""A last answer is written whole to a client that reads it, however slowly (GW-14, GW-9)."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from fuzz.fuzz_edge import Turns
from requirements import requirement
from worlds import Client, Seen, Wire, World, until

from exeat.app.tls import Certificate
from exeat.gateway import tls
from exeat.gateway.connection import LAST_ANSWER_MAX_S, Connection
from exeat.gateway.edge import Edge
from exeat.gateway.http1 import RequestHead
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
EVENT_BYTES = 12_000_000
STEP_BYTES = 1_000_000
LAST = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Slow(Wire):
    """Its client has not taken ``unsent`` bytes yet."""

    unsent = 100

    def get_write_buffer_size(self) -> int:
        return self.unsent


class SlowTls(Slow):
    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise NotImplementedError


def last_answer(wire: Wire) -> Connection:
    """A connection that has answered its last request."""

    def dispatch(connection: Connection, head: RequestHead, body: bytes) -> None:
        connection.respond(200, b"text/plain", b"x")

    turns: Any = Turns()
    connection = Connection(Edge(dispatch, GatewaySettings(), turns))
    connection.connection_made(wire)
    connection.pause_writing()
    connection.resume_writing()
    connection.data_received(LAST)
    return connection


@requirement("GW-14")
@pytest.mark.parametrize("kind", [Slow, SlowTls])
def test_who_reads_on_is_not_cut_and_who_stops_is(kind: type[Slow]) -> None:
    wire = kind()
    connection = last_answer(wire)
    for wire.unsent in (100, 60, 59):
        connection.timed_out()
        assert not wire.aborted
    connection.timed_out()
    assert wire.aborted


@requirement("GW-14")
@pytest.mark.parametrize("kind", [Slow, SlowTls])
def test_a_byte_now_and_then_holds_no_connection_for_good(kind: type[Slow]) -> None:
    wire = kind()
    connection = last_answer(wire)
    edge = connection._edge
    for wire.unsent in range(100, 90, -1):
        connection.timed_out()
        assert not wire.aborted
    edge.now += LAST_ANSWER_MAX_S + 1
    wire.unsent = 80
    connection.timed_out()
    assert wire.aborted


async def large(seen: Seen) -> None:
    text = '{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"%s"}],' % (
        seen.message["id"], "x" * EVENT_BYTES,
    )  # fmt: skip
    seen.stream(text + '"resultType":"complete"}}')
    seen.writer.close()


@contextlib.asynccontextmanager
async def narrow(world: World, folder: Path, *, over_tls: bool) -> AsyncIterator[Client]:
    """A client with a small receive buffer, which has asked for a large last event."""
    world.upstream.script = large
    entry: Any = world.edge
    context = None
    if over_tls:
        authority = Authority(folder)
        entry = tls.TlsEntry(world.edge, Certificate(*authority.issue("server"), None).context())
        context = ssl.create_default_context(cafile=authority.path)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(entry, "127.0.0.1", 0)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    raw.setblocking(False)
    await loop.sock_connect(raw, listener.sockets[0].getsockname())
    name = "localhost" if over_tls else None
    client = Client(*await asyncio.open_connection(sock=raw, ssl=context, server_hostname=name))
    client.write(world.tool().replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
    try:
        yield client
    finally:
        client.writer.transport.abort()
        listener.close()


@requirement("GW-14", "GW-9")
@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_slow_client_gets_the_whole_of_a_large_last_event(
    over_tls: bool, tmp_path: Path
) -> None:
    """Its time limit comes again and again while it reads.  A step is more than buffers hold."""
    got = 0
    async with (
        asyncio.timeout(15),
        World() as world,
        narrow(world, tmp_path, over_tls=over_tls) as client,
    ):
        for _ in range(5):
            got += len(await client.reader.readexactly(STEP_BYTES))
            for connection in world.edge.connections:
                connection.timed_out()
        while piece := await client.reader.read(65536):
            got += len(piece)
    assert got > EVENT_BYTES


@requirement("GW-14", "GW-9")
@pytest.mark.parametrize("over_tls", [False, True])
async def test_who_reads_none_of_a_large_last_event_is_cut(over_tls: bool, tmp_path: Path) -> None:
    async with (
        asyncio.timeout(15),
        World() as world,
        narrow(world, tmp_path, over_tls=over_tls) as client,
    ):
        client.writer.transport.pause_reading()
        await until(lambda: any(c._closing for c in world.edge.connections))
        while world.edge.connections:
            for connection in list(world.edge.connections):
                connection.timed_out()
            await asyncio.sleep(0.01)


@requirement("GW-14")
def test_the_time_limit_of_a_tls_end_is_none_that_an_answer_could_meet() -> None:
    """It runs while the answer is still written; the edge's own limits shall come first."""
    assert 2 * GatewaySettings().upstream_answer_max_s < tls.SHUTDOWN_MAX_S
    assert LAST_ANSWER_MAX_S < tls.SHUTDOWN_MAX_S

"""The HTTP edge over real loopback connections, with a dispatch that the test writes (GW-14)."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement
from worlds import Client, Wire, connected, until

from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.http1 import RequestHead
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
GET = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n"
SMALL = GatewaySettings(request_body_max_bytes=1000)


@pytest.fixture
def anyio_backend() -> str:
    """The stock loop: its transports lend out their sockets, which the tests of cut connections need."""
    return "asyncio"


class Slow:
    """An exchange that ends when the test says so."""

    def __init__(self, connection: Connection, body: bytes) -> None:
        self.connection, self.body = connection, body
        self.gone = False

    def end(self) -> None:
        self.connection.respond(200, b"text/plain", b"slow:" + self.body)

    def client_gone(self) -> None:
        self.gone = True

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


class Door:
    """An edge that echoes bodies; ``/slow`` waits for the test."""

    def __init__(self, limits: GatewaySettings = SMALL) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen: list[tuple[RequestHead, bytes]] = []
        self.slow: list[Slow] = []
        self.edge = Edge(self.dispatch, limits, self.loop)

    def dispatch(self, connection: Connection, head: RequestHead, body: bytes) -> Exchange | None:
        self.seen.append((head, body))
        if head.path == "/slow":
            self.slow.append(Slow(connection, body))
            return self.slow[-1]
        connection.respond(200, b"text/plain", b"%b:%b" % (head.path.encode(), body))
        return None

    async def listen(self) -> int:
        self.server = await self.loop.create_server(self.edge, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self.server.close()
        self.edge.close()
        await asyncio.sleep(0)

    def late(self) -> None:
        """Time passes every deadline, and the edge looks."""
        for connection in self.edge.connections:
            connection.deadline = min(connection.deadline, self.loop.time() - 1)
        self.sweep()

    def sweep(self) -> None:
        timer, self.edge._timer = self.edge._timer, None
        if timer is not None:
            timer.cancel()
        self.edge._sweep()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    door.port = await door.listen()  # type: ignore[attr-defined]
    yield door
    await door.close()


def port(door: Door) -> int:
    return int(door.port)  # type: ignore[attr-defined]


async def refused(door: Door, raw: bytes) -> int:
    """The status of the one answer before the edge closes."""
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(raw)
        answer = await client.answer()
        assert answer.fields["connection"] == "close"
        assert await client.closed() == b""
        return answer.status


@requirement("GW-14")
async def test_answers_leave_in_the_order_of_requests(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(
            b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n" + POST + b"content-length: 2\r\n\r\nhi"
            b"GET /bad//path HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET
        )
        await until(lambda: bool(door.slow))
        assert len(door.seen) == 1  # nothing behind it was looked at yet
        door.slow[0].end()
        assert (await client.answer()).body == b"slow:"
        assert (await client.answer()).body == b"/mcp:hi"
        assert (await client.answer()).status == 400
        assert await client.closed() == b""
    assert len(door.seen) == 2


@requirement("GW-14")
async def test_a_flood_of_pipelined_requests_is_read_no_further(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.write(GET * 4000)
        await until(lambda: bool(door.edge.connections and door.slow))
        (connection,) = door.edge.connections
        await until(lambda: connection._paused)
        assert len(connection._buffer) < 600_000
        door.slow[0].end()
        assert (await client.answer()).body == b"slow:"
        for _ in range(4000):
            assert (await client.answer()).body == b"/mcp:"


@requirement("GW-14")
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"GET /mcp HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost:\r\n\r\n", 400, id="empty host"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="two hosts"),
        pytest.param(b"GET http://a/mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="absolute-form"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="asterisk-form"),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="authority-form"),
        pytest.param(b"CONNECT /mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="connect"),
        pytest.param(b"GET //mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="double slash"),
        pytest.param(b"GET /mcp//up HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="inner double slash"),
        pytest.param(b"GET /mcp/%75p HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="percent"),
        pytest.param(b"GET /mcp/../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="dot dot"),
        pytest.param(b"GET /mcp/. HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="dot"),
        pytest.param(b"GET /mcp?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="query"),
        pytest.param(b"GET /mcp#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="fragment"),
        pytest.param(b"GET /mcp HTTP/1.0\r\nHost: a\r\n\r\n", 505, id="http/1.0"),
        pytest.param(b"GET /mcp HTTP/2.0\r\nHost: a\r\n\r\n", 400, id="http/2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="h2 preface"),
        pytest.param(b"get /mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="lower-case method"),
        pytest.param(b"WHAT /mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="unknown method"),
        pytest.param(b"\r\nGET /mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="leading blank line"),
        pytest.param(b"GET  /mcp HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="two spaces"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="space before colon"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n", 400, id="obs-fold"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400, id="bare LF"),
        pytest.param(b"GET /mcp HTTP/1.1\nHost: a\n\n", 400, id="only LF"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, id="bare CR"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\x00b\r\n\r\n", 400, id="NUL"),
        pytest.param(b"GET /mcp HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400, id="no colon"),
        pytest.param(POST + b"Upgrade: h2c\r\n\r\n", 400, id="upgrade"),
        pytest.param(POST + b"Connection: Upgrade\r\n\r\n", 400, id="connection: upgrade"),
        pytest.param(POST + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", 400, id="ws"),
        pytest.param(
            POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400,
            id="CL and TE",
        ),
        pytest.param(POST + b"content-length: 1\r\ncontent-length: 1\r\n\r\nx", 400, id="two CL"),
        pytest.param(POST + b"content-length: 1, 1\r\n\r\nx", 400, id="CL list"),
        pytest.param(POST + b"content-length: +1\r\n\r\nx", 400, id="CL plus"),
        pytest.param(POST + b"content-length: 0x1\r\n\r\nx", 400, id="CL hex"),
        pytest.param(POST + b"content-length: -1\r\n\r\nx", 400, id="CL negative"),
        pytest.param(POST + "content-length: \u00b2\r\n\r\nx".encode("latin-1"), 400, id="CL sup"),
        pytest.param(POST + b"content-length: 9999999999999999\r\n\r\n", 400, id="CL huge"),
        pytest.param(POST + b"transfer-encoding: gzip, chunked\r\n\r\n", 501, id="TE gzip"),
        pytest.param(POST + b"transfer-encoding: identity\r\n\r\n", 501, id="TE identity"),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400,
            id="two TE",
        ),
        pytest.param(POST + b"content-encoding: gzip\r\n\r\n", 415, id="content-encoding"),
        pytest.param(POST + b"expect: 200-ok\r\n\r\n", 417, id="expectation"),
        pytest.param(POST + b"content-length: 1001\r\n\r\n", 413, id="body too large"),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n", 413,
            id="chunks too large",
        ),
        pytest.param(POST + b"x: y\r\n" * 101 + b"\r\n", 431, id="too many lines"),
        pytest.param(POST + b"x: " + b"y" * 33_000 + b"\r\n\r\n", 431, id="head too large"),
        pytest.param(POST + b"x: " + b"y" * 33_000, 431, id="head without end"),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n", 400,
            id="chunk extension",
        ),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n", 400,
            id="trailer",
        ),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", 400,
            id="chunk longer than its size",
        ),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\nxyz\r\n", 400, id="chunk size"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\n1\na\n0\n\n", 400, id="chunk LF"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\n-1\r\n", 400, id="negative chunk"),
        pytest.param(POST + b"transfer-encoding: chunked\r\n\r\n 1\r\na\r\n", 400, id="chunk space"),
        pytest.param(
            POST + b"transfer-encoding: chunked\r\n\r\n1000000000\r\na\r\n", 400, id="huge chunk"
        ),
    ],
)  # fmt: skip
async def test_what_two_readers_could_read_differently_is_refused(
    door: Door, raw: bytes, status: int
) -> None:
    assert await refused(door, raw) == status
    assert door.seen == []


@requirement("GW-14")
async def test_head_gets_no_body_that_the_next_reader_takes_for_an_answer(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(b"HEAD /mcp HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        status, fields = await client.head()
        assert status == 405
        assert fields["connection"] == "close"
        await client.closed()
    assert door.seen == []


@requirement("GW-14")
async def test_a_connection_goes_on_after_a_good_request_and_not_after_close(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        for _ in range(4):  # by the third the head comes from the cache
            client.write(GET)
            assert (await client.answer()).body == b"/mcp:"
        client.write(b"GET /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
        assert (await client.answer()).fields["connection"] == "close"
        assert await client.closed() == b""
    assert len(door.seen) == 5


@requirement("GW-14")
async def test_expect_100_continue(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(POST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert (await client.head())[0] == 100
        client.write(b"hi")
        assert (await client.answer()).body == b"/mcp:hi"


@requirement("GW-14")
async def test_chunked_bodies_in_odd_pieces(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        body = b"5\r\nhello\r\n0000A\r\n, my world\r\n0\r\n\r\n"
        for at in range(0, len(body), 7):
            client.write(POST + b"transfer-encoding: chunked\r\n\r\n" + body[:at])
            await asyncio.sleep(0)
            client.write(body[at:])
            assert (await client.answer()).body == b"/mcp:hello, my world"


@requirement("GW-14")
async def test_a_slow_head_meets_one_limit_however_many_bytes_come(door: Door) -> None:
    """Slow loris: each new byte must not buy more time."""
    wire = Wire()
    connection = Connection(door.edge)
    connection.connection_made(wire)
    connection.data_received(GET)
    connection.data_received(b"G")
    first = connection.deadline
    assert first <= door.loop.time() + SMALL.head_time_max_s
    for byte in GET[1:20]:
        connection.data_received(bytes([byte]))
        assert connection.deadline == first
    door.late()
    assert b"408 Request Timeout" in wire.written
    assert wire.over


@requirement("GW-14")
async def test_head_body_and_idle_limits(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(b"GET /mcp HTT")
        await until(lambda: any(each._buffer for each in door.edge.connections))
        door.late()
        assert (await client.answer()).status == 408
        await client.closed()
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(POST + b"content-length: 5\r\n\r\nhi")
        await until(lambda: any(each._body for each in door.edge.connections))
        door.late()
        assert (await client.answer()).status == 408
        await client.closed()
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(GET)
        await client.answer()
        door.late()
        assert await client.closed() == b""  # idle: closed without a word
    assert len(door.seen) == 1


@requirement("GW-14")
async def test_a_request_under_way_has_no_edge_limit(door: Door) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(door.slow))
        (connection,) = door.edge.connections
        assert connection.deadline == float("inf")
        door.sweep()
        door.slow[0].end()
        assert (await client.answer()).status == 200


@requirement("GW-14")
async def test_a_client_that_never_reads_its_last_answer_is_cut_off(door: Door) -> None:
    """A closing transport waits for its buffer to empty; the edge does not wait for ever."""
    connection, wire = Connection(door.edge), Wire()
    connection.connection_made(wire)
    connection.data_received(b"BAD\r\n\r\n")
    assert wire.over and not wire.aborted
    assert connection in door.edge.connections
    door.late()
    assert wire.aborted


@requirement("GW-14")
async def test_no_more_connections_than_the_limit() -> None:
    door = Door(replace(SMALL, connections_max=2))
    at = await door.listen()
    clients = [Client(*await asyncio.open_connection("127.0.0.1", at)) for _ in range(2)]
    await until(lambda: len(door.edge.connections) == 2)
    async with connected(at) as third:
        assert (await third.answer()).status == 503
        assert await third.closed() == b""
    clients[0].write(GET)
    assert (await clients[0].answer()).status == 200
    await clients[1].close()
    await until(lambda: len(door.edge.connections) == 1)
    async with connected(at) as fourth:
        fourth.write(GET)
        assert (await fourth.answer()).status == 200
    await clients[0].close()
    await door.close()


@requirement("GW-14", "GW-9")
@pytest.mark.parametrize("how", ["half-closed", "closed", "reset"])
async def test_a_client_that_leaves_is_told_to_the_exchange(door: Door, how: str) -> None:
    async with asyncio.timeout(10), connected(port(door)) as client:
        client.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(door.slow))
        raw = client.writer.get_extra_info("socket")
        if how == "half-closed":
            raw.shutdown(socket.SHUT_WR)
        elif how == "closed":
            client.writer.close()
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
        await until(lambda: door.slow[0].gone)
        await until(lambda: not door.edge.connections)
        door.slow[0].end()  # an answer that comes too late harms nobody


@requirement("GW-14")
async def test_draining_closes_what_is_idle_and_lets_answers_end(door: Door) -> None:
    async with (
        asyncio.timeout(10),
        connected(port(door)) as idle,
        connected(port(door)) as busy,
    ):
        idle.write(GET)
        await idle.answer()
        busy.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: bool(door.slow))
        door.edge.drain()
        assert await idle.closed() == b""
        door.slow[0].end()
        answer = await busy.answer()
        assert answer.fields["connection"] == "close"
        assert await busy.closed() == b""


@requirement("GW-14")
async def test_bytes_one_at_a_time_equal_bytes_at_once(door: Door) -> None:
    pieces = st.sampled_from(
        [
            GET, POST + b"content-length: 3\r\n\r\nabc", POST + b"content-length: 0\r\n\r\n",
            POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            POST + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            b"GET /mcp HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"GET /mcp\nHost: a\r\n\r\n", POST + b"content-length: 2000\r\n\r\n", b"\r\n", b"\n",
            b"GET ", b"\x00", POST,
        ]
    )  # fmt: skip

    def spoken(chunks: list[bytes]) -> tuple[list[bytes], bool]:
        door.seen.clear()
        later: list[Callable[[], None]] = []
        wire, connection = Wire(), Connection(door.edge)
        real, door.edge.loop = door.edge.loop, _Turns(door.loop, later)  # type: ignore[assignment]
        try:
            connection.connection_made(wire)
            for chunk in chunks:
                connection.data_received(chunk)
                while later:
                    later.pop(0)()
            connection.connection_lost(None)
        finally:
            door.edge.loop = real
        statuses = [part[:3] for part in wire.written.split(b"HTTP/1.1 ")[1:]]
        return [*statuses, *(head.path.encode() + body for head, body in door.seen)], wire.closed

    @given(st.lists(pieces, min_size=1, max_size=4), st.integers(1, 40))
    def same(parts: list[bytes], step: int) -> None:
        raw = b"".join(parts)
        bytewise = [raw[at : at + 1] for at in range(len(raw))]
        stepped = [raw[at : at + step] for at in range(0, len(raw), step)]
        assert spoken([raw]) == spoken(bytewise) == spoken(stepped)

    same()


class _Turns:
    """The loop's ``call_soon`` in the test's hands."""

    def __init__(self, loop: asyncio.AbstractEventLoop, later: list[Callable[[], None]]) -> None:
        self.time = loop.time
        self._later = later

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._later.append(callback)

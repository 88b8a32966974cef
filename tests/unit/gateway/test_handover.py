"""A connection on its way from one worker to another, and what may go wrong there (GW-13)."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from requirements import requirement
from structlog.testing import capture_logs

from exeat.gateway import handover
from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge
from exeat.gateway.handover import Handover
from exeat.gateway.http1 import RequestHead
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
ASK = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIECE = b"x" * 65_536
PIECES = 512
TURNS = 4096
"""Of the loop: enough for all of the answer, if nobody held it up."""
FEW = 128
"""Pieces that buffers of sockets and transports may hold; far fewer than the answer has."""


class Flood:
    """An answer of PIECES pieces, written as the client reads."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.sent, self.gone = connection, 0, asyncio.Event()
        self.slow = asyncio.Event()
        connection.start(200, b"text/plain")

    def client_gone(self) -> None:
        self.gone.set()

    def client_slow(self) -> None:
        self.slow.set()

    def client_ready(self) -> None:
        while self.sent < PIECES and self.connection.writable:
            self.sent += 1
            self.connection.piece(PIECE)
        if self.sent == PIECES:
            self.connection.finish()


class Two:
    """Clients meet ``a``, which moves every request to ``b``; ``b`` answers it."""

    def __init__(self, place: Path) -> None:
        self.place, self.loop = place, asyncio.get_running_loop()
        self.a, self.b = (Handover(place, name, self.loop, b"secret") for name in "ab")
        self.here, self.floods = 0, list[Flood]()
        self.edges = (
            Edge(self._move, GatewaySettings(), self.loop),
            Edge(self._answer, GatewaySettings(), self.loop),
        )

    def _move(self, connection: Connection, head: RequestHead, body: bytes) -> handover.Moving:
        def here() -> None:
            self.here += 1
            connection.plain(404, "here")

        return self.a.move(connection, body, "b", here)

    def _answer(self, connection: Connection, head: RequestHead, body: bytes) -> Flood | None:
        if head.path == "/flood":
            self.floods.append(Flood(connection))
            self.loop.call_soon(self.floods[-1].client_ready)
            return self.floods[-1]
        connection.plain(200, "there")
        return None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        self.place.mkdir(mode=0o700)
        server = await self.loop.create_server(self.edges[0], "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for edge in self.edges:
                edge.close()
            for each in (self.a, self.b):
                await each.close()


@pytest.fixture
async def two(tmp_path: Path) -> Two:
    return Two(tmp_path / "workers")


async def told(port: int, request: bytes = ASK) -> bytes:
    """What a client that asks once and then ends hears."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    closing = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    writer.write(closing)
    try:
        return await asyncio.wait_for(reader.read(), 15)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@requirement("GW-13")
@pytest.mark.parametrize("relayed", [False, True])
async def test_a_request_is_answered_where_it_moved_to(
    two: Two, relayed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if relayed:
        monkeypatch.setattr(Connection, "passable", False)
    async with two.running() as port:
        two.b.listen(two.edges[1])
        assert (await told(port)).endswith(b"\r\n\r\nthere\n")
        assert two.here == 0
        assert not two.edges[0].connections or relayed


@requirement("GW-13", "GW-12")
async def test_what_comes_without_the_homes_secret_is_dropped(two: Two) -> None:
    """A stdio server runs as the same user, reaches the socket, and cannot read the home's keys."""
    two.a = Handover(two.place, "a", two.loop, b"another secret")
    with capture_logs() as logged:
        async with two.running() as port:
            two.b.listen(two.edges[1])
            assert await told(port) == b""
    assert [each["worker"] for each in logged] == ["b"]
    assert not two.edges[1].connections


@requirement("GW-13")
async def test_who_finds_no_owner_is_served_where_it_is(two: Two) -> None:
    async with two.running() as port:
        assert (await told(port)).endswith(b"here\n")  # there never was one
        with socket.socket(socket.AF_UNIX) as died:
            died.bind(str(two.place / "b"))
        assert (await told(port)).endswith(b"here\n")  # its socket is still there
    assert two.here == 2


@requirement("GW-13")
@pytest.mark.parametrize("taken", ["dropped", "never answered"])
async def test_once_it_has_left_only_the_other_may_answer(
    two: Two, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it arrived is not known, so the client's connection ends without a word."""
    monkeypatch.setattr(handover, "MOVE_MAX_S", 0.05)
    with capture_logs() as logged:
        async with two.running() as port:
            with socket.socket(socket.AF_UNIX) as owner:
                owner.bind(str(two.place / "b"))
                owner.listen()
                owner.setblocking(False)
                asking = asyncio.create_task(told(port))
                given, _ = await two.loop.sock_accept(owner)
                with given:
                    if taken == "dropped":
                        given.close()
                    assert await asking == b""
    assert [each["worker"] for each in logged] == ["b"]
    assert two.here == 0


@requirement("GW-13")
async def test_an_owner_that_is_too_busy_is_said(two: Two) -> None:
    async with two.running() as port:
        with socket.socket(socket.AF_UNIX) as owner:
            owner.bind(str(two.place / "b"))
            owner.listen(0)
            with contextlib.ExitStack() as waiting:
                while True:
                    way = waiting.enter_context(socket.socket(socket.AF_UNIX))
                    way.setblocking(False)
                    try:
                        way.connect(str(two.place / "b"))
                    except BlockingIOError:
                        break
                heard = await told(port)
    assert heard.startswith(b"HTTP/1.1 503 ")
    assert two.here == 0


@requirement("GW-13", "GW-9")
async def test_a_relay_holds_no_more_than_its_client_reads(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "passable", False)
    async with two.running() as port:
        two.b.listen(two.edges[1])
        with socket.socket() as sock:
            sock.setblocking(False)
            await two.loop.sock_connect(sock, ("127.0.0.1", port))
            await two.loop.sock_sendall(sock, ASK.replace(b"/mcp", b"/flood"))
            head = await two.loop.sock_recv(sock, 16)
            (flood,) = two.floods
            await flood.slow.wait()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert flood.sent < FEW
            heard = len(head)
            while heard < PIECES * len(PIECE):
                part = await two.loop.sock_recv(sock, 1 << 20)
                assert part
                heard += len(part)
            assert flood.sent == PIECES


@requirement("GW-13", "GW-9")
async def test_the_end_of_either_side_ends_the_other(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "passable", False)
    async with two.running() as port:
        two.b.listen(two.edges[1])
        clients = []
        for _ in range(2):
            clients.append(await asyncio.open_connection("127.0.0.1", port))
            clients[-1][1].write(ASK.replace(b"/mcp", b"/flood"))
            await clients[-1][0].read(16)
        assert two.a.relaying
        first, second = two.floods
        clients[1][1].transport.abort()
        await second.gone.wait()
        first.connection.abort()
        while await clients[0][0].read(1 << 20):
            pass
        assert not two.a.relaying
        for _, writer in clients:
            writer.close()

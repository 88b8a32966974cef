"""Whatever a client or a server sends or leaves unread, the memory that it holds is bounded."""

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import Callable

import pytest
from requirements import requirement
from worlds import Seen, Wire, World, until

from exeat.core.limits import JSON_DEPTH_MAX
from exeat.core.strictjson import MalformedJson
from exeat.gateway import fastjson, http1
from exeat.gateway.connection import PIPELINED_MAX_BYTES, WRITE_MAX_BYTES, Connection
from exeat.gateway.edge import Edge
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.http1 import HeadCache, RequestHead, parse_request_head
from exeat.gateway.link_http import REPLIES_MAX, LegacyHttpLink
from exeat.gateway.origin import Origin, ResponseSink, Sending
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio
GET = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNK = 64 * 1024
HIGH_WATER_BYTES = 64 * 1024


# ---- the edge: what is pipelined, and what is not read


class Pipe(Wire):
    """A client that writes as fast as it may and, unless ``reads``, never reads."""

    def __init__(self, *, reads: bool) -> None:
        super().__init__()
        self.reads, self.reading = reads, True
        self.connection: Connection | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.connection is not None
        if self.reads:
            return
        super().write(data)
        if len(self.written) > HIGH_WATER_BYTES:
            self.connection.pause_writing()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Turns:
    """An event loop that turns when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.waiting.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> None: ...

    def turn(self) -> None:
        due, self.waiting = self.waiting, []
        for callback in due:
            callback()


class Flood:
    """``requests`` pipelined requests, each answered at once, over one connection."""

    def __init__(self, requests: int, *, reads: bool, step: int = CHUNK) -> None:
        self.left, self.step = GET * requests, step
        self.taken = 0
        self.loop = Turns()
        edge = Edge(self._dispatch, GatewaySettings(), self.loop)  # type: ignore[arg-type]
        self.pipe, self.connection = Pipe(reads=reads), Connection(edge)
        self.pipe.connection = self.connection
        self.connection.connection_made(self.pipe)
        self.most = 0

    def _dispatch(self, connection: Connection, head: RequestHead, body: bytes) -> Exchange | None:
        self.taken += 1
        connection.respond(200, b"text/plain", b"x" * 100)
        return None

    def run(self) -> None:
        """Until nothing moves any more."""
        while self.loop.waiting or (self.left and self.pipe.reading):
            self.loop.turn()
            if self.pipe.reading and self.left:
                data, self.left = self.left[: self.step], self.left[self.step :]
                self.connection.data_received(data)
            self.most = max(self.most, len(self.connection._buffer))


@requirement("GW-14")
def test_a_pipeline_is_read_no_faster_than_it_is_answered() -> None:
    flood = Flood(10_000, reads=True)
    flood.run()
    assert flood.taken == 10_000
    assert flood.most <= PIPELINED_MAX_BYTES + CHUNK


@requirement("GW-9", "GW-14")
@pytest.mark.parametrize("step", [CHUNK, len(GET)])
def test_a_pipeline_whose_answers_are_not_read_is_answered_no_further(step: int) -> None:
    flood = Flood(10_000, reads=False, step=step)
    flood.run()
    assert flood.taken < 2000
    assert len(flood.pipe.written) < 2 * HIGH_WATER_BYTES
    assert flood.most <= PIPELINED_MAX_BYTES + CHUNK
    flood.pipe.reads, flood.step = True, CHUNK
    flood.connection.resume_writing()
    flood.run()
    assert flood.taken == 10_000


@requirement("GW-14")
@pytest.mark.parametrize("cut", [1, 20, len(GET) + 3, 90_000])
def test_a_body_behind_unread_answers_is_still_one_request(cut: int) -> None:
    """What arrives in the middle of a body while answers wait is the body's, not a next head."""
    flood = Flood(0, reads=True)
    seen: list[bytes] = []
    body = b"GET /evil HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3000

    def dispatch(connection: Connection, head: RequestHead, got: bytes) -> Exchange | None:
        seen.append(got)
        connection.respond(200, b"text/plain", b"")
        return None

    flood.connection._edge.dispatch = dispatch
    raw = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body), body,
    )  # fmt: skip
    flood.connection.data_received(GET + raw[:cut])
    flood.loop.turn()
    flood.connection.pause_writing()
    flood.connection.data_received(raw[cut:])
    assert flood.pipe.reading == (len(raw) - cut <= PIPELINED_MAX_BYTES)
    flood.connection.resume_writing()
    while flood.loop.waiting:
        flood.loop.turn()
    assert seen == [b"", body]
    assert flood.pipe.reading


@requirement("GW-9")
async def test_a_client_that_leaves_its_stream_unread_is_cut() -> None:
    """A standing stream has no upstream to hold back, so what waits for the client is bounded."""
    note = json.dumps(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 1_000_000}}
    )
    events = f"data: {note}\n\n".encode()
    flooding = asyncio.Event()

    async def flood(seen: Seen) -> None:
        if seen.message is not None:
            seen.accept()
            return
        seen.stream()
        flooding.set()
        for _ in range(3 * WRITE_MAX_BYTES // len(events)):
            seen.writer.write(events)
            await seen.writer.drain()

    async with World(legacy=True) as world:
        session = await world.session()
        world.upstream.script = flood
        async with asyncio.timeout(20), world.connect() as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.write(
                b"GET /mcp/up HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer bot\r\n"
                b"Accept: text/event-stream\r\nMcp-Session-Id: %b\r\n\r\n" % session.encode()
            )
            await flooding.wait()
            await until(lambda: not world.edge.connections)
        assert not world.front.clients.streams


# ---- upstreams: floods of questions


class Closed(Origin):
    """An upstream that takes requests and answers when the test says so."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9/mcp", asyncio.get_running_loop())
        self.sinks: list[ResponseSink] = []

    def send(self, raw: bytes, sink: ResponseSink) -> Sending:
        self.sinks.append(sink)
        return None  # type: ignore[return-value]


@requirement("GW-9")
async def test_a_server_that_floods_questions_gets_few_answers_at_a_time() -> None:
    """Each answer that it does not take holds a connection."""
    origin = Closed()
    link = LegacyHttpLink(origin, {})
    for number in range(REPLIES_MAX):
        link.reply(number, b"{}")
    assert link.usable
    for sink in origin.sinks[: REPLIES_MAX // 2]:
        sink.response_end()
    for sink in origin.sinks[REPLIES_MAX // 2 :]:
        sink.response_failed("closed the connection", sent=True)
    for number in range(3 * REPLIES_MAX):
        link.reply(number, b"{}")
    assert len(origin.sinks) == 2 * REPLIES_MAX
    assert not link.usable


# ---- caches


@requirement("GW-14")
def test_heads_that_never_repeat_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "CACHED_HEADS_MAX", 8)
    monkeypatch.setattr(http1, "CACHED_LINES_MAX", 16)
    cache = HeadCache(parse_request_head)
    for number in range(100):
        block = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\nX-Number: %d" % number
        for _ in range(3):
            cache(block)
        assert len(cache._known) <= 8 and len(cache._once) <= 8
        assert len(http1._lines) <= 16 + 3


@requirement("GW-14")
async def test_what_large_heads_decide_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeat.gateway.doors.DOORS_MAX", 4)
    async with World() as world:
        await world.ask(world.tool())
        before = len(world.front.doors._kept)
        padded = world.tool().replace(
            b"\r\n", b"\r\nx-padding: %b\r\n" % (b"y" * http1.CACHED_HEAD_BYTES), 1
        )
        assert "result" in (await world.ask(padded)).json
        assert len(world.front.doors._kept) == before
        for number in range(10):
            await world.ask(world.tool().replace(b"\r\n", b"\r\nx-padding: %d\r\n" % number, 1))
        assert len(world.front.doors._kept) <= 4


@requirement("GW-14")
def test_large_heads_and_lines_are_not_kept() -> None:
    cache = HeadCache(parse_request_head)
    line = b"X-Large: " + b"y" * http1.CACHED_LINE_BYTES
    head = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n" + line
    large = head + b"".join(b"\r\nX-%d: %b" % (n, b"z" * 400) for n in range(6))
    assert len(large) > http1.CACHED_HEAD_BYTES
    for _ in range(3):
        assert cache(head).fields["x-large"] == cache(large).fields["x-large"]
    assert set(cache._known) == {head}
    assert line not in http1._lines


# ---- depth


@requirement("GW-2")
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 1, 1000, 20_000])
async def test_deep_json_is_refused_by_either_side(opening: bytes, depth: int) -> None:
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening]
    deep = opening * depth + b"1" + closing * depth
    with pytest.raises(MalformedJson):
        fastjson.parse(deep)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % deep

    async def answers_deep(seen: Seen) -> None:
        seen.reply(
            b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":%b,'
            b'"resultType":"complete","x":"\\u0061"}}' % deep
        )

    async with World() as world:
        refused = await world.ask(world.raw(body))
        assert (refused.status, refused.error["code"]) == (400, -32700)
        assert world.upstream.seen == []
        world.upstream.script = answers_deep
        nonsense = await world.ask(world.tool())
        assert nonsense.error["code"] == -31502
        assert world.ledger.ended == [("unknown", "upstream_failed")]


@requirement("GW-2")
def test_depth_is_counted_without_a_memory_of_the_way_back() -> None:
    """A long string before the brackets costs its own length once more, not a hundredfold."""
    text = b'["' + b"x" * 1_000_000 + b"\\\\" * 500_000 + b'",' + b"[" * JSON_DEPTH_MAX
    tracemalloc.start()
    try:
        with pytest.raises(MalformedJson, match="nested deeper"):
            fastjson.parse(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(text)


# ---- bodies that have not arrived whole


@requirement("GW-9", "GW-14")
@pytest.mark.parametrize("framing", ["content-length: 4000000", "transfer-encoding: chunked"])
@pytest.mark.parametrize("who", ["nobody", "a stranger", "another host", "no endpoint"])
async def test_the_body_of_who_is_not_admitted_is_not_waited_for(who: str, framing: str) -> None:
    """The answer comes at the head; bytes of the body are dropped, and the connection ends."""
    host = "evil.example" if who == "another host" else "localhost"
    path = "/nowhere" if who == "no endpoint" else "/mcp/up"
    key = {"nobody": "", "a stranger": "authorization: Bearer x\r\n"}.get(
        who, "authorization: Bearer bot\r\n"
    )
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\n{key}{framing}\r\nexpect: 100-continue\r\n\r\n"
    async with World() as world, asyncio.timeout(10), world.connect() as client:
        client.write(head.encode() + b"8\r\n12345678\r\n")
        answer = await client.answer()
        wanted = {"another host": 403, "no endpoint": 404}.get(who, 401)
        assert (answer.status, answer.fields["connection"]) == (wanted, "close")
        client.write(b"8\r\n12345678\r\n" * 1000)
        assert await client.closed() == b""
        assert world.edge.held_bytes == 0


@requirement("GW-9")
async def test_bodies_of_all_connections_together_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exeat.gateway.connection.BODIES_MAX_BYTES", 2_000_000)
    async with World() as world, asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
        whole = world.tool(arguments={"text": "x" * 900_000})
        clients = [await stack.enter_async_context(world.connect()) for _ in range(4)]
        for client in clients[:2]:
            client.write(whole[:-1])
        await until(lambda: world.edge.held_bytes > 1_800_000 - 2)
        clients[2].write(whole[:-1])
        assert (await clients[2].answer()).status == 503
        assert await clients[2].closed() == b""
        clients[3].write(world.tool())
        assert (await clients[3].answer()).status == 200
        await clients[1].close()
        await until(lambda: world.edge.held_bytes < 1_000_000)
        clients[0].write(whole[-1:])
        assert (await clients[0].answer()).status == 200
        assert world.edge.held_bytes == 0


@requirement("GW-14")
async def test_a_client_that_goes_on_sending_still_reads_why_it_was_refused() -> None:
    """Closed at once, what it sends would make the kernel take the answer back."""
    async with World() as world, asyncio.timeout(10), world.connect() as client:
        raw = world.raw(b"x", {"content-length": "9000000"})
        client.write(raw + b"x" * 1_000_000)
        await until(lambda: world.edge.refused == 1)
        for _ in range(20):
            client.write(b"x" * 100_000)
            await asyncio.sleep(0)
        assert (await client.answer()).status == 413
        assert await client.closed() == b""

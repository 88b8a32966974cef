"""Upstreams that are down, slow, or answer nonsense (GW-11), and connections reused only clean (GW-13)."""

import asyncio
import json
import select
import socket
import tracemalloc

import pytest
from requirements import requirement
from worlds import Script, Seen, World, until

from exeat.gateway.origin import Origin, UpstreamConnection
from exeat.gateway.settings import GatewaySettings

pytestmark = pytest.mark.anyio


def head(length: int, media: str = "application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (
        media.encode(),
        length,
    )


def raw(data: bytes, *, cut: bool = False) -> Script:
    async def script(seen: Seen) -> None:
        seen.writer.write(data)
        if cut:
            await seen.writer.drain()
            seen.writer.close()

    return script


def body(text: str, media: str = "application/json") -> Script:
    return raw(head(len(text.encode()), media) + text.encode())


async def cut(seen: Seen) -> None:
    seen.cut()


_OK = '{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete"}}'
_SSE = "text/event-stream"
_BAD: dict[str, Script] = {
    "dies before the head": cut,
    "dies in the head": raw(b"HTTP/1.1 200 O", cut=True),
    "dies after the head": raw(head(100), cut=True),
    "dies in the body": raw(head(100) + b'{"jsonrpc"', cut=True),
    "dies in a chunk": raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        cut=True,
    ),
    "malformed chunks": raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n"
    ),
    "floods headers": raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000),
    "too many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"\r\n"),
    "a head without end": raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"),
    "not HTTP": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "switches protocols": raw(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n"),
    "interim answers without end": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, cut=True),
    "compressed": raw(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x8b"
    ),
    "not JSON by type": body("hello", "text/html"),
    "malformed JSON": body('{"jsonrpc":"2.0","id":1,"result":{'),
    "JSON and more": body(_OK + "x"),
    "invalid UTF-8": raw(head(len(_OK) + 1) + _OK.replace("[]", '"\xff"').encode("latin-1")),
    "a batch": body(f"[{_OK}]"),
    "no version": body('{"id":1,"result":{}}'),
    "neither result nor error": body('{"jsonrpc":"2.0","id":1}'),
    "result and error": body(
        '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}'
    ),
    "a request instead": body('{"jsonrpc":"2.0","id":1,"method":"roots/list"}'),
    "wrong id": body(_OK.replace('"id":1', '"id":2')),
    "wrong type of id": body(_OK.replace('"id":1', '"id":"1"')),
    "id true": body(_OK.replace('"id":1', '"id":true')),
    "id 1.0": body(_OK.replace('"id":1', '"id":1.0')),
    "id null": body(_OK.replace('"id":1', '"id":null')),
    "no id": body(_OK.replace('"id":1,', "")),
    "result is a list": body('{"jsonrpc":"2.0","id":1,"result":[]}'),
    "result is text": body('{"jsonrpc":"2.0","id":1,"result":"complete"}'),
    "unknown result type": body(_OK.replace("complete", "perhaps")),
    "two result types": body(_OK.replace("[]", '[],"resultType":"input_required"')),
    "result type in disguise": body(
        _OK.replace('"resultType":"complete"', '"result\\u0054ype":"perhaps"')
    ),
    "malformed error": body('{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":1}}'),
    "error is text": body('{"jsonrpc":"2.0","id":1,"error":"bad"}'),
    "duplicate members of an error": body(
        '{"jsonrpc":"2.0","id":1,"error":{"code":1,"code":2,"message":"x"}}'
    ),
    "accepted": raw(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
    "redirected": raw(
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    ),
    "stream without answer": body(": nothing\n\n", _SSE),
    "stream that dies": raw(head(1000, _SSE) + b"data: {", cut=True),
    "stream of nonsense": body("data: nonsense\n\n", _SSE),
    "stream for another": body("data: " + _OK.replace('"id":1', '"id":9') + "\n\n", _SSE),
}


@requirement("GW-11", "GW-2")
@pytest.mark.parametrize("what", _BAD)
async def test_nonsense_is_an_error_that_names_upstream_and_decision(
    world: World, what: str
) -> None:
    world.upstream.script = _BAD[what]
    answer = await world.ask(world.tool())
    assert answer.error["code"] == -31502
    assert answer.error["message"].startswith("Upstream up ")
    assert answer.error["data"]["decision"] == "d0"
    assert answer.error["data"]["sent"] is True
    assert world.ledger.ended == [("unknown", "upstream_failed")]
    assert len(world.upstream.calls) == 1  # never retried
    if world.upstream.connections > 1 or what not in ("stream without answer", "accepted"):
        world.upstream.script = body(_OK.replace('"id":1', '"id":2'))
        assert (await world.ask(world.tool(id=2))).json["result"]["content"] == []


@requirement("GW-11")
async def test_duplicate_id_members_never_answer_for_another(world: World) -> None:
    """The last of two ids decides, as in most readers; the answer that leaves has ours."""
    world.upstream.script = body(_OK.replace('"id":1', '"id":1,"id":5'))
    assert (await world.ask(world.tool())).error["code"] == -31502
    world.upstream.script = body(_OK.replace('"id":1', '"id":5,"id":1'))
    answer = await world.ask(world.tool())
    assert answer.body.count(b'"id"') == 1


@requirement("GW-11")
async def test_an_upstream_that_is_down_was_sent_nothing(world: World) -> None:
    await world.ask(world.tool())
    await world.upstream.stop()
    await until(lambda: not next(iter(world.upstreams.servers.values())).origin.connections)  # type: ignore[union-attr]
    answer = await world.ask(world.tool())
    assert answer.error["data"]["sent"] is False
    assert "cannot be reached" in answer.error["message"]
    assert world.ledger.ended[-1] == ("failed", "not_sent")


@requirement("GW-11")
async def test_a_server_that_cannot_be_probed_is_on_record(world: World) -> None:
    world.upstream.own["server/discover"] = cut
    world.upstream.own["initialize"] = cut
    answer = await world.ask(world.tool())
    assert answer.error["code"] == -31502
    assert world.ledger.ended == [("failed", "not_sent")]
    assert world.upstream.calls == []


@requirement("GW-11")
@pytest.mark.parametrize(
    "data", [[1], {"supported": 5}, {"supported": [[]]}, "text", {"supported": {"a": 1}}, None]
)
async def test_a_probe_answered_with_odd_errors_still_ends(data: object) -> None:
    async with World(legacy=True) as world:

        async def odd(seen: Seen) -> None:
            seen.error(-32022, "no", data)

        world.upstream.own["server/discover"] = odd
        answer = await world.ask(world.tool())
        assert "result" in answer.json or answer.error["code"] == -31502


@requirement("GW-11")
@pytest.mark.parametrize("version", [1.5, "1999", None, ["2025-11-25"], {"a": 1.5}])
async def test_a_handshake_with_an_odd_version_still_ends(version: object) -> None:
    async with World(legacy=True) as world:

        async def odd(seen: Seen) -> None:
            seen.result({"protocolVersion": version, "capabilities": {}, "serverInfo": {}})

        world.upstream.own["initialize"] = odd
        assert (await world.ask(world.tool())).error["code"] == -31502


@requirement("GW-11")
@pytest.mark.parametrize("method", ["server/discover", "initialize", "tools/list"])
async def test_our_own_question_is_asked_again_on_a_closed_connection(method: str) -> None:
    async with World(legacy=method == "initialize") as world:
        asked: list[Seen] = []

        async def closing(seen: Seen) -> None:
            asked.append(seen)
            del world.upstream.own[method]
            seen.cut()

        world.upstream.own[method] = closing
        assert "result" in (await world.ask(world.tool())).json
        assert len(asked) == 1


@requirement("GW-11", "GW-13")
async def test_a_connection_whose_end_has_arrived_is_not_used() -> None:
    """The server closed it; the loop has not read that yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = Origin(
            f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", asyncio.get_running_loop()
        )
        _, connection = await origin.loop.create_connection(
            lambda: UpstreamConnection(origin), origin.host, origin.port
        )
        there, _ = listener.accept()
        assert connection.quiet(1.0)
        there.close()
        assert connection._transport is not None
        select.select([connection._transport.get_extra_info("socket").fileno()], [], [], 5)
        assert connection.open
        assert not connection.quiet(1.0)
        origin.close()


@requirement("GW-11")
async def test_an_upstream_that_hangs_meets_its_limit() -> None:
    async def hang(seen: Seen) -> None: ...

    async with World(settings=GatewaySettings(upstream_answer_max_s=0.01)) as world:
        await world.ask(world.tool(name="nothing"))
        world.upstream.script = hang
        asking = asyncio.ensure_future(world.ask(world.tool()))
        await until(lambda: bool(world.upstream.calls))
        for call in list(world.front.calls):
            call.started -= 1
        world.front._timer.cancel()
        world.front._sweep()
        answer = await asking
        assert "did not answer in time" in answer.error["message"]
        assert world.ledger.ended[-1] == ("unknown", "upstream_failed")
        await until(lambda: world.upstream.calls[0].connection in world.upstream.lost)


@requirement("GW-13")
async def test_a_clean_connection_is_reused(world: World) -> None:
    await world.ask(world.tool())
    before = world.upstream.connections
    for number in range(3):
        await world.ask(world.tool(id=number))
    assert world.upstream.connections == before


@requirement("GW-13")
@pytest.mark.parametrize(
    "extra", [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"evil"]
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_surplus_bytes_end_the_connection(world: World, extra: bytes, chunked: bool) -> None:
    ok = _OK.encode()
    if chunked:
        whole = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(ok), ok)
        )
    else:
        whole = head(len(ok)) + ok
    world.upstream.script = raw(whole + extra)
    assert "result" in (await world.ask(world.tool())).json
    used = world.upstream.calls[-1].connection
    world.upstream.script = raw(whole)
    assert "result" in (await world.ask(world.tool())).json
    assert world.upstream.calls[-1].connection != used


@requirement("GW-13")
@pytest.mark.parametrize(
    "first", ["HTTP/1.0 200 OK\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n"]
)
async def test_an_answer_that_closes_is_not_followed(world: World, first: str) -> None:
    ok = _OK.encode()
    world.upstream.script = raw(
        first.encode() + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ok) + ok
    )  # fmt: skip
    assert "result" in (await world.ask(world.tool())).json
    used = world.upstream.calls[-1].connection
    assert "result" in (await world.ask(world.tool())).json
    assert world.upstream.calls[-1].connection != used


@requirement("GW-13")
async def test_two_answers_in_one_stream_are_one(world: World) -> None:
    second = _OK.replace("[]", '["second"]')
    world.upstream.script = body(f"data: {_OK}\n\ndata: {second}\n\n", _SSE)
    answer = await world.ask(world.tool())
    assert answer.json["result"]["content"] == []
    assert world.ledger.ended == [("ok", "")]


def stream(*pieces: bytes) -> bytes:
    start = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return start + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@requirement("GW-13")
async def test_a_stream_that_ends_after_its_answer_leaves_a_clean_connection(world: World) -> None:
    ending = asyncio.Event()
    answer = stream(b"data: %b\n\n" % _OK.encode())

    async def late(seen: Seen) -> None:
        seen.writer.write(answer)
        await ending.wait()
        seen.writer.write(b"3\r\n: x\r\n0\r\n\r\n")

    world.upstream.script = late
    assert "result" in (await world.ask(world.tool())).json
    used = world.upstream.calls[-1].connection
    ending.set()
    (origin,) = [server.origin for server in world.upstreams.servers.values() if server.origin]
    await until(lambda: len(origin._idle) > 0)
    world.upstream.script = raw(answer + b"0\r\n\r\n")
    assert "result" in (await world.ask(world.tool())).json
    assert world.upstream.calls[-1].connection == used


@requirement("GW-13", "GW-9")
async def test_a_stream_that_goes_on_after_its_answer_is_cut(world: World) -> None:
    more = b": %b\n" % (b"x" * 5000)
    world.upstream.script = raw(stream(b"data: %b\n\n" % _OK.encode(), more))
    assert "result" in (await world.ask(world.tool())).json
    await until(lambda: world.upstream.calls[0].connection in world.upstream.lost)


@requirement("GW-13", "GW-9")
async def test_a_stream_that_never_ends_after_its_answer_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exeat.gateway.origin.ENDING_MAX_S", 0.01)
    world.upstream.script = raw(stream(b"data: %b\n\n" % _OK.encode()))
    assert "result" in (await world.ask(world.tool())).json
    await until(lambda: world.upstream.calls[0].connection in world.upstream.lost)


@requirement("GW-9")
@pytest.mark.parametrize("request_id", [1, "a-string"])
async def test_a_large_result_streams_in_bounded_memory(world: World, request_id: object) -> None:
    """100 MB through a client that takes it as it comes."""
    block, count = b"x" * 1_000_000, 100
    lead = b'{"jsonrpc":"2.0","id":%b,"result":{"resultType":"complete","content":[{"text":"' % (
        json.dumps(request_id).encode()
    )
    tail = b'"}]}}'
    if request_id != 1:
        count = 3

    async def large(seen: Seen) -> None:
        seen.writer.write(head(len(lead) + len(tail) + count * len(block)) + lead)
        for _ in range(count):
            seen.writer.write(block)
            await seen.writer.drain()
        seen.writer.write(tail)

    world.upstream.script = large
    await world.ask(world.tool(name="nothing"))
    async with asyncio.timeout(30), world.connect() as client:
        client.write(world.tool(id=request_id))
        status, fields = await client.head()
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        size, ends, starts = 0, b"", b""
        tracemalloc.start()
        try:
            while piece := await client.chunk():
                size += len(piece)
                starts, ends = (starts + piece)[:60], (ends + piece)[-30:]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 20_000_000
    assert size > count * len(block)
    assert json.loads(starts.partition(b',"result"')[0] + b"}")["id"] == request_id
    assert ends.endswith(b'x"}]}}')
    await until(lambda: bool(world.ledger.outcomes))
    outcome = world.ledger.outcomes[-1]
    assert (outcome.status, len(outcome.result_digest)) == ("ok", 32)
    assert outcome.bytes > count * len(block)


@requirement("GW-9")
async def test_a_client_that_does_not_read_holds_the_upstream_back(world: World) -> None:
    sent = 0

    async def large(seen: Seen) -> None:
        nonlocal sent
        lead = b'{"jsonrpc":"2.0","id":1,"result":{"text":"'
        seen.writer.write(head(len(lead) + 630_000_000) + lead)
        for _ in range(64):
            seen.writer.write(b"x" * 1_000_000)
            await seen.writer.drain()
            sent += 1

    world.upstream.script = large
    await world.ask(world.tool(name="nothing"))
    async with world.connect() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.write(world.tool())
        await until(
            lambda: (
                bool(world.edge.connections)
                and any(not each.writable for each in world.edge.connections)
            )
        )
        (connection,) = [each for each in world.edge.connections if not each.writable]
        before = -1
        while before != sent:  # the socket buffers fill, then nothing moves any more
            before = sent
            for _ in range(50):
                await asyncio.sleep(0.001)
        assert sent < 40
        transport = connection._transport
        assert transport is not None and transport.get_write_buffer_size() < 2_000_000


@requirement("GW-13", "GW-9")
async def test_a_slow_client_leaves_no_deaf_connection_behind(world: World) -> None:
    """The upstream's last bytes may come while the client is slow; the next request is answered."""
    lead, tail = b'{"jsonrpc":"2.0","id":1,"result":{"text":"', b'"}}'

    async def large(seen: Seen) -> None:
        seen.writer.write(
            head(len(lead) + len(tail) + 30_000_000) + lead + b"x" * 30_000_000 + tail
        )

    world.upstream.script = large
    await world.ask(world.tool(name="nothing"))
    async with world.connect() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.write(world.tool())
        origin = next(iter(world.upstreams.servers.values())).origin
        assert origin is not None
        await until(lambda: any(each._paused for each in origin.connections))
        (paused,) = [each for each in origin.connections if each._paused]
        paused._left = 0
        paused._complete()
        assert not paused._paused and paused in origin._idle


@requirement("GW-11")
@pytest.mark.parametrize("fault", ["cut", "garbage", "type", "id"])
async def test_a_large_result_that_goes_wrong_is_never_completed(world: World, fault: str) -> None:
    lead = b'{"jsonrpc":"2.0","id":%b,"result":{"text":"' % (b"2" if fault == "id" else b"1")
    tail = b'","resultType":"%b"}}' % (b"input_required" if fault == "type" else b"complete")
    tail += b" {}" if fault == "garbage" else b""

    async def large(seen: Seen) -> None:
        seen.writer.write(head(len(lead) + 2_000_000 + len(tail)) + lead + b"x" * 2_000_000)
        await seen.writer.drain()
        if fault == "cut":
            seen.cut()
        else:
            seen.writer.write(tail)

    world.upstream.script = large
    async with asyncio.timeout(10), world.connect() as client:
        client.write(world.tool())
        everything = await client.closed()
    assert not everything.endswith(b"0\r\n\r\n")
    await until(lambda: bool(world.ledger.outcomes))
    assert world.ledger.ended == [("unknown", "upstream_failed")]


@requirement("GW-9")
async def test_an_event_over_the_limit_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exeat.gateway.http_call.EVENT_MAX_BYTES", 10_000)
    world.upstream.script = body("data: " + "x" * 20_000 + "\n\n", _SSE)
    answer = await world.ask(world.tool())
    assert "larger than 10000 bytes" in answer.error["message"]
    assert world.ledger.ended == [("unknown", "upstream_failed")]


@requirement("GW-11")
async def test_an_error_of_the_upstream_is_passed_on_and_bound(world: World) -> None:
    async def error(seen: Seen) -> None:
        seen.error(-32050, "no such account", {"n": 1})

    world.upstream.script = error
    answer = await world.ask(world.tool())
    assert answer.error == {"code": -32050, "message": "no such account", "data": {"n": 1}}
    assert world.ledger.ended == [("rpc_error", "")]

"""Whatever an upstream sends, its connection never answers another request with it (GW-13)."""

import asyncio
from collections.abc import Sequence

import pytest
from requirements import requirement
from smuggling import Reply, responses, splits
from worlds import Seen, Wire, World

from exeat.gateway.http1 import ResponseHead
from exeat.gateway.origin import Origin, UpstreamConnection

pytestmark = pytest.mark.anyio
REPLIES = responses()
by_name = pytest.mark.parametrize("reply", REPLIES, ids=[reply.name for reply in REPLIES])


class Taken:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.heads: list[int] = []
        self.body = b""
        self.ends: list[str] = []

    def response_head(self, head: ResponseHead) -> None:
        assert not self.ends
        self.heads.append(head.status)

    def response_data(self, data: bytes) -> None:
        assert not self.ends
        self.body += data

    def response_end(self) -> None:
        self.ends.append("whole")

    def response_failed(self, reason: str, *, sent: bool) -> None:
        self.ends.append(reason)


async def feed(pieces: Sequence[bytes]) -> tuple[Taken, bool]:
    """What was taken, and whether the connection would serve another request."""
    origin = Origin("http://127.0.0.1:1/", asyncio.get_running_loop())
    connection, taken, wire = UpstreamConnection(origin), Taken(), Wire()
    connection.connection_made(wire)
    connection.send(b"request", taken)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
    reusable = connection in origin._idle and connection.open
    connection.connection_lost(None)
    return taken, reusable


@requirement("GW-13", "GW-11")
@by_name
async def test_one_answer_or_none_wherever_the_bytes_are_cut(reply: Reply) -> None:
    for pieces in splits(reply.raw):
        taken, reusable = await feed(pieces)
        assert len(taken.ends) == 1
        assert len(taken.heads) <= 1
        if reply.ok:
            assert (taken.heads, taken.body, taken.ends) == ([200], b"ok", ["whole"])
        else:
            assert taken.ends != ["whole"] or taken.heads == [204] or taken.heads == [304]
        assert reusable is reply.reused


@requirement("GW-13", "GW-11")
@pytest.mark.parametrize("in_bytes", [False, True])
async def test_nobody_is_given_what_an_upstream_put_behind_an_answer(in_bytes: bool) -> None:
    """Over sockets: the next caller's answer is the upstream's answer to the next caller."""
    good = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete"}}'
    evil = good.replace(b'"content":[]', b'"content":[{"type":"text","text":"evil"}]')
    framed = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    hostile = [
        framed % (len(good), good) + framed % (len(evil), evil),
        *(reply.raw for reply in REPLIES),
    ]
    async with World() as world:
        await world.ask(world.tool())
        for raw in hostile:

            async def script(seen: Seen, raw: bytes = raw) -> None:
                step = 7 if in_bytes and len(raw) < 2000 else len(raw)
                for at in range(0, len(raw), step):
                    if not seen.writer.is_closing():  # the gateway may have cut it by now
                        seen.writer.write(raw[at : at + step])
                    await asyncio.sleep(0)
                seen.writer.close()

            async with asyncio.timeout(20), world.connect() as client:
                world.upstream.script = script
                client.write(world.tool())
                await client.answer()
                world.upstream.script = honest
                client.write(world.tool())
                answer = await client.answer()
                assert answer.json["result"]["content"] == [{"type": "text", "text": "honest"}]


async def honest(seen: Seen) -> None:
    seen.result({"content": [{"type": "text", "text": "honest"}], "resultType": "complete"})

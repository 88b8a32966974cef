"""One client connection: bytes to one request at a time, answers in the order of requests (GW-14).

One request is in flight per connection; what a client pipelines waits in a bounded buffer, so answers
can never overtake each other.
"""

import asyncio
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from exeat.core.limits import HEADER_BLOCK_MAX_BYTES
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.http1 import BadChunk, BadHead, ChunkedDecoder, RequestHead
from exeat.gateway.taken import taken

if TYPE_CHECKING:
    from exeat.gateway.edge import Edge

PIPELINED_MAX_BYTES: Final = 64 * 1024
WRITE_MAX_BYTES: Final = 32 * 1024 * 1024
"""More than the largest event of an upstream (16 MiB)."""
BODIES_MAX_BYTES: Final = 256 * 1024 * 1024
"""Of all connections together: bodies that have not arrived whole."""
LINGER_MAX_S: Final = 5.0
"""How long a client may read nothing of its last answer; what it still sends is dropped.  If we
closed at once, unread bytes would make the kernel take the answer back (RFC 9112, 9.6)."""
LAST_ANSWER_MAX_S: Final = 600.0
"""Of a last answer in all, however it is read: a byte now and then holds no connection for good."""
_NEVER: Final = float("inf")
_STATUS: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}


class Connection(asyncio.Protocol):
    """One client connection.  ``exchange`` is what answers the request in flight, if any."""

    __slots__ = (
        "_block", "_body", "_buffer", "_chunked", "_closing", "_edge", "_fresh", "_head", "_keep",
        "_last_until", "_need", "_onward", "_paused", "_scheduled", "_streaming", "_taken", "_transport",
        "_writing", "busy", "deadline", "exchange",
    )  # fmt: skip

    def __init__(self, edge: "Edge", data: bytes = b"") -> None:
        self._edge = edge
        self._transport: asyncio.Transport | None = None
        self._buffer = data
        self._block = b""
        self._onward: Callable[[bytes], None] | None = None
        self._head: RequestHead | None = None
        self._need = 0
        self._body: bytearray | None = None
        self._chunked: ChunkedDecoder | None = None
        self._paused = False
        self._streaming = False
        self._keep = True
        self._closing = False
        self._scheduled = False
        self._fresh = True
        self._writing = True
        self._taken: float = 0
        self._last_until: float = 0
        self.busy = False
        self.exchange: Exchange | None = None
        self.deadline = _NEVER

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101
        self._transport = transport  # type: ignore[assignment]
        edge = self._edge
        if len(edge.connections) >= edge.limits.connections_max or edge.draining:
            edge.refused += 1
            self._keep = False
            self.plain(503, "too many connections; try again later")
            transport.close()  # it has no place to linger in
            return
        edge.connections.add(self)
        self.deadline = edge.loop.time() + edge.limits.head_time_max_s
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._edge.connections.discard(self)
        self._drop_body()
        self._transport = None
        self.deadline = _NEVER
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writing = False
        if self.exchange is not None:
            self.exchange.client_slow()

    def resume_writing(self) -> None:
        self._writing = True
        if self.exchange is not None:
            self.exchange.client_ready()
        elif not self.busy:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._onward is not None:
            self._onward(data)
            return
        if self.busy or self._scheduled or not self._writing:
            self._buffer += data
            if len(self._buffer) > PIPELINED_MAX_BYTES and not self._paused and self._transport:
                self._paused = True
                self._transport.pause_reading()
            return
        if self._head is not None:
            self._take_body(data)
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        self._take_head(data)

    # ---- reading

    def _take_head(self, data: bytes) -> None:
        edge = self._edge
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._partial_head(data)
            return
        try:
            block = self._block = data[:end]
            head = edge.parse(block)
            if head.length > edge.limits.request_body_max_bytes:
                raise BadHead(
                    f"the body is larger than {edge.limits.request_body_max_bytes} bytes", 413
                )
        except BadHead as refusal:
            self.refuse(refusal.status, str(refusal))
            return
        self._keep = head.keep_alive
        length = head.length
        have = len(data) - end - 4
        if length >= 0 and have >= length:  # the whole request is here: the hot path
            stop = end + 4 + length
            if have > length:
                self._buffer = data[stop:]
            self._dispatch(head, data[end + 4 : stop])
            return
        self._wait_for_body(head, data[end + 4 :])

    def _wait_for_body(self, head: RequestHead, data: bytes) -> None:
        """Only for whom it may concern: nobody else makes the edge keep bytes (GW-9)."""
        edge = self._edge
        self._keep = False  # the body of who is not admitted stays unread
        admitted = edge.admit(self, head)
        if admitted is None:
            self._keep = True
            self._buffer = self._block + b"\r\n\r\n" + data
            self.busy = True  # what more comes waits, within the bound of pipelined bytes
            self.deadline = edge.loop.time() + edge.limits.body_time_max_s
            return
        if not admitted:
            return
        self._keep = head.keep_alive
        self._head = head
        self._body = bytearray()
        self.deadline = edge.loop.time() + edge.limits.body_time_max_s
        if head.expects_continue and not data and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length < 0:
            self._chunked = ChunkedDecoder(strict=True)
        self._need = head.length if head.length >= 0 else edge.limits.request_body_max_bytes
        if data:
            self._take_body(data)

    def _partial_head(self, data: bytes) -> None:
        if (
            not 65 <= data[0] <= 90
        ):  # no method: a TLS hello, say, shall not wait for its time limit
            self.refuse(400, "this is not HTTP/1.1; the port speaks nothing else")
            return
        if len(data) > HEADER_BLOCK_MAX_BYTES:
            self.refuse(431, "header block too large")
            return
        if self._fresh:  # the first byte of a head: later ones buy no more time
            self._fresh = False
            self.deadline = self._edge.loop.time() + self._edge.limits.head_time_max_s
        if b"\n\n" in data or b"\n\r\n" in data.replace(b"\r\n", b""):
            self.refuse(400, "bare LF")
            return
        self._buffer = data

    def _take_body(self, data: bytes) -> None:
        head = self._head
        assert head is not None  # noqa: S101
        decoder = self._chunked
        if decoder is not None:
            try:
                data = decoder.feed(data)
            except BadChunk as broken:
                self.refuse(400, str(broken))
                return
        surplus = b""
        if decoder is None and len(data) > self._need:
            data, surplus = data[: self._need], data[self._need :]
        self._need -= len(data)
        if self._need < 0:
            self.refuse(413, "the body is too large")
            return
        assert self._body is not None  # noqa: S101
        self._body += data
        self._edge.held_bytes += len(data)
        if self._edge.held_bytes > BODIES_MAX_BYTES:
            self.refuse(503, "too many large requests at once; try again later")
            return
        if decoder is None and self._need:
            return
        if decoder is not None:
            if not decoder.done:
                return
            surplus = decoder.surplus
        body = self._drop_body()
        self._head = self._chunked = None
        self._buffer = surplus
        self._dispatch(head, body)

    def _drop_body(self) -> bytes:
        """Returns what has come of the body, which is no longer kept here."""
        body, self._body = self._body, None
        if body is None:
            return b""
        self._edge.held_bytes -= len(body)
        return bytes(body)

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        self.busy = True
        self._fresh = True
        self.deadline = _NEVER
        exchange = self._edge.dispatch(self, head, body)
        if exchange is not None and self.busy:
            self.exchange = exchange

    def again(self) -> None:
        """Whether its request is admitted is known now: its head is read once more."""
        if self.exchange is None and self.busy:
            self.busy = False
            self._next()

    @property
    def certificate(self) -> bytes | None:
        """The client's, in DER (RFC 8705); None if it showed none, or without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return tls.getpeercert(binary_form=True) if tls is not None else None

    # ---- moving to another worker (GW-13)

    @property
    def passable(self) -> bool:
        """Its socket can go to another process as it is: no TLS, and no earlier answer waits here."""
        transport = self._transport
        return (
            transport is not None
            and transport.get_write_buffer_size() == 0
            and transport.get_extra_info("ssl_object") is None
        )

    def give_away(self, body: bytes) -> bytes:
        """All that was read of it and not answered: the request in flight, whose body this is, and
        what was pipelined behind it.  No more is read until it is taken back or relayed."""
        self.hold()
        if self._edge.parse(self._block).length < 0:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        return b"%b\r\n\r\n%b%b" % (self._block, body, self._buffer)

    def descriptor(self) -> int:
        """A copy of its socket's, for the caller to close.  Raises OSError."""
        if self._transport is None:
            raise ConnectionError("the client has gone")
        return os.dup(self._transport.get_extra_info("socket").fileno())

    def take_back(self, exchange: Exchange | None) -> None:
        """It was not moved: ``exchange`` answers its request here, if that was not done at once."""
        if self.busy:
            self.exchange = exchange
        self.unhold()

    def relay(self, exchange: Exchange, onward: Callable[[bytes], None]) -> None:
        """From now on it is bytes: the client's go ``onward``, and ``send`` brings those back."""
        self._buffer = b""
        self.exchange, self._onward = exchange, onward
        self.unhold()

    def hold(self) -> None:
        if not self._paused and self.open and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def unhold(self) -> None:
        self._read_on()

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def relayed(self) -> None:
        """No more comes back: the rest is written, within the limits of any last answer."""
        if self._onward is not None:
            self._onward, self._keep = None, False
            self._done()

    # ---- answering

    @property
    def idle(self) -> bool:
        return not self.busy and self._head is None

    @property
    def open(self) -> bool:
        transport = self._transport
        return transport is not None and not self._closing and not transport.is_closing()

    @property
    def writable(self) -> bool:
        """False while the client reads slower than we write."""
        return self._writing

    def respond(self, status: int, content_type: bytes, body: bytes, extra: bytes = b"") -> None:
        """One whole answer.  ``extra``: complete header lines, each ending in CRLF."""
        transport = self._transport
        if transport is not None:
            closing = b"" if self._keep and not self._edge.draining else b"connection: close\r\n"
            kind = b"content-type: %b\r\n" % content_type if content_type else b""
            transport.write(
                b"%b%b%b%b%bcontent-length: %d\r\n\r\n%b"
                % (_STATUS[status], self._edge.date, kind, extra, closing, len(body), body)
            )
        self._done()

    def start(self, status: int, content_type: bytes, extra: bytes = b"") -> None:
        """The head of an answer whose body follows in pieces (chunked)."""
        self._streaming = True
        if self._transport is not None:
            closing = b"" if self._keep else b"connection: close\r\n"
            self._transport.write(
                b"%b%bcontent-type: %b\r\n%b%btransfer-encoding: chunked\r\n\r\n"
                % (_STATUS[status], self._edge.date, content_type, extra, closing)
            )

    def piece(self, data: bytes) -> None:
        """A client that lets more than WRITE_MAX_BYTES wait is cut: memory per client is bounded."""
        transport = self._transport
        if data and transport is not None:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
            if transport.get_write_buffer_size() > WRITE_MAX_BYTES:
                transport.abort()

    def finish(self) -> None:
        if self._transport is not None:
            self._transport.write(b"0\r\n\r\n")
        self._done()

    def plain(self, status: int, text: str, extra: bytes = b"") -> None:
        self.respond(status, b"text/plain; charset=utf-8", text.encode() + b"\n", extra)

    def refuse(self, status: int, text: str) -> None:
        """Answer and close: after a malformed request nothing on the connection can be trusted."""
        self._edge.refused += 1
        self._keep = False
        self._buffer = b""
        self._head = self._chunked = None
        self._drop_body()
        self.plain(status, text)

    def abort(self) -> None:
        """Cut the connection: an answer under way can no longer be completed truthfully."""
        self.exchange = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def timed_out(self) -> None:
        if self._closing or not self.open:
            if not self._reads_on():
                self.abort()
        elif self.idle and not self._buffer:
            self.close()
        else:
            self.refuse(408, "the request did not arrive in time")

    def _reads_on(self) -> bool:
        """Slow, but the client takes its last answer, and more of it waits."""
        if self._transport is None:
            return False
        self._last_until = self._last_until or self._edge.now + LAST_ANSWER_MAX_S
        now, waiting = taken(self._transport)
        if not waiting or now <= self._taken or self._edge.now > self._last_until:
            return False
        self._taken = now
        self.deadline = self._edge.now + LINGER_MAX_S
        return True

    def _done(self) -> None:
        self.busy = self._streaming = False
        self.exchange = None
        transport = self._transport
        if transport is None:
            return
        if not self._keep or self._edge.draining:
            self._closing = True
            self._buffer = b""
            self._read_on()
            self.deadline = self._edge.now + LINGER_MAX_S
            self._taken = -_NEVER
            if transport.can_write_eof():
                transport.write_eof()
            else:
                transport.close()  # TLS: written whole first, then its own end
            return
        limits = self._edge.limits
        self.deadline = self._edge.now + limits.idle_time_max_s
        if self._buffer:
            self._go_on()

    def _go_on(self) -> None:
        """What waits in the buffer is next, unless earlier answers still wait to be read: a client
        that reads none gets no more (GW-9)."""
        if self._buffer and self._writing and not self._scheduled:
            self._scheduled = True
            self._edge.loop.call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        if not self.busy and self._buffer and self.open:
            data, self._buffer = self._buffer, b""
            if self._head is not None:
                self._take_body(data)
            else:
                self._take_head(data)
        self._read_on()

    def _read_on(self) -> None:
        transport = self._transport
        if self._paused and transport is not None and len(self._buffer) <= PIPELINED_MAX_BYTES:
            self._paused = False
            transport.resume_reading()

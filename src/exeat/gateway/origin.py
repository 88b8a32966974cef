"""Keep-alive connections to one HTTP upstream.

A connection is reused only after exactly one complete response and no surplus bytes (GW-13).  A
request is never sent twice: what failed after its first byte may have been executed (GW-11).
"""

import asyncio
import collections
import select
import ssl
from typing import Final, Protocol
from urllib.parse import urlsplit

from exeat.core.errors import Invalid
from exeat.core.limits import HEADER_BLOCK_MAX_BYTES, UPSTREAM_CONNECT_MAX_S
from exeat.gateway.http1 import (
    BadChunk,
    BadHead,
    ChunkedDecoder,
    HeadCache,
    ResponseHead,
    parse_response_head,
)

IDLE_MAX_S: Final = 3.0
"""Below the keep-alive time of common servers (uvicorn: 5 s), so that none closes under a request."""
IDLE_CONNECTIONS_MAX: Final = 256
LOOK_AFTER_S: Final = 0.01
"""A connection that was idle for longer is looked at before it is used: a server that closed it, and
whose end has arrived here but was not read yet, is not sent a call that may then be lost."""
CLOSED: Final = "closed the connection before its answer was complete"
ENDING_MAX_S: Final = 1.0
ENDING_MAX_BYTES: Final = 4096
"""How long, and with how much more, an event stream may end after its answer; else it is cut."""
INTERIM_MAX: Final = 32
"""Interim answers (100, 103) before the answer itself."""
_NOT_INTERIM: Final = frozenset({"content-length", "transfer-encoding", "upgrade"})


class ResponseSink(Protocol):
    """Where one response goes.  After ``response_end`` or ``response_failed`` nothing more comes."""

    def response_head(self, head: ResponseHead) -> None: ...

    def response_data(self, data: bytes) -> None: ...

    def response_end(self) -> None: ...

    def response_failed(self, reason: str, *, sent: bool) -> None:
        """``sent``: bytes of the request may have reached the upstream."""
        ...


class Origin:
    """One upstream's address and its idle connections."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                f"{url!r} is not an http(s) URL",
                remedy="use a URL such as http://127.0.0.1:9000/mcp",
            )
        self.url = url
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.path = parts.path or "/"
        if parts.query:
            self.path += f"?{parts.query}"
        self.authority = parts.netloc.rpartition("@")[2]
        self.tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.loop = loop
        self.parse = HeadCache(parse_response_head)
        self._idle: collections.deque[UpstreamConnection] = collections.deque()
        self.connections: set[UpstreamConnection] = set()

    def request_prefix(self, method: str, extra: bytes) -> bytes:
        """Request line, Host and ``extra`` header lines; Content-Length and the blank line follow."""
        head = f"{method} {self.path} HTTP/1.1\r\nhost: {self.authority}\r\n"
        return head.encode("ascii") + extra

    def send(self, raw: bytes, sink: ResponseSink) -> "Sending":
        """Send one whole request; its response goes to ``sink``."""
        now = self.loop.time()
        idle = self._idle
        while idle:
            connection = idle.pop()
            idle_s = now - connection.idle_since
            if connection.open and idle_s < IDLE_MAX_S and connection.quiet(idle_s):
                connection.send(raw, sink)
                return connection
            connection.abort()
        opening = _Opening(self, raw, sink)
        opening.task = self.loop.create_task(opening.run())
        return opening

    def put_back(self, connection: "UpstreamConnection") -> None:
        if len(self._idle) >= IDLE_CONNECTIONS_MAX:
            connection.abort()
            return
        connection.idle_since = self.loop.time()
        self._idle.append(connection)

    def close(self) -> None:
        for connection in list(self.connections):
            connection.abort()
        self._idle.clear()


class Sending(Protocol):
    """A request under way."""

    def cancel(self) -> None:
        """Cut it: nothing more reaches the sink."""
        ...

    def let_end(self) -> None:
        """The sink has what it wanted, and hears nothing more; the connection serves again if the
        response ends in good time."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class _Opening:
    """A request that waits for its connection."""

    def __init__(self, origin: Origin, raw: bytes, sink: ResponseSink) -> None:
        self._origin, self._raw, self._sink = origin, raw, sink
        self._connection: UpstreamConnection | None = None
        self.task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        origin = self._origin
        try:
            async with asyncio.timeout(UPSTREAM_CONNECT_MAX_S):
                _, connection = await origin.loop.create_connection(
                    lambda: UpstreamConnection(origin),
                    origin.host,
                    origin.port,
                    ssl=origin.tls,
                    server_hostname=origin.host if origin.tls else None,
                )
        except TimeoutError:
            self._sink.response_failed("did not accept a connection in time", sent=False)
            return
        except OSError as error:
            reason = error.strerror or type(error).__name__
            self._sink.response_failed(f"cannot be reached ({reason})", sent=False)
            return
        self._connection = connection
        connection.send(self._raw, self._sink)

    def cancel(self) -> None:
        if self._connection is not None:
            self._connection.cancel()
        elif self.task is not None:
            self.task.cancel()

    def let_end(self) -> None:
        if self._connection is not None:
            self._connection.let_end()

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()


class UpstreamConnection(asyncio.Protocol):
    """One connection; one request at a time."""

    __slots__ = (
        "_buffer", "_chunked", "_head", "_interim", "_left", "_look", "_origin", "_paused", "_sink",
        "_transport",
        "idle_since",
    )  # fmt: skip

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._transport: asyncio.Transport | None = None
        self._sink: ResponseSink | None = None
        self._head: ResponseHead | None = None
        self._chunked: ChunkedDecoder | None = None
        self._left = self._interim = 0
        self._paused = False
        self._buffer = b""
        self._look: select.poll | None = None
        self.idle_since = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._origin.connections.add(self)
        socket = transport.get_extra_info("socket")
        if socket is not None:
            self._look = select.poll()
            self._look.register(socket.fileno(), select.POLLIN)

    def quiet(self, idle_s: float) -> bool:
        """Nothing came since its last answer, not even its end."""
        return idle_s < LOOK_AFTER_S or self._look is None or not self._look.poll(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._origin.connections.discard(self)
        if self._sink is None:
            return
        head = self._head
        if head is not None and head.length == -2 and exc is None:
            self._complete()
        else:
            self._fail(CLOSED)

    def send(self, raw: bytes, sink: ResponseSink) -> None:
        self._sink = sink
        if self._transport is None:
            self._fail("closed the connection", sent=False)
            return
        self._transport.write(raw)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:  # bytes that nobody asked for: the connection cannot be trusted
            self.abort()
            return
        if self._head is None:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            found = self._read_head(data)
            if found is None:
                return
            head, data = found
            self._head = head
            self._left = head.length
            self._chunked = ChunkedDecoder(strict=False) if head.length == -1 else None
            sink.response_head(head)
            if self._sink is None:
                return
        self._body(data, sink)

    def _read_head(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """The head of the answer and what follows it; None if it is not there yet, or never will."""
        while self._interim <= INTERIM_MAX:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > HEADER_BLOCK_MAX_BYTES:
                    self._fail("sent a header block without end")
                else:
                    self._buffer = data
                return None
            try:
                head = self._origin.parse(data[:end])
            except BadHead as broken:
                self._fail(f"answered nonsense ({broken})")
                return None
            data = data[end + 4 :]
            if head.status == 101:
                self._fail("switched protocols unasked")
                return None
            if head.status >= 200:
                self._interim = 0
                return head, data
            if not head.keep_alive or not _NOT_INTERIM.isdisjoint(head.fields):
                self._fail("sent an interim answer that ends the connection or frames a body")
                return None
            self._interim += 1
        self._fail("sent interim answers without end")
        return None

    def _body(self, data: bytes, sink: ResponseSink) -> None:
        decoder = self._chunked
        if decoder is not None:
            try:
                data = decoder.feed(data)
            except BadChunk as broken:
                self._fail(f"answered nonsense ({broken})")
                return
            if data:
                sink.response_data(data)
            if decoder.done and self._sink is not None:
                self._complete(surplus=bool(decoder.surplus))
            return
        left = self._left
        if left == -2:
            if data:
                sink.response_data(data)
            return
        have = len(data)
        if have > left:
            sink.response_data(data[:left])
            if self._sink is not None:
                self._complete(surplus=True)
            return
        self._left = left - have
        if data:
            sink.response_data(data)
        if self._left == 0 and self._sink is not None:
            self._complete()

    def _complete(self, *, surplus: bool = False) -> None:
        sink, self._sink = self._sink, None
        head, self._head = self._head, None
        self._chunked = None
        if surplus or head is None or not head.keep_alive or not self.open:
            self.abort()
        else:
            self.resume()  # the client was slow to the last; the next one shall be heard
            self._origin.put_back(self)
        if sink is not None:
            sink.response_end()

    def _fail(self, reason: str, *, sent: bool = True) -> None:
        sink, self._sink = self._sink, None
        self.abort()
        if sink is not None:
            sink.response_failed(reason, sent=sent)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def cancel(self) -> None:
        self._sink = None
        self.abort()

    def let_end(self) -> None:
        if self._sink is not None:
            self.resume()
            self._sink = _Ending(self, self._origin.loop)

    def pause(self) -> None:
        if self.open and self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self.open and self._transport is not None and self._paused:
            self._paused = False
            self._transport.resume_reading()


class _Ending:
    """Sink of a response whose answer was read: what little may follow is dropped (GW-13)."""

    def __init__(self, connection: UpstreamConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._left = ENDING_MAX_BYTES
        self._timer = loop.call_later(ENDING_MAX_S, connection.cancel)

    def response_head(self, head: ResponseHead) -> None: ...

    def response_data(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._timer.cancel()
            self._connection.cancel()

    def response_end(self) -> None:
        self._timer.cancel()

    def response_failed(self, reason: str, *, sent: bool) -> None:
        self._timer.cancel()

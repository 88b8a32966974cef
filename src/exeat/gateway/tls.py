"""TLS before the HTTP edge: handshakes within a time and a number, then a connection as any other.

GW-14: a handshake under way counts as a connection, so that half ones cannot take every descriptor.
The context may be replaced at any time; connections keep the one that they began with.
"""

import asyncio
import ssl
from typing import Any, Final

from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge

SHUTDOWN_MAX_S: Final = 900.0
"""It would run while the last answer is still written; the edge's own limit ends who reads nothing."""
PLAIN_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: 36\r\n\r\nthis port speaks TLS: use https://\r\n"
)


class TlsEntry:
    """The protocol factory of a listener that speaks TLS for ``edge``."""

    def __init__(self, edge: Edge, context: ssl.SSLContext) -> None:
        self.edge = edge
        self.context = context
        self.handshakes: set[Handshake] = set()
        self.failed = 0

    def __call__(self) -> "Handshake":
        return Handshake(self)

    @property
    def full(self) -> bool:
        edge = self.edge
        taken = len(edge.connections) + len(self.handshakes)
        return edge.draining or taken >= edge.limits.connections_max

    def close(self) -> None:
        for handshake in list(self.handshakes):
            handshake.abort()


class Handshake(asyncio.Protocol):
    """A socket that has not yet spoken TLS.  Its first bytes tell whether it tries."""

    def __init__(self, entry: TlsEntry) -> None:
        self._entry = entry
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        entry, edge = self._entry, self._entry.edge
        if entry.full:
            edge.refused += 1
            self.abort()
            return
        entry.handshakes.add(self)
        self._timer = edge.loop.call_later(edge.limits.head_time_max_s, self.abort)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or self._task is not None or transport.is_closing():
            return
        if 65 <= data[0] <= 90:  # a method
            self._entry.failed += 1
            transport.write(PLAIN_HTTP)
            transport.close()
            return
        transport.pause_reading()
        self._task = self._entry.edge.loop.create_task(self._shake(transport, data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._entry.handshakes.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    async def _shake(self, raw: asyncio.Transport, first: bytes) -> None:
        entry, early = self._entry, _Early()
        loop = entry.edge.loop
        starting = loop.create_task(
            loop.start_tls(
                raw,
                early,
                entry.context,
                server_side=True,
                ssl_handshake_timeout=entry.edge.limits.head_time_max_s,
                ssl_shutdown_timeout=SHUTDOWN_MAX_S,
            )
        )
        try:
            await asyncio.sleep(0)  # start_tls takes over the transport
            await asyncio.sleep(0)  # and begins
            _feed(raw, first)
            transport = await starting
        except OSError:  # an old version, no trusted certificate, too slow, gone, or no TLS at all
            entry.failed += 1
            raw.abort()
            return
        finally:
            self._end()
        if transport is not None and not early.lost:
            early.hand_over(transport, entry.edge())


def _feed(raw: asyncio.Transport, data: bytes) -> None:
    """What was read before TLS took over, in pieces that its buffer can take."""
    while data and not raw.is_closing():
        protocol: Any = raw.get_protocol()  # a BufferedProtocol, or uvloop's own of that kind
        buffer = memoryview(protocol.get_buffer(len(data)))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


class _Early(asyncio.Protocol):
    """Keeps what comes between the end of the handshake and the turn in which we hear of it."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._ended = self.lost = False

    def data_received(self, data: bytes) -> None:
        self._data.append(data)

    def eof_received(self) -> bool:
        self._ended = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def hand_over(self, transport: asyncio.Transport, connection: Connection) -> None:
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._data and connection.open:
            connection.data_received(b"".join(self._data))
        if self._ended:
            transport.close()

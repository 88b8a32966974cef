"""A client's connection that ends here while its session lives in another worker: bytes both ways.

Needed where the socket itself cannot move: TLS ends in this process, or an earlier answer still waits to
be read.  Who reads slowly slows the other side down; the end of one is the end of the other.
"""

import asyncio
from collections.abc import Callable

from exeat.gateway.connection import Connection


class Relay(asyncio.Protocol):
    """The protocol of our end towards the other worker, and the exchange of the client's connection.
    ``ended`` is called once."""

    def __init__(self, connection: Connection, ended: Callable[["Relay"], None]) -> None:
        self._connection, self._ended = connection, ended
        self._transport: asyncio.Transport | None = None
        self._over = False

    def begin(self) -> None:
        self._connection.relay(self, self._onward)
        if self._over:
            self._connection.relayed()
        elif not self._connection.writable:
            self.client_slow()

    # ---- asyncio.Protocol, towards the other worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._connection.send(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._over, self._transport = True, None
        self._ended(self)
        self._connection.relayed()

    def pause_writing(self) -> None:
        self._connection.hold()

    def resume_writing(self) -> None:
        self._connection.unhold()

    # ---- Exchange, towards the client

    def _onward(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def client_gone(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def client_slow(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def client_ready(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

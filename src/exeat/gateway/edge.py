"""The HTTP edge: all client connections of one listener, their limits and their end (GW-14).

Limits stand for head, body, idle time and sizes; one sweep enforces them, so that no request pays for
a timer.
"""

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Final

from exeat.gateway.connection import Connection
from exeat.gateway.edge_ports import EdgeLimits, Exchange
from exeat.gateway.http1 import HeadCache, RequestHead, parse_request_head

SWEEP_S: Final = 0.5
Dispatch = Callable[[Connection, RequestHead, bytes], Exchange | None]
Admit = Callable[[Connection, RequestHead], bool | None]
"""None: it will be known, and then the connection is told ``again``."""


def anyone(connection: Connection, head: RequestHead) -> bool | None:
    return True


class Edge:
    """All client connections of one listener."""

    def __init__(
        self,
        dispatch: Dispatch,
        limits: EdgeLimits,
        loop: asyncio.AbstractEventLoop,
        admit: Admit = anyone,
    ) -> None:
        """``admit``: asked before a body is waited for; it answers what it does not admit."""
        self.dispatch = dispatch
        self.admit = admit
        self.limits = limits
        self.loop = loop
        self.connections: set[Connection] = set()
        self.parse = HeadCache(parse_request_head)
        self.draining = False
        self.refused = 0
        self.held_bytes = 0
        self.now = loop.time()
        self.date = b""
        self._timer: asyncio.TimerHandle | None = None
        self._sweep()

    def __call__(self) -> Connection:
        return Connection(self)

    def adopted(self, data: bytes) -> Connection:
        """A connection that another worker accepted, and what it has read of it (GW-13)."""
        return Connection(self, data)

    def _sweep(self) -> None:
        self.now = now = self.loop.time()
        self.date = b"date: " + formatdate(usegmt=True).encode("ascii") + b"\r\n"
        for connection in [c for c in self.connections if c.deadline < now]:
            connection.timed_out()
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    def drain(self) -> None:
        """Take no new request; close idle connections; answers under way go on."""
        self.draining = True
        for connection in list(self.connections):
            if connection.idle:
                connection.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()

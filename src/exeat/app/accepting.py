"""Connections from a listening socket that several workers share.

The supervisor binds the port and listens; workers inherit that one socket.  SO_REUSEPORT would let any
process of the same user, such as a stdio server, join the port and take agents' keys (GW-12).  Each
worker takes one connection a turn, so that a burst does not end in one of them.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

import structlog

_log = structlog.get_logger("exeat.accepting")
AGAIN_S: Final = 0.5
"""After the system has refused, as without descriptors."""


class Accepting:
    """Until ``close``.  ``listener`` is not closed for the others."""

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener, self._factory, self._loop = listener, factory, loop
        self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:
                _log.warning("new connections wait", why=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await self._loop.connect_accepted_socket(self._factory, client)
            except (OSError, ValueError):  # gone already
                client.close()
            await asyncio.sleep(0)  # the others' turn

    async def close(self) -> None:
        """Take no more."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._listener.close()

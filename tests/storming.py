"""Many bad clients at once, bounded: sockets that idle, dribble, flood, come and go."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator

_RESET = struct.pack("ii", 1, 0)


def opened(port: int) -> socket.socket:
    """Closed with a reset, so that thousands leave no port waiting behind."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=15)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sock


@contextlib.contextmanager
def crowd(port: int, number: int) -> Iterator[list[socket.socket]]:
    socks: list[socket.socket] = []
    try:
        while len(socks) < number:
            socks.append(opened(port))
        yield socks
    finally:
        for sock in socks:
            sock.close()


# Each plays its part once, on a connection of its own; what the server does to it is no error here.


async def flood_of_headers(port: int, key: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\n")
        for number in range(5000):
            writer.write(b"X-%d: %b\r\n" % (number, b"y" * 50))
            if number % 50 == 0:
                await writer.drain()
        await reader.read()


async def slow_head(port: int, key: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        for byte in b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 4000:
            writer.write(bytes([byte]))
            await writer.drain()
            if reader.at_eof():
                return
            await asyncio.sleep(0.02)
        await reader.read()


async def slow_body(port: int, key: str) -> None:
    """With a key: the edge waits for the bodies of agents only."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        writer.write(
            b"POST /mcp/m HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Authorization: Bearer %b\r\nContent-Length: 4000\r\n\r\n" % key.encode()
        )
        for _ in range(3999):
            writer.write(b" ")
            await writer.drain()
            if reader.at_eof():
                return
            await asyncio.sleep(0.02)
        await reader.read()


async def come_and_go(port: int, key: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.write(b"POST /mcp")
    writer.transport.abort()


Part = Callable[[int, str], Awaitable[None]]


class Storm:
    """``width`` bad clients at a time, in a thread of its own, until ``stop``."""

    def __init__(self, part: Part, port: int, key: str, width: int) -> None:
        self.begun = self.done = 0
        self.faults: list[BaseException] = []
        self._part, self._port, self._key, self._width = part, port, key, width
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _one(self) -> None:
        while not self._stopping.is_set():
            self.begun += 1
            with contextlib.suppress(ConnectionError):
                await self._part(self._port, self._key)
            self.done += 1

    async def _run(self) -> None:
        tasks = [asyncio.create_task(self._one()) for _ in range(self._width)]
        try:
            while not self._stopping.is_set():
                await asyncio.sleep(0.01)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self.faults = [e for e in ends if isinstance(e, Exception)]

    def __enter__(self) -> "Storm":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert not self.faults

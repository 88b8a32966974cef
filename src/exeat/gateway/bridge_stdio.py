"""The client's side of the bridge: lines in, lines out, nothing else on stdout (GW-6).

Threads, not pipes of the event loop: they work for pipes, files and terminals on every platform.
"""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import BinaryIO, Final

LINE_MAX_BYTES: Final = 16 * 1024 * 1024
LINES_WAITING_MAX: Final = 16


class ClientGone(Exception):
    """The client no longer reads."""


def take_stdin() -> BinaryIO:
    """The client's messages.  Not sys.stdin: a reading thread would hold its lock at exit."""
    return os.fdopen(os.dup(sys.stdin.fileno()), "rb")


def take_stdout() -> BinaryIO:
    """The protocol's stream, for us alone; whoever prints from now on prints to stderr."""
    sys.stdout.flush()
    ours = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return ours


async def lines_of(stream: BinaryIO) -> AsyncIterator[bytes]:
    """Each line without its end; an overlong one arrives as NUL.  Ends with the stream."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(LINES_WAITING_MAX)

    def read() -> None:
        try:
            while line := _line(stream):
                asyncio.run_coroutine_threadsafe(waiting.put(line), loop).result()
            asyncio.run_coroutine_threadsafe(waiting.put(None), loop).result()
        except (RuntimeError, OSError, ValueError):
            return  # the loop or the stream is closed: nobody waits for lines

    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (line := await waiting.get()) is not None:
        yield line.strip()


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline(LINE_MAX_BYTES + 1)
    if len(line) <= LINE_MAX_BYTES:
        return line
    while line and not line.endswith(b"\n"):
        line = stream.readline(LINE_MAX_BYTES)
    return b"\0\n"


class LineWriter:
    """Whole lines to the client, in order, without blocking the event loop.

    Each ``await`` returns when the client's pipe has taken the bytes: that is the back-pressure.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._thread = ThreadPoolExecutor(1, "stdout")
        self._lock = asyncio.Lock()

    async def line(self, data: bytes) -> None:
        """Raises ClientGone."""
        async with self._lock:
            await self._put(data + b"\n")

    @asynccontextmanager
    async def long_line(self) -> AsyncIterator["LongLine"]:
        """One line in pieces; others wait.  It is always ended, even if cut short."""
        async with self._lock:
            try:
                yield LongLine(self)
            finally:
                self._thread.submit(self._write, b"\n")

    async def _put(self, data: bytes) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, data)
        except (OSError, ValueError, RuntimeError):
            raise ClientGone from None

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) or 0 :]

    def close(self) -> None:
        self._thread.shutdown(wait=False)


class LongLine:
    """A line under way."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    async def piece(self, data: bytes) -> None:
        """Raises ClientGone.  ``data`` holds no line end."""
        await self._writer._put(data)

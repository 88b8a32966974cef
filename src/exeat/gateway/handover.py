"""What lives in one worker, and a request for it that meets another one: the request moves (GW-13).

Workers share a port, and the kernel gives each connection to any of them.  The id of a session, or of
a call that waits for its client, begins with the name of its worker.  The worker that receives such an
id of another passes the accepted connection itself (SCM_RIGHTS), with the bytes that it has read, over a
socket inside the home, and forgets it.  The other reads the request anew, credential and all: nothing is
trusted that did not come from the client.  Streams, back-pressure and the client's going away need no
second form.  Where the socket cannot go as it is, one end of a pair goes, and this worker relays bytes.
"""

import asyncio
import hmac
import os
import re
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from exeat.core.limits import HEADER_BLOCK_MAX_BYTES
from exeat.gateway.connection import Connection
from exeat.gateway.edge import Edge
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.relay import Relay

_log = structlog.get_logger("exeat.handover")
MOVE_MAX_S: Final = 5.0
ACCEPT_AGAIN_S: Final = 1.0
BACKLOG: Final = 1024
FRAMING_MAX_BYTES: Final = HEADER_BLOCK_MAX_BYTES + 2 * 1024 * 1024
"""Beside the body: its head, its chunks' framing, and what one read may have brought behind it."""
_OWNER: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,40})\.[0-9a-f]{48}")
_HEAD: Final = struct.Struct(">32sQ")
"""The word that shows who comes, and how many bytes follow."""
_CREDENTIALS: Final = struct.Struct("3i")
_TAKEN: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The worker ``owner`` knows of it.  ``over``: answer instead if that one is gone."""

    owner: str
    over: Callable[[], None]


class Handover:
    """One per worker.  ``place``: the folder of all workers' sockets; ``me``: this worker's name."""

    def __init__(
        self, place: Path, me: str, loop: asyncio.AbstractEventLoop, secret: bytes
    ) -> None:
        """``secret``: shared by the workers, and by nobody who cannot read the home's keys; a stdio
        server runs as the same user, so a socket's file says nothing of who connects."""
        self._place, self.me, self._loop = place, me, loop
        self._secret = secret
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays: set[Relay] = set()

    def new_id(self) -> str:
        return f"{self.me}.{os.urandom(24).hex()}"

    def owner(self, given: str) -> str:
        """The other worker in which the id was made; empty if it is ours, or nobody's."""
        found = _OWNER.fullmatch(given)
        return found[1] if found is not None and found[1] != self.me else ""

    @property
    def relaying(self) -> bool:
        """Connections of other workers' sessions end here."""
        return bool(self._relays)

    # ---- giving

    def move(
        self,
        connection: Connection,
        body: bytes,
        owner: str,
        here: Callable[[], Exchange | None],
    ) -> "Moving":
        """Move the connection with the request in flight.  ``here`` serves it if the owner does not
        live; whoever asks its sessions is then told as of any that ended."""
        moving = Moving()
        self._spawn(self._move(connection, body, owner, here, moving), connection.abort)
        return moving

    async def _move(
        self,
        connection: Connection,
        body: bytes,
        owner: str,
        here: Callable[[], Exchange | None],
        moving: "Moving",
    ) -> None:
        await asyncio.sleep(0)  # the loop has its turn to write earlier answers
        if moving.over:
            return
        try:
            way = _dial(self._place / owner)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.take_back(here())
            return
        except OSError:
            connection.plain(503, "the gateway's worker with this session is busy; try again")
            return
        with way:
            data = connection.give_away(body)
            try:
                if connection.passable:
                    await self._pass(way, owner, connection.descriptor(), data)
                else:
                    await self._relay(way, owner, connection, data, moving)
                    return
            except OSError as error:
                # the other may have it: two must not answer on one connection
                _log.warning("a connection did not reach its worker", worker=owner, why=str(error))
        connection.abort()

    def _word(self, owner: str) -> bytes:
        """What shows ``owner`` that one of its kind comes."""
        return hmac.digest(self._secret, b"handover to " + owner.encode(), "sha256")

    async def _pass(self, way: socket.socket, owner: str, descriptor: int, data: bytes) -> None:
        """Returns once the other worker has all of it.  Closes ``descriptor``.  Raises OSError; then
        the connection is at its end, also for the other, should it still come to take it."""
        with socket.socket(fileno=descriptor) as passed:
            try:
                socket.send_fds(way, [_HEAD.pack(self._word(owner), len(data))], [descriptor])
                async with asyncio.timeout(MOVE_MAX_S):
                    await self._loop.sock_sendall(way, data)
                    if await self._loop.sock_recv(way, 1) != _TAKEN:
                        raise ConnectionError("it was not taken")
            except OSError:
                with suppress(OSError):
                    passed.shutdown(socket.SHUT_RDWR)
                raise

    async def _relay(
        self,
        way: socket.socket,
        owner: str,
        connection: Connection,
        data: bytes,
        moving: "Moving",
    ) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        relay = Relay(connection, self._relays.discard)
        self._relays.add(relay)
        try:
            await self._pass(way, owner, theirs.detach(), data)
            await self._loop.create_unix_connection(lambda: relay, sock=ours)
        except OSError:
            self._relays.discard(relay)
            ours.close()
            raise
        if moving.over:
            relay.client_gone()
        else:
            relay.begin()

    # ---- taking

    def listen(self, edge: Edge) -> None:
        """Raises OSError."""
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._place / self.me
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as short:
                listener.bind(short)
            path.chmod(0o600)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._accepting = self._loop.create_task(self._accept(listener, edge))

    async def _accept(self, listener: socket.socket, edge: Edge) -> None:
        while True:
            try:
                given, _ = await self._loop.sock_accept(listener)
            except OSError as error:  # no descriptor is left
                _log.warning("connections of other workers wait", why=str(error))
                await asyncio.sleep(ACCEPT_AGAIN_S)
            else:
                self._spawn(self._take(given, edge), given.close)

    async def _take(self, given: socket.socket, edge: Edge) -> None:
        """What is not whole, or not of ours, is dropped; a connection closes with its last
        descriptor, and its client sees that."""
        with given:
            given.setblocking(False)
            if not _is_of_ours(given):
                return
            try:
                async with asyncio.timeout(MOVE_MAX_S):
                    client, data = await self._receive(given, edge)
            except OSError:
                return
        try:
            await self._loop.connect_accepted_socket(lambda: edge.adopted(data), client)
        except (OSError, ValueError):
            client.close()

    async def _receive(self, given: socket.socket, edge: Edge) -> tuple[socket.socket, bytes]:
        """Raises OSError."""
        await _readable(given, self._loop)
        head, descriptors, _, _ = socket.recv_fds(given, _HEAD.size, 1, socket.MSG_CMSG_CLOEXEC)
        client = _socket(descriptors)
        try:
            most = edge.limits.request_body_max_bytes + FRAMING_MAX_BYTES
            if len(head) != _HEAD.size:
                raise ConnectionError("no length")
            word, length = _HEAD.unpack(head)
            if not hmac.compare_digest(word, self._word(self.me)):
                raise ConnectionError("not one of our workers")
            if length > most:
                raise ConnectionError("more than any request holds")
            data = bytearray()
            while left := length - len(data):
                part = await self._loop.sock_recv(given, min(left, 256 * 1024))
                if not part:
                    raise ConnectionError("cut short")
                data += part
            client.setblocking(False)
            await self._loop.sock_sendall(given, _TAKEN)
        except BaseException:
            client.close()
            raise
        return client, bytes(data)

    def _spawn(self, work: Coroutine[Any, Any, None], broke: Callable[[], None]) -> None:
        """``broke`` ends the connection if the work fails in a way that nobody foresaw."""
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                broke()
                told = {"message": "a connection could not be moved", "exception": error}
                self._loop.call_exception_handler(told)

        task.add_done_callback(done)

    async def close(self) -> None:
        """Take no more; what moves arrives."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            (self._place / self.me).unlink(missing_ok=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Moving:
    """The exchange of a request that moves on."""

    def __init__(self) -> None:
        self.over = False

    def client_gone(self) -> None:
        self.over = True

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for the socket within the 108 bytes of sockaddr_un, however deep the home lies."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _dial(path: Path) -> socket.socket:
    """Does not block.  Raises OSError; BlockingIOError if too many wait there."""
    way = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        way.setblocking(False)
        with _short(path) as short:
            way.connect(short)
    except OSError:
        way.close()
        raise
    return way


def _is_of_ours(given: socket.socket) -> bool:
    """Whether the process at the other end runs as the same user."""
    found = given.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(found)[1] == os.geteuid())


def _socket(descriptors: list[int]) -> socket.socket:
    """Raises OSError if it is no connection."""
    if not descriptors:
        raise ConnectionError("no connection came")
    try:
        return socket.socket(fileno=descriptors[0])
    except OSError:
        os.close(descriptors[0])
        raise


async def _readable(given: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    """What comes with a descriptor must be read with it, so it is waited for without reading."""
    ready = loop.create_future()

    def woken() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(given, woken)
    try:
        await ready
    finally:
        loop.remove_reader(given)

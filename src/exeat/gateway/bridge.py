"""GW-6: a stdio client at one end, the gateway's streamable HTTP at the other, in both eras.

The bridge decides nothing and bypasses nothing: every message goes to the one URL, every answer
comes from there, and where none comes the client gets an error that says what happened.  A call is
never sent twice.

Legacy: the session is remembered; when the gateway has lost it (HTTP 404) and no call is under way,
the client's own ``initialize`` is replayed.  Modern: each request stands alone; closing its stream
cancels it (2026-07-28, Transports).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exeat.core.errors import Unauthenticated
from exeat.gateway.bridge_door import Door
from exeat.gateway.bridge_relay import Relay, Unanswered, transport_errors
from exeat.gateway.bridge_stdio import ClientGone, LineWriter
from exeat.gateway.bridge_wire import (
    HANDSHAKES,
    ClientMessage,
    failure,
    modern_headers,
    read_client,
    refusal,
)
from exeat.gateway.inbound import PARSE_ERROR, RequestId
from exeat.gateway.wire import Nonsense, notification_message

if TYPE_CHECKING:
    import httpx2

CALLS_MAX: Final = 256
HANDSHAKE_PATIENCE_S: Final = 5.0
"""A client that starts together with the gateway gets this long before its handshake fails."""
RETRY_FIRST_S: Final = 0.25
RETRY_LONGEST_S: Final = 15.0
DRAIN_MAX_S: Final = 30.0
_INITIALIZED: Final = notification_message("notifications/initialized", b"{}")


@dataclass(eq=False, slots=True)
class Session:
    """One legacy session.  ``initialize``: the client's own line.  ``id``: empty if none came."""

    initialize: bytes
    id: str
    version: str
    lost: bool = False

    @property
    def headers(self) -> dict[str, str]:
        found = {"MCP-Protocol-Version": self.version}
        if self.id:
            found["Mcp-Session-Id"] = self.id
        return found


@dataclass(eq=False, slots=True)
class _Call:
    message: ClientMessage
    task: asyncio.Task[None] | None = None
    sent: bool = False
    live: bool = True
    """False once the gateway is known not to work on it."""


@dataclass(eq=False, slots=True)
class _Flow:
    """What is under way.  ``gate``: what later messages must wait for, so that order is kept."""

    calls: dict[RequestId, _Call] = field(default_factory=dict)
    gate: asyncio.Task[None] | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    listener: asyncio.Task[None] | None = None


class Bridge:
    """``say``: one plain sentence for whoever reads stderr; never a secret, never content."""

    def __init__(self, door: Door, out: LineWriter, say: Callable[[str], None]) -> None:
        self._door, self._out, self._say = door, out, say
        self._relay = Relay(door, out, self._begin)
        self._session: Session | None = None
        self._renewing = asyncio.Lock()
        self._flow = _Flow()
        self._gone = asyncio.Event()
        self._reachable = True

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Until the client closes its end, stops reading, or this task is cancelled."""
        reading = asyncio.create_task(self._read(lines))
        gone = asyncio.create_task(self._gone.wait())
        try:
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            if reading.done() and self._flow.tasks:
                await asyncio.wait(self._flow.tasks, timeout=DRAIN_MAX_S)
        finally:
            await self._end([reading, gone])

    async def _end(self, others: list["asyncio.Task[None] | asyncio.Task[bool]"]) -> None:
        rest: list[asyncio.Task[None] | asyncio.Task[bool]] = [*others, *self._flow.tasks]
        if self._flow.listener is not None:
            rest.append(self._flow.listener)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._session is not None and self._session.id and not self._session.lost:
            await self._door.goodbye(self._session.headers)
        await self._door.close()
        self._out.close()

    # What the client says.

    async def _read(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            if not line:
                continue
            try:
                message = read_client(line)
            except Nonsense as error:
                await self._tell(failure(None, f"The client sent {error}.", PARSE_ERROR))
                continue
            if message.is_request:
                await self._take_request(message)
            elif message.method == "notifications/cancelled":
                self._take_cancel(message)
            else:
                self._one_way(message)

    async def _take_request(self, message: ClientMessage) -> None:
        assert message.id is not None  # noqa: S101 - narrowing; is_request says so
        if len(self._flow.calls) >= CALLS_MAX:
            sentence = f"{CALLS_MAX} requests are waiting already. Send fewer at a time."
            await self._tell(failure(message.id, sentence))
            return
        earlier = self._flow.calls.pop(message.id, None)
        if earlier is not None and earlier.task is not None:
            earlier.task.cancel()
        call = _Call(message)
        self._flow.calls[message.id] = call
        call.task = self._start(self._request(call, self._flow.gate))
        if message.method == "initialize":
            self._flow.gate = call.task

    def _take_cancel(self, message: ClientMessage) -> None:
        call = self._flow.calls.get(message.params.get("requestId", ""))
        if call is None:
            self._one_way(message)
        elif call.message.version or not call.sent:
            if call.task is not None:
                call.task.cancel()  # modern: closing the stream is the cancellation
        else:
            self._one_way(message, call)

    def _one_way(self, message: ClientMessage, ends: _Call | None = None) -> None:
        """A notification or a response: in order, before whatever the client says next."""
        if self._session is None and self._flow.gate is None:
            return  # 2026-07-28 knows no client notifications over HTTP
        self._flow.gate = self._start(self._deliver(message, ends, self._flow.gate))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(self._guard(work))
        self._flow.tasks.add(task)
        task.add_done_callback(self._flow.tasks.discard)
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ClientGone:
            self._gone.set()

    async def _tell(self, line: bytes) -> None:
        try:
            await self._out.line(line)
        except ClientGone:
            self._gone.set()

    # What goes to the gateway.

    async def _deliver(
        self, message: ClientMessage, ends: _Call | None, gate: asyncio.Task[None] | None
    ) -> None:
        await _passed(gate)
        session = self._session
        if session is None:
            return
        try:
            async with self._door.post(message.raw, session.headers) as answer:
                status = answer.status_code
        except Unauthenticated as error:
            self._say(f"{message.method or 'An answer'} did not reach the server. {_told(error)}")
            return
        except transport_errors() as error:
            self._unreachable(error)
            return
        self._reached()
        if status == 404 and session.id:
            await self._renew(session)
        elif status >= 300:
            self._say(
                f"{message.method or 'An answer'} did not reach the server. {refusal(status)}"
            )
        elif message.method == "notifications/initialized":
            self._listen_to(session)
        if ends is not None and ends.task is not None:
            ends.task.cancel()

    async def _request(self, call: _Call, gate: asyncio.Task[None] | None) -> None:
        await _passed(gate)
        message = call.message
        try:
            await self._send(call)
        except Unanswered as error:
            await self._out.line(failure(message.id, str(error), error.code))
        except Unauthenticated as error:
            self._say(_told(error))
            await self._out.line(failure(message.id, _told(error), error.rpc_code))
        except transport_errors() as error:
            self._unreachable(error)
            await self._out.line(failure(message.id, self._lost(error)))
        finally:
            if message.id is not None and self._flow.calls.get(message.id) is call:
                del self._flow.calls[message.id]

    async def _send(self, call: _Call) -> None:
        message = call.message
        session = None if message.version or message.method == "initialize" else self._session
        if session is not None and session.lost and await self._renew(session, call):
            session = self._session
        if not await self._exchange(call, session):
            return
        call.live = False
        if session is None or not await self._renew(session, call):
            raise Unanswered(
                "The gateway has ended this session (was it restarted?) and it could not be renewed"
                " yet. This request was not carried out: send it again, or restart the client."
            )
        if message.method == "tools/call":
            raise Unanswered(
                "The gateway had ended this session (was it restarted?). This call was not carried"
                " out. The session is renewed: send the call again."
            )
        if await self._exchange(call, self._session):
            raise Unanswered("The gateway ends each session at once. Look at the gateway's log.")

    async def _exchange(self, call: _Call, session: Session | None) -> bool:
        """One POST and its answer.  True: the gateway knows no such session and did nothing."""
        message = call.message
        if message.version:
            headers = modern_headers(message, self._relay.declared)
        else:
            headers = session.headers if session is not None else {}
        call.sent = True
        async with self._open(message, headers) as answer:
            self._reached()
            if answer.status_code == 404 and session is not None and session.id:
                return True
            await self._relay.answer(message, answer, headers)
        return False

    @asynccontextmanager
    async def _open(
        self, message: ClientMessage, headers: dict[str, str]
    ) -> "AsyncIterator[httpx2.Response]":
        """Send.  Only a handshake waits for a gateway that is not there yet."""
        import httpx2

        waited, pause = 0.0, RETRY_FIRST_S
        async with AsyncExitStack() as stack:
            while True:
                try:
                    post = self._door.post(message.raw, headers)
                    answer = await stack.enter_async_context(post)
                    break
                except httpx2.ConnectError:
                    if message.method not in HANDSHAKES or waited >= HANDSHAKE_PATIENCE_S:
                        raise
                await asyncio.sleep(pause)
                waited, pause = waited + pause, pause * 2
            yield answer

    # The legacy session.

    def _begin(self, initialize: bytes, session_id: str, version: str) -> None:
        self._session = Session(initialize, session_id, version)

    async def _renew(self, lost: Session, mine: _Call | None = None) -> bool:
        """Replay the client's own handshake, unless a call is under way that it could disturb."""
        lost.lost = True
        async with self._renewing:
            if self._session is not lost:
                return True
            others = [call for call in self._flow.calls.values() if call is not mine]
            if any(call.live and call.sent and not call.message.version for call in others):
                return False
            opened = await self._relay.handshake(lost.initialize)
            if opened is None or opened[1] != lost.version:
                self._say("The session could not be renewed. Restart the client.")
                return False
            self._session = Session(lost.initialize, *opened)
            async with self._door.post(_INITIALIZED, self._session.headers):
                pass
        self._say("The gateway had ended the session; it is renewed.")
        self._listen_to(self._session)
        return True

    def _listen_to(self, session: Session) -> None:
        """What the server says unasked arrives on a GET stream, if the gateway offers one."""
        if self._flow.listener is not None:
            self._flow.listener.cancel()
        self._flow.listener = asyncio.ensure_future(self._guard(self._listen(session)))

    async def _listen(self, session: Session) -> None:
        pause = RETRY_FIRST_S
        last_id = ""
        while session is self._session:
            headers = session.headers | ({"Last-Event-ID": last_id} if last_id else {})
            try:
                async with self._door.listen(headers) as answer:
                    if answer.status_code == 404 and session.id:
                        session.lost = True
                        break
                    if not self._relay.is_events(answer):
                        if answer.status_code >= 500:
                            raise Unanswered(refusal(answer.status_code))
                        return  # 405: the server says nothing unasked
                    self._reached()
                    async for event in self._relay.unasked(answer):
                        pause = RETRY_FIRST_S
                        last_id = event.id.decode("latin-1") or last_id
            except transport_errors(Unanswered):
                pass
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_LONGEST_S)
        if session.lost:
            self._start(self._revive(session))

    async def _revive(self, session: Session) -> None:
        try:
            await self._renew(session)
        except Unauthenticated as error:
            self._say(_told(error))
        except transport_errors(Unanswered) as error:
            self._unreachable(error)

    # What people are told.

    def _lost(self, error: Exception) -> str:
        import httpx2

        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return (
                f"The gateway at {self._door.shown} cannot be reached, so nothing was carried out."
                " Start it with `exeat up`, or check the URL, and send the request again."
            )
        return (
            f"The connection to the gateway at {self._door.shown} broke before the answer. Whether"
            " the request was carried out is not known: check before you send it again."
        )

    def _unreachable(self, error: Exception) -> None:
        if self._reachable:
            self._say(f"The gateway at {self._door.shown} is away ({type(error).__name__}).")
        self._reachable = False

    def _reached(self) -> None:
        if not self._reachable:
            self._say(f"The gateway at {self._door.shown} is back.")
        self._reachable = True


def _told(error: Unauthenticated) -> str:
    return f"{error}. Next: {error.remedy}." if error.remedy else f"{error}."


async def _passed(gate: asyncio.Task[None] | None) -> None:
    if gate is not None:
        await asyncio.wait({gate})

"""The gateway's answers on their way to the bridge's client: JSON or events (GW-6, GW-9).

A JSON answer up to 1 MiB is checked and written at once; a longer one is written as it arrives, so
memory stays bounded.  An event is held whole, up to its limit, for stdio knows only whole lines.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from exeat.core.errors import UpstreamFailed
from exeat.core.limits import LIST_RESULT_MAX_BYTES
from exeat.gateway.bridge_door import Door
from exeat.gateway.bridge_stdio import LineWriter
from exeat.gateway.bridge_wire import ClientMessage, declared_by, one_line, refusal
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import raw_bytes
from exeat.gateway.param_headers import Mirrored
from exeat.gateway.sse import EventParser, MalformedStream, ServerEvent
from exeat.gateway.wire import Incoming, Nonsense, error_message, read_incoming

if TYPE_CHECKING:
    import httpx2

WHOLE_MAX_BYTES: Final = 1024 * 1024
EVENT_MAX_BYTES: Final = 64 * 1024 * 1024
REFUSAL_MAX_BYTES: Final = 64 * 1024
RESUMES_MAX: Final = 3
RESUME_PAUSE_S: Final = 1.0
RESUME_PAUSE_MAX_S: Final = 30.0
DECLARED_MAX: Final = 10_000
_READ_WHOLE: Final = frozenset({"initialize", "tools/list"})


class Unanswered(Exception):
    """The request gets no answer from the gateway; the sentence says why and what to do."""

    code = UpstreamFailed.rpc_code


class Relay:
    """``declared``: tool → arguments to mirror as Mcp-Param-*, learnt from tools/list results.

    ``opened``: told of each legacy session (the client's initialize, session id, version) before
    the client is, so that neither a call nor an end can come too early.
    """

    def __init__(
        self, door: Door, out: LineWriter, opened: Callable[[bytes, str, str], None]
    ) -> None:
        self._door, self._out, self._opened = door, out, opened
        self.declared: dict[str, tuple[Mirrored, ...]] = {}

    async def answer(
        self, message: ClientMessage, response: "httpx2.Response", headers: dict[str, str]
    ) -> None:
        """Hand the whole answer to the client.

        Raises Unanswered, ClientGone, and the transport's errors.
        """
        if response.status_code == 200 and self.is_events(response):
            await self._events_answer(message, response, headers)
        elif response.status_code == 200 and _media(response) == "application/json":
            await self._json_answer(message, response)
        else:
            await self._out.line(await _refused(message, response))

    @staticmethod
    def is_events(response: "httpx2.Response") -> bool:
        return response.status_code == 200 and _media(response) == "text/event-stream"

    async def events(self, response: "httpx2.Response") -> AsyncIterator[ServerEvent]:
        """Each event; raises Unanswered if the stream breaks its grammar."""
        parser = EventParser(EVENT_MAX_BYTES)
        async for chunk in response.aiter_raw():
            try:
                found = parser.feed(chunk)
            except MalformedStream as error:
                raise Unanswered(f"The gateway's event stream is broken: {error}.") from None
            for event in found:
                yield event

    async def unasked(self, response: "httpx2.Response") -> AsyncIterator[ServerEvent]:
        """Requests and notifications of the server, handed to the client as they come."""
        async for event in self.events(response):
            if event.data and _read(event.data).method is not msgspec.UNSET:
                await self._out.line(one_line(event.data))
            yield event

    async def handshake(self, initialize: bytes) -> tuple[str, str] | None:
        """Replay ``initialize`` unseen by the client; (session id, version), None if refused."""
        async with self._door.post(initialize, {}) as response:
            if self.is_events(response):
                async for event in self.events(response):
                    if event.data and _read(event.data).method is msgspec.UNSET:
                        return answered_session(response, event.data)
            elif response.status_code == 200:
                return answered_session(response, await _at_most(response, WHOLE_MAX_BYTES))
        return None

    async def _events_answer(
        self, message: ClientMessage, response: "httpx2.Response", headers: dict[str, str]
    ) -> None:
        """Events up to the response.  A legacy stream that names its events is resumed."""
        last = ServerEvent(b"")
        async with AsyncExitStack() as streams:
            for _ in range(RESUMES_MAX + 1):
                try:
                    async for event in self.events(response):
                        last = ServerEvent(b"", event.id or last.id, event.retry or last.retry)
                        if await self._hand_over(message, response, event):
                            return
                except transport_errors():
                    if not last.id or message.version:
                        raise
                if not last.id or message.version:
                    break
                await asyncio.sleep(_pause_s(last.retry))
                again = headers | {"Last-Event-ID": last.id.decode("latin-1")}
                response = await streams.enter_async_context(self._door.listen(again))
                if not self.is_events(response):
                    break
        raise Unanswered(
            "The gateway's answer stopped before its end. Whether the request was carried out is"
            " not known: check before you send it again."
        )

    async def _hand_over(
        self, message: ClientMessage, response: "httpx2.Response", event: ServerEvent
    ) -> bool:
        """Write one event to the client; True if it is the response."""
        if not event.data:
            return False
        incoming = _read(event.data)
        line = one_line(event.data)
        if incoming.method is msgspec.UNSET:
            line = _response_for(message.id, incoming, line)
            if not line:
                return False  # somebody else's answer
            self._notice(message, response, line)
        await self._out.line(line)
        return incoming.method is msgspec.UNSET

    async def _json_answer(self, message: ClientMessage, response: "httpx2.Response") -> None:
        whole = LIST_RESULT_MAX_BYTES if message.method in _READ_WHOLE else WHOLE_MAX_BYTES
        held = bytearray()
        chunks = response.aiter_raw()
        async for chunk in chunks:
            held += chunk
            if len(held) > whole:
                break
        else:
            body = one_line(bytes(held))
            line = _response_for(message.id, _read(body), body)
            if not line:
                raise Unanswered("The gateway answered another request than the one it was asked.")
            self._notice(message, response, line)
            await self._out.line(line)
            return
        async with self._out.long_line() as line_under_way:
            await line_under_way.piece(one_line(bytes(held)))
            held.clear()
            async for chunk in chunks:
                await line_under_way.piece(one_line(chunk))

    def _notice(self, message: ClientMessage, response: "httpx2.Response", said: bytes) -> None:
        """What the bridge must know before the client does."""
        if message.method == "tools/list" and message.version:
            self._learn(said)
        elif message.method == "initialize" and not message.version:
            session = answered_session(response, said)
            if session is not None:
                self._opened(message.raw, *session)

    def _learn(self, said: bytes) -> None:
        try:
            result = raw_bytes(read_incoming(said).result)
        except Nonsense:
            return
        self.declared.update(declared_by(result))
        while len(self.declared) > DECLARED_MAX:
            del self.declared[next(iter(self.declared))]


def answered_session(response: "httpx2.Response", said: bytes) -> tuple[str, str] | None:
    """(session id, negotiated version) of an initialize that succeeded, else None."""
    try:
        version = json.loads(said)["result"]["protocolVersion"]
    except (ValueError, KeyError, TypeError):
        return None
    return (response.headers.get("mcp-session-id", ""), version) if version else None


def _read(data: bytes) -> Incoming:
    try:
        return read_incoming(data)
    except Nonsense:
        raise Unanswered(
            "The gateway answered something that is no JSON-RPC message. Check the URL."
        ) from None


def _response_for(request_id: RequestId | None, incoming: Incoming, line: bytes) -> bytes:
    """The line if it answers this request; an error without id gets ours; else nothing."""
    if incoming.method is not msgspec.UNSET:
        return b""
    if type(incoming.id) is type(request_id) and incoming.id == request_id:
        return line
    if incoming.id in (None, msgspec.UNSET) and incoming.error is not msgspec.UNSET:
        return error_message(request_id, raw_bytes(incoming.error))
    return b""


async def _refused(message: ClientMessage, response: "httpx2.Response") -> bytes:
    """The JSON-RPC error in a body of any status, under this request's id.  Raises Unanswered."""
    body = await _at_most(response, REFUSAL_MAX_BYTES)
    if _media(response) == "application/json":
        try:
            incoming = read_incoming(one_line(body))
        except Nonsense:
            incoming = None
        if incoming is not None and incoming.error is not msgspec.UNSET:
            return error_message(message.id, raw_bytes(incoming.error))
    raise Unanswered(refusal(response.status_code))


async def _at_most(response: "httpx2.Response", limit_bytes: int) -> bytes:
    held = bytearray()
    async for chunk in response.aiter_raw():
        held += chunk
        if len(held) > limit_bytes:
            break
    return bytes(held[:limit_bytes])


def _media(response: "httpx2.Response") -> str:
    media: str = response.headers.get("content-type", "")
    return media.partition(";")[0].strip().lower()


def _pause_s(retry: bytes) -> float:
    return min(int(retry) / 1000, RESUME_PAUSE_MAX_S) if retry else RESUME_PAUSE_S


def transport_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What httpx2 raises when the gateway is away or the connection breaks."""
    import httpx2

    return (httpx2.HTTPError, httpx2.StreamError, *more)

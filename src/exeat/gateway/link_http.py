"""Links over streamable HTTP: modern (stateless, shared) and legacy (a session each)."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from exeat.core.errors import ExeatError, UpstreamFailed
from exeat.gateway.http1 import ResponseHead
from exeat.gateway.http_call import HttpCall
from exeat.gateway.inbound import RequestId, encode_header
from exeat.gateway.link import Handle, MessageSink, Outbound
from exeat.gateway.methods import MODERN_VERSIONS, NAME_KEY, Era
from exeat.gateway.origin import Origin
from exeat.gateway.wire import encode, notification_message, request_message

_PREFIXES_MAX: Final = 4096
REPLIES_MAX: Final = 32
"""Answers to a server's questions that are under way at a time, each on a connection of its own."""
_POSTED: Final = (
    b"accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"
)
_LISTENS: Final = b"accept: text/event-stream\r\n"


def header_lines(fields: Mapping[str, str]) -> bytes:
    """Header lines for values that are ours: credentials from the gateway's environment."""
    lines: list[bytes] = []
    for name, value in fields.items():
        if not name.replace("-", "").isalnum() or not value.isprintable() or not value.isascii():
            raise UpstreamFailed(
                f"the value for header {name!r} cannot be sent",
                remedy="use printable ASCII without line breaks in the environment variable",
            )
        lines.append(f"{name.lower()}: {value}\r\n".encode("ascii"))
    return b"".join(lines)


def _permit_line(outbound: Outbound) -> bytes:
    return b"exeat-permit: %b\r\n" % outbound.permit.encode("ascii") if outbound.permit else b""


class ModernHttpLink:
    """2026-07-28: every request stands alone.  One link serves all principals."""

    era = Era.MODERN
    isolation = "remote"
    usable = True

    def __init__(self, origin: Origin, credential: Mapping[str, str]) -> None:
        self.origin = origin
        self._base = origin.request_prefix("POST", _POSTED + header_lines(credential))
        self._prefixes: dict[tuple[str, str], bytes] = {}

    def _prefix(self, outbound: Outbound) -> bytes:
        key = (outbound.method, outbound.target)
        prefix = self._prefixes.get(key)
        if prefix is None:
            lines = (
                f"mcp-protocol-version: {MODERN_VERSIONS[-1]}\r\nmcp-method: {outbound.method}\r\n"
            )
            if outbound.method in NAME_KEY:
                lines += f"mcp-name: {encode_header(outbound.target)}\r\n"
            prefix = self._base + lines.encode("ascii")
            if len(self._prefixes) >= _PREFIXES_MAX:
                self._prefixes.clear()
            self._prefixes[key] = prefix
        return prefix

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle:
        return HttpCall(self.origin, outbound.id, outbound, sink).start(self.raw(outbound))

    def raw(self, outbound: Outbound, more: bytes = b"") -> bytes:
        """The whole HTTP request.  ``more``: further header lines."""
        body = request_message(outbound.id, outbound.method, outbound.params)
        prefix = self._prefix(outbound) + more
        if outbound.param_headers:
            prefix += b"".join(
                f"{name}: {encode_header(value)}\r\n".encode("ascii")
                for name, value in outbound.param_headers.items()
            )
        prefix += _permit_line(outbound)
        return b"%bcontent-length: %d\r\n\r\n%b" % (prefix, len(body), body)

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Clients send no notifications at this revision."""

    def reply(self, request_id: RequestId, payload: bytes) -> None:
        """Servers send no requests at this revision."""


class _Ignored:
    """A response that nobody waits for (202 to a notification); ``done`` is told that it is over."""

    def __init__(self, done: Callable[[], None] | None = None) -> None:
        self._done = done

    def response_head(self, head: ResponseHead) -> None: ...

    def response_data(self, data: bytes) -> None: ...

    def response_end(self) -> None:
        if self._done is not None:
            self._done()

    def response_failed(self, reason: str, *, sent: bool) -> None:
        self.response_end()


class LegacyHttpLink:
    """2024-11-05 … 2025-11-25: one session at the server, for one client session or principal."""

    era = Era.LEGACY
    isolation = "remote"

    def __init__(self, origin: Origin, credential: Mapping[str, str]) -> None:
        self.origin = origin
        self._credential = header_lines(credential)
        self._session = b""
        self._last = 0
        self._replying = 0
        self.usable = True

    def _head(self, method: str) -> bytes:
        kind = _POSTED if method == "POST" else _LISTENS if method == "GET" else b""
        own = self._credential + self._own()
        return self.origin.request_prefix(method, kind + own + self._session)

    def _own(self) -> bytes:
        """Header lines that may change while the session stands."""
        return b""

    def opening(
        self, outbound: Outbound, sink: MessageSink, on_head: Callable[[ResponseHead], None]
    ) -> Handle:
        """Send the request that opens the session."""
        call = HttpCall(self.origin, outbound.id, outbound, sink)
        call.on_head = on_head
        return call.start(self.raw(outbound, 0))

    def raw(self, outbound: Outbound, mine: RequestId) -> bytes:
        """The whole HTTP request."""
        body = request_message(mine, outbound.method, outbound.params)
        head = self._head("POST") + _permit_line(outbound)
        return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)

    def opened(self, session_id: str, version: str) -> None:
        """The handshake is over: the session id (may be empty) and the negotiated version."""
        lines = f"mcp-protocol-version: {version}\r\n"
        if session_id:
            lines += f"mcp-session-id: {session_id}\r\n"
        self._session = lines.encode("latin-1")

    def next_id(self) -> int:
        """Request ids are ours, so that callers who share the session cannot collide."""
        self._last += 1
        return self._last

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle:
        mine = self.next_id()
        call = HttpCall(self.origin, mine, outbound, sink, self._resume)
        call.on_head = self._watch
        return _LegacyCall(self, mine, call.start(self.raw(outbound, mine)))

    def _resume(self, last_event_id: bytes) -> bytes:
        return b"%blast-event-id: %b\r\n\r\n" % (self._head("GET"), last_event_id)

    def _watch(self, head: ResponseHead) -> None:
        if head.status == 404:  # the server forgot the session
            self.usable = False

    def listen(self, sink: MessageSink) -> Handle:
        """Open the stream for what the server says outside of any call."""
        call = HttpCall(self.origin, -1, Outbound(-1, "GET", {}), sink, self._resume)
        return call.start(self._head("GET") + b"\r\n")

    def _post(self, body: bytes) -> None:
        raw = b"%bcontent-length: %d\r\n\r\n%b" % (self._head("POST"), len(body), body)
        self.origin.send(raw, _Ignored())

    def notify(self, method: str, params: dict[str, Any]) -> None:
        self._post(notification_message(method, encode(params)))

    def reply(self, request_id: RequestId, payload: bytes) -> None:
        if self._replying >= REPLIES_MAX:  # a flood of questions: this server is not to be trusted
            self.usable = False
            return
        self._replying += 1
        raw = b"%bcontent-length: %d\r\n\r\n%b" % (self._head("POST"), len(payload), payload)
        self.origin.send(raw, _Ignored(self._replied))

    def _replied(self) -> None:
        self._replying -= 1

    def close(self) -> None:
        """End the session at the server."""
        if self.usable and b"mcp-session-id" in self._session:
            self.usable = False
            self.origin.send(self._head("DELETE") + b"content-length: 0\r\n\r\n", _Ignored())
        self.usable = False


class _LegacyCall:
    """A legacy request under way: giving up tells the server (2025-11-25, Cancellation)."""

    __slots__ = ("_call", "_id", "_link")

    def __init__(self, link: LegacyHttpLink, request_id: int, call: Handle) -> None:
        self._link, self._id, self._call = link, request_id, call

    def cancel(self) -> None:
        self._link.notify(
            "notifications/cancelled", {"requestId": self._id, "reason": "the client gave up"}
        )
        self._call.cancel()

    def pause(self) -> None:
        self._call.pause()

    def resume(self) -> None:
        self._call.resume()


class Collector:
    """A sink that turns one request into a future: for handshakes, probes and lists."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[tuple[str, bytes]] = loop.create_future()
        self.sent = False

    def _end(self, kind: str, data: bytes) -> None:
        if not self.future.done():
            self.future.set_result((kind, data))

    def link_notification(self, method: str, params: bytes) -> None: ...

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None: ...

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None:
        self._end("failed", b"answered in pieces")

    def link_result(self, result: bytes) -> None:
        self._end("result", result)

    def link_error(self, error: bytes, status: int) -> None:
        self._end("error", error)

    def link_unauthorized(self, error: ExeatError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self.sent = sent
        self._end("failed", reason.encode())

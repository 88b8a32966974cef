"""One request over streamable HTTP: its response, JSON or event stream, read into messages."""

import asyncio
from collections.abc import Callable
from typing import Final

from exeat.core.limits import RESULT_BUFFER_BYTES
from exeat.core.strictjson import MalformedJson, parse
from exeat.gateway.http1 import ResponseHead
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import MessageSink, Outbound, deliver
from exeat.gateway.origin import Origin, Sending
from exeat.gateway.scan import MalformedAnswer, ResultScanner
from exeat.gateway.sse import EventParser, MalformedStream
from exeat.gateway.wire import Nonsense, read_incoming

EVENT_MAX_BYTES: Final = 16 * 1024 * 1024
RESUMES_MAX: Final = 20
RETRY_DEFAULT_MS: Final = 500
RETRY_MAX_MS: Final = 5_000


class HttpCall:
    """Feeds one sink.  ``resume``: builds the GET that continues a legacy stream after an event id;
    None where streams are not resumable (modern)."""

    __slots__ = (
        "_buffer", "_events", "_expected", "_head", "_last_id", "_limit", "_may_stream", "_origin",
        "_resume", "_resumes", "_retry_ms", "_scanner", "_sending", "_sink", "_size", "_timer",
        "on_head",
    )  # fmt: skip

    def __init__(
        self,
        origin: Origin,
        expected: RequestId,
        outbound: Outbound,
        sink: MessageSink,
        resume: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._origin = origin
        self._expected = expected
        self._sink: MessageSink | None = sink
        self._sending: Sending | None = None
        self._head: ResponseHead | None = None
        self._events: EventParser | None = None
        self._scanner: ResultScanner | None = None
        self._buffer: list[bytes] = []
        self._size = 0
        self._may_stream = outbound.may_stream
        self._limit = outbound.result_max_bytes or RESULT_BUFFER_BYTES
        self._resume = resume
        self._resumes = 0
        self._last_id = b""
        self._retry_ms = RETRY_DEFAULT_MS
        self._timer: asyncio.TimerHandle | None = None
        self.on_head: Callable[[ResponseHead], None] | None = None

    def start(self, raw: bytes) -> "HttpCall":
        sending = self._origin.send(raw, self)
        if self._sink is not None:
            self._sending = sending
        return self

    # ---- Handle

    def cancel(self) -> None:
        self._sink = None
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def pause(self) -> None:
        if self._sending is not None:
            self._sending.pause()

    def resume(self) -> None:
        if self._sending is not None:
            self._sending.resume()

    # ---- ResponseSink

    def response_head(self, head: ResponseHead) -> None:
        self._head = head
        if self.on_head is not None:
            self.on_head(head)
        if head.status == 200 and head.media_type == "text/event-stream":
            self._events = EventParser(EVENT_MAX_BYTES)

    def response_data(self, data: bytes) -> None:
        if self._events is not None:
            self._feed_events(self._events, data)
        elif self._scanner is not None:
            self._feed_scanner(self._scanner, data)
        else:
            self._size += len(data)
            self._buffer.append(data)
            if self._size > self._limit:
                self._overflow()

    def response_end(self) -> None:
        self._sending = None
        sink, head = self._sink, self._head
        if sink is None or head is None:
            return
        if self._events is not None:
            self._stream_ended("ended its event stream without an answer")
        elif self._scanner is not None:
            self._end_scanner(self._scanner, sink)
        else:
            self._whole(sink, head)

    def response_failed(self, reason: str, *, sent: bool) -> None:
        self._sending = None
        if self._sink is not None and self._events is not None and self._last_id:
            self._stream_ended(reason)
            return
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.link_failed(reason, sent=sent or self._resumes > 0)

    # ---- reading

    def _fail(self, reason: str) -> None:
        sink = self._sink
        self.cancel()
        if sink is not None:
            sink.link_failed(reason, sent=True)

    def _stream_ended(self, reason: str) -> None:
        """A legacy server may close a stream early; it is continued after the last event id."""
        if self._resume is None or not self._last_id or self._resumes >= RESUMES_MAX:
            self._fail(reason)
            return
        self._resumes += 1
        self._head = self._events = None
        raw = self._resume(self._last_id)
        loop = self._origin.loop
        self._timer = loop.call_later(self._retry_ms / 1000, self._continue, raw)

    def _continue(self, raw: bytes) -> None:
        if self._sink is not None:
            self.start(raw)

    def _overflow(self) -> None:
        head = self._head
        streamable = (
            head is not None and head.status == 200 and head.media_type == "application/json"
        )
        if not self._may_stream or not streamable:
            self._fail(f"sent an answer larger than {self._limit} bytes")
            return
        self._scanner = ResultScanner()
        kept, self._buffer = b"".join(self._buffer), []
        self._feed_scanner(self._scanner, kept)

    def _feed_scanner(self, scanner: ResultScanner, data: bytes) -> None:
        try:
            piece = scanner.feed(data)
            if scanner.result_type not in (b"", b"complete"):
                raise MalformedAnswer("an answer of another type, too large to be decided on")
        except MalformedAnswer as broken:
            self._fail(f"answered nonsense ({broken})")
            return
        if piece and self._sink is not None:
            self._sink.link_piece(piece)

    def _end_scanner(self, scanner: ResultScanner, sink: MessageSink) -> None:
        self._sink = None
        if not scanner.done or b"result" not in scanner.members:
            sink.link_failed("ended in the middle of its answer", sent=True)
        elif not _same_id(scanner.id, self._expected):
            sink.link_failed("answered for another request", sent=True)
        else:
            sink.link_result_end("complete")

    def _whole(self, sink: MessageSink, head: ResponseHead) -> None:
        self._sink = None
        body = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        if head.media_type != "application/json":
            sink.link_failed(f"answered with HTTP status {head.status} and no JSON", sent=True)
            return
        try:
            message = read_incoming(body)
        except Nonsense as broken:
            sink.link_failed(f"answered nonsense ({broken})", sent=True)
            return
        if not deliver(sink, message, self._expected, head.status):
            sink.link_failed("answered with a request", sent=True)

    def _feed_events(self, parser: EventParser, data: bytes) -> None:
        try:
            events = parser.feed(data)
            for event in events:
                if self._sink is None:
                    return
                if event.id:
                    self._last_id = event.id
                if event.retry:
                    self._retry_ms = min(int(event.retry[:9]), RETRY_MAX_MS)
                if event.data:
                    self._message(event.data)
        except MalformedStream as broken:
            self._fail(f"sent a malformed event stream ({broken})")
        except Nonsense as broken:
            self._fail(f"answered nonsense ({broken})")

    def _message(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            return
        message = read_incoming(data)
        if type(message.method) is not str:
            self._sink = None
        if deliver(sink, message, self._expected):
            sending, self._sending = self._sending, None
            if sending is not None:
                sending.let_end()


def _same_id(raw: bytes, expected: RequestId) -> bool:
    """In value and type, however a string is spelt."""
    try:
        found = parse(raw)
    except MalformedJson:
        return False
    return type(found) is type(expected) and bool(found == expected)

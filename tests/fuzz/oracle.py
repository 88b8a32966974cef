"""One connection of the edge, and one of the pool, against two other readers (GW-14, GW-13).

Each check takes bytes and nothing else: how they are cut, when answers leave and when the client
is slow follow from the bytes, so that an input alone repeats what it found.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from fuzz.readers import Message, llhttp_requests, llhttp_responses, slow_requests
from worlds import Wire

from exeat.gateway.connection import PIPELINED_MAX_BYTES, Connection
from exeat.gateway.edge import Edge
from exeat.gateway.http1 import RequestHead, ResponseHead
from exeat.gateway.origin import Origin, UpstreamConnection
from exeat.gateway.settings import GatewaySettings

BODY_MAX: Final = 1000
LIMITS: Final = GatewaySettings(request_body_max_bytes=BODY_MAX)
NEXT_REQUEST: Final = b"GET /next HTTP/1.1\r\nHost: localhost\r\n\r\n"
NEXT_RESPONSE: Final = b"HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n"


class Found(AssertionError):
    """A reader disagrees, an answer is out of order, or something grows."""


def must(holds: bool, what: str) -> None:
    if not holds:
        raise Found(what)


class Turns:
    """A loop in which time stands still and every turn is taken by hand."""

    def __init__(self) -> None:
        self.later: list[Callable[[], None]] = []

    def time(self) -> float:
        return 0.0

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        return None

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.later.append(callback)

    def run(self) -> None:
        while self.later:
            self.later.pop(0)()


class Line(Wire):
    """A wire that can be full in either direction."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Waiting:
    """An exchange that answers when it is its turn."""

    def __init__(self, answer: Callable[[], None]) -> None:
        self.answer = answer

    def client_gone(self) -> None: ...

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


class Session:
    """A client's connection; ``mood`` decides which requests are answered at once."""

    def __init__(self, mood: random.Random, *, patient: bool) -> None:
        self.turns = Turns()
        loop: Any = self.turns
        self.edge = Edge(self._dispatch, LIMITS, loop)
        self.connection, self.line = Connection(self.edge), Line()
        self.mood, self.patient = mood, patient
        self.seen: list[Message] = []
        self.waiting: list[Callable[[], None]] = []
        self.connection.connection_made(self.line)

    def _dispatch(self, connection: Connection, head: RequestHead, body: bytes) -> Waiting | None:
        must(not self.waiting, "a request was handed over before the last was answered")
        must(len(body) <= BODY_MAX, "a body over the limit")
        self.seen.append(
            Message((head.method, head.path), tuple(sorted(head.fields.items())), body)
        )
        number = len(self.seen)
        streamed = self.mood.random() < 0.2

        def answer() -> None:
            if streamed:
                connection.start(200, b"text/plain")
                connection.piece(b"%d" % number)
                connection.finish()
            else:
                connection.respond(200, b"text/plain", b"%d" % number)

        if self.patient and self.mood.random() < 0.5:
            self.waiting.append(answer)
            return Waiting(answer)
        answer()
        return None

    def settle(self) -> None:
        """Answer whatever waits, until nothing moves."""
        self.turns.run()
        while self.waiting:
            self.waiting.pop()()
            self.turns.run()

    def feed(self, piece: bytes) -> None:
        if self.line.closed:
            return
        if not self.line.reading:
            self.settle()
            must(self.line.reading, "reading was never resumed")
            if self.line.closed:
                return
        self.connection.data_received(piece)
        if self.mood.random() < 0.7:
            self.turns.run()
        kept = len(self.connection._buffer)
        must(kept <= PIPELINED_MAX_BYTES + len(piece), "the buffer grows")
        must(self.edge.held_bytes <= BODY_MAX, "the body grows")

    def hesitate(self) -> None:
        """The client's side is full for a while, or answers leave."""
        if not self.patient or self.line.closed:
            return
        chance = self.mood.random()
        if chance < 0.1:
            self.connection.pause_writing()
        elif chance < 0.3:
            self.connection.resume_writing()
        elif chance < 0.5:
            self.settle()

    def end(self) -> None:
        if not self.line.closed:
            self.connection.resume_writing()
        self.settle()

    def answers(self) -> list[Message]:
        messages, _ = llhttp_responses(self.line.written)
        return messages


def cuts(data: bytes, mood: random.Random) -> Iterator[bytes]:
    mean = mood.choice((1, 3, 10, 50, 1000))
    at = 0
    while at < len(data):
        step = 1 + int(mood.expovariate(1 / mean))
        yield data[at : at + step]
        at += step


def _session(data: bytes, mood: random.Random, *, whole: bool) -> Session:
    session = Session(mood, patient=not whole)
    for piece in [data] if whole and data else cuts(data, mood):
        session.feed(piece)
        session.hesitate()
    session.end()
    return session


def _check_answers(session: Session) -> None:
    answers, seen = session.answers(), session.seen
    refused = session.edge.refused
    must(refused <= 1, "refused twice")
    must(len(answers) == len(seen) + refused, "not one answer to each request")
    told = [answer.body for answer in answers[: len(seen)]]
    must(told == [b"%d" % (n + 1) for n in range(len(seen))], "answers out of order")
    must(session.line.over or not refused, "open after a refusal")


def requests(data: bytes) -> None:
    """Raises Found."""
    mood = random.Random(zlib.crc32(data))
    whole, cut = (_session(data, mood, whole=each) for each in (True, False))
    for session in (whole, cut):
        _check_answers(session)
    must(whole.seen == cut.seen, "how the bytes are cut makes other requests of them")
    must(whole.edge.refused == cut.edge.refused, "how the bytes are cut decides a refusal")
    seen, closed = whole.seen, whole.line.over
    must(slow_requests(data)[: len(seen)] == seen, "the slow reader reads other requests")
    must(llhttp_requests(data)[: len(seen)] == seen, "llhttp reads other requests")
    if not closed:
        must(slow_requests(data) == seen, "a whole request was not served")
    idle = not closed and whole.connection.idle and not whole.connection._buffer
    if idle and (whole.edge.held_bytes == 0):
        whole.feed(NEXT_REQUEST)
        whole.settle()
        must(len(whole.seen) == len(seen), "seen is one list")
        must(whole.seen[-1].start == ("GET", "/next"), "the next request is not read as one")
        must(llhttp_requests(data + NEXT_REQUEST) == whole.seen, "llhttp reads another next one")
    for session in (whole, cut):
        session.connection.timed_out()
        session.connection.connection_lost(None)
        must(session.edge.held_bytes == 0, "bytes of a body are counted for ever")


class Taken:
    """A sink that keeps what it is given, and knows the order of things."""

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.ends: list[str] = []

    def response_head(self, head: ResponseHead) -> None:
        must(self.head is None and not self.ends, "two heads")
        self.head = head

    def response_data(self, data: bytes) -> None:
        must(self.head is not None and not self.ends, "data without a head, or after the end")
        self.body += data

    def response_end(self) -> None:
        must(self.head is not None and not self.ends, "an end out of order")
        self.ends.append("whole")

    def response_failed(self, reason: str, *, sent: bool) -> None:
        must(not self.ends, "failed after its end")
        self.ends.append("failed")


_LOOP: Any = Turns()
_ORIGIN: Final = Origin("http://127.0.0.1:1/", _LOOP)


def _response(data: bytes, pieces: Iterator[bytes]) -> tuple[Taken, bool]:
    """What was taken, and whether the connection would serve again."""
    _ORIGIN._idle.clear()
    connection, taken, wire = UpstreamConnection(_ORIGIN), Taken(), Wire()
    connection.connection_made(wire)
    connection.send(b"", taken)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
        must(len(connection._buffer) <= 33 * 1024, "the buffer of a response grows")
    reusable = bool(_ORIGIN._idle) and connection.open
    if reusable:
        second = Taken()
        _ORIGIN._idle.clear()
        connection.send(b"", second)
        connection.data_received(NEXT_RESPONSE)
        right = second.head is not None and second.head.status == 299 and second.ends == ["whole"]
        must(right, "the next response is not read as one")
    connection.connection_lost(None)
    must(len(taken.ends) == 1, "a response without its end")
    return taken, reusable


def responses(data: bytes) -> None:
    """Raises Found."""
    mood = random.Random(zlib.crc32(data))
    whole, again = _response(data, iter([data]))
    cut, cut_again = _response(data, cuts(data, mood))
    must(whole.ends == cut.ends, "how the bytes are cut decides whether the response is whole")
    must(again == cut_again, "how the bytes are cut decides whether the connection is clean")
    if whole.ends == ["failed"]:
        return
    must(whole.body == cut.body, "how the bytes are cut makes another body of them")
    head = whole.head
    if head is None or head.length == -2:
        must(not again, "a response until close, and the connection serves again")
        return
    messages, keep = llhttp_responses(data + NEXT_RESPONSE)
    must(bool(messages), "llhttp reads no response")
    read = messages[0]
    must(read.start == (str(head.status),), "llhttp reads another status")
    must(read.body == whole.body, "llhttp reads another body")
    must(dict(read.fields) == head.fields, "llhttp reads other fields")
    if again:
        must(keep[0], "llhttp would not keep the connection")
        must([m.start for m in messages[1:]] == [("299",)], "llhttp reads another next response")


CHECKS: Final = {"requests": requests, "responses": responses}

"""Server-sent events (WHATWG HTML, section 9.2), as MCP's streams use them.  Pure."""

from dataclasses import dataclass
from typing import Final

FIELD_MAX_BYTES: Final = 4096


class MalformedStream(ValueError):
    """The event stream breaks its grammar or its limits."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """``data``: the JSON text, empty for a priming event.  ``id``, ``retry``: as sent, or empty."""

    data: bytes
    id: bytes = b""
    retry: bytes = b""


class EventParser:
    """Incremental: ``feed`` bytes, get whole events.  ``event_max_bytes`` bounds what is kept."""

    __slots__ = ("_data", "_id", "_kept", "_max", "_parts", "_retry", "_seen", "_size")

    def __init__(self, event_max_bytes: int) -> None:
        self._max = event_max_bytes
        self._parts: list[bytes] = []
        self._kept = 0
        self._reset()

    def _reset(self) -> None:
        self._data: list[bytes] = []
        self._id = self._retry = b""
        self._seen = False
        self._size = 0

    @property
    def partial(self) -> bool:
        """True in the middle of an event."""
        return bool(self._parts) or self._seen

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        ended = bool(self._parts) and self._parts[-1].endswith(b"\r")
        if not ended and b"\n" not in chunk and b"\r" not in chunk:  # the middle of a long line
            self._parts.append(chunk)
            self._kept += len(chunk)
            if self._size + self._kept > self._max + FIELD_MAX_BYTES:
                raise MalformedStream(f"an event is larger than {self._max} bytes")
            return []
        data = b"".join((*self._parts, chunk)) if self._parts else chunk
        if b"\r" in data:
            held = data.endswith(b"\r")
            body = data[:-1] if held else data
            data = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + (b"\r" if held else b"")
        *lines, rest = data.split(b"\n")
        self._parts = [rest] if rest else []
        self._kept = len(rest)
        if self._size + self._kept > self._max + FIELD_MAX_BYTES:
            raise MalformedStream(f"an event is larger than {self._max} bytes")
        events: list[ServerEvent] = []
        for line in lines:
            if line:
                self._line(line)
            elif self._seen:
                events.append(ServerEvent(b"\n".join(self._data), self._id, self._retry))
                self._reset()
        return events

    def _line(self, line: bytes) -> None:
        if line[:1] == b":":
            return
        name, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if name == b"data":
            self._size += len(value) + 1  # an empty line is kept too
            if self._size > self._max:
                raise MalformedStream(f"an event is larger than {self._max} bytes")
            self._data.append(value)
            self._seen = True
        elif name in (b"id", b"retry") and len(value) <= FIELD_MAX_BYTES and b"\0" not in value:
            self._seen = True
            if name == b"id":
                self._id = value
            elif value.isdigit():
                self._retry = value


def render(data: bytes, event_id: bytes = b"", retry: bytes = b"") -> bytes:
    """One event.  ``data`` is one JSON text, or empty; line breaks in JSON are only white space."""
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    head = b""
    if event_id:
        head += b"id: %b\n" % event_id
    if retry:
        head += b"retry: %b\n" % retry
    return b"%bevent: message\ndata: %b\n\n" % (head, data) if data else b"%bdata: \n\n" % head


KEEP_ALIVE: Final = b": keep-alive\n\n"

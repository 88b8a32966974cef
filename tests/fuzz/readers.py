"""Two other readers of HTTP/1.1, to compare the edge and the pool with: llhttp, and a slow one of our own."""

import re
from dataclasses import dataclass
from typing import Any, Final

import httptools

_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True)
class Message:
    """``start``: method and path, or the status.  Repeated fields joined by ``", "``."""

    start: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    body: bytes


class _Llhttp:
    """Collects the messages that were read to their end."""

    parser: Any

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.keep: list[bool] = []
        self.on_message_begin()

    def on_message_begin(self) -> None:
        self.url = self.body = b""
        self.fields: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        self.fields[key] = f"{self.fields[key]}, {text}" if key in self.fields else text

    def on_headers_complete(self) -> None:
        """Trailers are told as header lines too; they are no part of the head."""
        self.head_fields = dict(self.fields)
        self.alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def start(self) -> tuple[str, ...]:
        return (self.parser.get_method().decode(), self.url.decode("latin-1"))

    def on_message_complete(self) -> None:
        fields = tuple(sorted(self.head_fields.items()))
        self.messages.append(Message(self.start(), fields, self.body))
        self.keep.append(self.alive)


class _LlhttpResponses(_Llhttp):
    def start(self) -> tuple[str, ...]:
        return (str(self.parser.get_status_code()),)


def _read(reader: _Llhttp, parser: Any, raw: bytes) -> _Llhttp:
    reader.parser = parser
    try:
        parser.feed_data(raw)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        pass
    return reader


def llhttp_requests(raw: bytes) -> list[Message]:
    """Up to where llhttp finds a fault."""
    reader = _Llhttp()
    return _read(reader, httptools.HttpRequestParser(reader), raw).messages


def llhttp_responses(raw: bytes) -> tuple[list[Message], list[bool]]:
    """Final answers, and whether the connection stays after each."""
    reader = _LlhttpResponses()
    _read(reader, httptools.HttpResponseParser(reader), raw)
    both = list(zip(reader.messages, reader.keep, strict=True))
    final = [(message, keep) for message, keep in both if not message.start[0].startswith("1")]
    return [message for message, _ in final], [keep for _, keep in final]


def _chunks(raw: bytes, at: int) -> tuple[bytes, int] | None:
    body = b""
    while True:
        end = raw.find(b"\r\n", at)
        if end < 0 or not _HEX.fullmatch(raw[at:end]):
            return None
        size = int(raw[at:end], 16)
        at = end + 2
        if raw[at + size : at + size + 2] != b"\r\n":
            return None
        body += raw[at : at + size]
        at += size + 2
        if size == 0:
            return body, at


def slow_requests(raw: bytes) -> list[Message]:
    """Whole requests from the start, as RFC 9112 reads them without any leniency in framing."""
    found: list[Message] = []
    at = 0
    while (end := raw.find(b"\r\n\r\n", at)) >= 0:
        first, *lines = raw[at:end].decode("latin-1").split("\r\n")
        words = first.split(" ")
        fields: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                return found
            key, text = name.lower(), value.strip(" \t")
            fields[key] = f"{fields[key]}, {text}" if key in fields else text
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        body, at = b"", end + 4
        if coding is not None:
            whole = _chunks(raw, at) if length is None and coding.lower() == "chunked" else None
            if whole is None:
                return found
            body, at = whole
        elif length is not None:
            if not re.fullmatch("[0-9]+", length) or int(length) > len(raw) - at:
                return found
            body, at = raw[at : at + int(length)], at + int(length)
        if len(words) != 3:
            return found
        found.append(Message((words[0], words[1]), tuple(sorted(fields.items())), body))
    return found

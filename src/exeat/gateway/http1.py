"""HTTP/1.1 heads and bodies, strictly (RFC 9112).  Pure: bytes in, values out.

Two parsers must agree on every head that was not seen before: our own line grammar and llhttp
(httptools).  What either refuses is refused.  Parsed lines and whole heads are kept in bounded
caches: keep-alive clients repeat their heads byte for byte, so the hot path is one look-up, and a
cached head never differs from a parsed one (GW-14).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import httptools

from exeat.core.limits import HEADER_BLOCK_MAX_BYTES, HEADER_LINES_MAX

T = TypeVar("T")
CACHED_HEADS_MAX: Final = 4096
CACHED_LINES_MAX: Final = 8192
CACHED_LINE_BYTES: Final = 512
CACHED_HEAD_BYTES: Final = 2048
_LINE: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*"
    rb"[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,2048}) HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?")
_PATH: Final = re.compile(rb"/[A-Za-z0-9._~\-/]*")
_WELL_KNOWN: Final = b"/.well-known"
"""RFC 8615; the only name that may begin with a dot."""
_SINGLE: Final = frozenset(
    {
        b"host", b"content-length", b"transfer-encoding", b"content-type", b"authorization",
        b"origin", b"mcp-session-id", b"mcp-protocol-version", b"mcp-method", b"mcp-name",
        b"last-event-id", b"dpop", b"expect", b"upgrade", b"content-encoding",
    }
)  # fmt: skip


class BadHead(ValueError):
    """The head is malformed or ambiguous.  ``status``: the HTTP status to answer with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, eq=False)
class RequestHead:
    """A request's head.  ``fields``: lower-case name → value; repeated ones joined by ``", "``.

    ``length``: bytes of the body, or -1 if it is chunked.  ``routing_repeated``: the MCP routing
    field that came more than once, or empty (answered per MCP, with −32020).  ``size``: bytes.
    """

    method: str
    path: str
    fields: dict[str, str]
    length: int
    keep_alive: bool
    routing_repeated: str
    expects_continue: bool
    size: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ResponseHead:
    """A response's head.  ``length``: bytes of the body, -1 if chunked, -2 if until close."""

    status: int
    fields: dict[str, str]
    length: int
    keep_alive: bool
    media_type: str


_lines: dict[bytes, tuple[bytes, bytes]] = {}
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


def _field(line: bytes) -> tuple[bytes, bytes]:
    known = _lines.get(line)
    if known is None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadHead("malformed header line")
        if b"\t" in line and match.group(1).lower() in _FRAMING:
            raise BadHead("a tab in a field that frames: others read it another way")
        known = (match.group(1).lower(), match.group(2))
        if len(line) <= CACHED_LINE_BYTES:
            if len(_lines) >= CACHED_LINES_MAX:
                _lines.clear()
            _lines[line] = known
    return known


def _fields(lines: list[bytes]) -> tuple[dict[str, str], str]:
    """Fold header lines; refuse repeated singletons.  Second value: a repeated MCP routing field."""
    if len(lines) > HEADER_LINES_MAX:
        raise BadHead("too many header lines", 431)
    fields: dict[str, str] = {}
    repeated = ""
    for line in lines:
        raw_name, raw_value = _field(line)
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        if name in fields:
            if name.startswith("mcp-") and name != "mcp-session-id":
                repeated = repeated or name
            elif raw_name in _SINGLE:
                raise BadHead(f"{name} appears more than once")
            fields[name] = f"{fields[name]}, {value}"
        else:
            fields[name] = value
    return fields, repeated


def _framing(fields: dict[str, str], absent: int) -> int:
    """RFC 9112 section 6.3, without the lenient arms: -1 for chunked, else the length."""
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise BadHead("both Content-Length and Transfer-Encoding")
        if coding.lower() != "chunked":
            raise BadHead("unsupported Transfer-Encoding", 501)
        return -1
    if length is None:
        return absent
    if not length.isascii() or not length.isdigit() or len(length) > 15:
        raise BadHead("malformed Content-Length")
    return int(length)


def _options(fields: dict[str, str]) -> str:
    """What the sender says of the connection; llhttp heeds the proxies' old spelling, so we do."""
    old = fields.get("proxy-connection")
    said = fields.get("connection", "")
    return (said if old is None else f"{said}, {old}").lower()


class _Oracle:
    """Collects what llhttp reads, to be compared with our own reading."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.url = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.names.append(name.lower())


def _agree_request(block: bytes, lines: list[bytes], method: bytes, path: bytes) -> None:
    oracle = _Oracle()
    parser = httptools.HttpRequestParser(oracle)
    try:
        parser.feed_data(block + b"\r\n\r\n")
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        raise BadHead("malformed request") from None
    seen = [line.partition(b":")[0].lower() for line in lines]
    if parser.get_method() != method or oracle.url != path or oracle.names != seen:
        raise BadHead("ambiguous request")


def parse_request_head(block: bytes) -> RequestHead:
    """Parse a head without its final blank line.  Raises BadHead."""
    if len(block) > HEADER_BLOCK_MAX_BYTES:
        raise BadHead("header block too large", 431)
    if b"\n" in block.replace(b"\r\n", b"") or b"\r" in block.replace(b"\r\n", b""):
        raise BadHead("bare CR or LF")
    first, *lines = block.split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadHead("malformed request line")
    method, path, minor = match.groups()
    below = path[len(_WELL_KNOWN) :] if path.startswith(_WELL_KNOWN) else path
    if not _PATH.fullmatch(path) or b"//" in path or b"/." in below:
        raise BadHead("only plain absolute paths are served, without query, dots or percent signs")
    fields, repeated = _fields(lines)
    if method == b"HEAD":  # its answer has no body, which nothing behind the edge knows of
        raise BadHead("HEAD is not served", 405)
    if minor == b"0":
        raise BadHead("HTTP/1.0 is not served", 505)
    if not fields.get("host"):
        raise BadHead("missing Host")
    options = _options(fields)
    if "upgrade" in fields or "upgrade" in options:
        raise BadHead("Upgrade is not served")
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise BadHead("Content-Encoding is not served", 415)
    expect = fields.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise BadHead("unknown expectation", 417)
    length = _framing(fields, 0)
    _agree_request(block, lines, method, path)
    return RequestHead(
        method.decode("ascii"),
        path.decode("ascii"),
        fields,
        length,
        "close" not in options,
        repeated,
        expect is not None,
        len(block),
    )


def parse_response_head(block: bytes) -> ResponseHead:
    """Parse an upstream's head without its final blank line.  Raises BadHead."""
    if len(block) > HEADER_BLOCK_MAX_BYTES:
        raise BadHead("header block too large")
    first, *lines = block.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise BadHead("malformed status line")
    status = int(match.group(2))
    fields, _ = _fields(lines)
    length = _framing(fields, -2)  # a malformed one is refused even where no body can follow
    if status < 200 or status in (204, 304):
        length = 0
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise BadHead("compressed answer that was not asked for")
    keep = match.group(1) == b"1" and "close" not in _options(fields) and length != -2
    media = fields.get("content-type", "").partition(";")[0].strip().lower()
    return ResponseHead(status, fields, length, keep, media)


class HeadCache(Generic[T]):
    """Whole heads by their bytes, kept from second sight on; bounded."""

    __slots__ = ("_known", "_once", "_parse")

    def __init__(self, parse: Callable[[bytes], T]) -> None:
        self._parse = parse
        self._known: dict[bytes, T] = {}
        self._once: set[int] = set()

    def __call__(self, block: bytes) -> T:
        """The parsed head of ``block``.  Raises BadHead."""
        if len(block) > CACHED_HEAD_BYTES:
            return self._parse(block)
        head = self._known.get(block)
        if head is not None:
            return head
        head = self._parse(block)
        mark = hash(block)
        if mark in self._once:
            if len(self._known) >= CACHED_HEADS_MAX:
                self._known.clear()
            self._known[block] = head
        else:
            if len(self._once) >= CACHED_HEADS_MAX:
                self._once.clear()
            self._once.add(mark)
        return head


_CHUNK_LINE_MAX_BYTES: Final = 64
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_CHUNK_SIZE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,8})(?:;%b(?:=(?:%b|\"[ !#-\[\]-~]*\"))?)*" % (_TOKEN, _TOKEN)
)
_NO_TRAILER: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade"}
)
"""Fields that frame a message or speak of its connection (RFC 9110, section 6.5.1)."""
_TRAILER_MAX_BYTES: Final = 4096


class BadChunk(ValueError):
    """The chunked body is malformed."""


class ChunkedDecoder:
    """Incremental chunked decoding (RFC 9112 section 7.1).

    ``strict`` (requests) refuses chunk extensions and trailers; responses may carry them and they
    are dropped.  ``feed`` returns the data decoded so far; ``done`` tells that the last chunk was
    read, and ``surplus`` holds what followed it.
    """

    __slots__ = ("_buffer", "_left", "_state", "_trailer", "done", "strict", "surplus")

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.done = False
        self.surplus = b""
        self._buffer = b""
        self._left = 0
        self._trailer = 0
        self._state = 0  # 0 size line, 1 data, 2 CRLF after data, 3 trailers

    def feed(self, data: bytes) -> bytes:
        """Linear in ``data``, however small its chunks are."""
        out: list[bytes] = []
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        at, size = 0, len(data)
        while at < size and not self.done:
            if self._state == 1:
                stop = min(at + self._left, size)
                out.append(data[at:stop])
                self._left -= stop - at
                at = stop
                if self._left == 0:
                    self._state = 2
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._keep(data[at:])
                break
            self._line(data[at:end])
            at = end + 2
        if self.done:
            self.surplus = data[at:]
        return b"".join(out) if len(out) != 1 else out[0]

    def _keep(self, data: bytes) -> None:
        limit = _TRAILER_MAX_BYTES if self._state == 3 else _CHUNK_LINE_MAX_BYTES
        if len(data) > limit or b"\n" in data:
            raise BadChunk("malformed chunk line")
        self._buffer = data

    def _line(self, line: bytes) -> None:
        if self._state == 2:
            if line:
                raise BadChunk("chunk longer than its size")
            self._state = 0
        elif self._state == 3:
            if not line:
                self.done = True
                return
            self._trailer += len(line) + 2
            field = None if self.strict else _LINE.fullmatch(line)
            if field is None or self._trailer > _TRAILER_MAX_BYTES:
                raise BadChunk("trailers that are malformed, too large or not served")
            if field[1].lower() in _NO_TRAILER:
                raise BadChunk("a trailer that frames")
        else:
            match = _CHUNK_SIZE.fullmatch(line) if len(line) <= _CHUNK_LINE_MAX_BYTES else None
            if match is None or (self.strict and b";" in line):
                raise BadChunk("malformed chunk size")
            self._left = int(match.group(1), 16)
            self._state = 1 if self._left else 3

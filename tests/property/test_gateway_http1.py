"""Two readers never disagree on a head that the edge accepts; bodies do not depend on their pieces (GW-14)."""

from typing import Any

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requirements import requirement

from exeat.gateway.http1 import (
    BadChunk,
    BadHead,
    ChunkedDecoder,
    HeadCache,
    RequestHead,
    parse_request_head,
    parse_response_head,
)

_NAMES = st.sampled_from(
    [b"Host", b"host", b"X-A", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade",
     b"Mcp-Name", b"MCP-Method", b"Expect", b"Accept", b"Cookie", b"x a", b"", b"x\x00", b"X\xe9"]
)  # fmt: skip
_VALUES = st.sampled_from(
    [b"a", b" a", b"a ", b"\ta\t", b"", b"0", b"3", b"03", b"chunked", b"Chunked", b"close",
     b"keep-alive, close", b"a b", b"a\tb", b"\xe9", b"\x7f", b"100-continue", b"a,b", b"upgrade"]
)  # fmt: skip
_LINES = st.builds(
    lambda n, s, v: n + s + v, _NAMES, st.sampled_from([b":", b": ", b" :"]), _VALUES
)
_FIRST = st.builds(
    lambda m, s, p, v: m + s + p + s + v,
    st.sampled_from([b"GET", b"POST", b"DELETE", b"HEAD", b"PATCH", b"CONNECT", b"get", b"M-SEARCH",
                     b"PURGE", b"QUERY", b"SOURCE", b"PRI", b"TRACE", b"A" * 17]),
    st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"]),
    st.sampled_from([b"/", b"/mcp", b"/mcp/up", b"//", b"/a/../b", b"/%2e", b"*", b"http://h/", b"h:1",
                     b"/mcp?", b"/~a.b", b"/.well-known", b""]),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""]),
)  # fmt: skip
_HEADS = st.builds(
    lambda first, lines, end: end.join([first, *lines]),
    _FIRST,
    st.lists(_LINES, max_size=6).map(lambda lines: [b"Host: a", *lines]),
    st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r", b"\r\n "]),
)


def parts(head: RequestHead) -> dict[str, Any]:
    return {name: getattr(head, name) for name in RequestHead.__slots__}


@requirement("GW-14")
@given(_HEADS | st.binary(max_size=200))
@example(b"CONNECT /x HTTP/1.1\r\nHost: a")
@example(b"GET / HTTP/1.1\r\nHost: a\r\nConnection:close")
@example(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked")
def test_what_is_accepted_llhttp_reads_identically(block: bytes) -> None:
    try:
        head = parse_request_head(block)
    except BadHead as refusal:
        assert 400 <= refusal.status < 600
        return
    seen: dict[str, list[str]] = {}
    ends: list[str] = []
    keep: list[bool] = []

    class Reader:
        url = b""

        def on_url(self, url: bytes) -> None:
            self.url += url

        def on_header(self, name: bytes, value: bytes) -> None:
            text = value.decode("latin-1").strip(" \t")
            seen.setdefault(name.decode("latin-1").lower(), []).append(text)

        def on_headers_complete(self) -> None:
            ends.append("head")
            keep.append(parser.should_keep_alive())

        def on_message_complete(self) -> None:
            ends.append("message")

    reader = Reader()
    parser = httptools.HttpRequestParser(reader)
    parser.feed_data(block + b"\r\n\r\n")
    assert ends[0] == "head"
    assert parser.get_method().decode() == head.method
    assert reader.url.decode() == head.path
    assert parser.get_http_version() == "1.1"
    assert keep == [head.keep_alive]
    assert {name: ", ".join(values) for name, values in seen.items()} == head.fields
    if head.length == 0:
        assert ends == ["head", "message"]
    else:
        body = b"0\r\n\r\n" if head.length == -1 else b"x" * min(head.length, 1000)
        assert ends == ["head"]
        if head.length <= 1000:
            parser.feed_data(body)
            assert ends == ["head", "message"]


@requirement("GW-14")
@given(_HEADS)
def test_a_cached_head_is_the_parsed_head(block: bytes) -> None:
    cache = HeadCache(parse_request_head)

    def read(parse: Any) -> Any:
        try:
            return parts(parse(block))
        except BadHead as refusal:
            return refusal.status

    assert read(cache) == read(cache) == read(cache) == read(parse_request_head)


@requirement("GW-14")
def test_the_cache_knows_a_head_only_by_all_of_its_bytes() -> None:
    cache = HeadCache(parse_request_head)
    block = b"GET /mcp HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer one"
    heads = [cache(block) for _ in range(3)]
    assert heads[1] is heads[2]
    other = cache(block[:-3] + b"two")
    assert other.fields["authorization"] == "Bearer two"
    for _ in range(2):
        with pytest.raises(BadHead):
            cache(b"GET /mcp HTTP/1.1")


def _decoded(pieces: list[bytes], *, strict: bool) -> tuple[bytes, bool, bytes] | str:
    decoder = ChunkedDecoder(strict=strict)
    data, rest = b"", b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
            else:
                data += decoder.feed(piece)
        return data, decoder.done, decoder.surplus + rest
    except BadChunk:
        return "refused"


@requirement("GW-14", "GW-13")
@example(b"0\r\n\n0\r\n\r\n", 1, False)
@given(
    st.lists(
        st.sampled_from(
            [b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"1;x=y\r\na\r\n", b"\r\n", b"5\r\nab", b"x: y\r\n",
             b"A\r\n0123456789\r\n", b"GET /", b"\n", b"00001\r\na\r\n", b"1" + b";" * 70 + b"\r\na\r\n"]
        ),
        max_size=6,
    ).map(b"".join),
    st.integers(1, 9),
    st.booleans(),
)  # fmt: skip
def test_chunked_bodies_do_not_depend_on_their_pieces(raw: bytes, step: int, strict: bool) -> None:
    whole = _decoded([raw], strict=strict)
    stepped = _decoded([raw[at : at + step] for at in range(0, len(raw), step)], strict=strict)
    if whole == "refused" or stepped == "refused":
        # a fault may be seen a few bytes earlier or later, but never turns into a whole body
        assert "refused" in (whole, stepped)
        assert whole == "refused" or not whole[1] or stepped == "refused"
        for each in (whole, stepped):
            assert each == "refused" or not each[1]
        return
    assert whole == stepped


@requirement("GW-14")
def test_a_body_of_tiny_chunks_costs_no_more_than_its_bytes() -> None:
    """Each chunk is cut out of the data once: the work is counted in calls, not in time."""

    class Counted(bytes):
        sliced = 0

        def __getitem__(self, key: Any) -> Any:
            found = super().__getitem__(key)
            if isinstance(found, bytes):
                Counted.sliced += len(found)
            return found

    raw = Counted(b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
    assert ChunkedDecoder(strict=True).feed(raw) == b"a" * 2000
    assert Counted.sliced <= 2 * len(raw)


@requirement("GW-11")
@given(st.binary(max_size=120) | st.builds(lambda b: b"HTTP/1.1 200 OK\r\n" + b, st.binary()))
def test_a_response_head_is_read_or_refused(block: bytes) -> None:
    try:
        head = parse_response_head(block)
    except BadHead:
        return
    assert b"\r" not in block.replace(b"\r\n", b"") and 100 <= head.status < 600
    assert head.length >= -2


@requirement("GW-13")
@pytest.mark.parametrize(
    ("block", "length", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", 3, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close", 3, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3", 3, False),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked", -1, True),
        (b"HTTP/1.1 200 OK", -2, False),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 3", 0, True),
    ],
)
def test_how_long_an_answer_is(block: bytes, length: int, keep: bool) -> None:
    head = parse_response_head(block)
    assert (head.length, head.keep_alive) == (length, keep)


@requirement("GW-11")
@pytest.mark.parametrize(
    "block",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip",
        b"HTTP/1.1 200 OK\nContent-Length: 3",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b",
        b"ICY 200 OK",
        b"HTTP/1.1 999 OK",
    ],
)
def test_an_ambiguous_response_head_is_refused(block: bytes) -> None:
    with pytest.raises(BadHead):
        parse_response_head(block)

"""Event streams, large answers and JSON on the wire do not depend on how their bytes arrive (GW-9, GW-2)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.strictjson import MalformedJson, parse
from exeat.gateway.scan import MalformedAnswer, ResultScanner
from exeat.gateway.sse import EventParser, MalformedStream, ServerEvent, render
from exeat.gateway.wire import encode, imitates_result_type, needs_strict_reading

_STREAM = st.lists(
    st.sampled_from(
        [b"data: x", b"data:y", b"data", b"data:  z", b": comment", b"id: 7", b"id: a\0b", b"retry: 50",
         b"retry: x", b"event: message", b"nonsense", b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n"]
    ),
    max_size=14,
).map(b"".join)  # fmt: skip


def events(pieces: list[bytes], limit: int = 10_000) -> list[ServerEvent]:
    parser = EventParser(limit)
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(raw: bytes, step: int) -> list[bytes]:
    return [raw[at : at + step] for at in range(0, len(raw), step)]


@requirement("GW-9", "GW-11")
@given(_STREAM, st.integers(1, 9))
@example(b"data: x\r\rdata: y", 9)
def test_any_chunking_gives_the_same_events(raw: bytes, step: int) -> None:
    whole = events([raw])
    assert events(cut(raw, step)) == whole
    assert events(cut(raw, 1)) == whole


@requirement("GW-4")
@given(_STREAM)
def test_all_line_ends_mean_the_same(raw: bytes) -> None:
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    ends = (b"\n", b"\r", b"\r\n")
    one, two, three = (events([end.join([*lines, b"", b"", b":"])]) for end in ends)
    assert one == two == three


@requirement("GW-9")
@pytest.mark.parametrize(
    "flood", [b"data: " + b"x" * 200, b"x" * 5000, b"data:\n" * 200, b"data: xxxx\n" * 50]
)
def test_what_is_kept_of_one_event_is_bounded(flood: bytes) -> None:
    with pytest.raises(MalformedStream):
        events([*cut(flood, 7), b"\n"], limit=100)


@requirement("GW-9")
def test_many_small_events_and_comments_meet_no_limit() -> None:
    parser = EventParser(100)
    for _ in range(200):
        assert len(parser.feed(b": comment\ndata: " + b"x" * 90 + b"\n\n")) == 1
    assert not parser.partial


@requirement("GW-2")
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), st.booleans())
def test_what_we_render_is_one_event(value: Any, indented: bool) -> None:
    data = json.dumps(value, indent=1 if indented else None).encode()
    (event,) = events([render(data)])
    assert json.loads(event.data) == value


# ---- large answers

_SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just('"{}[]\\,:')
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["id", "result", "error"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
_RESULT = st.dictionaries(
    st.sampled_from(["content", "isError", "id", "result", "_meta", "x"]), _JSON, max_size=4
)


def scanned(pieces: list[bytes]) -> tuple[bytes, ResultScanner]:
    scanner = ResultScanner()
    return b"".join(scanner.feed(piece) for piece in pieces), scanner


@requirement("GW-9", "GW-2")
@given(
    _RESULT,
    st.sampled_from([7, "abc", -1, 'a"\\b', "é"]),
    st.permutations(["jsonrpc", "id", "result"]),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([None, "complete", "input_required"]),
)
def test_a_large_answer_in_any_pieces_is_its_result(
    result: dict[str, Any], request_id: Any, order: list[str], step: int, wide: bool, kind: Any
) -> None:
    if kind is not None:
        result = {**result, "resultType": kind}
    members = {"jsonrpc": "2.0", "id": request_id, "result": result}
    raw = json.dumps(
        {key: members[key] for key in order}, indent=2 if wide else None, ensure_ascii=False
    ).encode()
    try:
        found, scanner = scanned(cut(raw, step))
    except MalformedAnswer:
        assert "\\" in json.dumps(
            result, ensure_ascii=False
        )  # escapes in member names are refused, whatever they spell
        return
    assert scanner.done
    assert json.loads(found) == result
    assert json.loads(scanner.id) == request_id
    assert scanner.result_type == (kind or "").encode()
    assert scanned([raw])[0] == found


@requirement("GW-2", "GW-11")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":1,"id":1,"result":{}}',
        b'{"id":1,"result":{},"result":{}}',
        b'{"id":1,"result":{"resultType":"complete","resultType":"complete"}}',
        b'{"\\u0069d":1,"result":{}}',
        b'{"id":1,"result":{"result\\u0054ype":"x"}}',
        b'{"id":1,"result":{"ResultType":"complete"}}',
        b'{"id":1,"result":{"resultType":"complete","resulttype":"x"}}',
        '{"id":1,"result":{"re\u017fultType":"x"}}'.encode(),
        b'{"id":1,"result":{}} {}',
        b'{"id":1,"result":[1]}',
        b'{"id":1,"result":"text"}',
        b'{"id":1,"result":17}',
        b'{"id":{"a":1},"result":{}}',
        b'[{"id":1,"result":{}}]',
        b'{"id":1,"result":{}}}',
        b'{"id":1,"error":{},"result":{}}',
        b'{"id":1,"result":{},"error":{}}',
        b'{"id":1,"method":"x","result":{}}',
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    for step in (1, 3, len(raw)):
        with pytest.raises(MalformedAnswer):
            scanned(cut(raw, step))


@requirement("GW-2")
def test_an_empty_result_type_is_not_an_absent_one() -> None:
    _, scanner = scanned([b'{"id":1,"result":{"resultType":""}}'])
    assert scanner.result_type not in (b"", b"complete")


@requirement("GW-9")
@given(st.binary(max_size=60), st.integers(1, 7))
def test_the_scanner_reads_or_refuses(raw: bytes, step: int) -> None:
    try:
        scanned(cut(raw, step))
    except MalformedAnswer:
        pass


# ---- numbers, and the type of a result

_NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?", fullmatch=True
)


@requirement("POL-4")
@given(_NUMBERS)
@example("1.10")
@example("0e999")
@example("-0.0")
@example("1E400")
@example("0.1000000000000000055511151231257827")
def test_numbers_keep_their_digits(text: str) -> None:
    try:
        value = parse(f'{{"n":{text}}}'.encode())
    except MalformedJson:
        return
    sent = encode(value)
    assert Decimal(json.loads(sent, parse_float=str, parse_int=str)["n"]) == Decimal(text)
    assert float(json.loads(sent)["n"]) == float(text)
    assert len(sent) < len(text) + 30


_KEY = st.sampled_from(
    ['"resultType"', '"result\\u0054ype"', '"\\u0072esultType"', '"a"', '"_meta"', '"x\\"resultType"',
     '"\\u0072\\u0065\\u0073\\u0075\\u006c\\u0074\\u0054\\u0079\\u0070\\u0065"', '"resulttype"',
     '"ResultType"', '"RESULTTYPE"', '"re\u017fultType"']
)  # fmt: skip
_TYPE = st.sampled_from(
    ['"complete"', '"input_required"', '"compl\\u0065te"', "null", "1", '"x"', '"a\\\\"', '"é"',
     '{"resultType":"complete"}', '"\\"resultType\\":\\"complete\\""', '["resultType","complete"]',
     '"resultType"', '{"a":{"resultType":"complete"}}']
)  # fmt: skip
_SPACE = st.sampled_from(["", "", " ", "\n"])
_MEMBER = st.builds(lambda k, a, b, v, c: f"{k}{a}:{b}{v}{c}", _KEY, _SPACE, _SPACE, _TYPE, _SPACE)


@requirement("GW-2", "GW-7")
@given(st.lists(_MEMBER, max_size=4).map(lambda members: "{" + ",".join(members) + "}"))
def test_nothing_but_complete_passes_without_a_strict_reading(text: str) -> None:
    raw = text.encode()
    if needs_strict_reading(raw):
        return
    pairs = json.loads(raw, object_pairs_hook=lambda found: found)
    types = [value for key, value in pairs if key.casefold() == "resulttype"]
    assert types in ([], ["complete"])
    assert not any(imitates_result_type(key) for key, _ in pairs)

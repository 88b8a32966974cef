"""The one strict parse: what two parsers could read differently is refused (GW-2, POL-4, POL-9)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.strictjson import MalformedJson, parse

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
)


@requirement("GW-2")
@given(_VALUES, st.booleans(), st.booleans())
def test_plain_json_is_read_as_everybody_reads_it(value: Any, ascii_only: bool, wide: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=1 if wide else None).encode()
    assert parse(b" \r\n\t" + raw + b"\n ", depth_max=10_000) == value


@requirement("GW-2", "POL-9")
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a":1,"a":1}', "duplicate"),
        (b'{"a":1,"\\u0061":1}', "duplicate"),
        (b'[{"x":[{"b":1,"c":2,"b":3}]}]', "duplicate"),
        (b'{"":1,"":2}', "duplicate"),
        (b"\xff", "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'[{"a":["\\udfff\\ud83d"]}]', "surrogate"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "Infinity"),
        (b"9223372036854775808", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b"1" + b"0" * 5000, "64 bits"),
        (b"1e400", "round trip"),
        (b"0.1000000000000000055", "round trip"),
        (b"1e-400", "round trip"),
        (b"0." + b"1" * 50, "digits"),
        (b"[" * 65 + b"]" * 65, "nested"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested"),
        (b"[" * 100_000, "nested"),
        (b"{} {}", "follows"),
        (b"1 2", "follows"),
        (b"{},", "follows"),
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"01", "follows"),
        (b"+1", "not JSON"),
        (b".5", "not JSON"),
        (b'"\n"', "not JSON"),
        (b'"\x00"', "not JSON"),
        (b"/**/1", "not JSON"),
        (b"\xc2\xa01", "not JSON"),
        ("\u0661".encode(), "not JSON"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(MalformedJson, match=why):
        parse(raw)


@requirement("GW-2")
def test_depth_is_counted_outside_of_strings() -> None:
    assert parse(b"[" * 64 + b"]" * 64)
    assert parse(b'["' + b"[{" * 200 + b'"]') == ["[{" * 200]
    assert parse(b'["\\"' + b"[" * 200 + b'"]') == ['"' + "[" * 200]


@requirement("POL-4")
def test_fractions_keep_their_digits() -> None:
    assert str(parse(b"1.10")) == "1.10"
    assert parse(b"-0.0") == Decimal("-0.0")
    assert type(parse(b"1")) is int
    assert type(parse(b"1.0")) is Decimal
    assert type(parse(b"true")) is bool


@requirement("GW-2")
def test_the_message_does_not_repeat_the_value() -> None:
    with pytest.raises(MalformedJson) as caught:
        parse(b'{"password-hunter2": nope}')
    assert "hunter2" not in str(caught.value)


@requirement("GW-2")
@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\u0aé\ud800 1.e-', max_size=30).map(
    lambda text: text.encode("utf-8", "surrogatepass")
))  # fmt: skip
def test_it_reads_or_refuses_and_never_fails(raw: bytes) -> None:
    try:
        value = parse(raw)
    except MalformedJson:
        return
    json.loads(raw)
    json.dumps(value, default=str).encode()

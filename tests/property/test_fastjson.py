"""The fast parse accepts and means exactly what the strict one does (GW-2, POL-4)."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.strictjson import MalformedJson
from exeat.core.strictjson import parse as strict
from exeat.gateway.fastjson import parse as fast

_KEYS = st.sampled_from(["a", "b", ":", "a:", "", "id", '"', "é", "\\"])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([":", "x", ":x", " "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)
_PIECES = st.lists(
    st.sampled_from(
        [b'"a"', b'"b"', b":", b",", b"{", b"}", b"[", b"]", b" ", b"1", b'":"', b"-0", b"1.5",
         b"\t", b"\n", b'" "', b'"\x01"', b"null", b"9223372036854775808", b"\xff", b'"\\u0061"']
    ),
    max_size=14,
)  # fmt: skip


def both(raw: bytes) -> None:
    def outcome(parse: Any) -> tuple[str, Any]:
        try:
            return "value", repr(parse(raw))
        except MalformedJson:
            return "refused", None

    assert outcome(fast) == outcome(strict)


@requirement("GW-2", "POL-4")
@given(_VALUES, st.booleans())
def test_fast_equals_strict_on_values(value: Any, tight: bool) -> None:
    both(json.dumps(value, separators=(",", ":") if tight else None).encode())


@requirement("GW-2")
@given(_PIECES)
@example([b"{", b'"a"', b" ", b":", b"1", b",", b'"a"', b":", b"1", b"}"])
@example([b"{", b'"a"', b":", b"1", b",", b'"a"', b":", b"1", b"}"])
def test_fast_equals_strict_on_broken_text(pieces: list[bytes]) -> None:
    both(b"".join(pieces))


@requirement("GW-2")
@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a" :1,"a":2}',
        b'{"a":":","a":1}',
        b'[{"a":1},{"a":1,"a":1}]',
    ],
)
def test_duplicates_are_refused(raw: bytes) -> None:
    if raw.count(b'"a"') > 1 or b'"b":1,"b"' in raw:
        with pytest.raises(MalformedJson):
            fast(raw)

"""Whatever a server answers: what leaves is JSON, holds nothing that was to be redacted, fits the schema,
keeps the rest, and stays under its caps (POL-9)."""

import json
import string
from typing import Any

import jsonschema_rs
from hypothesis import example, given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.obligations import OnResult
from exeat.core.strictjson import parse
from exeat.gateway.redaction.detectors import DETECTORS, finder, mark
from exeat.gateway.redaction.filter import ResultFilter
from exeat.gateway.redaction.notice import REDACTED_KEY, WITHHELD_KEY

ALL = frozenset(DETECTORS)
FINDER = finder(ALL)
SECRETS = {
    "email": ["joe@example.com", "a.b+c@mail.example.co.uk", "müller@größe.de", "x@y.museum"],
    "card": ["4111111111111111", "4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819"],
    "phone": ["+49 30 901820", "(415) 555-2671", "01 23 45 67 89", "+14155552671"],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----",
    ],
}
VALUES = [(what, value) for what, values in SECRETS.items() for value in values]
FILLER = st.text(st.sampled_from('abcdeäß 你好{}[]"\\:,.\n\t-_/|'), max_size=12)
INVISIBLE = "\u200b\u200d\u2060\u00ad\ufeff\u0301\U000e0041"
_value = st.sampled_from([value for _, value in VALUES])


@st.composite
def _hidden(draw: st.DrawFn) -> str:
    """A value as someone writes it who wants it to pass."""
    value = draw(_value)
    at = draw(st.integers(1, len(value) - 1))
    how = draw(st.integers(0, 3))
    if how == 0:
        return value[:at] + draw(st.sampled_from(INVISIBLE)) + value[at:]
    if how == 1:
        wide = {
            ord(each): ord(each) + 0xFEE0 for each in string.digits + string.ascii_letters + "@"
        }
        return value[:at] + value[at:].translate(wide)
    if how == 2:
        return json.dumps({"v": value, "n": [1.50, "x"]})
    return value


STRINGS = st.lists(FILLER | _hidden(), max_size=4).map("".join)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([4111111111111111, 378282246310005])
LEAVES = st.none() | st.booleans() | NUMBERS | STRINGS
KEYS = (
    st.sampled_from(["a", "b", "email", "password", "phone", "token", "uri", "text", "type"])
    | STRINGS
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=14,
)
BLOCKS = st.one_of(
    STRINGS.map(lambda text: {"type": "text", "text": text}),
    TREES.map(lambda tree: {"type": "text", "text": json.dumps(tree)}),
    TREES.map(
        lambda tree: {"type": "text", "text": json.dumps(tree, indent=2, ensure_ascii=False)}
    ),
    TREES.map(lambda tree: {"type": "text", "text": f"Result:\n{json.dumps(tree)}\ndone"}),
)
RESULTS = st.fixed_dictionaries(
    {"content": st.lists(BLOCKS, max_size=3)},
    optional={
        "structuredContent": st.dictionaries(KEYS, TREES, max_size=4),
        "_meta": st.dictionaries(KEYS, TREES, max_size=2),
    },
)


def strings(tree: Any) -> list[str]:
    """All of them, names of members and strings within strings, too."""
    if isinstance(tree, str):
        try:
            inner = json.loads(tree)
        except ValueError:
            return [tree]
        return [tree] if isinstance(inner, (int, float)) else strings(inner)
    if isinstance(tree, dict):
        return [each for key, value in tree.items() for each in (*strings(key), *strings(value))]
    if isinstance(tree, list):
        return [each for value in tree for each in strings(value)]
    return []


def without_notice(result: dict[str, Any]) -> dict[str, Any]:
    """As the server's part of it is."""
    meta = dict(result.get("_meta", {}))
    if meta.pop(REDACTED_KEY, None) is None:
        return result
    own = {**result, "content": result["content"][:-1], "_meta": meta}
    if not meta:
        del own["_meta"]
    return own


def schema_of(tree: Any) -> dict[str, Any]:
    """One that wants every member there is, of the type it has."""
    if isinstance(tree, dict):
        return {
            "type": "object",
            "required": list(tree)[::2],
            "properties": {key: schema_of(value) for key, value in tree.items()},
            "additionalProperties": False,
        }
    if isinstance(tree, list):
        return {
            "type": "array",
            "minItems": min(len(tree), 1),
            "items": {"anyOf": [schema_of(e) for e in tree] or [True]},
        }
    if isinstance(tree, bool):
        return {"type": "boolean"}
    if isinstance(tree, int):
        return {"type": "integer"}
    return {"type": "null"} if tree is None else {"type": "string", "maxLength": len(tree)}


@requirement("POL-9")
@given(RESULTS)
def test_nothing_that_was_to_be_redacted_is_left(result: dict[str, Any]) -> None:
    out = parse(ResultFilter(OnResult(ALL), None, "gw1-1").result(json.dumps(result).encode()))
    assert out.get("isError") is None
    for text in strings(without_notice(out)):
        assert FINDER.find(text) == [], text


@requirement("POL-9", "POL-4")
@given(RESULTS)
def test_json_in_a_text_stays_json(result: dict[str, Any]) -> None:
    out = parse(ResultFilter(OnResult(ALL), None, "gw1-1").result(json.dumps(result).encode()))
    for before, after in zip(result["content"], without_notice(out)["content"], strict=True):
        try:
            json.loads(before["text"])
        except ValueError:
            continue
        json.loads(after["text"])


@requirement("POL-9")
@given(
    st.dictionaries(KEYS, TREES, max_size=4),
    st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 150, 2000]),
)
def test_structured_content_still_fits_its_schema(
    tree: dict[str, Any], rows: int, most: int
) -> None:
    schema = schema_of(tree)
    assert jsonschema_rs.is_valid(schema, tree)
    raw = json.dumps({"content": [], "structuredContent": tree}).encode()
    out = parse(ResultFilter(OnResult(ALL, rows=rows, bytes=most), schema, "gw1-1").result(raw))
    if out.get("isError"):
        assert "structuredContent" not in out
        assert WITHHELD_KEY in out["_meta"]
        return
    assert jsonschema_rs.is_valid(schema, out["structuredContent"])
    for text in strings(out["structuredContent"]):
        assert FINDER.find(text) == [], text


@requirement("POL-9")
@given(
    st.lists(
        st.sampled_from(VALUES)
        | st.sampled_from([("", "word"), ("", "über"), ("", "x=1;"), ("", "7")]),
        max_size=8,
    )
)
def test_the_rest_is_as_it_was(pieces: list[tuple[str, str]]) -> None:
    text = "".join(f" | {value}" for _, value in pieces)
    wanted = "".join(f" | {mark(what) if what else value}" for what, value in pieces)
    raw = json.dumps({"content": [{"type": "text", "text": text}], "isError": False}).encode()
    out = parse(ResultFilter(OnResult(ALL), None, "gw1-1").result(raw))
    assert out["content"][0]["text"] == wanted
    assert out["isError"] is False
    found = {what for what, _ in pieces if what}
    assert set(out.get("_meta", {}).get(REDACTED_KEY, {"decision": ""})) == found | {"decision"}


SAFE = st.recursive(
    st.none() | st.booleans() | st.integers(-999, 99_999) | st.text('abc äö{}[]"\\\n', max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcd", max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@requirement("POL-9", "POL-4")
@given(SAFE, SAFE)
def test_what_holds_nothing_is_not_touched(tree: Any, other: Any) -> None:
    text = json.dumps(other, indent=1)
    result = {"structuredContent": {"a": tree}, "content": [{"type": "text", "text": text}], "n": 1}
    guard = ResultFilter(OnResult(ALL, ("/never/there",)), None, "gw1-1")
    assert parse(guard.result(json.dumps(result).encode())) == result
    assert not guard.summary


@requirement("POL-9")
@given(RESULTS, st.integers(1, 3000), st.booleans())
@example({"content": [{"type": "text", "text": "é" * 400}]}, 300, False)
def test_bytes_stay_under_the_cap(result: dict[str, Any], most: int, search: bool) -> None:
    on = OnResult(ALL if search else frozenset(), bytes=most)
    raw = json.dumps(result, separators=(",", ":"), ensure_ascii=False).encode()
    guard = ResultFilter(on, None, "gw1-1")
    out = parse(guard.result(raw))
    if out.get("isError"):
        return
    own = without_notice(out)
    assert len(json.dumps(own, separators=(",", ":"), ensure_ascii=False).encode()) <= most
    if not search:
        assert guard.summary.bytes or own == result
    for before, after in zip(result["content"], own["content"], strict=False):
        try:
            json.loads(before["text"])
        except ValueError:
            continue
        json.loads(after["text"])


def outer_lists(tree: Any) -> list[list[Any]]:
    if isinstance(tree, list):
        return [tree]
    return (
        [each for value in tree.values() for each in outer_lists(value)]
        if isinstance(tree, dict)
        else []
    )


@requirement("POL-9")
@given(RESULTS, st.integers(1, 3))
def test_rows_stay_under_the_cap(result: dict[str, Any], most: int) -> None:
    raw = json.dumps(result).encode()
    out = without_notice(parse(ResultFilter(OnResult(rows=most), None, "gw1-1").result(raw)))
    assert all(len(each) <= most for each in outer_lists(out.get("structuredContent", {})))
    assert len(out["content"]) <= most
    lines = 0
    for block in out["content"]:
        try:
            tree = json.loads(block["text"])
        except ValueError:
            lines += len(block["text"].splitlines())
        else:
            assert all(len(each) <= most for each in outer_lists(tree))
    assert lines <= most


@requirement("POL-9")
@given(st.binary(max_size=60) | st.text('{}[]":,123eE.- \\u00', max_size=40).map(str.encode))
def test_no_answer_passes_by_failing(raw: bytes) -> None:
    guard = ResultFilter(OnResult(ALL), None, "gw1-1")
    for method in ("tools/call", "resources/read", "prompts/get", "completion/complete"):
        assert isinstance(parse(ResultFilter(OnResult(ALL), None, "d", method).result(raw)), dict)
    error = parse(guard.error(raw))
    assert isinstance(error["code"], int)
    params = guard.notification("notifications/message", raw)
    assert params is None or isinstance(parse(params), dict)


@requirement("POL-9")
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.dictionaries(st.sampled_from(["a", "b"]), LEAVES),
        max_size=3,
    )
)
def test_fields_are_hidden_in_both_forms(tree: dict[str, Any]) -> None:
    result = {"content": [{"type": "text", "text": json.dumps(tree)}], "structuredContent": tree}
    raw = json.dumps(result).encode()
    out = parse(ResultFilter(OnResult(fields=("/*/a", "/c")), None, "gw1-1").result(raw))
    for shown in (out["structuredContent"], json.loads(out["content"][0]["text"])):
        assert shown.get("c", mark("field")) == mark("field")
        for below in shown.values():
            if isinstance(below, dict):
                assert below.get("a", mark("field")) == mark("field")

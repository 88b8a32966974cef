"""What a call's obligations make of what a server says: forms of results, schemas, caps, failures (POL-9)."""

import base64
import json
from typing import Any

import pytest
from requirements import requirement

from exeat.core.obligations import OnResult, on_result
from exeat.core.strictjson import parse
from exeat.gateway.redaction.detectors import DETECTORS, finder
from exeat.gateway.redaction.filter import ResultFilter
from exeat.gateway.redaction.notice import REDACTED_KEY, WITHHELD_KEY
from exeat.gateway.redaction.texts import decoded, looked

ALL = OnResult(frozenset(DETECTORS))
CARD = 4111111111111111
PEOPLE = [
    {"name": "Ada", "email": "ada@example.com", "card": CARD, "score": 1.50},
    {"name": "Bob", "email": "bob@example.com", "card": 5, "score": 2},
]
SCHEMA = {
    "type": "object",
    "required": ["people"],
    "properties": {
        "people": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "email"],
                "properties": {
                    "name": {"type": "string"},
                    "email": {"type": "string", "format": "email"},
                    "card": {"type": "integer"},
                },
            },
        }
    },
}


def passed(
    result: Any,
    on: OnResult = ALL,
    schema: dict[str, Any] | None = None,
    method: str = "tools/call",
) -> dict[str, Any]:
    raw = result if isinstance(result, bytes) else json.dumps(result).encode()
    return parse(ResultFilter(on, schema, "gw1-7", method).result(raw))


def text(value: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": value}]}


def first(out: dict[str, Any]) -> str:
    return str(out["content"][0]["text"])


# ---- where values stand


@requirement("POL-9")
def test_the_agent_is_told() -> None:
    guard = ResultFilter(ALL, None, "gw1-7")
    out = parse(
        guard.result(json.dumps(text("ada@example.com, bob@example.com, ada@example.com")).encode())
    )
    assert first(out) == "[redacted:email], [redacted:email], [redacted:email]"
    assert out["content"][1]["text"] == "exeat removed 2 email addresses (decision gw1-7)."
    assert out["_meta"][REDACTED_KEY] == {"email": 2, "decision": "gw1-7"}
    assert guard.summary.removed == {"email": 2}


@requirement("POL-9")
def test_everywhere_in_a_result() -> None:
    out = passed(
        {
            "content": [
                {
                    "type": "resource_link",
                    "uri": "mailto:ada@example.com",
                    "name": "ada@example.com",
                },
                {"type": "resource", "resource": {"uri": "file:///a", "text": "ada@example.com"}},
            ],
            "structuredContent": {"ada@example.com": {"by": "ada@example.com"}},
            "_meta": {"x": "ada@example.com"},
        }
    )
    assert b"ada@" not in json.dumps(out).encode()
    assert out["content"][0]["uri"] == "mailto:redacted-email"
    assert out["structuredContent"] == {"[redacted:email]": {"by": "[redacted:email]"}}


@requirement("POL-9")
@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("resources/read", {"contents": [{"uri": "file:///a", "text": "ada@example.com"}]}),
        (
            "prompts/get",
            {
                "messages": [
                    {"role": "user", "content": {"type": "text", "text": "ada@example.com"}}
                ]
            },
        ),
        (
            "completion/complete",
            {"completion": {"values": ["ada@example.com", "b"], "hasMore": False}},
        ),
        ("tasks/result", text("ada@example.com")),
    ],
)
def test_other_methods(method: str, result: dict[str, Any]) -> None:
    out = passed(result, method=method)
    assert "ada@" not in json.dumps(out)
    assert out["_meta"][REDACTED_KEY]["email"] == 1


@requirement("POL-9")
def test_two_members_that_would_have_one_name_stay_two() -> None:
    out = passed({"structuredContent": {"a@b.io": 1, "c@d.io": 2, "[redacted:email]": 3}})
    assert sorted(out["structuredContent"].values()) == [1, 2, 3]
    assert len(out["structuredContent"]) == 3


@requirement("POL-9", "POL-4")
def test_json_in_a_text_stays_json_in_its_own_style() -> None:
    tree = {
        "card": CARD,
        "price": 1.5,
        "who": 'say "ada@example.com"',
        "big": 12345678901234567890123,
    }
    for style in (
        {"indent": 2},
        {"separators": (",", ":")},
        {},
        {"indent": 4, "ensure_ascii": False},
    ):
        before = json.dumps(tree, **style)  # type: ignore[arg-type]
        after = first(passed(text(before)))
        assert after == before.replace(str(CARD), '"[redacted:card]"').replace(
            "ada@example.com", "[redacted:email]"
        )


@requirement("POL-4")
def test_numbers_keep_their_digits() -> None:
    raw = b'{"content":[{"type":"text","text":"{\\"a\\":1.50,\\"e\\":\\"a@b.io\\"}"}],"structuredContent":{"a":1.50,"b":100000000000000001}}'
    out = ResultFilter(ALL, None, "d").result(raw)
    assert b'"a":1.50,"b":100000000000000001' in out
    assert b'{\\"a\\":1.50,\\"e\\":\\"[redacted:email]\\"}' in out


@requirement("POL-9")
@pytest.mark.parametrize(
    "written",
    [
        '{"e": "\\u0061da@example.com"}',
        '{"e": "ada@example.com", "e": "x"}',
        'Found:\n{"a": "x",\n "e": "ada@example.com"}\nand more',
        '```json\n{"e": "ada\\u0040example.com"}\n```',
        '{"a": 1}\n{"e": "ada@example.com"}\n',
        json.dumps(json.dumps(json.dumps({"e": "ada@example.com"}))),
        "log {\\nada@example.com}",
        base64.b64encode(b"hello ada@example.com").decode(),
        "data:text/plain;base64," + base64.b64encode(b"hello ada@example.com").decode(),
        '{"e": "ada@example.com", "bad": "\\ud800"}',
        '{"e": "ada@example.com", "n": NaN, "big": 123456789012345678901234567890}',
        '{"e": "x", "c": 4.111111111111111e15}',
        '{"password": 12345678}',
        '{"phone": 4930901820}',
    ],
)
def test_a_value_does_not_hide_in_what_a_string_holds(written: str) -> None:
    out = passed(text(written))
    after = first(out)
    assert after != written
    for value in ("ada", "4111111111111111", "4.111111111111111e15", "12345678}", "4930901820"):
        assert value not in after
    if after[:1] == "{" and "\n{" not in after:
        json.loads(after)


@requirement("POL-9")
def test_a_number_in_a_piece_of_json_becomes_a_string() -> None:
    assert first(passed(text(f'see "card": {CARD}, ok'))) == 'see "card": "[redacted:card]", ok'


@requirement("POL-9")
def test_json_between_lines_stays_json() -> None:
    after = first(passed(text(f"Found:\n[1, {CARD}]\n{{}}\nend")))
    assert after == 'Found:\n[1, "[redacted:card]"]\n{}\nend'


@requirement("POL-9")
@pytest.mark.parametrize(
    "line", ["[1 x\n", '["a" x\n', "[2024-01-02] INFO a\n", "[\n", '{"a":1}\n', "[1]x\n"]
)
def test_lines_that_begin_like_json_are_not_tried_for_ever(line: str) -> None:
    """Each failed try costs as much as what stands before it; no time is asserted, it is just done."""
    guard = ResultFilter(ALL, None, "d")
    out = guard.result(json.dumps(text(line * 30_000)).encode())
    assert guard.summary.withheld or parse(out) == text(line * 30_000)


@requirement("POL-9")
def test_no_half_of_an_escape_is_left() -> None:
    assert first(passed(text('oops "\\nada@example.com", {'))) == 'oops "[redacted:email]", {'
    assert first(passed(text('oops "\\\\ada@example.com", {'))) == 'oops "\\\\[redacted:email]", {'


@requirement("POL-9")
def test_what_cannot_be_searched_is_withheld() -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n\x00").decode()
    out = passed(
        {
            "content": [
                {"type": "image", "data": png, "mimeType": "image/png"},
                {
                    "type": "resource",
                    "resource": {"uri": "file:///a", "mimeType": "image/png", "blob": png},
                },
                {"type": "text", "text": f"see data:image/png;base64,{png} here"},
            ]
        }
    )
    assert png not in json.dumps(out)
    assert out["content"][0] == {"type": "text", "text": "[withheld:image/png]"}
    assert out["content"][1]["resource"]["text"] == "[withheld:image/png]"
    assert out["content"][2]["text"] == "see [withheld:image/png] here"
    assert passed(
        {"content": [{"type": "image", "data": png, "mimeType": "image/png"}]}, OnResult(rows=5)
    ) == {"content": [{"type": "image", "data": png, "mimeType": "image/png"}]}


@requirement("POL-9")
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "image/svg+xml", "application/octet-stream"]
)
def test_bytes_that_are_text_are_searched(kind: str) -> None:
    blob = base64.b64encode(b'{"e": "ada@example.com"}').decode()
    out = passed(
        {"contents": [{"uri": "file:///a", "mimeType": kind, "blob": blob}]},
        method="resources/read",
    )
    assert base64.b64decode(out["contents"][0]["blob"]) == b'{"e": "[redacted:email]"}'
    short = base64.b64encode(b"a@b.io").decode()
    out = passed({"contents": [{"uri": "file:///a", "mimeType": kind, "blob": short}]})
    assert base64.b64decode(out["contents"][0]["blob"]) == b"[redacted:email]"


# ---- output schemas


@requirement("POL-9")
def test_structured_content_fits_its_schema_with_what_has_the_same_type() -> None:
    out = passed({"structuredContent": {"people": PEOPLE}, "content": []}, schema=SCHEMA)
    people = out["structuredContent"]["people"]
    assert people[0] == {
        "name": "Ada",
        "email": "redacted@redacted.invalid",
        "card": 0,
        "score": people[0]["score"],
    }
    assert people[1]["card"] == 5


@requirement("POL-9")
@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({"type": "string"}, "[redacted:email]"),
        ({"type": "string", "maxLength": 15}, "redacted"),
        ({"type": ["string", "null"], "enum": ["ada@example.com", None]}, None),
        ({"type": "string", "pattern": r"^[a-z]+@[a-z]+\.[a-z]+$"}, "redacted@redacted.invalid"),
        ({"type": "string", "format": "uri"}, "https://redacted.invalid/"),
    ],
)
def test_replacements(schema: dict[str, Any], wanted: Any) -> None:
    value = "mailto:ada@example.com" if schema.get("format") == "uri" else "ada@example.com"
    whole = {"type": "object", "required": ["v"], "properties": {"v": schema}}
    assert passed({"structuredContent": {"v": value}}, schema=whole)["structuredContent"] == {
        "v": wanted
    }


@requirement("POL-9")
def test_a_property_that_cannot_be_replaced_is_left_out_if_it_may_be() -> None:
    schema = {
        "type": "object",
        "properties": {"v": {"const": "ada@example.com"}, "w": {"type": "integer"}},
    }
    assert passed({"structuredContent": {"v": "ada@example.com", "w": 1}}, schema=schema)[
        "structuredContent"
    ] == {"w": 1}
    out = passed(
        {"structuredContent": {"v": "ada@example.com", "w": 1}},
        schema={**schema, "required": ["v"]},
    )
    assert out["isError"] is True
    assert "structuredContent" not in out
    assert "gw1-7" in first(out) and "output schema" in first(out)


@requirement("POL-9")
def test_values_that_must_differ_still_do() -> None:
    schema = {"type": "object", "properties": {"all": {"type": "array", "uniqueItems": True}}}
    out = passed({"structuredContent": {"all": ["a@b.io", "c@d.io"]}}, schema=schema)
    assert len(set(out["structuredContent"]["all"])) == 2
    assert REDACTED_KEY in out["_meta"]


@requirement("POL-9")
def test_a_schema_that_cannot_be_used_withholds() -> None:
    out = passed({"structuredContent": {"v": "a@b.io"}}, schema={"type": "nonsense"})
    assert out["isError"] is True and "schema" in out["_meta"][WITHHELD_KEY]["reason"]


# ---- fields


@requirement("POL-9")
def test_fields_are_hidden_in_every_form_of_the_same_content() -> None:
    on = OnResult(fields=("/people/*/email", "/people/0/card"))
    rows = [{"type": "text", "text": json.dumps(each)} for each in PEOPLE]
    out = passed(
        {
            "structuredContent": {"people": PEOPLE},
            "content": [
                {"type": "text", "text": json.dumps({"people": PEOPLE})},
                {"type": "text", "text": json.dumps(PEOPLE)},
                *rows,
                {"type": "text", "text": f"Ada has ada@example.com and card {CARD}."},
            ],
        },
        on,
    )
    assert "@example.com" not in str(out)
    assert str(CARD) not in str(out)
    assert out["structuredContent"]["people"][1]["card"] == 5
    assert out["_meta"][REDACTED_KEY] == {"field": 3, "decision": "gw1-7"}


@requirement("POL-9")
def test_a_short_value_is_hidden_in_a_list_that_was_wrapped() -> None:
    """It is too short to be looked for, so its place must be found."""
    on = OnResult(fields=("/people/*/name",))
    for bare in ([{"name": "Ada"}, {"name": "Bob"}], {"name": "Ada"}):
        whole = {"people": bare if isinstance(bare, list) else [bare]}
        out = passed({"structuredContent": whole, **text(json.dumps(bare))}, on)
        assert "Ada" not in str(out)


@requirement("POL-9")
def test_pointers_with_escapes_and_whole_objects() -> None:
    on = OnResult(fields=("/a~1b/c~0d", "/list/1", "/missing/x"))
    out = passed(
        {"structuredContent": {"a/b": {"c~d": {"deep": 1}, "e": 2}, "list": [1, [2], 3]}}, on
    )
    assert out["structuredContent"] == {
        "a/b": {"c~d": "[redacted:field]", "e": 2},
        "list": [1, "[redacted:field]", 3],
    }


@requirement("POL-9")
def test_a_hidden_field_keeps_its_type_where_the_schema_wants_it() -> None:
    out = passed(
        {"structuredContent": {"people": PEOPLE}}, OnResult(fields=("/people/*/card",)), SCHEMA
    )
    assert [each["card"] for each in out["structuredContent"]["people"]] == [0, 0]


# ---- caps


@requirement("POL-9")
def test_rows_of_both_forms() -> None:
    guard = ResultFilter(OnResult(rows=2), None, "d")
    tree = {"people": [1, 2, 3, 4, 5], "all": [[1, 2, 3]], "n": 5}
    raw = json.dumps({**text(json.dumps(tree)), "structuredContent": tree}).encode()
    out = parse(guard.result(raw))
    wanted = {"people": [1, 2], "all": [], "n": 5}  # the cap is for all of them together
    assert out["structuredContent"] == json.loads(first(out)) == wanted
    assert (guard.summary.rows, guard.summary.passed) == (4, 2)
    assert out["content"][-1]["text"] == "exeat cut 4 rows (decision d)."


@requirement("POL-9")
def test_rows_as_lines_and_as_blocks() -> None:
    assert first(passed(text("a\nb\nc\n"), OnResult(rows=2))) == "a\nb\n"
    blocks = {"content": [{"type": "text", "text": json.dumps({"id": n})} for n in range(5)]}
    out = passed(blocks, OnResult(rows=3))
    assert [json.loads(each["text"])["id"] for each in out["content"][:-1]] == [0, 1, 2]
    assert out["_meta"][REDACTED_KEY]["rows_cut"] == 2


@requirement("POL-9")
def test_too_few_rows_for_the_schema_withhold() -> None:
    schema = {"type": "object", "properties": {"all": {"type": "array", "minItems": 2}}}
    out = passed({"structuredContent": {"all": [1, 2, 3]}}, OnResult(rows=1), schema)
    assert out["isError"] is True


@requirement("POL-9")
def test_bytes_of_text_json_and_rows() -> None:
    out = passed(text("é" * 500), OnResult(bytes=200))
    assert set(first(out)) == {"é"} and len(first(out).encode()) < 200
    tree = {"all": [{"n": n, "note": "x" * 20} for n in range(50)]}
    out = passed({**text(json.dumps(tree)), "structuredContent": tree}, OnResult(bytes=700))
    kept, shown = out["structuredContent"]["all"], json.loads(first(out))["all"]
    assert 0 < len(kept) < 50 and kept == tree["all"][: len(kept)]
    assert 0 < len(shown) < 50 and shown == tree["all"][: len(shown)]
    assert out["_meta"][REDACTED_KEY]["bytes_cut"] > 0


@requirement("POL-9")
def test_a_cut_makes_no_new_value() -> None:
    """Twenty digits are no card; their first sixteen would be."""
    digits = f"{CARD}99999"
    for most in range(50, 90):
        out = passed(text(f"{digits} tail {'x' * 50}"), OnResult(frozenset({"card"}), bytes=most))
        assert finder(frozenset({"card"})).find(first(out)) == []


@requirement("POL-9")
def test_a_cap_that_cannot_be_kept_withholds() -> None:
    out = passed(
        {"structuredContent": {"n": 12345}, "_meta": {"x": "y" * 200}}, OnResult(bytes=100)
    )
    assert (
        out["isError"] is True
        and out["_meta"][WITHHELD_KEY]["reason"] == "it cannot be cut to 100 bytes"
    )


# ---- failures


@requirement("POL-9")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"a":1,"a":"ada@example.com"}',
        b'{"a":"\xff ada@example.com"}',
        b'{"a":1e999,"b":"ada@example.com"}',
        b'{"a":' * 70 + b'"ada@example.com"' + b"}" * 70,
        json.dumps(text("[" * 5000 + '"ada@example.com"')).encode(),
        json.dumps(text("[{" * 3000 + '"ada@example.com"')).encode(),
    ],
    ids=range(8),
)
def test_what_cannot_be_read_does_not_pass(raw: bytes) -> None:
    guard = ResultFilter(ALL, None, "gw1-7")
    out = guard.result(raw)
    assert b"ada@" not in out
    assert guard.summary.withheld or b"[redacted:email]" in out


@requirement("POL-9")
def test_more_than_is_searched_is_withheld() -> None:
    guard = ResultFilter(ALL, None, "gw1-7", size_max=1000)
    assert parse(guard.result(json.dumps(text("x" * 1000)).encode()))["isError"] is True
    assert "1,000 bytes" in guard.summary.withheld


@requirement("POL-9")
def test_a_failure_of_our_own_withholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeat.gateway.redaction.filter.expand", lambda *_, **__: 1 / 0)
    guard = ResultFilter(ALL, None, "gw1-7")
    out = guard.result(json.dumps(text("ada@example.com")).encode())
    assert (
        b"ada@" not in out
        and guard.summary.withheld == "it could not be searched (ZeroDivisionError)"
    )
    assert guard.notification("notifications/message", b'{"data":"ada@example.com"}') is None
    assert b"ada@" not in guard.error(b'{"code":-1,"message":"ada@example.com"}')


@requirement("POL-9")
@pytest.mark.parametrize(
    "method", ["tools/call", "resources/read", "prompts/get", "completion/complete"]
)
def test_what_is_withheld_has_the_shape_of_its_method(method: str) -> None:
    member = {"tools/call": "content", "resources/read": "contents", "prompts/get": "messages"}
    out = passed(b"nonsense", method=method)
    assert member.get(method, "completion") in out
    assert out["_meta"][WITHHELD_KEY]["decision"] == "gw1-7"
    assert ("isError" in out) is (method == "tools/call")


# ---- what is said beside a result


@requirement("POL-9")
def test_notifications() -> None:
    guard = ResultFilter(OnResult(frozenset({"email"}), bytes=200), None, "gw1-7")
    raw = b'{"progressToken":"t@x.io","progress":1.50,"total":3,"message":"at ada@example.com"}'
    assert guard.notification("notifications/progress", raw) == (
        b'{"progressToken":"t@x.io","progress":1.50,"total":3,"message":"at [redacted:email]"}'
    )
    out = guard.notification(
        "notifications/message", b'{"level":"info","data":{"who":["ada@example.com"]}}'
    )
    assert out == b'{"level":"info","data":{"who":["[redacted:email]"]}}'
    assert guard.notification("notifications/message", b'{"data":"%b"}' % (b"x" * 300)) is None
    assert guard.notification("notifications/message", b"[1]") is None
    assert guard.summary.dropped == 2
    assert guard.summary.removed == {"email": 1}


@requirement("POL-9")
def test_fields_of_what_a_server_logs() -> None:
    guard = ResultFilter(OnResult(fields=("/user/ssn",)), None, "d")
    out = guard.notification(
        "notifications/message", b'{"level":"info","data":{"user":{"ssn":"078-05-1120"}}}'
    )
    assert out == b'{"level":"info","data":{"user":{"ssn":"[redacted:field]"}}}'


@requirement("POL-9")
def test_errors() -> None:
    guard = ResultFilter(ALL, None, "gw1-7")
    out = parse(
        guard.error(b'{"code":-32000,"message":"no ada@example.com","data":{"password":"hunter2"}}')
    )
    assert out == {
        "code": -32000,
        "message": "no [redacted:email] (exeat removed 1 email address and 1 secret (decision gw1-7))",
        "data": {"password": "[redacted:secret]"},
    }
    for broken in (
        b"[]",
        b'{"code":"ada@example.com"}',
        b'{"code":1,"message":{"x":"ada@example.com"}}',
    ):
        assert b"ada@" not in guard.error(broken)
    short = ResultFilter(OnResult(bytes=60), None, "d").error(
        b'{"code":-1,"message":"m","data":"%b"}' % (b"x" * 90)
    )
    assert short == b'{"code":-1,"message":"m"}'


@requirement("POL-9")
def test_obligations_as_they_are_written() -> None:
    on = on_result(
        ("redact:email", "field:/people/*/card", "rows:1", "rows:5", "bytes:9000", "narrow:x")
    )
    out = passed({"structuredContent": {"people": PEOPLE}}, on)
    assert out["structuredContent"]["people"] == [
        {
            "name": "Ada",
            "email": "[redacted:email]",
            "card": "[redacted:field]",
            "score": parse(b"1.5"),
        }
    ]


CARD_AND_BASE64 = "4668566977275762"
"""Its sixteen digits are base64 of printable text as well."""


@requirement("POL-9")
def test_what_is_base64_of_something_is_searched_as_it_is_too() -> None:
    assert decoded(CARD_AND_BASE64) is not None
    out = passed({"structuredContent": {"n": CARD_AND_BASE64, "of": [CARD_AND_BASE64]}})
    assert out["structuredContent"] == {"n": "[redacted:card]", "of": ["[redacted:card]"]}


@requirement("POL-9")
@pytest.mark.parametrize("sign", ["&#0064;", "&#x0040;", "&#X000040;", "&#64;"])
def test_no_zeros_hide_a_sign(sign: str) -> None:
    assert "lovelace" not in json.dumps(passed(text(f"ada.lovelace{sign}example.com")))


@requirement("POL-9")
def test_members_of_the_protocol_are_no_way_around() -> None:
    """The type of a picture, the code of an error, the token that names a call."""
    image = {"type": "image", "mimeType": "image/ada@example.com", "data": "AAAA"}
    assert "ada@" not in json.dumps(passed({"content": [image]}))
    guard = ResultFilter(ALL, None, "gw1-7")
    assert guard.error(b'{"code":-32602,"message":"m"}') == b'{"code":-32602,"message":"m"}'
    assert b"4111111111111111" not in guard.error(b'{"code":4111111111111111,"message":"m"}')
    said = b'{"progressToken":"ada@example.com","progress":1}'
    assert guard.notification("notifications/progress", said) == said, "it is the client's own"
    assert b"ada@" not in (guard.notification("notifications/message", said) or b"")


@requirement("APP-8")
@pytest.mark.parametrize(
    ("structured", "content", "counted"),
    [
        ({}, "a\nb\nc", 3),
        ({"n": 1}, json.dumps(PEOPLE), 2),
        ({"rows": [1, 2, 3, 4]}, "four of them", 4),
        ({"rows": [1]}, json.dumps(list(range(99))), 5),
        ({"rows": list(range(99))}, "", 5),
        (None, "one", 5),
    ],
)
def test_rows_are_counted_wherever_they_passed(structured: Any, content: str, counted: int) -> None:
    """A budget is given back what the result did not use, so the longer of its two forms counts."""
    guard = ResultFilter(OnResult(rows=5), None, "d")
    beside = {} if structured is None else {"structuredContent": structured}
    guard.result(json.dumps({**text(content), **beside}).encode())
    assert guard.summary.passed == counted


@requirement("APP-8")
def test_rows_of_an_error_are_counted() -> None:
    guard = ResultFilter(OnResult(rows=3), None, "d")
    out = parse(guard.error(b'{"code":-1,"message":"m","data":{"rows":[1,2,3,4,5]}}'))
    assert out["data"] == {"rows": [1, 2, 3]} and guard.summary.passed == 3


SIX = json.dumps([{"n": n} for n in range(6)])


@requirement("POL-9", "APP-8")
@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (f"Found 6:\n{SIX}", 'Found 6:\n[{"n": 0}, {"n": 1}]'),
        (f"Found: {SIX} and no more\nbye\n", 'Found: [{"n": 0}, {"n": 1}]'),
        (f'Found: {{"all": {SIX}}}\n', 'Found: {"all": [{"n": 0}, {"n": 1}]}\n'),
        (f"{SIX}\n{SIX}\n", '[{"n": 0}, {"n": 1}, {"n": 2}]\n\n'),
        ("[1] one\n[2] two\n{3} three\n", "[1] one\n[2] two\n{3} three\n"),
        ('got {"n": [1]}\n' * 4, 'got {"n": [1]}\n' * 3),
    ],
)
def test_rows_of_a_list_in_the_middle_of_a_text(said: str, wanted: str) -> None:
    """A server that writes a sentence before its list is capped as one that does not."""
    guard = ResultFilter(OnResult(rows=3), None, "d")
    assert first(parse(guard.result(json.dumps(text(said)).encode()))) == wanted


@requirement("POL-9")
def test_what_the_decoder_reads_in_vain_is_counted_to_its_end() -> None:
    """An open quotation mark is looked for to the end of the text, once for each bracket before it."""
    said = '[[[ "open'
    with pytest.raises(json.JSONDecodeError) as unended:
        json.JSONDecoder().raw_decode(said)
    assert looked(unended.value, 0) == len(said)
    with pytest.raises(json.JSONDecodeError) as other:
        json.JSONDecoder().raw_decode('["a" x]')
    assert looked(other.value, 0) == 5
    many = "[\n" * 900 + '"' + "x" * 9_000
    assert WITHHELD_KEY in passed(text(many))["_meta"]


TWICE = '{"a":"ada.lovelace@example.org","a":"x"}'
HIDING = json.dumps({"people": [{"salary": 91500}]})


def coded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@requirement("POL-9")
@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"o": TWICE}),
        json.dumps({"o": json.dumps([TWICE])}),
        "log:\n" + json.dumps({"o": TWICE}) + "\nend",
        coded(TWICE),
        "see data:application/json;base64," + coded(TWICE),
    ],
)
def test_a_member_that_stands_there_twice_hides_in_nothing_that_holds_it(said: str) -> None:
    """The first of two is read by some, and was searched by nobody."""
    for out in (passed(text(said)), passed({"structuredContent": {"o": said}})):
        written = json.dumps(out)
        assert "lovelace" not in written and coded(TWICE) not in written
        assert coded(TWICE)[:40] not in written


@requirement("POL-9")
@pytest.mark.parametrize("said", [coded(HIDING), "data:application/json;base64," + coded(HIDING)])
def test_a_hidden_field_does_not_pass_as_base64(said: str) -> None:
    on = OnResult(fields=("/people/*/salary",))
    blob = {"type": "resource", "resource": {"uri": "a:b", "blob": coded(HIDING)}}
    content = [{"type": "text", "text": said}, blob]
    out = passed({"content": content, "structuredContent": parse(HIDING.encode())}, on)
    assert coded(HIDING) not in json.dumps(out)

"""REG-5: malformed texts are refused with their place; changes keep how a file is written."""

import pytest
from requirements import requirement

from exeat.governance.inventory.clients import TRANSPORT_FIELDS as DROP
from exeat.governance.inventory.jsonc import DEPTH_MAX, JsonText
from exeat.governance.inventory.text import CannotEdit, Malformed, decode
from exeat.governance.inventory.toml_text import TomlText

NEW = {"url": "U"}


@requirement("REG-5")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1', "1:8: neither a comma nor }"),
        ('{\n  "a" 1}', "2:7: no colon after a key"),
        ("{\n\n a: 1}", "3:2: no key in quotation marks"),
        ('{"a": }', "1:7: no value"),
        ('{"a": "x\n"}', "1:7: a string that does not end"),
        ('{"a": NaN}', "1:7: not a JSON value"),
        ('{"a": 01}', "1:7: not a JSON value"),
        ('{"a": "\\x"}', "1:7: not a JSON value"),
        ('{"a": 1} /* ', "1:10: a comment that does not end"),
        ("{} {}", "1:4: something after the end"),
        ("[1]", "1:1: not an object"),
        ('{"a": 1,, "b": 2}', "1:9: no key in quotation marks"),
        ('{"a":' + "[" * (DEPTH_MAX + 1), f"1:{DEPTH_MAX + 6}: nested deeper than {DEPTH_MAX}"),
    ],
)
def test_json_that_is_none_is_refused_with_its_place(text: str, place: str) -> None:
    with pytest.raises(Malformed) as refused:
        JsonText(text)
    assert f"{refused.value.line}:{refused.value.column}: {refused.value.what}" == place


@requirement("REG-5")
@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a = 1\nb = \n", 2, "not TOML"),
        ("a = 1\na = 2\n", 2, "not TOML"),
        ('[x]\ny = "s3cret', 2, "TOML that ends too early"),
    ],
)
def test_toml_that_is_none_is_refused_without_its_content(text: str, line: int, what: str) -> None:
    with pytest.raises(Malformed) as refused:
        TomlText(text)
    assert (refused.value.line, refused.value.what) == (line, what)
    assert "s3cret" not in str(refused.value)


@requirement("REG-5")
def test_bytes_that_are_no_utf_8_are_refused_with_their_place() -> None:
    with pytest.raises(Malformed) as refused:
        decode(b'{\n "a": "\xff"}')
    assert (refused.value.line, refused.value.column) == (2, 8)
    assert decode(b"\xef\xbb\xbf{}") == ("\ufeff", "{}")


@requirement("REG-5")
def test_what_some_readers_refuse_is_noted() -> None:
    document = JsonText('{ // c\n "a": [1,],\n "a": 2 }')
    assert [(n.line, n.what) for n in document.notes] == [
        (1, "a comment"),
        (2, "a comma after the last one"),
        (3, "a key that stands twice"),
    ]


@requirement("REG-5")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        # the fields that say how it is reached go, with their lines; the rest stays as it was
        (
            '{"s": {"x": {\n\t"timeout": 5, // five\n\t"command": "c", // why\n\t"args": [\n\t\t"a"\n\t],\n'
            '\t"env": {}\n}}}',
            '{"s": {"x": {\n\t"timeout": 5, // five\n\t"url": "U" // why\n}}}',
        ),
        ('{"s":{"x":{"command":"c","args":[],"tools":["t"]}}}', '{"s":{"x":{"url": "U","tools":["t"]}}}'),
        ('{"s":{"x":{"tools":["t"], "command":"c", "args":[]}}}', '{"s":{"x":{"tools":["t"], "url": "U"}}}'),
        ('{"s": {"x": {"command": "c", "args": [], "env": {}}}}', '{"s": {"x": {"url": "U"}}}'),
        (
            '{"s": {"x": {\r\n  "command": "c",\r\n  "args": [],\r\n  "on": true,\r\n  "env": {},\r\n}}}',
            '{"s": {"x": {\r\n  "url": "U",\r\n  "on": true,\r\n}}}',
        ),
        ('{"s": {"x": {"command": "c" /* a */ , /* b */ "cwd": "d" /* c */}}}',
         '{"s": {"x": {"url": "U" /* a */  /* b */ /* c */}}}'),
    ],
)  # fmt: skip
def test_an_entry_changes_where_it_stands(before: str, after: str) -> None:
    assert JsonText(before).swapped(("s", "x"), NEW, DROP) == after


@requirement("REG-5")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "s": {\n    "x": {\n      "url": "U"\n    }\n  }\n}\n'),
        ("{}", '{\n  "s": {\n    "x": {\n      "url": "U"\n    }\n  }\n}'),
        ('{"s":{}}', '{"s":{\n  "x": {\n    "url": "U"\n  }\n}}'),
        (
            '{\n\t"a": 1\n}\n',
            '{\n\t"a": 1,\n\t"s": {\n\t\t"x": {\n\t\t\t"url": "U"\n\t\t}\n\t}\n}\n',
        ),
        ('{"s": {"a": {}}}', '{"s": {"a": {}, "x": {"url": "U"}}}'),
        (
            '{\n    "s": {\n        "a": {}, // last\n        // end\n    },\n}',
            '{\n    "s": {\n        "a": {}, // last\n        // end\n        "x": {\n            "url": "U"\n'
            "        },\n    },\n}",
        ),
        ('{"s": {// none\r\n}}', '{"s": {// none\r\n  "x": {\r\n    "url": "U"\r\n  }\r\n}}'),
    ],
)
def test_an_entry_is_added_as_its_neighbours_are_written(before: str, after: str) -> None:
    assert JsonText(before).added(("s",), "x", NEW) == after


@requirement("REG-5")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"s": {"x": {"command": "a"}}, "s": {"x": {"command": "b"}}}', "'s' stands twice"),
        ('{"s": {"x": {"timeout": 1}}}', "neither a command nor an address"),
    ],
)
def test_an_entry_that_cannot_be_told_apart_is_left_alone(text: str, why: str) -> None:
    with pytest.raises(CannotEdit, match=why):
        JsonText(text).swapped(("s", "x"), NEW, DROP)


@requirement("REG-5")
def test_servers_that_are_no_object_are_not_added_to() -> None:
    with pytest.raises(CannotEdit, match="'s' is not an object"):
        JsonText('{"s": []}').added(("s",), "x", NEW)


@requirement("REG-5")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '[s.x] # mine\n  command = "c" # why\nargs = [ # many\n "]",\n]\n\n# next\n[s.x.env]\nA = 1\n\n[t]\nk = 1',
            '[s.x] # mine\n  url = "U" # why\n\n# next\n\n[t]\nk = 1',
        ),
        ('s.x.command = "c"\ns.x.on = true\n', 's.x.url = "U"\ns.x.on = true\n'),
        ('[s]\nx.env.A = "1"\nx.command = "c"', '[s]\nx.url = "U"\n'),
        ('[s]\nx = {command = "c", on = true}\n', '[s]\nx = { url = "U", on = true }\n'),
        ('[s."a b"]\ncommand = "c"', '[s."a b"]\nurl = "U"'),
        ('[s.x]\ntimeout = 1\n[s.x.env]\nA = "1"\n', '[s.x]\nurl = "U"\ntimeout = 1\n'),
    ],
)
def test_an_entry_of_toml_changes_where_it_stands(before: str, after: str) -> None:
    name = "a b" if "a b" in before else "x"
    assert TomlText(before).swapped(("s", name), NEW, DROP) == after


@requirement("REG-5")
@pytest.mark.parametrize("text", ['s = {x = {command = "c"}}\n', '[s.x.env]\nA = "1"\n'])
def test_toml_without_a_table_for_the_entry_is_left_alone(text: str) -> None:
    with pytest.raises(CannotEdit, match="not written as a table"):
        TomlText(text).swapped(("s", "x"), NEW, DROP)


@requirement("REG-5")
def test_toml_that_would_mean_something_else_is_left_alone() -> None:
    with pytest.raises(CannotEdit, match="without touching something else"):
        TomlText('s = {x = {command = "c"}}\n').added(("s",), "y", NEW)

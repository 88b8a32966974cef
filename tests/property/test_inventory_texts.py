"""REG-5: whatever a file looks like, a change touches one entry, and undoing it gives the same bytes."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import requirement

from exeat.app.inventory.files import read
from exeat.app.inventory.records import Change, carried_out, undo
from exeat.governance.inventory.adoption import Around
from exeat.governance.inventory.clients import (
    CLIENTS,
    TRANSPORT_FIELDS,
    Client,
    Place,
    Scope,
    read_document,
)
from exeat.governance.inventory.entries import entries
from exeat.governance.inventory.jsonc import JsonText
from exeat.governance.inventory.masking import masked
from exeat.governance.inventory.moves import plan_moves, rewritten
from exeat.governance.inventory.survey import Gateways, survey
from exeat.governance.inventory.text import (
    CannotEdit,
    Malformed,
    decode,
    lookup,
    swapped_value,
    with_value,
)
from exeat.governance.inventory.toml_text import TomlText, render

NEW = {"type": "http", "url": "http://127.0.0.1:8717/mcp/x"}
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | NAMES
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {"command": NAMES},
    optional={
        "args": st.lists(NAMES, max_size=3),
        "env": st.dictionaries(NAMES, NAMES, max_size=2),
        "timeout": st.integers(0, 9),
        "disabled": st.booleans(),
        "tools": st.lists(NAMES, max_size=2),
    },
)


class Writer:
    """JSON written as people do: any spacing, comments in any gap, commas after the last."""

    def __init__(self, data: st.DataObject, *, comments: bool) -> None:
        self._draw, self._nl = data.draw, data.draw(st.sampled_from(["\n", "\r\n"]))
        gaps = ["", " ", self._nl, f"{self._nl}  ", f"{self._nl}\t\t", "   "]
        if comments:
            gaps += [f" // a, }} {self._nl}", "/* , ] */", f"{self._nl}  /* two{self._nl}lines */ "]
        self._gap = st.sampled_from(gaps)
        self._last = st.sampled_from(["", ","]) if comments else st.just("")

    def gap(self) -> str:
        return self._draw(self._gap)

    def write(self, value: Any) -> str:
        if isinstance(value, Mapping):
            items = [
                f"{json.dumps(k, ensure_ascii=self._draw(st.booleans()))}{self.gap()}:{self.gap()}"
                f"{self.write(v)}"
                for k, v in value.items()
            ]
            return self._joined("{", items, "}")
        if isinstance(value, list):
            return self._joined("[", [self.write(item) for item in value], "]")
        return json.dumps(value)

    def _joined(self, start: str, items: list[str], end: str) -> str:
        parts = [self.gap() + item + self.gap() for item in items]
        last = self._draw(self._last) if items else ""
        return f"{start}{','.join(parts)}{last}{self.gap()}{end}"


@requirement("REG-5")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_one_entry_of_json_changes_and_nothing_else(data: st.DataObject) -> None:
    servers = data.draw(st.dictionaries(NAMES, ENTRIES, min_size=1, max_size=4))
    value = {**data.draw(st.dictionaries(NAMES, VALUES, max_size=3)), "mcpServers": servers}
    comments = data.draw(st.booleans())
    writer = Writer(data, comments=comments)
    text = writer.gap() + writer.write(value) + writer.gap()
    name = data.draw(st.sampled_from(list(servers)))
    document = JsonText(text)
    assert document.value == value
    assert [text[s.start : s.end] for s in document.scalars if s.value is None] == [
        "null" for s in document.scalars if s.value is None
    ]

    changed = document.swapped(("mcpServers", name), NEW, TRANSPORT_FIELDS)
    wanted = with_value(
        value, ("mcpServers", name), swapped_value(servers[name], NEW, TRANSPORT_FIELDS)
    )
    assert JsonText(changed).value == wanted
    assert list(JsonText(changed).value["mcpServers"]) == list(servers)
    assert changed.count("\r\n") == changed.count("\n") or "\r\n" not in text
    if not comments:
        assert json.loads(changed) == wanted
    assert JsonText(changed).restored(("mcpServers", name), document) == text
    node = document._node(("mcpServers", name))
    assert changed.startswith(text[: node.start])
    assert changed.endswith(text[node.end :])


@requirement("REG-5")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_an_entry_is_added_to_json_and_nothing_else_changes(data: st.DataObject) -> None:
    value: dict[str, Any] = data.draw(st.dictionaries(NAMES, VALUES, max_size=3))
    value.pop("mcpServers", None)
    if data.draw(st.booleans()):
        value["mcpServers"] = data.draw(st.dictionaries(NAMES, ENTRIES, max_size=3))
    writer = Writer(data, comments=data.draw(st.booleans()))
    text = writer.gap() + writer.write(value) + writer.gap()
    wanted = with_value(value, ("mcpServers", "exeat"), NEW)
    if lookup(value, ("mcpServers", "exeat")) is not None:
        with pytest.raises(CannotEdit, match="is there already"):
            JsonText(text).added(("mcpServers",), "exeat", NEW)
        return

    changed = JsonText(text).added(("mcpServers",), "exeat", NEW)

    assert JsonText(changed).value == wanted
    back = JsonText(changed).restored(("mcpServers", "exeat"), JsonText(text))
    if "mcpServers" in value:
        assert JsonText(back).value == value
    rest = iter(changed)  # what stood there stands there still, in order
    if value.get("mcpServers", value):
        assert all(char in rest for char in text)


TOML_VALUES = st.booleans() | st.integers(-99, 99) | NAMES | st.lists(NAMES, max_size=3)
TOML_KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True) | NAMES


@st.composite
def toml_entries(draw: st.DrawFn, name: str, nl: str) -> tuple[str, dict[str, Any]]:
    """One server in one of the ways in which TOML can say it."""
    fields: dict[str, Any] = {
        "command": draw(NAMES),
        "args": draw(st.lists(NAMES, max_size=3)),
        "env": draw(st.dictionaries(TOML_KEYS, NAMES, max_size=2)),
        "startup_timeout_sec": draw(st.integers(0, 9)),
    }
    key, note = quoted(name), draw(st.sampled_from(["", "  # a = [", "\t#"]))
    args = f"[{nl}  {f', # one{nl}  '.join(map(quote_value, fields['args']))}{nl}]"
    env = [f"{quoted(k)} = {quote_value(v)}{note}" for k, v in fields["env"].items()]
    way = draw(st.sampled_from(["table", "dotted"]))
    if way == "dotted":
        lines = [
            f"[mcp_servers.{key}]",
            *(f"env.{each}" for each in env),
            f"startup_timeout_sec = {fields['startup_timeout_sec']}{note}",
            f"command = {quote_value(fields['command'])}",
            f"args = {args}{note}",
        ]
    else:
        lines = [
            f"[ mcp_servers . {key} ]{note}",
            f"  command = {quote_value(fields['command'])}{note}",
            "# a comment of its own",
            f"  args={args}",
            f"  startup_timeout_sec = {fields['startup_timeout_sec']}",
            "",
            f"[mcp_servers.{key}.env]",
            *env,
        ]
    if way == "dotted" and not env:
        del fields["env"]
    return nl.join(lines), fields


def quoted(name: str) -> str:
    return (
        name
        if name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
        else render(name)
    )


def quote_value(value: Any) -> str:
    return render(value)


@requirement("REG-5")
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_entry_of_toml_changes_and_nothing_else(data: st.DataObject) -> None:
    nl = data.draw(st.sampled_from(["\n", "\r\n"]))
    names = data.draw(st.lists(TOML_KEYS, min_size=1, max_size=3, unique=True))
    parts = [data.draw(toml_entries(name, nl)) for name in names]
    top = [
        f"{quoted(k)} = {render(v)} # kept"
        for k, v in data.draw(
            st.dictionaries(
                TOML_KEYS.filter(lambda k: k not in ("mcp_servers", "tui")), TOML_VALUES, max_size=3
            )
        ).items()
    ]
    text = nl.join(
        [*top, "", *(f"{body}{nl}" for body, _ in parts), "[tui]", "x = '''", "[mcp_servers.no]'''"]
    )
    text += data.draw(st.sampled_from(["", nl]))
    before = tomllib.loads(text)
    name = data.draw(st.sampled_from(names))
    assert {s.path[1] for s in TomlText(text).scalars if s.path[0] == "mcp_servers"} == set(names)

    changed = TomlText(text).swapped(("mcp_servers", name), {"url": "http://x"}, TRANSPORT_FIELDS)

    kept = swapped_value(before["mcp_servers"][name], {"url": "http://x"}, TRANSPORT_FIELDS)
    assert tomllib.loads(changed) == with_value(before, ("mcp_servers", name), kept)
    assert all(line in changed for line in top)
    assert changed.count("\r\n") == changed.count("\n") or nl == "\n"
    assert (
        tomllib.loads(TomlText(changed).restored(("mcp_servers", name), TomlText(text))) == before
    )
    added = TomlText(text).added(("mcp_servers",), "new server", {"url": "http://x"})
    assert added.startswith(text)
    gone = TomlText(added).restored(("mcp_servers", "new server"), TomlText(text))
    assert gone.rstrip() == text.rstrip()
    assert tomllib.loads(added) == with_value(
        before, ("mcp_servers", "new server"), {"url": "http://x"}
    )


KEYS = st.sampled_from(
    [
        "type",
        "command",
        "args",
        "env",
        "envFile",
        "env_vars",
        "cwd",
        "url",
        "serverUrl",
        "httpUrl",
        "headers",
        "headersHelper",
        "http_headers",
        "env_http_headers",
        "bearer_token",
        "bearer_token_env_var",
        "auth",
        "oauth",
        "disabled",
        "enabled",
    ]
)
PIECES = st.sampled_from(
    ["npx", "mcp-remote", "docker", "-e", "--header", "--token", "https://", "http://[", "u:p@", "?key=",
     "A_TOKEN=", "Authorization:", "Bearer ", "${X}", "${X:-y}", "${workspaceFolder}", "$X", "\x00", "é", "/"]
)  # fmt: skip
TEXTS = st.lists(PIECES | NAMES, max_size=4).map("".join)
ANYTHING = (
    TEXTS
    | VALUES
    | st.lists(TEXTS, max_size=5)
    | st.dictionaries(TEXTS, TEXTS | SCALARS, max_size=3)
)


@requirement("REG-5")
@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(TEXTS, st.dictionaries(KEYS, ANYTHING) | VALUES, max_size=3),
    st.sampled_from([c for c in CLIENTS.values() if c.id != "codex"]),
)
def test_whatever_an_entry_holds_it_is_told_and_moves_or_stays(
    servers: dict[str, Any], client: Client
) -> None:
    holder = client.holders[0][0]
    text = json.dumps({holder: servers})
    document = read_document(client, text)
    place = Place(client, Scope.USER, "f")
    seen = survey(entries(place, "f", document), Gateways(("http://127.0.0.1:8717/mcp",)))
    assert [each.entry.name for each in seen] == list(servers)
    told = json.dumps([each.as_json() for each in seen])
    known = {s.value for each in seen for s in each.secrets if len(s.value) > 8}
    assert not [each for each in known if json.dumps(each)[1:-1] in told]
    masked(document, known)
    plan = plan_moves(seen, {}, Around("/home/ada", lambda path: ()))
    assert len(plan.moves) + len(plan.stays) == len(seen)
    moved = rewritten(
        client, text, plan.moves, lambda s: f"http://g/mcp/{s}", lambda url: ("exeat", url)
    )
    after = read_document(client, moved).value[holder]
    assert {n: v for n, v in after.items() if n in {s.seen.entry.name for s in plan.stays}} == {
        s.seen.entry.name: servers[s.seen.entry.name] for s in plan.stays
    }


@requirement("REG-5")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_undoing_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes
) -> None:
    home = tmp_path_factory.mktemp("h")
    path = home / "client.json"
    path.write_bytes(before)
    found = read(path)
    assert found is not None
    with carried_out(home, "adopt", [Change("cursor", found, after)], [], b"abc"):
        assert path.read_bytes() == after
    undo(home, None, "adopt")
    assert path.read_bytes() == before


@requirement("REG-5")
@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]":,/*\\ \n\tau\ufeff', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused_with_a_place(data: bytes) -> None:
    for reader in (JsonText, TomlText):
        try:
            _, text = decode(data)
            reader(text)
        except Malformed as error:
            assert error.line >= 1 and error.column >= 1
            assert error.what in str(error)

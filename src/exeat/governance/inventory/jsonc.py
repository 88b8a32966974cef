"""JSON as clients read it: with comments and trailing commas (RFC 8259 and what VS Code calls JSONC).

Reading tells places; changing touches only the members concerned, so that formatting, comments, order,
line endings and whatever else stands in the file stay byte for byte.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exeat.governance.inventory.text import (
    CannotEdit,
    Document,
    Edit,
    Malformed,
    Path,
    Scalar,
    apply,
    begins_line,
    confirmed,
    indent_at,
    lookup,
    newline_of,
    restored_value,
    swapped_value,
    with_value,
)

DEPTH_MAX: Final = 100
_SPACE: Final = re.compile(r"[ \t\r\n]*+")
_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+"')
_WORD: Final = re.compile(r"[-+.\w]+")
_TAIL: Final = re.compile(r"[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/)?[ \t]*(?=\r?\n|$)")
_UNIT: Final = re.compile(r'\n([ \t]+)["/]')


@dataclass(frozen=True, slots=True)
class Member:
    """``comma``: the position of the comma that follows, or -1."""

    key: str
    start: int
    node: "Node"
    comma: int


@dataclass(frozen=True, slots=True)
class Node:
    start: int
    end: int
    value: Any
    members: tuple[Member, ...] | None = None
    items: tuple["Node", ...] = ()


@dataclass(slots=True)
class _Reader:
    text: str
    notes: list[Malformed] = field(default_factory=list)

    def fail(self, position: int, what: str) -> Malformed:
        return Malformed.at(self.text, position, what)

    def note(self, position: int, what: str) -> None:
        """The first of its kind: to say where each is would take a walk through the text for each."""
        if all(each.what != what for each in self.notes):
            self.notes.append(self.fail(position, what))

    def skip(self, at: int) -> int:
        """Over white space and comments."""
        while True:
            at = _SPACE.match(self.text, at).end()  # type: ignore[union-attr] # matches nothing too
            if self.text[at : at + 1] != "/":
                return at
            found = _COMMENT.match(self.text, at)
            if found is None:
                raise self.fail(at, "a comment that does not end")
            self.note(at, "a comment")
            at = found.end()

    def value(self, at: int, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise self.fail(at, f"nested deeper than {DEPTH_MAX}")
        mark = self.text[at : at + 1]
        if mark == "{":
            return self.object(at, depth)
        if mark == "[":
            return self.array(at, depth)
        found = (_STRING if mark == '"' else _WORD).match(self.text, at)
        if found is None:
            raise self.fail(at, "no value" if mark != '"' else "a string that does not end")
        return Node(at, found.end(), self.scalar(found.group(), at))

    def scalar(self, token: str, at: int) -> Any:
        try:
            return json.loads(token, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise self.fail(at, "not a JSON value") from None

    def object(self, start: int, depth: int) -> Node:
        members: list[Member] = []
        value: dict[str, Any] = {}
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "}":
            token = _STRING.match(self.text, at)
            if token is None:
                raise self.fail(at, "no key in quotation marks")
            key = str(self.scalar(token.group(), at))
            colon = self.skip(token.end())
            if self.text[colon : colon + 1] != ":":
                raise self.fail(colon, "no colon after a key")
            node = self.value(self.skip(colon + 1), depth + 1)
            after, comma = self.separator(node.end, "}")
            members.append(Member(key, at, node, comma))
            if key in value:
                self.note(at, "a key that stands twice")
            value[key] = node.value
            at = after
        return Node(start, at + 1, value, tuple(members))

    def array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "]":
            node = self.value(at, depth + 1)
            items.append(node)
            at, _ = self.separator(node.end, "]")
        return Node(start, at + 1, [item.value for item in items], None, tuple(items))

    def separator(self, at: int, close: str) -> tuple[int, int]:
        """Where the next thing begins, and where the comma is (-1 if there is none)."""
        at = self.skip(at)
        if self.text[at : at + 1] == ",":
            after = self.skip(at + 1)
            if self.text[after : after + 1] == close:
                self.note(at, "a comma after the last one")
            return after, at
        if self.text[at : at + 1] != close:
            raise self.fail(at, f"neither a comma nor {close}")
        return at, -1


class JsonText:
    """Raises Malformed unless the text is one JSON object; no text at all is an empty one."""

    def __init__(self, text: str) -> None:
        self.text = text
        reader = _Reader(text)
        at = reader.skip(0)
        if at == len(text):
            self.root = Node(len(text), len(text), {}, ())
        else:
            self.root = reader.value(at, 0)
            end = reader.skip(self.root.end)
            if end != len(text):
                raise reader.fail(end, "something after the end")
            if self.root.members is None:
                raise reader.fail(at, "not an object")
        self.notes = tuple(reader.notes)

    @property
    def value(self) -> dict[str, Any]:
        found: dict[str, Any] = self.root.value
        return found

    @property
    def scalars(self) -> tuple[Scalar, ...]:
        return tuple(_scalars(self.root, ()))

    def swapped(self, entry: Path, new: Mapping[str, Any], drop: frozenset[str]) -> str:
        node = self._node(entry)
        members = node.members or ()
        going = [n for n, member in enumerate(members) if member.key in drop]
        if not going:
            raise CannotEdit(f"The entry {entry[-1]!r} has neither a command nor an address.")
        first = members[going[0]]
        own_line = begins_line(self.text, first.start)
        indent = indent_at(self.text, first.start)
        between = f",{newline_of(self.text)}{indent}" if own_line else ", "
        shown = between.join(
            f"{json.dumps(k)}: {self._render(v, indent, own_line)}" for k, v in new.items()
        )
        edits = [Edit(first.start, first.node.end, shown)]
        edits += [self._without(members[n]) for n in going[1:]]
        if going[-1] == len(members) - 1 and len(going) > 1 and members[-1].comma < 0:
            kept = max(n for n in range(len(members)) if n not in going[1:])
            comma = members[kept].comma
            edits.append(self._without_comma(comma))
        wanted = with_value(self.value, entry, swapped_value(node.value, new, drop))
        return self._confirmed(apply(self.text, edits), wanted)

    def added(self, holder: Path, name: str, new: Mapping[str, Any]) -> str:
        listed = lookup(self.value, holder)
        if isinstance(listed, Mapping) and name in listed:
            raise CannotEdit(f"{name!r} is there already.")
        wanted = with_value(self.value, (*holder, name), dict(new))
        depth = 0
        while depth < len(holder) and lookup(self.value, holder[: depth + 1]) is not None:
            depth += 1
        inside: Any = dict(new)
        for part in reversed((*holder[depth + 1 :], name) if depth < len(holder) else ()):
            inside = {part: inside}
        key = holder[depth] if depth < len(holder) else name
        if not self.text.strip():
            nl = newline_of(self.text)
            shown = self._render({key: inside}, "", True)
            return self._confirmed(self.text + shown + nl, wanted)
        edits = self._insertion(self._node(holder[:depth]), key, inside)
        return self._confirmed(apply(self.text, edits), wanted)

    def restored(self, entry: Path, original: Document) -> str:
        wanted = restored_value(self.value, original.value, entry)
        node = self._node(entry)
        if lookup(original.value, entry) is not None and isinstance(original, JsonText):
            source = original._node(entry)
            old = original.text[source.start : source.end]
            return self._confirmed(apply(self.text, [Edit(node.start, node.end, old)]), wanted)
        members = self._node(entry[:-1]).members or ()
        place = [member.key for member in members].index(entry[-1])
        edits = [self._without(members[place])]
        if place == len(members) - 1 and place and members[place].comma < 0:
            comma = members[place - 1].comma
            edits.append(self._without_comma(comma))
        return self._confirmed(apply(self.text, edits), wanted)

    def _node(self, path: Path) -> Node:
        node = self.root
        for part in path:
            found = [member for member in node.members or () if member.key == part]
            if len(found) > 1:
                raise CannotEdit(f"{part!r} stands twice.", remedy="Keep one of the two.")
            if not found or found[0].node.members is None:
                raise CannotEdit(f"{part!r} is not an object.", remedy="Correct it by hand.")
            node = found[0].node
        return node

    def _without(self, member: Member) -> Edit:
        """Takes a member away with its comma, and with its line if it had it for itself."""
        end = member.comma + 1 if member.comma >= 0 else member.node.end
        tail = _TAIL.match(self.text, end)
        if begins_line(self.text, member.start) and tail is not None:
            line = self.text.rfind("\n", 0, member.start)
            line -= line > 0 and self.text[line - 1] == "\r"
            return Edit(max(line, 0), tail.end(), "")
        start = member.start
        if member.comma < 0:
            start = len(self.text[:start].rstrip(" \t"))
        else:
            end = self._past_spaces(end)
        return Edit(start, end, "")

    def _without_comma(self, comma: int) -> Edit:
        after = self._past_spaces(comma + 1)
        return Edit(comma, after if self.text[after : after + 1] not in "\r\n/" else comma + 1, "")

    def _past_spaces(self, at: int) -> int:
        while self.text[at : at + 1] in (" ", "\t"):
            at += 1
        return at

    def _insertion(self, node: Node, key: str, value: Any) -> Iterator[Edit]:
        """One member more at the end of an object, written as its neighbours are."""
        text, nl, members = self.text, newline_of(self.text), node.members or ()
        close = node.end - 1
        at = len(text[:close].rstrip(" \t\r\n"))
        outer = indent_at(text, node.start)
        many = "\n" in text[node.start : close] or not members
        lead = outer + self._unit
        if members and begins_line(text, members[-1].start):
            lead = indent_at(text, members[-1].start)
        shown = f"{json.dumps(key, ensure_ascii=False)}: {self._render(value, lead, many)}"
        if members and members[-1].comma < 0:
            yield Edit(members[-1].node.end, members[-1].node.end, ",")
        elif members:
            shown += ","
        ends = "" if members or "\n" in text[at:close] else nl + outer
        if not many:
            yield Edit(at, at, f" {shown}")
        elif not members and at == node.start + 1:
            yield Edit(at, close, f"{nl}{lead}{shown}{nl}{outer}")
        else:
            yield Edit(at, at, f"{nl}{lead}{shown}{ends}")

    @property
    def _unit(self) -> str:
        found = _UNIT.search(self.text)
        return found.group(1) if found else "  "

    def _render(self, value: Any, indent: str, many: object) -> str:
        """``many``: objects over several lines; lists stay on one."""
        if not (many and isinstance(value, Mapping) and value):
            return json.dumps(value, ensure_ascii=False)
        nl, inner = newline_of(self.text), indent + self._unit
        lines = (
            f"{nl}{inner}{json.dumps(k, ensure_ascii=False)}: {self._render(v, inner, many)}"
            for k, v in value.items()
        )
        return f"{{{','.join(lines)}{nl}{indent}}}"

    def _confirmed(self, text: str, wanted: dict[str, Any]) -> str:
        try:
            return confirmed(text, JsonText(text).value, wanted)
        except Malformed:
            return confirmed(text, None, wanted)


def _refuse(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _scalars(node: Node, path: Path) -> Iterator[Scalar]:
    for member in node.members or ():
        yield from _scalars(member.node, (*path, member.key))
    for number, item in enumerate(node.items):
        yield from _scalars(item, (*path, str(number)))
    if node.members is None and not isinstance(node.value, list):
        yield Scalar(path, node.start, node.end, node.value)

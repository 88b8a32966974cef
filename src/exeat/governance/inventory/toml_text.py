"""TOML with places (toml.io 1.0): what a parser reads, and which lines say it.

``tomllib`` decides what the text means; the statements here only find the lines to change, and every
change is read back by ``tomllib`` before it counts.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from exeat.governance.inventory.text import (
    CannotEdit,
    Document,
    Edit,
    Malformed,
    Path,
    Scalar,
    apply,
    confirmed,
    indent_at,
    newline_of,
    restored_value,
    swapped_value,
    with_value,
)

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SPACE: Final = re.compile(r"[ \t]*")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*+")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")|\'\'\'.*?\'{3,5}(?!\')|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'',
    re.DOTALL,
)
_WORD: Final = re.compile(r"[^,\]}#\r\n]+")
_PLACE: Final = re.compile(r"(.*?)\s*\(at (?:line (\d+), column (\d+)|end of document)\)")


@dataclass(frozen=True, slots=True)
class Statement:
    """``path``: what it is about, whole.  ``keys``: where each part of its own key stands; the part
    of ``path`` before them comes from the table's header.  ``value``: its place; equal for a header."""

    path: Path
    keys: tuple[tuple[int, int], ...]
    start: int
    value: tuple[int, int]
    end: int

    @property
    def header(self) -> bool:
        return self.value[0] == self.value[1]


@dataclass(slots=True)
class _Scanner:
    """Of text that ``tomllib`` has read."""

    text: str
    scalars: list[Scalar] = field(default_factory=list)

    def statements(self) -> Iterator[Statement]:
        at, table = 0, Path()
        while (at := self.blank(at)) < len(self.text):
            start = at
            if self.text[at] == "[":
                brackets = 2 if self.text.startswith("[[", at) else 1
                table, keys, at = self.key(at + brackets, ())
                at += brackets
                yield Statement(table, keys, start, (at, at), at)
            else:
                path, keys, at = self.key(at, table)
                begin = self.space(at + 1)
                at = self.value(begin, path)
                yield Statement(path, keys, start, (begin, at), at)

    def blank(self, at: int) -> int:
        return _BLANK.match(self.text, at).end()  # type: ignore[union-attr] # matches nothing too

    def space(self, at: int) -> int:
        return _SPACE.match(self.text, at).end()  # type: ignore[union-attr]

    def key(self, at: int, before: Path) -> tuple[Path, tuple[tuple[int, int], ...], int]:
        path, places = before, []
        while True:
            at = self.space(at)
            found = _STRING.match(self.text, at) or _BARE.match(self.text, at)
            if found is None:
                raise Malformed.at(self.text, at, "no key")
            token = found.group()
            path = (*path, _decoded(token) if token[0] in "\"'" else token)
            places.append((at, found.end()))
            at = self.space(found.end())
            if self.text[at : at + 1] != ".":
                return path, tuple(places), at
            at += 1

    def value(self, at: int, path: Path) -> int:
        mark = self.text[at : at + 1]
        if mark == "[":
            return self.array(at, path)
        if mark == "{":
            return self.table(at, path)
        found = _STRING.match(self.text, at) or _WORD.match(self.text, at)
        if found is None:
            raise Malformed.at(self.text, at, "no value")
        token = found.group().rstrip()
        self.scalars.append(Scalar(path, at, at + len(token), _decoded(token)))
        return at + len(token)

    def array(self, at: int, path: Path) -> int:
        number, at = 0, self.blank(at + 1)
        while self.text[at : at + 1] != "]":
            at = self.blank(self.value(at, (*path, str(number))))
            number += 1
            if self.text[at : at + 1] == ",":
                at = self.blank(at + 1)
        return at + 1

    def table(self, at: int, path: Path) -> int:
        at = self.blank(at + 1)
        while self.text[at : at + 1] != "}":
            inner, _, at = self.key(at, path)
            at = self.blank(self.value(self.blank(at + 1), inner))
            if self.text[at : at + 1] == ",":
                at = self.blank(at + 1)
        return at + 1


class TomlText:
    """Raises Malformed."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.value: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _malformed(text, error) from None
        except RecursionError:
            raise Malformed(1, 1, "nested too deep") from None
        scanner = _Scanner(text)
        self.statements = tuple(scanner.statements())
        self.scalars = tuple(scanner.scalars)
        self.notes: tuple[Malformed, ...] = ()

    def swapped(self, entry: Path, new: Mapping[str, Any], drop: frozenset[str]) -> str:
        size = len(entry)
        old: Any = self.value
        for part in entry:
            old = old[part]
        changed = swapped_value(old, new, drop)
        about = self._about(entry)
        whole = [s for s in about if s.path == entry and not s.header]
        if whole:
            edits = [Edit(*whole[0].value, render(changed))]
        else:
            going = [s for s in about if len(s.path) > size and s.path[size] in drop]
            edits = self._replaced(entry, new, about, going)
        return self._confirmed(apply(self.text, edits), with_value(self.value, entry, changed))

    def _replaced(
        self,
        entry: Path,
        new: Mapping[str, Any],
        about: list[Statement],
        going: list[Statement],
    ) -> list[Edit]:
        nl, size = newline_of(self.text), len(entry)
        pairs = [s for s in going if not s.header and len(s.path) - len(s.keys) <= size]
        heads = [s for s in about if s.header and s.path == entry]
        if pairs:
            first = pairs[0]
            prefix = self.text[first.start : first.keys[size - len(first.path)][0]]
            between = nl + indent_at(self.text, first.start)
            lines = between.join(f"{prefix}{_key(k)} = {render(v)}" for k, v in new.items())
            edits = [Edit(first.start, first.end, lines)]
            return edits + [self._without(s) for s in going if s is not first]
        if heads:
            end = self._line_end(heads[0].end)
            lines = "".join(f"{_key(k)} = {render(v)}{nl}" for k, v in new.items())
            return [Edit(end, end, lines), *(self._without(s) for s in going)]
        raise CannotEdit(
            f"The entry {entry[-1]!r} is not written as a table of its own.",
            remedy=f"Write it as [{'.'.join(map(_key, entry))}], then run this again.",
        )

    def added(self, holder: Path, name: str, new: Mapping[str, Any]) -> str:
        nl = newline_of(self.text)
        lead = "" if not self.text else nl if self.text.endswith("\n") else nl * 2
        header = ".".join(_key(part) for part in (*holder, name))
        lines = "".join(f"{_key(k)} = {render(v)}{nl}" for k, v in new.items())
        text = f"{self.text}{lead}[{header}]{nl}{lines}"
        return self._confirmed(text, with_value(self.value, (*holder, name), dict(new)))

    def restored(self, entry: Path, original: Document) -> str:
        wanted = restored_value(self.value, original.value, entry)
        old = original._lines_about(entry) if isinstance(original, TomlText) else ""
        first, *others = [Edit(*place, "") for place in self._places_of(entry)]
        if not old and first.start:
            kept = len(self.text[: first.start].rstrip(" \t\r\n"))
            first = replace(first, start=self._line_end(kept) if kept else 0)
        elif old and not old.endswith("\n"):
            old += newline_of(self.text) if self.text[first.end :] else ""
        edits = [replace(first, text=old), *others]
        return self._confirmed(apply(self.text, edits), wanted)

    def _about(self, entry: Path) -> list[Statement]:
        return [s for s in self.statements if s.path[: len(entry)] == entry]

    def _places_of(self, entry: Path) -> list[tuple[int, int]]:
        """Whole lines: from its first to its last, if nothing else stands between; else its own."""
        about, text = self._about(entry), self.text
        lines = [(text.rfind("\n", 0, s.start) + 1, self._line_end(s.end)) for s in about]
        at = [n for n, s in enumerate(self.statements) if s.path[: len(entry)] == entry]
        together = bool(at) and at[-1] - at[0] + 1 == len(at)
        return [(lines[0][0], lines[-1][1])] if together else lines

    def _lines_about(self, entry: Path) -> str:
        return "".join(self.text[start:end] for start, end in self._places_of(entry))

    def _without(self, statement: Statement) -> Edit:
        """Its lines; a header takes the empty lines above it along."""
        start = self.text.rfind("\n", 0, statement.start) + 1
        if statement.header:
            start = len(self.text[:start].rstrip(" \t\r\n"))
            start = self._line_end(start) if start else 0
        return Edit(start, self._line_end(statement.end), "")

    def _line_end(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _confirmed(self, text: str, wanted: dict[str, Any]) -> str:
        try:
            return confirmed(text, tomllib.loads(text), wanted)
        except tomllib.TOMLDecodeError:
            return confirmed(text, None, wanted)


def render(value: Any) -> str:
    """On one line.  Raises CannotEdit for what has no such form here."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(render, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {render(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise CannotEdit("The entry holds a value that cannot be written again.")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else render(name)


def _decoded(token: str) -> Any:
    return tomllib.loads(f"x = {token}")["x"]


def _malformed(text: str, error: tomllib.TOMLDecodeError) -> Malformed:
    """``tomllib`` words its messages without the content, save for names of keys."""
    found = _PLACE.fullmatch(str(error))
    if found is None or found[2] is None:
        return Malformed.at(text, len(text), "TOML that ends too early")
    return Malformed(int(found[2]), int(found[3]), "not TOML")

"""A configuration file as text with places, and changes to it that leave everything else as it is.

Two formats (``jsonc``, ``toml_text``) give one ``Document``.  Every change is read back and compared
before it counts: what was not meant to change has kept its value, or there is no change (REG-5).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from exeat.core.errors import Invalid

BOM: Final = "\ufeff"
Path = tuple[str, ...]


class Malformed(Exception):
    """The text is not of its format.  ``line`` and ``column`` count from 1; no content is told."""

    def __init__(self, line: int, column: int, what: str) -> None:
        super().__init__(what)
        self.line, self.column, self.what = line, column, what

    @classmethod
    def at(cls, text: str, position: int, what: str) -> "Malformed":
        line = text.count("\n", 0, position) + 1
        return cls(line, position - (text.rfind("\n", 0, position) + 1) + 1, what)


class CannotEdit(Invalid):
    """The entry is written in a way that cannot be changed in place."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A string, number or literal: where it stands, under which keys (items by their number)."""

    path: Path
    start: int
    end: int
    value: Any


@dataclass(frozen=True, slots=True)
class Edit:
    start: int
    end: int
    text: str


class Document(Protocol):
    """``text`` without a byte order mark.  ``value``: as a parser of the format reads it."""

    @property
    def text(self) -> str: ...
    @property
    def value(self) -> dict[str, Any]: ...
    @property
    def notes(self) -> tuple[Malformed, ...]:
        """What some readers refuse or read differently: comments, keys that stand twice."""
        ...

    @property
    def scalars(self) -> tuple[Scalar, ...]: ...

    def swapped(self, entry: Path, new: Mapping[str, Any], drop: frozenset[str]) -> str:
        """The text with the fields ``drop`` of an entry gone and ``new`` in their place.  Raises
        CannotEdit."""
        ...

    def added(self, holder: Path, name: str, new: Mapping[str, Any]) -> str:
        """The text with one entry more; holders that are missing are made.  Raises CannotEdit."""
        ...

    def restored(self, entry: Path, original: "Document") -> str:
        """The text with an entry as the original has it, or without it if the original has none.
        Raises CannotEdit."""
        ...


def decode(data: bytes) -> tuple[str, str]:
    """The byte order mark (or nothing) and the text.  Raises Malformed."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise Malformed(line, column, "not UTF-8 text") from None
    return (BOM, text[1:]) if text.startswith(BOM) else ("", text)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Edits do not overlap; those at one position stay in their order."""
    parts, at = [], 0
    for edit in sorted(edits, key=lambda each: each.start):
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join((*parts, text[at:]))


def newline_of(text: str) -> str:
    """The line ending in use."""
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def indent_at(text: str, position: int) -> str:
    """The white space that begins the line of this position."""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:position]
    return line[: len(line) - len(line.lstrip(" \t"))]


def begins_line(text: str, position: int) -> bool:
    return not text[text.rfind("\n", 0, position) + 1 : position].strip(" \t")


def lookup(value: Any, path: Path) -> Any:
    """What stands there, or None."""
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def with_value(value: Mapping[str, Any], path: Path, new: Any) -> dict[str, Any]:
    """A copy with another value at a path; mappings on the way are made if they are missing."""
    head, *rest = path
    inner = value.get(head)
    changed = (
        with_value(inner if isinstance(inner, Mapping) else {}, tuple(rest), new) if rest else new
    )
    return {**value, head: changed}


def without_value(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A copy without what stands at a path."""
    head, *rest = path
    if not rest:
        return {name: kept for name, kept in value.items() if name != head}
    return {**value, head: without_value(value[head], tuple(rest))}


def restored_value(now: Mapping[str, Any], original: Mapping[str, Any], entry: Path) -> Any:
    old = lookup(original, entry)
    return without_value(now, entry) if old is None else with_value(now, entry, old)


def swapped_value(
    entry: Mapping[str, Any], new: Mapping[str, Any], drop: frozenset[str]
) -> dict[str, Any]:
    return {**new, **{name: kept for name, kept in entry.items() if name not in drop}}


def confirmed(text: str, read_back: Any, wanted: Any) -> str:
    """The new text, if it reads as wanted.  Raises CannotEdit."""
    if read_back != wanted:
        raise CannotEdit(
            "The entry cannot be changed without touching something else.",
            remedy="Change it by hand, and look at it with `exeat discover`.",
        )
    return text

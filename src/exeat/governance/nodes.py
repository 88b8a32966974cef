"""YAML nodes as fields with places: what a declared file says, and exactly where."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

import yaml

E = TypeVar("E", bound=StrEnum)
_STRING: Final = "tag:yaml.org,2002:str"
_DATE: Final = "tag:yaml.org,2002:timestamp"
_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_NUMBER: Final = "tag:yaml.org,2002:int"
_NUMBER_DIGITS_MAX: Final = 9


@dataclass(frozen=True, slots=True, order=True)
class Place:
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Problem(Exception):
    """One thing that is wrong in a file: where, what, and what to do."""

    def __init__(self, place: Place, what: str, remedy: str) -> None:
        super().__init__(what)
        self.place, self.what, self.remedy = place, what, remedy

    def __str__(self) -> str:
        return f"{self.place}: {self.what}. {self.remedy}".rstrip()


def mapping(file: str, node: yaml.Node, what: str) -> yaml.MappingNode:
    """Raises Problem unless the node is a mapping with text keys; nothing at all is an empty one."""
    if isinstance(node, yaml.ScalarNode) and node.value == "" and node.style is None:
        return yaml.MappingNode("tag:yaml.org,2002:map", [], node.start_mark, node.end_mark)
    if not isinstance(node, yaml.MappingNode):
        raise Problem(_place(file, node), f"{what} is not a mapping", "Write `name: value` lines.")
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise Problem(_place(file, key), f"a key in {what} is not a text", "Write a name.")
    return node


def entries(node: yaml.MappingNode) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Name, key node and value node of each entry."""
    for key, value in node.value:
        yield str(key.value), key, value


def _place(file: str, node: yaml.Node) -> Place:
    return Place(file, node.start_mark.line + 1)


class Fields:
    """The fields of one declared thing.  Reading one marks it as known; ``refuse_unknown`` tells
    the others.  Every method raises Problem at the line of its field."""

    def __init__(self, file: str, node: yaml.MappingNode) -> None:
        self._file, self._node = file, node
        self._nodes: dict[str, yaml.Node] = {}
        self._known: set[str] = set()
        for name, key, value in entries(node):
            if name in self._nodes:
                raise Problem(_place(file, key), f"{name!r} stands here twice", "Keep one of them.")
            self._nodes[name] = value

    def problem(self, name: str, what: str, remedy: str) -> Problem:
        return Problem(_place(self._file, self._nodes[name]), f"{name} {what}", remedy)

    def refuse_unknown(self) -> None:
        for name, key, _ in entries(self._node):
            if name not in self._known:
                known = ", ".join(sorted(self._known))
                raise Problem(_place(self._file, key), f"unknown key {name!r}", f"Known: {known}.")

    def text(self, name: str, *, dates: bool = False) -> str:
        node = self._take(name)
        return "" if node is None else self._text(name, node, dates=dates)

    def required(self, name: str, remedy: str) -> str:
        text = self.text(name)
        if not text:
            raise Problem(_place(self._file, self._node), f"{name} is missing", remedy)
        return text

    def texts(self, name: str) -> list[str]:
        node = self._take(name)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.problem(name, "is not a list", "Write it as [one, two].")
        return [self._text(name, each, dates=False) for each in node.value]

    def pairs(self, name: str) -> dict[str, str]:
        node = self._take(name)
        if node is None:
            return {}
        inner = Fields(self._file, mapping(self._file, node, name))
        return {each: inner.text(each) for each in inner._nodes}

    def flag(self, name: str, *, absent: bool) -> bool:
        node = self._take(name)
        if node is None:
            return absent
        if node.tag != _BOOLEAN or node.value.lower() not in ("true", "false"):
            raise self.problem(name, "is neither true nor false", "Write true or false.")
        return bool(node.value.lower() == "true")

    def number(self, name: str, *, absent: int) -> int:
        node = self._take(name)
        if node is None:
            return absent
        digits = str(node.value)
        if node.tag != _NUMBER or not digits.isdecimal() or len(digits) > _NUMBER_DIGITS_MAX:
            raise self.problem(name, "is not a whole number", "Write digits.")
        return int(digits)

    def one_of(self, name: str, kind: type[E]) -> E:
        text = self.text(name)
        if text not in list(kind):
            place = _place(self._file, self._nodes.get(name, self._node))
            remedy = f"Write one of: {', '.join(kind)}."
            raise Problem(place, f"{name} is {text!r}" if text else f"{name} is missing", remedy)
        return kind(text)

    def some_of(self, name: str, kind: type[E]) -> frozenset[E]:
        texts = self.texts(name)
        for text in texts:
            if text not in list(kind):
                raise self.problem(name, f"holds {text!r}", f"Write some of: {', '.join(kind)}.")
        return frozenset(map(kind, texts))

    def _take(self, name: str) -> yaml.Node | None:
        self._known.add(name)
        return self._nodes.get(name)

    def _text(self, name: str, node: yaml.Node, *, dates: bool) -> str:
        plain = node.tag == _STRING or (dates and node.tag == _DATE)
        if not isinstance(node, yaml.ScalarNode) or not plain:
            what = f"{name} is not a text"
            raise Problem(_place(self._file, node), what, f'Write it in quotes: {name}: "…".')
        return str(node.value)

"""Frozen types of the policy domain: what a policy reads, where it stands, what is wrong."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

from exeat.core.controls import Order

Path: TypeAlias = tuple[str, ...]
"""Attribute names from a Cedar variable on: ``("context", "input", "amount")``."""


class Kind(StrEnum):
    """What a string denotes beyond its characters; each kind has one canonical form (trap 3)."""

    PATH = "path"
    URL = "url"
    EMAIL = "email"
    HOST = "host"


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong with a policy file, where, and what to do about it (POL-5)."""

    file: str
    line: int
    column: int
    policy: str
    problem: str
    remedy: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        name = f" [{self.policy}]" if self.policy else ""
        place = f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.severity}{name}: {self.problem} {self.remedy}"


@dataclass(frozen=True, slots=True)
class Statement:
    """The text of one policy and where it stands (line and column count from 1)."""

    file: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Reads:
    """A tree of attributes that may be read.  ``value``: the value itself is read; else, with no
    ``attributes`` below, only whether it is present."""

    value: bool = False
    attributes: Mapping[str, "Reads"] = field(default_factory=dict)

    def at(self, *names: str) -> "Reads | None":
        """The node below ``names``; None if nothing there is read.  A value holds all below it."""
        node = self
        for name in names:
            if node.value:
                return node
            below = node.attributes.get(name)
            if below is None:
                return None
            node = below
        return node


def reads_of(values: Iterable[Path], presence: Iterable[Path] = ()) -> Reads:
    """One tree of all paths; a path whose value is read covers everything below it."""
    root: dict[str, dict[str, object]] = {}
    marks: set[Path] = set(values)

    def grow(path: Path) -> None:
        node: dict[str, object] = root  # type: ignore[assignment]
        for name in path:
            node = node.setdefault(name, {})  # type: ignore[assignment]

    for path in (*marks, *presence):
        grow(path)

    def freeze(node: Mapping[str, object], here: Path) -> Reads:
        if here in marks:
            return Reads(value=True)
        below = {
            name: freeze(child, (*here, name))  # type: ignore[arg-type]
            for name, child in sorted(node.items())
        }
        return Reads(attributes=below)

    return freeze(root, ())


@dataclass(frozen=True, slots=True)
class Match:
    """A policy compares the value at ``path`` with ``literal`` (``like``: ``*`` is a wildcard)."""

    path: Path
    literal: str
    like: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """A value that a policy's own condition sets against an argument: where narrowing could end.

    ``value``: an int, a Decimal, a path, or a tuple of the list's admitted elements."""

    path: Path
    order: Order
    value: int | Decimal | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScopePart:
    """One part of a policy's scope.  ``uids``: ``Type::id`` pairs; ``exact``: ``==``, else ``in``.

    ``entity_type`` is set by ``is``.  No uids: anything (of that type).
    """

    uids: tuple[tuple[str, str], ...] = ()
    exact: bool = False
    entity_type: str = ""

    @property
    def open(self) -> bool:
        return not self.uids and not self.entity_type


PERSON = "Person"


@dataclass(frozen=True, slots=True)
class Policy:
    """One parsed policy.  ``id`` is its ``@id``.  ``text`` is what Cedar is given."""

    id: str
    permit: bool
    principal: ScopePart
    action: ScopePart
    resource: ScopePart
    conditional: bool
    values: frozenset[Path]
    presence: frozenset[Path]
    matches: frozenset[Match]
    entities: frozenset[tuple[str, str]]
    annotations: tuple[tuple[str, str], ...]
    constants: tuple[str, ...]
    bare: str
    """The same policy without its conditions: what a broken forbid becomes."""
    source: Statement
    limits: tuple[Limit, ...] = ()
    """Only of the arguments that its ``@narrow`` names."""

    @property
    def text(self) -> str:
        return self.source.text

    @property
    def of_users(self) -> bool:
        """Its principal is a person or a role: it says what users may, whoever acts for them (ID-5)."""
        part = self.principal
        return part.entity_type == PERSON or any(kind in (PERSON, "Role") for kind, _ in part.uids)

    @property
    def controls(self) -> frozenset[str]:
        """Names of the controls that it asks for."""
        return frozenset(name for kind, name in self.entities if kind == "Control")

    @property
    def narrows(self) -> tuple[str, ...]:
        """Arguments that its ``@narrow`` names: a hint and no more."""
        return narrow_names(dict(self.annotations).get("narrow", ""))

    def input_paths(self) -> Iterator[Path]:
        """Every path below ``context.input`` that is named, also behind ``has``."""
        for path in self.values | self.presence:
            if path[:2] == ("context", "input"):
                yield path[2:]


def narrow_names(text: str) -> tuple[str, ...]:
    """``@narrow("limit, path")`` → its names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())

"""``structuredContent`` keeps matching its output schema after redaction.

Each kind of change is tried alone on the value as it was: the mark, then something of the same type and
shape, then null, then without the property; the first that fits is taken.  If nothing does: Unfit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from exeat.core.strictjson import parse
from exeat.gateway.redaction.detectors import DETECTORS, Finder
from exeat.gateway.wire import encode

CHANGES_APART_MAX: Final = 64
"""So many changes are tried one by one when those of a kind do not fit together."""
Path = tuple[str | int, ...]


class Unfit(Exception):
    """No redaction of it would match the schema."""


class _Removed:
    def __init__(self, levels: int) -> None:
        self.levels = levels


@dataclass(frozen=True, slots=True)
class Change:
    """``key``: it is the name of the member that changed, not its value."""

    path: Path
    old: Any
    new: Any
    key: bool = False

    @property
    def group(self) -> tuple[Any, ...]:
        place = tuple("*" if type(part) is int else part for part in self.path)
        return (place[:-1] if self.key else place, type(self.old), self.label, self.key)

    @property
    def label(self) -> str:
        text = self.new if type(self.new) is str else ""
        return next((name for name in DETECTORS if f"[redacted:{name}" in text), "")


class Schema:
    """Raises Unfit if clients could not use it either."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            self._plain, self._formats = (
                jsonschema_rs.validator_for(
                    dict(schema), offline=True, validate_formats=formats, mask="the value"
                )
                for formats in (False, True)
            )
        except (jsonschema_rs.ValidationError, ValueError, TypeError, RecursionError):
            raise Unfit("the tool's output schema cannot be used") from None

    def holding(self, value: Any) -> "Any | None":
        """The strictest check that the value passes as it is; None if it does not match at all."""
        for validator in (self._formats, self._plain):
            if validator.is_valid(value):
                return validator
        return None


@lru_cache(maxsize=256)
def _compiled(raw: bytes) -> Schema:
    return Schema(parse(raw))


def schema_of(schema: Mapping[str, Any]) -> Schema:
    return _compiled(encode(dict(schema)))


def differences(old: Any, new: Any, path: Path = ()) -> Iterator[Change]:
    """``new`` is ``old`` with values and names replaced, nothing added or moved."""
    if type(old) is dict and type(new) is dict and len(old) == len(new):
        for (name, value), (other, then) in zip(old.items(), new.items(), strict=True):
            if name != other:
                yield Change((*path, name), name, other, key=True)
            yield from differences(value, then, (*path, name))
    elif type(old) is list and type(new) is list and len(old) == len(new):
        for index, (value, then) in enumerate(zip(old, new, strict=True)):
            yield from differences(value, then, (*path, index))
    elif type(old) is not type(new) or old != new:
        yield Change(path, old, new)


def fitted(old: Any, new: Any, check: Any, finder: Finder) -> Any:
    """``new``, or what is as safe and passes ``check``, as ``old`` does.  Raises Unfit."""
    if check.is_valid(new):
        return new
    changes = list(differences(old, new))
    groups: dict[tuple[Any, ...], list[Change]] = {}
    for change in changes:
        groups.setdefault(change.group, []).append(change)
    chosen = {group: _chosen(old, members[0], check, finder) for group, members in groups.items()}
    for numbered in (False, True):
        picks = [
            (change, _pick(change, chosen[change.group], index if numbered else 0, finder))
            for index, change in enumerate(changes)
        ]
        value = _applied(old, picks)
        if check.is_valid(value):
            return value
    if len(changes) <= CHANGES_APART_MAX:
        picks = [
            (change, _pick(change, _chosen(old, change, check, finder), 0, finder))
            for change in changes
        ]
        value = _applied(old, picks)
        if check.is_valid(value):
            return value
    raise Unfit("what is left would not match the tool's output schema")


def _chosen(old: Any, change: Change, check: Any, finder: Finder) -> int:
    for number, candidate in enumerate(_candidates(change, 0, finder)):
        if candidate is None and change.key:
            continue
        if check.is_valid(_applied(old, [(change, candidate)])):
            return number
    raise Unfit("what is left would not match the tool's output schema")


def _pick(change: Change, number: int, count: int, finder: Finder) -> Any:
    return list(_candidates(change, count, finder))[number]


_SAME: Final[Mapping[str, str]] = {
    "email": "redacted@redacted.invalid",
    "phone": "+00000000000",
    "card": "0000000000000000",
    "iban": "XX00000000000000000000",
    "secret": "redacted",
    "": "redacted",
}
_ADDRESS: Final = "https://redacted.invalid/"


def _candidates(change: Change, count: int, finder: Finder) -> Iterator[Any]:
    """As many for each change of a kind, so that the number of one names it for all."""
    mark = f" {count}" if count else ""
    old, new = change.old, change.new
    if type(old) is str:
        same = _SAME[change.label]
        if count and "@" in same:
            same = f"redacted{count}@redacted.invalid"
        tries = (
            f"{new}{mark}",
            f"{same}{mark}" if "@" not in same else same,
            f"redacted{count or ''}@redacted.invalid",
            _shape(old),
            f"{_ADDRESS}{count or ''}",
            "redacted" + mark.strip(),
            "",
        )
        for each in tries:
            yield each if each != old and not finder.find(each) else new
        if not change.key:
            yield None
    elif type(old) in (int, Decimal, float):
        yield from (new, None, 0, 1_000_000_000_000_000 + count)
    elif type(old) is bool:
        yield from (new, None, False, True)
    elif type(old) is dict:
        yield from (new, None, {})
    else:
        yield from (new, None, [])
    for levels in range(min(len(change.path), 4)):
        yield _Removed(levels)


def _shape(text: str) -> str:
    """Digits and letters made nothing, so that a pattern may still match."""
    return "".join(
        "0" if each.isdigit() else ("X" if each.isupper() else "x") if each.isalpha() else each
        for each in text
    )


def _applied(old: Any, picks: list[tuple[Change, Any]]) -> Any:
    values: dict[Path, Any] = {}
    names: dict[Path, Any] = {}
    gone: set[Path] = set()
    for change, pick in picks:
        if type(pick) is _Removed:
            gone.add(change.path[: len(change.path) - pick.levels])
        elif change.key:
            names[change.path] = pick
        else:
            values[change.path] = pick
    return _built(old, (), values, names, gone)


def _built(
    node: Any, path: Path, values: dict[Path, Any], names: dict[Path, Any], gone: set[Path]
) -> Any:
    if path in values:
        return values[path]
    if type(node) is dict:
        built: dict[str, Any] = {}
        for name, value in node.items():
            below = (*path, name)
            if below not in gone:
                new, count = str(names.get(below, name)), 1
                while new in built or (new != name and new in node):
                    count += 1
                    new = f"{names[below]}:{count}"
                built[new] = _built(value, below, values, names, gone)
        return built
    if type(node) is list:
        return [
            _built(value, (*path, index), values, names, gone)
            for index, value in enumerate(node)
            if (*path, index) not in gone
        ]
    return node

"""Arguments against the pinned input schema, before any policy (POL-9).

``jsonschema-rs`` checks the schema; remote ``$ref`` is disabled.  On top, a property that the
schema does not declare is refused unless the schema admits more by ``additionalProperties``
(``true`` or a schema) in so many words: no policy was written with such a property in view.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import jsonschema_rs

from exeat.core.decision import Reason
from exeat.policy.encode import Refused
from exeat.policy.schema import DEPTH_MAX, InputType, input_type

MESSAGE_MAX_CHARS: Final = 300
NODES_MAX: Final = 20_000
_BRANCHES: Final = ("anyOf", "oneOf", "allOf")
_SINGLES: Final = ("if", "then", "else")


@dataclass(slots=True)
class _Closed:
    """What an object may hold.  ``open``: anything more.  ``items``: of an array's elements."""

    names: dict[str, "_Closed"] = field(default_factory=dict)
    open: bool = False
    items: "_Closed | None" = None


class ToolArguments:
    """Checks the arguments of one tool; compiled once per pin."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.type: InputType = input_type(schema)
        self.problem = ""
        self._validator: Any = None
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema), offline=True, validate_formats=False, mask="the value"
            )
            self._closed = _Closing(schema).of(schema, 0)
        except (jsonschema_rs.ValidationError, ValueError, TypeError, RecursionError) as error:
            self.problem = f"the pinned input schema is unusable: {_short(error)}"
            return
        self._names = frozenset(self._closed.names)
        self._nested = tuple(
            (name, below)
            for name, below in self._closed.names.items()
            if below.names or below.items or not below.open
        )

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises Refused (ARGUMENTS_INVALID or ARGUMENTS_UNTYPED)."""
        if self._validator is None:
            raise Refused(Reason.ARGUMENTS_UNTYPED, "the arguments", "their schema is unusable")
        if not self._validator.is_valid(arguments):
            raise self._explained(arguments)
        if not self._closed.open and not self._names.issuperset(arguments):
            extra = min(set(arguments) - self._names)
            raise Refused(
                Reason.ARGUMENTS_UNTYPED, extra[:80], "the tool declares no such argument"
            )
        for name, below in self._nested:
            value = arguments.get(name)
            if type(value) is dict or type(value) is list:
                _check_closed(value, below, name)

    def _explained(self, arguments: Mapping[str, Any]) -> Refused:
        for error in self._validator.iter_errors(arguments):
            where = ".".join(str(part) for part in error.instance_path) or "the arguments"
            return Refused(Reason.ARGUMENTS_INVALID, where[:120], _short(error))
        return Refused(Reason.ARGUMENTS_INVALID, "the arguments", "they do not fit the schema")


def _short(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error)
    return " ".join(text.split())[:MESSAGE_MAX_CHARS]


def _check_closed(value: Any, closed: _Closed, where: str) -> None:
    if type(value) is list:
        if closed.items is not None:
            for element in value:
                _check_closed(element, closed.items, where)
        return
    if type(value) is not dict:
        return
    for name, inner in value.items():
        below = closed.names.get(name)
        if below is not None:
            _check_closed(inner, below, f"{where}.{name}")
        elif not closed.open:
            raise Refused(
                Reason.ARGUMENTS_UNTYPED,
                f"{where}.{name}"[:120],
                "the tool declares no such property",
            )


class _Closing:
    """Collects what a schema and all its branches declare together, within NODES_MAX steps (a
    server could write one that multiplies without end)."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._steps = 0

    def of(self, schema: object, depth: int) -> _Closed:
        self._steps += 1
        if self._steps > NODES_MAX:
            raise ValueError("it has too many parts")
        if schema is True or schema == {} or depth > DEPTH_MAX:
            return _Closed(open=True)
        if not isinstance(schema, Mapping):
            return _Closed()
        found = _Closed()
        extra = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
        found.open = extra is True or isinstance(extra, Mapping) or "patternProperties" in schema
        properties = schema.get("properties")
        for name, below in properties.items() if isinstance(properties, Mapping) else ():
            found.names[name] = self.of(below, depth + 1)
        if "items" in schema:
            found.items = self.of(schema["items"], depth + 1)
        for branch in _joined(schema, self._document):
            _join(found, self.of(branch, depth + 1))
        return found


def _joined(schema: Mapping[str, Any], document: Mapping[str, Any]) -> list[object]:
    branches: list[object] = []
    for key in _BRANCHES:
        several = schema.get(key)
        if isinstance(several, Sequence):
            branches.extend(several)
    branches.extend(schema[key] for key in _SINGLES if key in schema)
    for key in ("dependentSchemas", "dependencies"):
        several = schema.get(key)
        if isinstance(several, Mapping):
            branches.extend(below for below in several.values() if isinstance(below, Mapping))
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        node: object = document
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            node = node.get(key) if isinstance(node, Mapping) else None
        branches.append(node)
    return branches


def _join(found: _Closed, other: _Closed) -> None:
    found.open = found.open or other.open
    for name, below in other.names.items():
        if name in found.names:
            _join(found.names[name], below)
        else:
            found.names[name] = below
    if other.items is not None:
        if found.items is None:
            found.items = other.items
        else:
            _join(found.items, other.items)

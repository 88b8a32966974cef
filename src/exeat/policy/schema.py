"""JSON Schema → Cedar types, our own converter, and how those types are written in a Cedar schema.

What cannot be typed without doubt is simply absent from the type: a policy cannot read it, and lint
says so.  Rules: nullable → optional; integer → Long; number → decimal; array → Set; object →
record; ``anyOf``/``oneOf`` of different JSON kinds → record with one optional attribute per kind
(``string``, ``integer``, …); ``$ref`` is followed inside the document only, within a bound.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from exeat.policy.model import Kind, Reads

DEPTH_MAX: Final = 8
ATTRIBUTES_MAX: Final = 2_000
STEPS_MAX: Final = 20_000
ESCAPES: Final = frozenset({"__entity", "__extn", "__expr"})
"""Names that Cedar's JSON reads as something else (trap 2): never an attribute."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """``name``: the Cedar type.  ``vocabulary``: the only strings that the schema admits."""

    name: str
    vocabulary: frozenset[str] | None = None
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class SetOf:
    element: "CedarType"


@dataclass(frozen=True, slots=True)
class Attribute:
    type: "CedarType"
    required: bool


@dataclass(frozen=True, slots=True)
class Record:
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value of one of several JSON kinds; becomes a record with the attribute of its kind."""

    options: Mapping[str, "CedarType"]


CedarType: TypeAlias = Scalar | SetOf | Record | Tagged


@dataclass(frozen=True, slots=True)
class InputType:
    """The type of ``context.input`` of one tool.  ``untyped``: dotted names of what has no type."""

    record: Record
    untyped: frozenset[str] = frozenset()


def input_type(schema: Mapping[str, Any]) -> InputType:
    """Convert a tool's ``inputSchema``.  Total: what it does not understand is untyped."""
    conversion = _Conversion(schema)
    try:
        found = conversion.of(schema, "", 0)
    except RecursionError:
        found = None
    if found is None or not isinstance(found[0], Record):
        return InputType(Record(), frozenset({""}))
    return InputType(found[0], frozenset(conversion.untyped))


_TOKENS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_KIND_WORDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("path", "file", "filename", "filepath", "dir", "directory"), Kind.PATH),
    **dict.fromkeys(("paths", "files", "dirs", "directories", "folder", "folders"), Kind.PATH),
    **dict.fromkeys(("url", "uri", "href", "link", "endpoint", "webhook"), Kind.URL),
    **dict.fromkeys(("urls", "uris", "links"), Kind.URL),
    **dict.fromkeys(("email", "emails", "mailto"), Kind.EMAIL),
    **dict.fromkeys(("host", "hosts", "hostname", "hostnames"), Kind.HOST),
    **dict.fromkeys(("domain", "domains"), Kind.HOST),
}
_KIND_FORMATS: Final[Mapping[str, Kind]] = {
    "uri": Kind.URL,
    "url": Kind.URL,
    "iri": Kind.URL,
    "email": Kind.EMAIL,
    "idn-email": Kind.EMAIL,
    "hostname": Kind.HOST,
    "idn-hostname": Kind.HOST,
    "path": Kind.PATH,
    "file-path": Kind.PATH,
    "directory-path": Kind.PATH,
}
_JSON_KINDS: Final = ("string", "integer", "number", "boolean", "array", "object")


def kind_of(name: str, format_: object) -> Kind | None:
    """What an argument denotes, by its schema's ``format`` or by the last word of its name."""
    if isinstance(format_, str) and format_ in _KIND_FORMATS:
        return _KIND_FORMATS[format_]
    words = _TOKENS.findall(name)
    return _KIND_WORDS.get(words[-1].lower()) if words else None


class _Conversion:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._attributes = 0
        self._steps = 0
        self.untyped: set[str] = set()

    def of(self, schema: object, name: str, depth: int) -> tuple[CedarType, bool] | None:
        """The type and whether null is admitted; None if it cannot be typed."""
        self._steps += 1
        resolved = self._resolve(schema)
        if resolved is None or depth > DEPTH_MAX or self._steps > STEPS_MAX:
            return None
        for union in ("anyOf", "oneOf"):
            if union in resolved:
                return self._union(resolved[union], name, depth)
        if "allOf" in resolved:
            parts = resolved["allOf"]
            one = isinstance(parts, Sequence) and len(parts) == 1 and "properties" not in resolved
            return self.of(parts[0], name, depth + 1) if one else None
        kinds = _json_kinds(resolved)
        nullable = "null" in kinds
        kinds = [kind for kind in kinds if kind != "null"]
        if len(kinds) == 1:
            single = self._single(kinds[0], resolved, name, depth)
            return None if single is None else (single, nullable)
        options = {kind: self._single(kind, resolved, name, depth) for kind in kinds}
        return self._tagged(options, nullable)

    def _resolve(self, schema: object) -> Mapping[str, Any] | None:
        for _ in range(DEPTH_MAX):
            if not isinstance(schema, Mapping):
                return None
            reference = schema.get("$ref")
            if reference is None:
                return schema
            schema = self._pointed(reference)
        return None

    def _pointed(self, reference: object) -> object:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        node: object = self._document
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def _union(self, branches: object, name: str, depth: int) -> tuple[CedarType, bool] | None:
        if not isinstance(branches, Sequence) or isinstance(branches, str):
            return None
        nullable = False
        found: dict[str, CedarType | None] = {}
        for branch in branches:
            resolved = self._resolve(branch)
            if resolved is None:
                return None
            if _json_kinds(resolved) == ["null"]:
                nullable = True
                continue
            typed = self.of(resolved, name, depth + 1)
            if typed is None:
                return None
            nullable = nullable or typed[1]
            options = typed[0].options if isinstance(typed[0], Tagged) else _own_kind(typed[0])
            for kind, option in options.items():
                found[kind] = option if kind not in found else _merged(found[kind], option)
        if len(found) == 1:
            (single,) = found.values()
            return None if single is None else (single, nullable)
        return self._tagged(found, nullable)

    def _tagged(
        self, options: Mapping[str, CedarType | None], nullable: bool
    ) -> tuple[CedarType, bool] | None:
        known = {kind: option for kind, option in options.items() if option is not None}
        if not known or len(known) != len(options) or {"integer", "number"} <= set(known):
            return None
        return Tagged(known), nullable

    def _single(
        self, kind: str, schema: Mapping[str, Any], name: str, depth: int
    ) -> CedarType | None:
        if kind == "string":
            words = schema.get("enum", [schema["const"]] if "const" in schema else None)
            vocabulary = (
                frozenset(word for word in words if isinstance(word, str))
                if isinstance(words, Sequence)
                else None
            )
            return Scalar("String", vocabulary, kind_of(name, schema.get("format")))
        if kind in {"integer", "number", "boolean"}:
            return Scalar({"integer": "Long", "number": "decimal", "boolean": "Bool"}[kind])
        if kind == "array":
            if "prefixItems" in schema or "items" not in schema:
                return None
            element = self.of(schema["items"], name, depth + 1)
            return None if element is None or element[1] else SetOf(element[0])
        return self._record(schema, name, depth)

    def _record(self, schema: Mapping[str, Any], name: str, depth: int) -> Record:
        properties = schema.get("properties")
        required = schema.get("required")
        wanted = set(required) if isinstance(required, Sequence) else set()
        attributes: dict[str, Attribute] = {}
        for key, below in properties.items() if isinstance(properties, Mapping) else ():
            self._attributes += 1
            typed = None
            if key not in ESCAPES and self._attributes <= ATTRIBUTES_MAX and key.isprintable():
                typed = self.of(below, key, depth + 1)
            if typed is None:
                self.untyped.add(f"{name}.{key}" if name else key)
            else:
                attributes[key] = Attribute(typed[0], key in wanted and not typed[1])
        return Record(attributes)


def _json_kinds(schema: Mapping[str, Any]) -> list[str]:
    """The JSON kinds that a schema admits, by ``type``, else by its ``enum`` or ``const``."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return [declared] if declared in _JSON_KINDS or declared == "null" else []
    if isinstance(declared, Sequence):
        return [kind for kind in declared if kind in _JSON_KINDS or kind == "null"]
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, Sequence) and not isinstance(values, str):
        return sorted({json_kind(value) for value in values})
    return ["object"] if isinstance(schema.get("properties"), Mapping) else []


def json_kind(value: object) -> str:
    """The JSON kind of a decoded value."""
    if value is None:
        return "null"
    names = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}
    return names.get(type(value), "number")


def _own_kind(found: CedarType) -> Mapping[str, CedarType]:
    if isinstance(found, Scalar):
        names = {"String": "string", "Long": "integer", "decimal": "number", "Bool": "boolean"}
        return {names[found.name]: found}
    return {"array" if isinstance(found, SetOf) else "object": found}


def _merged(one: CedarType | None, other: CedarType) -> CedarType | None:
    """Two branches of the same JSON kind: strings join their vocabularies, equals stay."""
    if one == other:
        return one
    if isinstance(one, Scalar) and isinstance(other, Scalar) and one.name == other.name:
        words = None
        if one.vocabulary is not None and other.vocabulary is not None:
            words = one.vocabulary | other.vocabulary
        return Scalar(one.name, words, one.kind or other.kind)
    return None


def pruned(record: Record, reads: Reads | None) -> Record:
    """Only what ``reads`` can see: tools that look alike to a policy share one shape."""
    if reads is None:
        return Record()
    if reads.value:
        return record
    kept = {}
    for name, below in reads.attributes.items():
        attribute = record.attributes.get(name)
        if attribute is not None:
            kept[name] = Attribute(_pruned(attribute.type, below), attribute.required)
    return Record(kept)


def _pruned(found: CedarType, reads: Reads) -> CedarType:
    if isinstance(found, Record):
        return pruned(found, reads)
    return found


def quoted(text: str) -> str:
    """A Cedar string literal: printable characters as they are, all others as ``\\u{…}``."""
    marks = (
        f"\\{mark}" if mark in '"\\' else mark if mark.isprintable() else f"\\u{{{ord(mark):x}}}"
        for mark in text
    )
    return f'"{"".join(marks)}"'


def rendered(found: CedarType) -> str:
    """The type as it stands in a Cedar schema."""
    if isinstance(found, Scalar):
        return found.name
    if isinstance(found, SetOf):
        return f"Set<{rendered(found.element)}>"
    if isinstance(found, Tagged):
        parts = [f"{quoted(kind)}?: {rendered(option)}" for kind, option in found.options.items()]
    else:
        parts = [
            f"{quoted(name)}{'' if attribute.required else '?'}: {rendered(attribute.type)}"
            for name, attribute in found.attributes.items()
        ]
    return "{" + ", ".join(parts) + "}"

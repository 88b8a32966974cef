"""``Mcp-Param-*`` headers: arguments that a tool's schema mirrors with ``x-mcp-header`` (SEP-2243).

What the client sent must agree with the body (GW-2); what goes upstream is rendered here from the
decided arguments.  A schema that annotates wrongly mirrors nothing.  Pure, but for a memory of schemas.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.facts import ToolFacts
from exeat.core.request import AccessRequest
from exeat.gateway.inbound import decode_header

PREFIX: Final = "mcp-param-"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PRIMITIVES: Final = frozenset({"string", "integer", "boolean"})
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.0+)?")
_DEPTH_MAX: Final = 16
_REMEMBERED_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The argument at ``path`` is mirrored in the header ``name`` (lower case)."""

    path: tuple[str, ...]
    name: str
    type: str


def mirrored(schema: Mapping[str, Any]) -> tuple[Mirrored, ...]:
    """The annotated properties, reachable through ``properties`` alone; none if any is malformed."""
    found = list(_walk(schema, (), 0))
    names = [each.name for each in found]
    if len(set(names)) != len(names) or any(each.type not in _PRIMITIVES for each in found):
        return ()
    return tuple(found)


def _walk(schema: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Iterator[Mirrored]:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or depth > _DEPTH_MAX:
        return
    for key, sub in properties.items():
        if not isinstance(sub, Mapping):
            continue
        token = sub.get("x-mcp-header")
        if token is not None:
            valid = isinstance(token, str) and _TOKEN.fullmatch(token) is not None
            kind = sub.get("type")
            yield Mirrored(
                (*path, key),
                PREFIX + token.lower() if valid else "",
                kind if valid and isinstance(kind, str) else "",
            )
        yield from _walk(sub, (*path, key), depth + 1)


def _value(arguments: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    node: Any = arguments
    for key in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(key)
    return node


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def render(declared: tuple[Mirrored, ...], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Header name → value to send; the caller encodes values that a header cannot carry."""
    fields: dict[str, str] = {}
    for each in declared:
        text = _rendered(_value(arguments, each.path))
        if text is not None:
            fields[each.name] = text
    return fields


def disagreement(
    declared: tuple[Mirrored, ...], arguments: Mapping[str, Any], fields: Mapping[str, str]
) -> str:
    """The first header that does not agree with the body, in words; empty if all agree."""
    for each in declared:
        raw, value = fields.get(each.name), _value(arguments, each.path)
        text = None if value is None else _rendered(value)
        if text is None:
            if raw is not None:
                return f"{each.name} header is present but the argument is absent"
            continue
        if raw is None:
            return f"{each.name} header is missing but the argument is present"
        decoded = decode_header(raw)
        if decoded == text:
            continue
        numeric = each.type == "integer" and decoded is not None and _DECIMAL.fullmatch(decoded)
        if not numeric or decoded is None or decoded.partition(".")[0] != text:
            return f"{each.name} header does not match the argument"
    return ""


class Mirrors:
    """What pinned tools mirror, by the digest of their definition."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Mirrored, ...]] = {}

    def of(self, tool: ToolFacts) -> tuple[Mirrored, ...]:
        known = self._known.get(tool.pin)
        if known is None:
            if len(self._known) >= _REMEMBERED_MAX:
                self._known.clear()
            known = self._known[tool.pin] = mirrored(tool.input_schema)
        return known

    def headers(self, access: AccessRequest) -> dict[str, str]:
        """What goes upstream beside the decided arguments."""
        if access.tool is None:
            return {}
        declared = self.of(access.tool)
        return render(declared, access.arguments) if declared else {}

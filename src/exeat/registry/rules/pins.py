"""REG-6: the digest of a tool's definition, and a difference said in words."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.core.ids import Digest
from exeat.registry.model.canonical import canonical, digest
from exeat.registry.model.tool import Definition

DEFINITION_MAX_CHARS: Final = 256 * 1024
PINNED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
_SHOWN_CHARS: Final = 160
_DEPTH_MAX: Final = 64


def definition_digest(body: Mapping[str, Any]) -> Digest:
    """SHA-256 over the canonical JSON of the six members that a model or a validator reads.

    A member that is absent stays absent (null is another definition).  Icons, ``_meta`` and unknown
    members are left out: they change without changing what the tool claims to be.
    """
    return digest({member: body[member] for member in PINNED if member in body})


def digests(definitions: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Digest by tool name; a name that comes twice has none, so it matches no pin (REG-6)."""
    found: dict[str, str] = {}
    for each in definitions:
        name = each.get("name")
        if isinstance(name, str):
            found[name] = "" if name in found else definition_digest(each)
    return found


def definition(body: Mapping[str, Any]) -> Definition:
    """A definition as seen; raises Invalid if it is too large to be kept or is no JSON."""
    if len(canonical(dict(body))) > DEFINITION_MAX_CHARS:
        raise Invalid(f"The definition is larger than {DEFINITION_MAX_CHARS} characters.")
    return Definition(definition_digest(body), body)


def drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """What changed between two definitions, one plain line each, in a stable order."""
    lines = [
        line
        for member in PINNED
        for line in _differences(member, _at(before, member), _at(after, member), 0)
    ]
    return tuple(lines)


class _Absent:
    """A member that is not there; None would be JSON null."""


_ABSENT: Final = _Absent()


def _at(body: Any, member: str) -> Any:
    return body[member] if isinstance(body, Mapping) and member in body else _ABSENT


def _differences(path: str, before: Any, after: Any, depth: int) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping) and depth < _DEPTH_MAX:
        for member in sorted({*before, *after}):
            yield from _differences(
                f"{path}.{member}", _at(before, member), _at(after, member), depth + 1
            )
        return
    if before is _ABSENT and after is not _ABSENT:
        yield f"{path}: added {shown(after)}"
    elif after is _ABSENT and before is not _ABSENT:
        yield f"{path}: removed (was {shown(before)})"
    elif before is not _ABSENT and canonical(before) != canonical(after):
        yield f"{path}: was {shown(before)}, now {shown(after)}"


def shown(value: Any) -> str:
    """A value for a person's eyes: ASCII only, so that nothing hides in it, and cut."""
    text = canonical(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}… ({len(text)} characters)"

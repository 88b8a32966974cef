"""A tool's arguments as the part of ``context`` that the policies of one slice read."""

from collections.abc import Mapping
from typing import Any

from exeat.policy.encode import Encode, encoder, fact_encoder
from exeat.policy.model import Kind, Path, Reads
from exeat.policy.schema import CedarType, Record, Scalar, SetOf, Tagged


class ArgumentEncoder:
    """Arguments → ``{"input": …, "path": …, …}`` in Cedar JSON.  Calling it raises Refused."""

    def __init__(self, record: Record, reads: Reads, uses: Mapping[Path, frozenset[Kind]]) -> None:
        below = reads.at("context", "input")
        self._input: Encode | None = None
        if below is not None:
            self._input = encoder(record, below, kinds_of(record, uses))
        self._facts: list[tuple[str, list[tuple[str, Encode]]]] = []
        for kind in Kind:
            node = reads.at("context", kind.value)
            if node is not None:
                encoders = [
                    (name, fact_encoder(kind, name, inner))
                    for name, inner in node.attributes.items()
                    if _is_text(record, name)
                ]
                self._facts.append((kind.value, encoders))

    def __call__(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._input is not None:
            found["input"] = self._input(arguments)
        for kind, encoders in self._facts:
            found[kind] = {
                name: encode(arguments[name])
                for name, encode in encoders
                if arguments.get(name) is not None
            }
        return found


def _is_text(record: Record, name: str) -> bool:
    attribute = record.attributes.get(name)
    return (
        attribute is not None
        and isinstance(attribute.type, Scalar)
        and attribute.type.name == "String"
    )


def kinds_of(
    found: CedarType, uses: Mapping[Path, frozenset[Kind]], where: Path = ()
) -> dict[Path, frozenset[Kind]]:
    """What every text argument must plainly be: what the policies take it for, else what its
    format or name says."""
    if isinstance(found, Record):
        return {
            path: kinds
            for name, attribute in found.attributes.items()
            for path, kinds in kinds_of(attribute.type, uses, (*where, name)).items()
        }
    if isinstance(found, SetOf):
        return kinds_of(found.element, uses, where)
    if isinstance(found, Tagged):
        text = found.options.get("string")
        several = found.options.get("array")
        chosen = [
            kinds_of(option, _tag(uses, where), where) for option in (text, several) if option
        ]
        return {path: kinds for each in chosen for path, kinds in each.items()}
    if found.name != "String":
        return {}
    kinds = uses.get(where, frozenset())
    if not kinds and found.kind is not None and found.vocabulary is None:
        kinds = frozenset({found.kind})
    return {where: kinds} if kinds else {}


def _tag(uses: Mapping[Path, frozenset[Kind]], where: Path) -> Mapping[Path, frozenset[Kind]]:
    """Policies name a tagged value as ``x.string``; its kind holds for ``x``."""
    tagged = {
        path[:-1]: kinds
        for path, kinds in uses.items()
        if path[:-1] == where and path[-1:] and path[-1] in {"string", "array"}
    }
    return {**uses, **tagged}

"""Type-directed encoder: decoded JSON → Cedar JSON (traps 2 and 4, POL-9).

Only what the policies of a slice read is encoded.  Every key of the result is an attribute of the
tool's type, every value was checked against it, and Cedar's escapes are written here alone, so an
argument that says ``{"__entity": …}`` is data that does not fit its type.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from exeat.core.decision import Reason
from exeat.core.limits import POLICY_STRING_MAX_BYTES
from exeat.policy.canonical import NotCanonical, check_plain, fact
from exeat.policy.model import Kind, Reads
from exeat.policy.schema import CedarType, Record, Scalar, SetOf, Tagged, json_kind

ELEMENTS_MAX: Final = 1_000
_INT_MAX: Final = 2**63 - 1
_DECIMAL_PLACES: Final = Decimal("0.0001")
_DECIMAL_MAX: Final = Decimal("922337203685477.5807")
PRESENT: Final = True
"""Stands for a value of which policies ask only whether it is there."""

Encode: TypeAlias = Callable[[Any], Any]
Kinds: TypeAlias = Mapping[tuple[str, ...], frozenset[Kind]]
"""Argument path → the kinds that it must plainly be."""


class Refused(Exception):
    """The value cannot be put before a policy.  ``argument``: dotted name, fit for the agent."""

    def __init__(self, reason: Reason, argument: str, why: str) -> None:
        super().__init__(f"argument {argument}: {why}")
        self.reason = reason
        self.argument = argument
        self.why = why


def encoder(found: CedarType, reads: Reads, kinds: Kinds, where: tuple[str, ...] = ()) -> Encode:
    """A function from a decoded JSON value of type ``found`` to Cedar JSON.  It raises Refused."""
    if isinstance(found, Record):
        return _record(found, reads, kinds, where)
    if not reads.value and not reads.attributes:
        return lambda _: PRESENT
    if isinstance(found, SetOf):
        return _set(found, kinds, where)
    if isinstance(found, Tagged):
        return _tagged(found, kinds, where)
    return _scalar(found, kinds.get(where, frozenset()), ".".join(where))


def _untyped(name: str, wanted: str) -> Refused:
    return Refused(Reason.ARGUMENTS_UNTYPED, name, f"it is not {wanted}")


def _record(found: Record, reads: Reads, kinds: Kinds, where: tuple[str, ...]) -> Encode:
    name = ".".join(where) or "the arguments"
    whole = Reads(value=True)
    parts: list[tuple[str, bool, Encode]] = []
    for attribute, of in found.attributes.items():
        below = whole if reads.value else reads.attributes.get(attribute)
        if below is not None:
            encode = encoder(of.type, below, kinds, (*where, attribute))
            parts.append((attribute, of.required, encode))
    known = frozenset(found.attributes) if reads.value else None

    def run(value: Any) -> Any:
        if type(value) is not dict:
            raise _untyped(name, "an object")
        if known is not None and not known.issuperset(value):
            raise Refused(Reason.ARGUMENTS_UNTYPED, name, "it holds what its type does not")
        encoded = {}
        for attribute, required, encode in parts:
            inner = value.get(attribute)
            if inner is not None:
                encoded[attribute] = encode(inner)
            elif required:
                raise _untyped(".".join((*where, attribute)), "there, but it is required")
        return encoded

    return run


def _set(found: SetOf, kinds: Kinds, where: tuple[str, ...]) -> Encode:
    name = ".".join(where)
    encode = encoder(found.element, Reads(value=True), kinds, where)

    def run(value: Any) -> Any:
        if type(value) is not list:
            raise _untyped(name, "an array")
        if len(value) > ELEMENTS_MAX:
            raise Refused(Reason.ARGUMENT_OVERSIZE, name, f"more than {ELEMENTS_MAX} elements")
        return [encode(element) for element in value]

    return run


def _tagged(found: Tagged, kinds: Kinds, where: tuple[str, ...]) -> Encode:
    name = ".".join(where)
    options = {
        kind: encoder(option, Reads(value=True), kinds, where)
        for kind, option in found.options.items()
    }

    def run(value: Any) -> Any:
        kind = json_kind(value)
        if kind == "integer" and kind not in options:
            kind = "number"
        encode = options.get(kind)
        if encode is None:
            raise _untyped(name, "of a kind that its schema admits")
        return {kind: encode(value)}

    return run


def _scalar(found: Scalar, kinds: frozenset[Kind], name: str) -> Encode:
    if found.name == "String":
        return _string(kinds, name)
    if found.name == "Long":
        return lambda value: _long(value, name)
    if found.name == "Bool":
        return lambda value: _bool(value, name)
    return lambda value: _decimal(value, name)


def _string(kinds: frozenset[Kind], name: str) -> Encode:
    required = sorted(kinds)

    def run(value: Any) -> Any:
        check_size(value, name)
        for kind in required:
            try:
                check_plain(kind, value)
            except NotCanonical as error:
                raise Refused(
                    Reason.ARGUMENT_NOT_CANONICAL, name, f"as a {kind.value}, {error}"
                ) from None
        return value

    return run


def check_size(value: Any, name: str) -> None:
    """A string of at most POLICY_STRING_MAX_BYTES (UTF-8)."""
    if type(value) is not str:
        raise _untyped(name, "a string")
    if len(value) * 4 > POLICY_STRING_MAX_BYTES:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise _untyped(name, "text") from None
        if size > POLICY_STRING_MAX_BYTES:
            raise Refused(
                Reason.ARGUMENT_OVERSIZE, name, f"it is over {POLICY_STRING_MAX_BYTES} bytes"
            )


def _long(value: Any, name: str) -> int:
    if type(value) is not int or not -_INT_MAX - 1 <= value <= _INT_MAX:
        raise _untyped(name, "an integer of 64 bits")
    return value


def _bool(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise _untyped(name, "true or false")
    return value


def _decimal(value: Any, name: str) -> Any:
    if type(value) is int:
        value = Decimal(value)
    if type(value) is not Decimal or not value.is_finite() or abs(value) > _DECIMAL_MAX:
        raise _untyped(name, "a number within Cedar's decimal range")
    fixed = value.quantize(_DECIMAL_PLACES)
    if fixed != value:
        raise _untyped(name, "a number with at most four decimal places")
    return extension("decimal", f"{fixed:f}")


def extension(function: str, argument: str) -> dict[str, dict[str, str]]:
    """Cedar JSON of an extension value.  Called with our own text only, never with an argument's
    unchecked text."""
    return {"__extn": {"fn": function, "arg": argument}}


def fact_encoder(kind: Kind, name: str, reads: Reads) -> Encode:
    """A function from an argument's text to ``context.<kind>.<name>``.  It raises Refused."""
    if not reads.value and not reads.attributes:
        return lambda _: PRESENT

    def run(value: Any) -> Any:
        check_size(value, name)
        try:
            return cedar_fact(fact(kind, value))
        except NotCanonical as error:
            raise Refused(
                Reason.ARGUMENT_NOT_CANONICAL, name, f"as a {kind.value}, {error}"
            ) from None

    return run


def cedar_fact(found: Mapping[str, Any]) -> dict[str, Any]:
    """Canonical facts in Cedar JSON."""
    return {key: extension("ip", value) if key == "ip" else value for key, value in found.items()}

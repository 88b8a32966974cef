"""One text for one JSON value: RFC 8785 (JCS), with integers beyond 2**53 in full.

Numbers are written as ECMAScript writes a double (RFC 8785 section 3.2.2.3), so ``80``, ``80.0`` and
``8e1`` have one text, whichever of them a server's validation made of the others.
"""

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

DEPTH_MAX: Final = 64
PINNED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""The members of a tool's definition that a pin covers."""
_DIGITS_BEFORE_EXPONENT: Final = 21
_ZEROS_BEFORE_EXPONENT: Final = -6
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class NotCanonical(ValueError):
    """The value has no canonical text: not JSON, nested too deep, NaN, a lone surrogate."""


def canonical(value: Any) -> bytes:
    """The canonical text in UTF-8.  Raises NotCanonical."""
    try:
        text = _encoder.encode(value) if _plain(value, 0) else "".join(_parts(value, 0))
    except NotCanonical:
        raise
    except (TypeError, ValueError, RecursionError):
        raise NotCanonical("this is not a JSON value") from None
    if _SURROGATE.search(text):
        raise NotCanonical("a text holds half a surrogate pair")
    return text.encode("utf-8")


def digest(value: Any) -> str:
    """SHA-256 over the canonical text, in lower-case hexadecimal.  Raises NotCanonical."""
    return sha256(canonical(value)).hexdigest()


def definition_digest(tool: Mapping[str, Any]) -> str:
    """The pin of a tool's definition as its server shows it in tools/list (REG-6): SHA-256 over the six
    members that a model or a validator reads, non-ASCII escaped, numbers as they were written."""
    body = {member: tool[member] for member in PINNED if member in tool}
    try:
        text = json.dumps(
            body, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_fraction
        )
    except (TypeError, ValueError, RecursionError):
        raise NotCanonical("this is not the definition of a tool") from None
    return sha256(text.encode("ascii")).hexdigest()


def _fraction(value: object) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


_encoder: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False
)
_string: Final[Callable[[str], str]] = json.encoder.encode_basestring


def _plain(value: Any, depth: int) -> bool:
    """Whether the standard encoder, in C, writes it as RFC 8785 does: no fractions, and no names whose order
    depends on the encoding.  Raises NotCanonical for what JSON has not."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return True
    if kind is float or kind is Decimal:
        return False
    if depth >= DEPTH_MAX:
        raise NotCanonical("nested too deep")
    plain = True
    if kind is dict:
        for name, member in value.items():
            if type(name) is not str:
                raise NotCanonical("the name of a member is no text")
            plain = _plain(member, depth + 1) and name.isascii() and plain
    elif kind is list or kind is tuple:
        for member in value:
            plain = _plain(member, depth + 1) and plain
    else:
        raise NotCanonical("this is not a JSON value")
    return plain


def _parts(value: Any, depth: int) -> list[str]:
    if isinstance(value, str):
        return [_string(value)]
    if value is None or isinstance(value, bool):
        return ["null" if value is None else "true" if value else "false"]
    if isinstance(value, int):
        return [str(value)]
    if isinstance(value, float | Decimal):
        return [number(float(value))]
    out: list[str] = []
    if isinstance(value, dict):
        for name in sorted(value, key=_utf16):
            out.append("," if out else "{")
            out.append(_string(name))
            out.append(":")
            out += _parts(value[name], depth + 1)
        return [*out, "}"] if out else ["{}"]
    for member in value:
        out.append("," if out else "[")
        out += _parts(member, depth + 1)
    return [*out, "]"] if out else ["[]"]


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def number(value: float) -> str:
    """A double as ECMAScript's Number::toString writes it.  Raises NotCanonical for NaN, infinity."""
    if value != value or value in (float("inf"), float("-inf")):
        raise NotCanonical("NaN and infinity are not JSON")
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - it is finite
    text, point = "".join(map(str, digits)), len(digits) + exponent
    minus = "-" if sign else ""
    if len(text) <= point <= _DIGITS_BEFORE_EXPONENT:
        return minus + text + "0" * (point - len(text))
    if 0 < point <= _DIGITS_BEFORE_EXPONENT:
        return f"{minus}{text[:point]}.{text[point:]}"
    if _ZEROS_BEFORE_EXPONENT < point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
    return f"{minus}{mantissa}e{point - 1:+d}"

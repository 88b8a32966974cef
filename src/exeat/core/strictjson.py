"""One strict parse of JSON from outside (RFC 8259, I-JSON RFC 7493): what two parsers could read
differently is refused (GW-2, POL-9).

Refused: invalid UTF-8, a byte order mark, duplicate member names at any depth, lone surrogates,
NaN and Infinity, numbers that do not survive the round trip through a double, integers beyond 64
bits, nesting deeper than the limit, anything after the value.  Fractions become ``Decimal`` so that
every digit survives to the wire (POL-4).
"""

import json
import re
from decimal import Decimal
from typing import Any, Final, NoReturn

from exeat.core.limits import JSON_DEPTH_MAX

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_INT_DIGITS_MAX: Final = 20
_FRACTION_DIGITS_MAX: Final = 40
_STRUCTURE: Final = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


class MalformedJson(ValueError):
    """The bytes are not JSON in the strict sense; the message says what is wrong, not the value."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedJson("duplicate member name in an object")
    return members


def _integer(literal: str) -> int:
    if len(literal) <= _INT_DIGITS_MAX:
        value = int(literal)
        if _INT_MIN <= value <= _INT_MAX:
            return value
    raise MalformedJson("integer beyond 64 bits")


def _fraction(literal: str) -> Decimal:
    if len(literal) > _FRACTION_DIGITS_MAX:
        raise MalformedJson("number with more digits than a double keeps")
    exact, double = Decimal(literal), float(literal)
    if double in (float("inf"), float("-inf")) or Decimal(repr(double)) != exact:
        raise MalformedJson("number that does not survive a round trip through a double")
    return exact


def _constant(name: str) -> NoReturn:
    raise MalformedJson(f"{name} is not JSON")


_SCAN: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_fraction,
    parse_int=_integer,
    parse_constant=_constant,
).scan_once  # type: ignore[attr-defined]
_WHITE: Final = " \t\r\n"


def parse(raw: bytes, *, depth_max: int = JSON_DEPTH_MAX) -> Any:
    """Parse one JSON value.  Raises MalformedJson; never returns a value that readers could dispute."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedJson("not valid UTF-8") from None
    if raw.count(b"{") + raw.count(b"[") > depth_max:
        _check_depth(text, depth_max)
    start = 0 if text[:1] in "{[" else len(text) - len(text.lstrip(_WHITE))
    try:
        value, end = _SCAN(text, start)
    except StopIteration:
        raise MalformedJson("not JSON") from None
    except MalformedJson:
        raise
    except (ValueError, RecursionError):
        raise MalformedJson("not JSON") from None
    if end != len(text) and text[end:].strip(_WHITE):
        raise MalformedJson("something follows the JSON value")
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_depth(text: str, depth_max: int) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        mark = match.group()
        if mark in "{[":
            depth += 1
            if depth > depth_max:
                raise MalformedJson(f"nested deeper than {depth_max}")
        elif mark in "}]":
            depth -= 1


def _check_surrogates(value: Any) -> None:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            try:
                node.encode("utf-8")
            except UnicodeEncodeError:
                raise MalformedJson("lone surrogate in a string") from None
        elif isinstance(node, dict):
            stack.extend(node)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)

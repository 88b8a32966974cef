"""Bounds of a grant as they are typed: ``--at-most amount=100 --same to --until 18:00 --times 5``."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from exeat.approvals.model.bounds import AtMost, Below, Bound, Bounds, OneOf, Same
from exeat.approvals.model.exact import exact, read_exact
from exeat.core.errors import Invalid
from exeat.registry.model.names import SECOND_NS, instant, parse_until

_CLOCK: Final = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_SPAN: Final = re.compile(r"([1-9]\d{0,4})(m|h|d)")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Typed:
    """The options as they were given."""

    at_most: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    until: str = ""
    times: int = 0
    this_run: bool = False

    def __bool__(self) -> bool:
        return self != Typed()


def read_typed(typed: Typed, held: Mapping[str, Any], now: datetime) -> Bounds:
    """``held``: the call's arguments, which say whether a value is text.  ``now``: with an offset; a time
    of day is meant there.  Raises Invalid."""
    if not typed.until or not typed.times:
        raise Invalid(
            "A grant needs an end and a number of uses.",
            remedy="Add for example: --until 18:00 --times 5",
        )
    found: dict[str, Bound] = {}
    for name in typed.same:
        _put(found, name, Same())
    for name, text in _pairs(typed.at_most, "--at-most"):
        _put(found, name, AtMost(_number(name, text)))
    for name, text in _pairs(typed.below, "--below"):
        _put(found, name, Below(text))
    several: dict[str, set[str]] = {}
    for name, text in _pairs(typed.one_of, "--one-of"):
        several.setdefault(name, set()).add(exact(_value(text, held.get(name))))
    for name, texts in several.items():
        _put(found, name, OneOf(frozenset(texts)))
    return Bounds(found, typed.times, until(typed.until, now), not typed.this_run)


def until(text: str, now: datetime) -> int:
    """``18:00`` (today, where ``now`` is), ``90m``, ``8h``, ``7d``, a day, or a time with offset."""
    if clock := _CLOCK.fullmatch(text):
        hour, minute = map(int, clock.groups())
        moment = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        if moment <= now:
            raise Invalid(
                f"{text} has passed today.",
                remedy="Say for example --until 8h, or a day: 2027-01-31",
            )
        return instant(moment)
    if span := _SPAN.fullmatch(text):
        seconds = int(span.group(1)) * _UNITS[span.group(2)]
        return instant(now + timedelta(seconds=seconds))
    return parse_until(text)


def window(text: str) -> int:
    """``90m``, ``8h``, ``7d`` in nanoseconds.  Raises Invalid."""
    span = _SPAN.fullmatch(text)
    if not span:
        raise Invalid(f"{text!r} is no span of time.", remedy="Write it as 90m, 8h or 7d.")
    return int(span.group(1)) * _UNITS[span.group(2)] * SECOND_NS


def _pairs(given: Iterable[str], option: str) -> Iterable[tuple[str, str]]:
    for each in given:
        name, mark, text = each.partition("=")
        if not mark or not name or not text:
            raise Invalid(
                f"{option} {each!r} names no argument and value.",
                remedy=f"Write it as {option} ARGUMENT=VALUE.",
            )
        yield name, text


def _put(found: dict[str, Bound], name: str, bound: Bound) -> None:
    if name in found:
        raise Invalid(f"The argument {name} has two bounds.", remedy="Give it one.")
    found[name] = bound


def _number(name: str, text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise Invalid(
            f"The bound {text!r} for {name} is no number from 0.", remedy="For example: 99.50"
        )
    return number


def _value(text: str, held: Any) -> Any:
    """Text where the held call has text; else JSON."""
    return text if isinstance(held, str) else read_exact(text)

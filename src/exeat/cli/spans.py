"""Spans of time as people write them: 90s, 10m, 2h, 3d."""

import time
from typing import Final

from exeat.core.errors import Invalid

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def span_s(text: str) -> int:
    """Seconds.  Raises Invalid."""
    number, unit = text[:-1], text[-1:]
    if not (number.isascii() and number.isdigit()) or len(number) > 9 or unit not in _UNITS:
        raise Invalid(f"{text!r} is no span of time.", remedy="Write for example 10m, 2h or 3d.")
    return int(number) * _UNITS[unit]


def since_ns(text: str | None) -> int:
    """When that span began, in nanoseconds since the epoch; 0 for None: always."""
    return 0 if text is None else max(time.time_ns() - span_s(text) * 1_000_000_000, 1)

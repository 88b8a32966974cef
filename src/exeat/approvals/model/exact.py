"""JSON text that keeps every digit, so that two values are equal only if they are written equal.

Python holds ``1 == True == 1.0``; an approval of one is no approval of another.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from exeat.core.errors import Invalid
from exeat.core.strictjson import MalformedJson, parse


def exact(value: Any) -> str:
    """Members sorted by code point, no white space, numbers with their digits.  Raises Invalid."""
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, Decimal) and value.is_finite():
        return _fraction(value)
    if isinstance(value, Mapping):
        members = (f"{json.dumps(name)}:{exact(value[name])}" for name in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(exact, value)) + "]"
    raise Invalid("This is not a JSON value that has an exact form.")


def _fraction(value: Decimal) -> str:
    """As JSON writes it: ``Decimal('1E+2')`` prints so and is read back as the same."""
    text = str(value)
    return text if any(mark in text for mark in ".E") else f"{text}.0"


def read_exact(text: str) -> Any:
    """Raises Invalid."""
    try:
        return parse(text.encode("utf-8"))
    except (MalformedJson, UnicodeEncodeError) as error:
        raise Invalid(f"This is not a JSON value: {error}.") from None

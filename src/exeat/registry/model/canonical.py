"""One text for one JSON value, so that a digest means one thing.

Object members sorted by code point, no white space, non-ASCII escaped as ``\\uXXXX``, integers in
full (RFC 8785 would round those beyond 2**53), fractions as the shortest text of their double.
"""

import json
from decimal import Decimal
from hashlib import sha256
from typing import Any

from exeat.core.errors import Invalid
from exeat.core.ids import Digest


def _fraction(value: Any) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)


def canonical(value: Any) -> str:
    """The canonical text of a JSON value; raises Invalid if it is none."""
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_fraction
        )
    except (TypeError, ValueError, RecursionError):
        raise Invalid("This is not a JSON value that has a canonical form.") from None


def digest(value: Any) -> Digest:
    """SHA-256 over the canonical text, in lower-case hexadecimal."""
    return Digest(sha256(canonical(value).encode("ascii")).hexdigest())

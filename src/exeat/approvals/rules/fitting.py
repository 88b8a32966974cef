"""Whether a call lies within a grant's bounds (APP-6).  Pure; in doubt it does not, and is held."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from unicodedata import normalize

from exeat.approvals.model.bounds import (
    DAY_NS,
    GRANT_MAX_DAYS,
    USES_MAX,
    VALUES_MAX,
    AtMost,
    Below,
    Bound,
    Bounds,
    OneOf,
    Same,
)
from exeat.approvals.model.exact import exact
from exeat.core.errors import Invalid

_ODD: Final = re.compile(r"[\x00-\x1f\x7f\\%~$*?`{}]")
"""What a shell or a library would expand, decode or take for a separator."""


def fits(arguments: Mapping[str, Any], held: Mapping[str, Any], bounds: Bounds) -> bool:
    """``held``: the call of which the grant was made.  No argument may come or go."""
    return arguments.keys() == held.keys() and all(
        _within(value, held[name], bounds.arguments.get(name, Same()))
        for name, value in arguments.items()
    )


def check(bounds: Bounds, held: Mapping[str, Any], now: int) -> None:
    """Raises Invalid unless these bounds can be given, and the held call lies within them."""
    if not 1 <= bounds.uses <= USES_MAX:
        raise Invalid(f"A grant has 1 to {USES_MAX} uses.", remedy="Say how often: --times 5")
    if not now < bounds.until <= now + GRANT_MAX_DAYS * DAY_NS:
        raise Invalid(
            f"A grant ends in the future, at most {GRANT_MAX_DAYS} days from now.",
            remedy="Say until when: --until 18:00, or --until 2027-01-31",
        )
    for name, bound in bounds.arguments.items():
        if name not in held:
            there = ", ".join(sorted(held)) or "none"
            raise Invalid(
                f"The held call has no argument {name!r}.", remedy=f"Its arguments: {there}."
            )
        if isinstance(bound, OneOf) and not 0 < len(bound.values) <= VALUES_MAX:
            raise Invalid(f"{name} can be one of 1 to {VALUES_MAX} values.")
        if not _within(held[name], held[name], bound):
            raise Invalid(
                f"The held call itself does not lie within the bound for {name}.",
                remedy="Widen the bound, or deny the call.",
            )


def _within(value: Any, held: Any, bound: Bound) -> bool:
    match bound:
        case AtMost(most):
            number = _number(value)
            if number is None or not most.is_finite() or not 0 <= number <= most:
                return False
            return number > 0 or not (_number(held) or 0) > 0
        case Below(path):
            return isinstance(value, str) and _plain(value) and _plain(path) and _below(value, path)
        case OneOf(values):
            return exact(value) in values
        case Same():
            return exact(value) == exact(held)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() else None


def _below(value: str, path: str) -> bool:
    return value == path or value.startswith(path if path.endswith("/") else f"{path}/")


def _plain(path: str) -> bool:
    """It plainly denotes what it says: no step up, no empty step, no escape, nothing that some system drops
    or takes for a dot or a slash (trap 3 of decisions.md)."""
    if _ODD.search(path) or not path.isprintable() or normalize("NFKC", path) != path:
        return False
    steps = path.removeprefix("/").removesuffix("/").split("/")
    return path == "/" or all(
        step and step == step.strip() and not step.endswith(".") for step in steps
    )

"""How far a grant goes: argument by argument, how often, until when (APP-6)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from exeat.approvals.model.exact import exact
from exeat.core.errors import Invalid

DAY_NS: Final = 86_400 * 1_000_000_000
GRANT_MAX_DAYS: Final = 90
USES_MAX: Final = 100_000
VALUES_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class AtMost:
    """A number from 0 to ``most``, compared exactly; 0 itself only if the held call has no more: to many
    servers it says "no limit"."""

    most: Decimal


@dataclass(frozen=True, slots=True)
class Below:
    """``path`` itself, or what lies below it."""

    path: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """``values``: exact JSON texts."""

    values: frozenset[str]


@dataclass(frozen=True, slots=True)
class Same:
    """What an argument without a bound has anyway, said in so many words."""


Bound = AtMost | Below | OneOf | Same


@dataclass(frozen=True, slots=True)
class Bounds:
    """``arguments``: by name, at the top level; one that is not named must equal the held call's.
    ``uses``: at least 1.  ``until``: nanoseconds.  ``any_run``: also other runs of the same agent and
    user."""

    arguments: Mapping[str, Bound] = field(default_factory=dict)
    uses: int = 1
    until: int = 0
    any_run: bool = True

    def as_json(self) -> dict[str, Any]:
        named = {name: _bound_json(bound) for name, bound in sorted(self.arguments.items())}
        return {
            "any_run": self.any_run,
            "arguments": named,
            "until": self.until,
            "uses": self.uses,
        }


def _bound_json(bound: Bound) -> dict[str, Any]:
    match bound:
        case AtMost(most):
            return {"at_most": str(most)}
        case Below(path):
            return {"below": path}
        case OneOf(values):
            return {"one_of": sorted(values)}
        case Same():
            return {"same": True}


def read_bounds(value: Mapping[str, Any]) -> Bounds:
    """What ``as_json`` wrote.  Raises Invalid."""
    try:
        named = {name: _read_bound(each) for name, each in value["arguments"].items()}
        return Bounds(named, int(value["uses"]), int(value["until"]), bool(value["any_run"]))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError):
        raise Invalid("These are no bounds of a grant.") from None


def _read_bound(value: Mapping[str, Any]) -> Bound:
    if "at_most" in value:
        return AtMost(Decimal(value["at_most"]))
    if "below" in value:
        return Below(str(value["below"]))
    if "one_of" in value:
        return OneOf(frozenset(map(str, value["one_of"])))
    if value.get("same") is True:
        return Same()
    raise ValueError("no bound")


def values(*each: Any) -> OneOf:
    """One of these JSON values."""
    return OneOf(frozenset(map(exact, each)))

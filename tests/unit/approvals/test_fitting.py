"""What lies within a grant's bounds, and what does not (APP-6)."""

from decimal import Decimal
from typing import Any

import pytest
from approvals_world import CALL, HOUR, NOW
from requirements import requirement

from exeat.approvals.model.bounds import (
    DAY_NS,
    AtMost,
    Below,
    Bound,
    Bounds,
    OneOf,
    Same,
    read_bounds,
    values,
)
from exeat.approvals.model.exact import exact, read_exact
from exeat.approvals.rules.fitting import check, fits
from exeat.core.errors import Invalid


def bounds(uses: int = 5, until: int = NOW + HOUR, **arguments: Bound) -> Bounds:
    return Bounds(arguments, uses, until)


@requirement("APP-6")
@pytest.mark.parametrize(
    ("held", "fitting"),
    [(50, False), (Decimal("0.5"), False), (0, True), (-5, True), ("all", True)],
)
def test_zero_is_no_small_number_of_a_call_that_has_one(held: Any, fitting: bool) -> None:
    """A grant for up to 100 rows is none for all of them, as ``limit=0`` asks of many servers."""
    most = bounds(a=AtMost(Decimal(100)))
    assert fits({"a": 0}, {"a": held}, most) is fitting
    assert fits({"a": Decimal("0E-3")}, {"a": held}, most) is fitting
    assert fits({"a": 1}, {"a": held}, most)


@requirement("APP-6")
@pytest.mark.parametrize(
    ("bound", "value", "wanted"),
    [
        (AtMost(Decimal(100)), 100, True),
        (AtMost(Decimal(100)), Decimal("100.0000"), True),
        (AtMost(Decimal(100)), 0, True),
        (AtMost(Decimal(100)), Decimal("100.00000001"), False),
        (AtMost(Decimal(100)), -1, False),
        (AtMost(Decimal(100)), Decimal("NaN"), False),
        (AtMost(Decimal(100)), Decimal("Infinity"), False),
        (AtMost(Decimal(100)), "5", False),
        (AtMost(Decimal(100)), True, False),
        (AtMost(Decimal(100)), None, False),
        (AtMost(Decimal(100)), [5], False),
        (AtMost(Decimal(2**63 - 1)), 2**63, False),
        (AtMost(Decimal(2**63)), 2**63, True),
        (Below("/srv/a"), "/srv/a", True),
        (Below("/srv/a"), "/srv/a/b", True),
        (Below("/srv/a/"), "/srv/a/b", True),
        (Below("/"), "/etc/passwd", True),
        (Below("/srv/a"), "/srv/ab", False),
        (Below("/srv/a"), "/srv/a/../b", False),
        (Below("/srv/a"), "/srv/a/./b", False),
        (Below("/srv/a"), "/srv/a//b", False),
        (Below("/srv/a"), "/srv/a/%2e%2e/b", False),
        (Below("/srv/a"), "/srv/a/..\\b", False),
        (Below("/srv/a"), "/srv/a\x00/b", False),
        (Below("/srv/a"), "srv/a/b", False),
        (Below("/srv/.."), "/srv/../etc", False),
        (Below("/srv/a"), ["/srv/a"], False),
        (Below("/srv/a"), "/srv/a/\u2024\u2024/b", False),
        (Below("/srv/a"), "/srv/a/\uff0e\uff0e/b", False),
        (Below("/srv/a"), "/srv/a/.. /b", False),
        (Below("/srv/a"), "/srv/a/.\u200b./b", False),
        (Below("/srv/a"), "/srv/a/.../b", False),
        (Below("/srv/a"), "/srv/a/$HOME", False),
        (Below("/srv/a"), "/srv/a/{b,../c}", False),
        (Below("/srv/a"), "/srv/a/Übersicht 1.txt", True),
        (values("EUR", "CHF"), "CHF", True),
        (values("EUR", "CHF"), "chf", False),
        (values(1, 2), Decimal("1.0"), False),
        (values(1), True, False),
        (values(None), None, True),
        (Same(), "held", True),
        (Same(), "Held", False),
    ],
)
def test_one_argument(bound: Bound, value: Any, wanted: bool) -> None:
    assert fits({"a": value}, {"a": "held"}, bounds(a=bound)) is wanted


@requirement("APP-6")
@pytest.mark.parametrize(
    "other",
    [
        {**CALL, "to": "DE99"},
        {**CALL, "note": " "},
        {**CALL, "amount": Decimal("99.5")},
        {**CALL, "more": 1},
        {name: value for name, value in CALL.items() if name != "note"},
        {},
    ],
)
def test_what_has_no_bound_must_be_the_same_and_nothing_comes_or_goes(
    other: dict[str, Any],
) -> None:
    assert fits(CALL, CALL, bounds())
    assert not fits(other, CALL, bounds())


@requirement("APP-6")
@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (bounds(uses=0), "uses"),
        (bounds(uses=100_001), "uses"),
        (bounds(until=NOW), "ends in the future"),
        (bounds(until=NOW + 90 * DAY_NS + 1), "at most 90 days"),
        (bounds(total=AtMost(Decimal(1))), "no argument 'total'"),
        (bounds(amount=AtMost(Decimal("99.49"))), "does not lie within the bound for amount"),
        (bounds(to=Below("/srv")), "does not lie within"),
        (bounds(note=OneOf(frozenset())), "1 to 100 values"),
        (bounds(note=values(*range(101))), "1 to 100 values"),
    ],
)
def test_bounds_that_cannot_be_given(wrong: Bounds, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        check(wrong, CALL, NOW)


@requirement("APP-6")
def test_bounds_survive_being_written() -> None:
    full = Bounds(
        {"a": AtMost(Decimal("0.10")), "b": Below("/x"), "c": values("y", 1), "d": Same()},
        3, NOW, any_run=False,
    )  # fmt: skip
    assert read_bounds(read_exact(exact(full.as_json()))) == full
    check(bounds(until=NOW + 90 * DAY_NS, amount=AtMost(Decimal("99.5"))), CALL, NOW)
    with pytest.raises(Invalid):
        read_bounds({"arguments": {"a": {"about": 1}}, "uses": 1, "until": 1, "any_run": True})


@requirement("APP-2")
def test_exact_text_tells_apart_what_python_holds_equal() -> None:
    assert len({exact(each) for each in (1, True, Decimal("1.0"), Decimal("1.00"), "1")}) == 5
    value = {
        "b": [1, None, Decimal("1E+2"), "é\u202e"],
        "a": {"x": Decimal("0.10"), "y": 2**63 - 1},
    }
    assert read_exact(exact(value)) == value
    assert exact(read_exact(exact(value))) == exact(value)
    with pytest.raises(Invalid):
        exact({"a": 1.5})
    with pytest.raises(Invalid):
        exact(Decimal("NaN"))

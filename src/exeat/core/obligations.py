"""What must be done with a permitted call, or it is denied (XACML's obligations).  Closed.

Written as ``kind:value`` wherever a decision is kept or carried (evidence, AuthZEN).  Whoever meets one
that it does not know denies.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from exeat.core.controls import Fulfilled
from exeat.core.errors import Invalid

REDACT: Final = "redact"
FIELD: Final = "field"
ROWS: Final = "rows"
BYTES: Final = "bytes"
DRY_RUN: Final = "dry_run"
NARROW: Final = "narrow"
CONTROL: Final = "control"
BUDGET: Final = "budget"
KINDS: Final = frozenset({REDACT, FIELD, ROWS, BYTES, DRY_RUN, NARROW, CONTROL, BUDGET})
"""``redact:email`` · ``field:/a/b`` · ``rows:100`` · ``bytes:65536`` · ``dry_run:argument`` (it was set) ·
``narrow:argument`` (it was made smaller) · ``control:approved_by_owner`` (the evidence that was given) ·
``budget:id=units`` (what was reserved)."""


@dataclass(frozen=True, slots=True)
class OnResult:
    """All that is to be done to a result.  0: no cap."""

    detectors: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    rows: int = 0
    bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self.detectors or self.fields or self.rows or self.bytes)


NOTHING: Final = OnResult()


def written(control: Fulfilled) -> tuple[str, ...]:
    """What a control asks of the result, as obligations."""
    return (
        *(f"{REDACT}:{name}" for name in sorted(control.detectors)),
        *(f"{FIELD}:{pointer}" for pointer in control.fields),
        *((f"{ROWS}:{control.rows}",) if control.rows else ()),
        *((f"{BYTES}:{control.bytes}",) if control.bytes else ()),
    )


def on_result(obligations: Iterable[str]) -> OnResult:
    """Of several caps the least.  Raises Invalid for an obligation that is not known."""
    detectors: set[str] = set()
    fields: list[str] = []
    rows = most = 0
    for each in obligations:
        kind, mark, value = each.partition(":")
        if kind not in KINDS or not mark:
            raise Invalid(f"the obligation {kind[:40]!r} is not known", remedy="update the gateway")
        if kind == REDACT:
            detectors.add(value)
        elif kind == FIELD:
            fields.append(value)
        elif kind == ROWS:
            rows = _least(rows, value)
        elif kind == BYTES:
            most = _least(most, value)
    return OnResult(frozenset(detectors), tuple(fields), rows, most)


def _least(known: int, value: str) -> int:
    if not value.isdecimal() or int(value) == 0:
        raise Invalid("a cap that is not a positive whole number")
    return min(known, int(value)) if known else int(value)

"""What was taken out, in words that a model can read, and as the record keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from exeat.gateway.redaction.detectors import CARD, EMAIL, FIELD, IBAN, PHONE, SECRET

REDACTED_KEY: Final = "exeat/redacted"
WITHHELD_KEY: Final = "exeat/withheld"
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    SECRET: ("secret", "secrets"),
    CARD: ("card number", "card numbers"),
    IBAN: ("account number (IBAN)", "account numbers (IBAN)"),
    EMAIL: ("email address", "email addresses"),
    PHONE: ("phone number", "phone numbers"),
    FIELD: ("hidden field", "hidden fields"),
    "data": ("image or file that cannot be searched", "images or files that cannot be searched"),
}


@dataclass(slots=True)
class Summary:
    """``removed``: detector (or ``field``, ``data``) → how many different values.  ``rows``, ``bytes``:
    how many were cut.  ``dropped``: notifications that did not pass.  ``withheld``: why nothing passed."""

    removed: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    dropped: int = 0
    withheld: str = ""
    passed: int = 0
    """Rows that passed, as far as a cap had them counted."""

    def __bool__(self) -> bool:
        return bool(self.removed or self.rows or self.bytes or self.dropped or self.withheld)

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = dict(self.removed)
        for name in ("rows", "bytes", "dropped"):
            if getattr(self, name):
                found[f"{name}_cut" if name != "dropped" else name] = getattr(self, name)
        return {**found, **({"withheld": self.withheld} if self.withheld else {})}


def told(summary: Summary, decision: str) -> str:
    """One sentence; empty if nothing was taken out."""
    removed = [
        f"{count:,} {_WORDS[what][count != 1]}" for what, count in summary.removed.items() if count
    ]
    said: list[str] = []
    if removed:
        said.append(f"removed {_listed(removed)}")
    cut = [
        f"{count:,} {unit if count != 1 else unit[:-1]}"
        for count, unit in ((summary.rows, "rows"), (summary.bytes, "bytes"))
        if count
    ]
    if cut:
        said.append(f"cut {_listed(cut)}")
    return f"exeat {' and '.join(said)} (decision {decision})." if said else ""


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

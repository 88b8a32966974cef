"""A bounded, counted, revocable permission that an approver made of a held call (APP-6)."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from exeat.core.grant import Binding
from exeat.core.ids import PersonId


@dataclass(frozen=True, slots=True)
class Grant:
    """``binding``: of the held call; all of it holds for every use except arguments (``sealed`` bounds
    say how far they may differ) and, with ``any_run``, the run.  ``controls``: what it gives.
    ``hold``: whose answers stand behind it.  ``left``: uses that are left.  0: never."""

    id: str
    binding: Binding
    controls: frozenset[str]
    hold: str
    bounds: str
    sealed: bytes = field(repr=False)
    any_run: bool
    uses: int
    left: int
    made_at: int
    until: int
    last_used: int = 0
    revoked_at: int = 0
    revoked_by: PersonId | None = None

    @property
    def subject(self) -> str:
        return f"grant:{self.id}"

    def live(self, now: int) -> bool:
        return not self.revoked_at and self.left > 0 and now < self.until

    def as_json(self) -> dict[str, Any]:
        """For evidence: neither an argument nor a bound; ``bounds`` is salted as the hold's ``call``."""
        return {
            "action": self.binding.action,
            "agent": self.binding.agent,
            "any_run": self.any_run,
            "bounds": self.bounds,
            "controls": sorted(self.controls),
            "hold": self.hold,
            "left": self.left,
            "pin": self.binding.pin,
            "slice": self.binding.slice,
            "until": self.until,
            "user": self.binding.user or "",
            "uses": self.uses,
        }


def scope(binding: Binding) -> str:
    """SHA-256 in hex over what every use of a grant shares with the held call."""
    named = {
        "action": binding.action,
        "agent": binding.agent,
        "method": binding.method,
        "owner": binding.owner,
        "pin": binding.pin,
        "server": binding.server,
        "slice": binding.slice,
        "user": binding.user or "",
    }
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

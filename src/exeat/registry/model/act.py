"""Who does something, through what, why and when: every verb takes one (REG-3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.registry.model.names import plain_text

REASON_MAX_CHARS: Final = 500
EXEAT: Final = PersonId("exeat")
"""The actor of what exeat does by itself (noticing a changed tool).  No person can be called so."""


@dataclass(frozen=True, slots=True)
class Act:
    """``channel``: through what the person came (``cli:ada``, ``api``).  ``at``: nanoseconds.

    Raises Invalid if the reason is empty, long, or holds control characters.
    """

    actor: PersonId
    channel: str
    reason: str
    at: int

    def __post_init__(self) -> None:
        plain_text("reason", self.reason, REASON_MAX_CHARS)

    def event(
        self,
        kind: str,
        subject: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> Event:
        return Event(kind, subject, self.actor, self.channel, self.at, self.reason, before, after)

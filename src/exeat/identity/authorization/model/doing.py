"""Who does something at the authorization server, through what, when and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.event import Event
from exeat.core.ids import PersonId

ITSELF: Final = PersonId("exeat")
"""The actor of what nobody did by hand: a client that registers, a token that is exchanged."""
SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Doing:
    """``channel``: ``console``, ``oauth``, ``cli:1000``.  ``at``: nanoseconds."""

    actor: PersonId
    channel: str
    at: int
    reason: str

    def event(
        self,
        kind: str,
        subject: str,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> Event:
        return Event(kind, subject, self.actor, self.channel, self.at, self.reason, before, after)

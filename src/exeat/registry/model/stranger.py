"""A client with a good token whom nobody registered: an *unregistered agent* (ID-5).

It is denied everything; what it tried is kept, so that a person can adopt it.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

from exeat.core.ids import PersonId

TRIED_MAX: Final = 64
STRANGERS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Stranger:
    """``user``: the person for whom it acted, if the registry knows them.  ``tried``: actions as
    ``server/tool`` or ``server method``.  Times in nanoseconds."""

    id: str
    issuer: str
    client: str
    user: PersonId | None
    first_seen: int
    last_seen: int
    attempts: int
    tried: frozenset[str]

    def again(self, other: "Stranger") -> "Stranger":
        tried = sorted(self.tried | other.tried)[:TRIED_MAX]
        return replace(
            self,
            user=other.user,
            last_seen=max(self.last_seen, other.last_seen),
            attempts=self.attempts + other.attempts,
            tried=frozenset(tried),
        )

    @property
    def servers(self) -> frozenset[str]:
        return frozenset(each.partition("/")[0].partition(" ")[0] for each in self.tried)

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "issuer": self.issuer,
            "client": self.client,
            "user": self.user,
            "tried": sorted(self.tried),
        }

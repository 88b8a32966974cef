"""What one person proposes and another puts in force: a policy version, or observing an agent (POL-10)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from exeat.core.errors import Conflict
from exeat.core.event import Event
from exeat.core.ids import Digest, PersonId
from exeat.registry.model.act import Act
from exeat.registry.model.canonical import digest

LIFE_NS: Final = 7 * 86_400 * 1_000_000_000
"""A proposal that nobody approved by then has to be made again."""


class Kind(StrEnum):
    POLICY = "policy"
    """``body``: ``files`` (name → text)."""
    OBSERVE = "observe"
    """``body``: ``agent`` and ``for_s``."""


class Standing(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Proposal:
    """``digest``: over the body; the approver names what they were shown by it.  ``base``: the policy
    version that was in force, 0 for none.  ``by``: who proposed it; ``author``: who wrote it."""

    number: int
    kind: Kind
    body: Mapping[str, Any] = field(compare=False)
    digest: Digest
    base: int
    author: PersonId
    by: PersonId
    reason: str
    at: int
    standing: Standing = Standing.OPEN
    decided_by: PersonId | None = None

    @classmethod
    def open(
        cls,
        number: int,
        kind: Kind,
        body: Mapping[str, Any],
        base: int,
        author: PersonId,
        act: Act,
    ) -> tuple["Proposal", Event]:
        made = cls(
            number, kind, body, digest(dict(body)), base, author, act.actor, act.reason, act.at
        )
        return made, act.event("proposal.opened", made.subject, None, made.as_json())

    @property
    def subject(self) -> str:
        return f"proposal:{self.number}"

    def approve(self, seen: str, act: Act) -> tuple["Proposal", Event]:
        """POL-10: by another person than wrote or proposed it, who was shown exactly this."""
        self._require_open(act.at)
        if act.actor in (self.author, self.by):
            raise Conflict(
                f"{act.actor} wrote or proposed it, and so cannot approve it.",
                remedy="Another admin has to.",
            )
        if seen != self.digest:
            raise Conflict(
                f"Proposal {self.number} is not the one that was shown.",
                remedy=f"Look again: exeat policy proposals {self.number}",
            )
        new = replace(self, standing=Standing.APPROVED, decided_by=act.actor)
        return new, act.event("proposal.approved", self.subject, self.as_json(), new.as_json())

    def withdraw(self, act: Act) -> tuple["Proposal", Event]:
        self._require_open(0)
        new = replace(self, standing=Standing.WITHDRAWN, decided_by=act.actor)
        return new, act.event("proposal.withdrawn", self.subject, self.as_json(), new.as_json())

    def _require_open(self, now: int) -> None:
        if self.standing is not Standing.OPEN:
            raise Conflict(f"Proposal {self.number} is {self.standing} already.")
        if now >= self.at + LIFE_NS:
            raise Conflict(
                f"Proposal {self.number} is more than {LIFE_NS // 86_400_000_000_000} days old.",
                remedy="Propose it again.",
            )

    def as_json(self) -> dict[str, Any]:
        """Without the text of files, which their digest names."""
        shown = dict(self.body)
        if self.kind is Kind.POLICY:
            shown = {"files": sorted(self.body["files"])}
        return {
            "number": self.number,
            "kind": self.kind.value,
            "digest": self.digest,
            "base": self.base,
            "author": self.author,
            "by": self.by,
            "standing": self.standing.value,
            "decided_by": self.decided_by,
            **shown,
        }

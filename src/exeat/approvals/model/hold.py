"""A held call, and what people said to it (APP-1 … APP-3)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from exeat.core.controls import Channel
from exeat.core.grant import Binding
from exeat.core.ids import PersonId

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
EXEAT: Final = PersonId("exeat")
"""The actor of what exeat does by itself."""
GATEWAY: Final = "gateway"


class HoldState(StrEnum):
    PENDING = "pending"
    """Somebody is being asked."""
    APPROVED = "approved"
    """The next call of the same binding takes it."""
    GRANTED = "granted"
    """It became a bounded grant, which the next call that fits takes from."""
    USED = "used"
    DENIED = "denied"
    EXPIRED = "expired"
    """Nobody answered in time, or nobody called again in time."""
    LAPSED = "lapsed"
    """An approver's authority ended before it was used (APP-3)."""


class Word(StrEnum):
    """What a person says."""

    APPROVE = "approve"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Answer:
    """``controls``: those that this person could give through this channel at that time.  ``bounds``:
    digest of the bounds that were proposed, empty for this one call only; ``sealed``: the bounds."""

    person: PersonId
    word: Word
    channel: Channel
    at: int
    reason: str
    controls: frozenset[str]
    bounds: str = ""
    sealed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Hold:
    """``sealed``: arguments and narrowed form, empty once they were forgotten.  ``asked``: people who
    could answer when it was made.  ``use_by``: of an approved one, when it expires unused.
    ``attempts``: calls of the same binding while it waited.  ``commitment``: to the binding,
    under a salt that is sealed with the arguments and forgotten with them.  Times: nanoseconds;
    0: not yet."""

    id: str
    binding: Binding
    alternatives: tuple[tuple[str, ...], ...]
    why: tuple[str, ...]
    effect: str
    sink: str
    sealed: bytes = field(repr=False)
    asked: tuple[PersonId, ...]
    asked_at: int
    expires_at: int
    commitment: str
    state: HoldState = HoldState.PENDING
    attempts: int = 1
    decided_at: int = 0
    use_by: int = 0
    answers: tuple[Answer, ...] = ()
    grant: str = ""

    @property
    def subject(self) -> str:
        return f"hold:{self.id}"

    @property
    def approvals(self) -> tuple[Answer, ...]:
        return tuple(each for each in self.answers if each.word is Word.APPROVE)

    def as_json(self) -> dict[str, Any]:
        """For evidence: neither an argument nor a digest by which one could be guessed."""
        b = self.binding
        return {
            "action": b.action,
            "agent": b.agent,
            "alternatives": [list(each) for each in self.alternatives],
            "call": self.commitment,
            "expires_at": self.expires_at,
            "pin": b.pin,
            "slice": b.slice,
            "state": self.state.value,
            "user": b.user or "",
        }


@dataclass(frozen=True, slots=True)
class Shown:
    """The real call, as the agent wrote it and as it would leave (APP-1).  ``salt``: hexadecimal."""

    arguments: Mapping[str, Any]
    narrowed: Mapping[str, Any] | None
    beside: str = ""
    salt: str = ""

    @property
    def leaving(self) -> Mapping[str, Any]:
        return self.arguments if self.narrowed is None else self.narrowed


def committed(salt: str, what: str) -> str:
    """SHA-256 in hex: whoever knows salt and value can check it, and nobody else can guess the value."""
    return hashlib.sha256(f"{salt}\n{what}".encode()).hexdigest()

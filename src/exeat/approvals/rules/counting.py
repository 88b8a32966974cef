"""Figures from what happened (APP-7).  Pure."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from exeat.approvals.model.figures import ByPerson, Figures
from exeat.approvals.model.hold import SECOND_NS, Answer, Hold, HoldState, Word
from exeat.core.controls import CONFIRMED_BY_USER
from exeat.core.ids import PersonId

QUICK_NS: Final = 5 * SECOND_NS


def figures(holds: Sequence[Hold]) -> Figures:
    said: dict[PersonId, list[tuple[Hold, Answer]]] = {}
    for hold in holds:
        for answer in hold.answers:
            said.setdefault(answer.person, []).append((hold, answer))
    decided = [hold for hold in holds if _decided(hold)]
    agreed = [hold for hold in decided if hold.state is not HoldState.DENIED]
    confirmed = sum(any(map(_confirms, hold.approvals)) for hold in agreed)
    return Figures(
        holds=len(holds),
        attempts=sum(hold.attempts for hold in holds),
        pending=sum(hold.state is HoldState.PENDING for hold in holds),
        approved=len(agreed) - confirmed,
        confirmed=confirmed,
        granted=sum(bool(hold.grant) for hold in agreed),
        denied=len(decided) - len(agreed),
        expired=sum(h.state is HoldState.EXPIRED and not h.use_by for h in holds),
        median_s=_median_s(hold.decided_at - hold.asked_at for hold in decided),
        people=tuple(_of(person, each) for person, each in sorted(said.items())),
    )


def _decided(hold: Hold) -> bool:
    """By people, not by time."""
    by_time = hold.state is HoldState.EXPIRED and not hold.use_by
    return hold.state is not HoldState.PENDING and not by_time


def _confirms(answer: Answer) -> bool:
    return CONFIRMED_BY_USER in answer.controls


def _of(person: PersonId, said: Sequence[tuple[Hold, Answer]]) -> ByPerson:
    yes = [(h, a) for h, a in said if a.word is Word.APPROVE]
    approvals = [(h, a) for h, a in yes if not _confirms(a)]
    denials = sum(a.word is Word.DENY for _, a in said)
    quick = sum(a.at - h.asked_at < QUICK_NS for h, a in approvals)
    return ByPerson(
        person,
        len(approvals),
        denials,
        len(yes) - len(approvals),
        quick,
        round(len(approvals) / (len(approvals) + denials), 3) if approvals else 0.0,
        _median_s(answer.at - hold.asked_at for hold, answer in said),
    )


def _median_s(spans: Iterable[int]) -> float:
    found = list(spans)
    return round(median(found) / SECOND_NS, 3) if found else 0.0

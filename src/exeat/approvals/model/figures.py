"""Rubber-stamp figures (APP-7): how people decide, never what."""

from dataclasses import dataclass

from exeat.core.ids import PersonId


@dataclass(frozen=True, slots=True)
class ByPerson:
    """``quick``: approvals within ``QUICK_NS`` of the request.  ``median_s``: seconds from request to
    answer.  ``rate``: approvals of all answers, 0 to 1."""

    person: PersonId
    approvals: int
    denials: int
    confirmations: int
    quick: int
    rate: float
    median_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """``attempts``: calls that were coalesced into holds.  ``median_s``: from request to decision by
    people; 0 if there was none."""

    holds: int
    attempts: int
    pending: int
    approved: int
    confirmed: int
    granted: int
    denied: int
    expired: int
    median_s: float
    people: tuple[ByPerson, ...]

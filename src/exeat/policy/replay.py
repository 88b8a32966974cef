"""Recorded traffic under a candidate: which verdicts would change (POL-6).  Pure.

A replay is about policy: what no policy decides (kills, budgets, a stale state) stays as it was.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.request import AccessRequest
from exeat.policy.decide import Pdp

BEYOND_POLICY: Final = frozenset(
    {
        Reason.STATE_STALE,
        Reason.REQUEST_STATE_INVALID,
        Reason.KILLED,
        Reason.BUDGET_EXHAUSTED,
        Reason.BUDGETS_UNAVAILABLE,
        Reason.INSUFFICIENT_SCOPE,
        Reason.CHAIN_NOT_AUTHORIZED,
        Reason.OBLIGATION_UNKNOWN,
        Reason.DENIALS_CAPPED,
        Reason.AGENT_UNREGISTERED,
        Reason.METHOD_UNKNOWN,
    }
)
"""Denials that another policy would not have undone."""
AFTER_A_HOLD: Final = frozenset(
    {Reason.APPROVAL_DENIED, Reason.HOLDS_CAPPED, Reason.APPROVALS_UNAVAILABLE}
)
"""Denials of what policy held."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One decision as it stands in the record.  ``id``: like ``gw1-42``.  ``request``: with the facts
    of the record, and those of now where the record holds none."""

    id: str
    request: AccessRequest
    verdict: Verdict
    reason: Reason
    policies: tuple[str, ...] = ()
    mode: str = "enforce"
    labels: tuple[str, ...] = ()
    would: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()

    @property
    def of_policy(self) -> Verdict:
        """What policy said, whatever people, budgets or observe mode made of it."""
        return Verdict.HOLD if self.reason in AFTER_A_HOLD else self.verdict


@dataclass(frozen=True, slots=True)
class Change:
    before: Recorded
    after: Decision


@dataclass(slots=True)
class Replayed:
    """``moves``: ``permit → deny`` → how many."""

    decided: int = 0
    changes: list[Change] = field(default_factory=list)
    moves: Counter[str] = field(default_factory=Counter)


def replay(pdp: Pdp, traffic: Iterable[Recorded]) -> Replayed:
    """Decide all of it under ``pdp``, in order."""
    found = Replayed()
    for each in traffic:
        after = pdp.decide(each.request)
        found.decided += 1
        before = each.of_policy
        if after.verdict is before or each.reason in BEYOND_POLICY:
            continue
        found.changes.append(Change(each, after))
        found.moves[f"{before.value} → {after.verdict.value}"] += 1
    return found

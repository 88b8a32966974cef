"""One request in Cedar's terms, and Cedar's answer to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import cedarpy

from exeat.core.decision import Reason
from exeat.policy.encode import extension
from exeat.policy.slices import Slice

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What Cedar said."""

    reason: Reason
    policies: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One request in Cedar's terms."""

    principal: Mapping[str, str]
    action: Mapping[str, str]
    resource: Mapping[str, str]
    entities: cedarpy.Entities
    context: str

    def put(self, policies: cedarpy.PolicySet) -> cedarpy.AuthzResult:
        request = {
            "principal": self.principal,
            "action": self.action,
            "resource": self.resource,
            "context": self.context,
        }
        return cedarpy.is_authorized(request, policies, self.entities)


def answer(part: Slice, question: Question) -> Outcome:
    """Cedar's answer on a slice.  Trap 1: an erroring forbid is skipped by Cedar, so any error, and
    anything but a plain Allow or Deny, is a denial."""
    result = question.put(part.cedar)
    errors = result.diagnostics.errors
    if errors:
        return Outcome(Reason.POLICY_ERROR, detail="; ".join(map(str, errors))[:400])
    decision = result.decision
    policies = part.ids(result.diagnostics.reasons)
    if decision is cedarpy.Decision.Allow and policies:
        return Outcome(Reason.PERMITTED, policies)
    if decision is not cedarpy.Decision.Deny:
        return Outcome(Reason.POLICY_ERROR, detail="Cedar gave no decision")
    if policies:
        return Outcome(Reason.FORBIDDEN, policies)
    return Outcome(Reason.NOT_PERMITTED, detail="no permit matched")


def instant(now: int) -> dict[str, dict[str, str]]:
    """Nanoseconds since the epoch as Cedar's datetime (milliseconds, rounded down)."""
    at = _EPOCH + timedelta(milliseconds=now // 1_000_000)
    return extension("datetime", f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z")

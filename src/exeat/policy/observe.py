"""Observe mode: what policy alone would refuse one agent is recorded instead (POL-7, POL-10).

Only Cedar's own denials and holds are let through, for at most seven days, and never a call that
deletes, sends, pays or executes; identity, ownership, pins, kills and budgets refuse as ever.
"""

from dataclasses import replace
from typing import Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.facts import AgentFacts, Effect, ToolFacts
from exeat.core.limits import OBSERVE_MAX_S
from exeat.core.request import AccessRequest
from exeat.policy.preconditions import effect_of

OBSERVE: Final = "observe"
OBSERVED_REASONS: Final = frozenset(
    {Reason.NOT_PERMITTED, Reason.FORBIDDEN, Reason.USER_NOT_PERMITTED}
)
"""What Cedar itself says; every other denial stands."""
NEVER: Final = frozenset({Effect.DELETE, Effect.SEND, Effect.PAY, Effect.EXECUTE})
_MOST_NS: Final = OBSERVE_MAX_S * 1_000_000_000


def observed(request: AccessRequest, decision: Decision) -> Decision:
    """The decision, or the permit that an observed agent has instead of it.  Pure."""
    tool, agent = request.tool, request.caller.agent
    if not agent.observe_until or not request.clock_trusted:
        return decision
    if not could_be_observed(agent, request.method, tool, request.now):
        return decision
    refused = decision.verdict is Verdict.DENY and decision.reason in OBSERVED_REASONS
    if not refused and decision.verdict is not Verdict.HOLD:
        return decision
    met = f"{OBSERVE}:{decision.verdict.value}:{decision.reason.value}"
    return replace(
        decision,
        verdict=Verdict.PERMIT,
        reason=Reason.OBSERVED,
        remedy="",
        obligations=(),
        narrowed=None,
        hold=(),
        slice="",
        would=(met, *decision.would),
    )


def could_be_observed(agent: AgentFacts, method: str, tool: ToolFacts | None, now: int) -> bool:
    """The agent is observed now, and for no longer than seven days; and such a call is never one that
    deletes, sends, pays or executes.  An unconfirmed profile does the unknown: it executes."""
    if not now < agent.observe_until <= now + _MOST_NS:
        return False
    if tool is not None and not tool.profile_confirmed:
        return False
    return effect_of(method, tool) not in NEVER

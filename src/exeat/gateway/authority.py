"""What a token bounds beside registry and policy: its scopes, and the agents it came through.  Pure."""

from typing import Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.facts import AgentFacts, Effect, Snapshot
from exeat.core.request import AccessRequest, Caller
from exeat.policy.methods import LIST_METHODS
from exeat.policy.preconditions import REMEDIES, effect_of, principal, within, within_servers

SCOPES: Final = tuple(f"mcp:{effect.value}" for effect in Effect)
"""A token's coarse bound: one scope for each effect that a tool can have."""
_BASE: Final = f"mcp:{Effect.READ.value}"


def scopes_for(request: AccessRequest) -> frozenset[str]:
    """All that this operation needs (ID-2): to be there at all, and its effect."""
    if request.method in LIST_METHODS:
        return frozenset({_BASE})
    return frozenset({_BASE, f"mcp:{effect_of(request.method, request.tool).value}"})


def within_token(request: AccessRequest, decision: Decision, snapshot: Snapshot) -> Decision:
    """The permit, unless the token's authority is less.  ID-5: what an agent delegated is never more
    than it could do itself; ID-2: scopes are asked for last, when nothing else stands in the way."""
    token = request.caller.token
    if token is None or decision.verdict is Verdict.DENY:
        return decision
    for name in token.actors:
        agent = snapshot.agents.get(name)
        failed = None
        if agent is not None and (kill := _killed(agent, request, snapshot)):
            return _denied(decision, Reason.KILLED, f"agent {name} of the chain: stopped by {kill}")
        if agent is None:
            why = f"agent {name} of the chain is not registered any more"
        else:
            failed = principal(Caller(agent, None, ""), request.now)
            if failed is None and request.method in LIST_METHODS:
                failed = within_servers(agent, request.server)
            elif failed is None:
                failed = within(agent, request.server, request.method, request.tool)
            why = failed[1] if failed is not None else ""
        if agent is None or failed is not None:
            return _denied(decision, Reason.CHAIN_NOT_AUTHORIZED, why)
    if token.scopes is not None:
        missing = scopes_for(request) - token.scopes
        if missing:
            why = f"the token lacks {' '.join(sorted(missing))}"
            return _denied(decision, Reason.INSUFFICIENT_SCOPE, why)
    return decision


def _killed(agent: AgentFacts, request: AccessRequest, snapshot: Snapshot) -> str:
    """APP-9: who is stopped has nothing to delegate."""
    return snapshot.kills.hit(agent, None, request.server.id, request.action, request.run)


def _denied(decision: Decision, reason: Reason, why: str) -> Decision:
    return decision.denied(reason, why, REMEDIES[reason])

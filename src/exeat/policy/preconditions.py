"""What must hold before any policy is asked; pure, ordered, the first failure wins.

No policy can permit past these: pins (REG-6), lifecycle (REG-4), a live owner or deputy (REG-2),
the scope that the owner accepted (REG-9).
"""

from collections.abc import Mapping
from typing import Final

from exeat.core.decision import Reason
from exeat.core.facts import AgentFacts, Effect, Lifecycle, PinState, ServerFacts, ToolFacts
from exeat.core.request import AccessRequest, Caller
from exeat.policy.methods import (
    EXTRA_METHOD_EFFECT,
    LIST_METHODS,
    METHODS,
    TOOL_CALL,
    reserved,
)

Failure = tuple[Reason, str]
"""The reason, and a sentence for the operator."""


def unmet(request: AccessRequest) -> Failure | None:
    """The first precondition that the request does not meet, or None.

    What concerns the principal comes first, so that an agent that may do nothing learns nothing of
    what there is (GW-8)."""
    tool, server, caller = request.tool, request.server, request.caller
    failed = principal(caller, request.now)
    if failed is None and not request.clock_trusted:
        # the agent's end date is read in every decision, so every decision depends on time
        failed = Reason.CLOCK_BACKWARDS, "the clock runs behind the ledger's high-water mark"
    if failed is None:
        failed = within_servers(caller.agent, server)
    if failed is None:
        failed = known(server, request.method, request.action, tool)
    if failed is None and tool is not None:
        failed = pinned(tool, request.observed_pin)
    if failed is None and request.method not in LIST_METHODS:
        failed = within(caller.agent, server, request.method, tool)
    return failed


def known(server: ServerFacts, method: str, action: str, tool: ToolFacts | None) -> Failure | None:
    """The server is active and the method or tool is one that it has."""
    if not server.active:
        return Reason.SERVER_NOT_ACTIVE, f"server {server.id} is not active"
    if method == TOOL_CALL:
        if tool is None:
            return Reason.ACTION_UNKNOWN, f"no tool {action} is registered"
        if tool.server != server.id or tool.action != action or reserved(action):
            return Reason.ACTION_UNKNOWN, f"tool {action} does not belong to server {server.id}"
        return None
    if method in LIST_METHODS:
        return None
    if method != action or (method not in METHODS and method not in server.extra_methods):
        return (
            Reason.METHOD_UNKNOWN,
            f"method {method} is not known and not registered to be allowed",
        )
    return None


def pinned(tool: ToolFacts, observed: str) -> Failure | None:
    """REG-6: the definition at the server is the one that a person confirmed."""
    if tool.state is PinState.NEW or not tool.pin:
        return Reason.DEFINITION_UNPINNED, f"nobody has confirmed the definition of {tool.action}"
    if tool.state is not PinState.PINNED or observed != tool.pin:
        return Reason.DEFINITION_CHANGED, f"the definition of {tool.action} is not the pinned one"
    return None


def principal(caller: Caller, now: int) -> Failure | None:
    """The agent is active and answered for; the user is live."""
    agent, user = caller.agent, caller.user
    if agent.revision == 0:
        return Reason.AGENT_UNREGISTERED, f"no agent is registered for {agent.id}"
    if agent.lifecycle is not Lifecycle.ACTIVE:
        return Reason.AGENT_NOT_ACTIVE, f"agent {agent.id} is {agent.lifecycle.value}"
    if now >= agent.ends_at:
        return Reason.AGENT_EXPIRED, f"agent {agent.id} has passed its end date"
    if not (agent.owner_live or agent.deputy_live):
        return Reason.OWNER_NOT_LIVE, f"neither owner nor deputy of {agent.id} is a live person"
    if user is not None and not user.live:
        return Reason.USER_NOT_LIVE, f"user {user.id} is not a live person"
    if not agent.scope.digest or agent.scope.accepted != agent.scope.digest:
        return Reason.SCOPE_NOT_ACCEPTED, f"the owner has not accepted the scope of {agent.id}"
    return None


def within_servers(agent: AgentFacts, server: ServerFacts) -> Failure | None:
    """The server is in the accepted scope."""
    if server.id not in agent.scope.servers:
        return Reason.OUT_OF_SCOPE, f"server {server.id} is not in the scope of {agent.id}"
    return None


def within(
    agent: AgentFacts, server: ServerFacts, method: str, tool: ToolFacts | None
) -> Failure | None:
    """REG-9: server, effect and, where listed, the very tool are in the accepted scope."""
    scope = agent.scope
    if server.id not in scope.servers:
        return within_servers(agent, server)
    effect = effect_of(method, tool)
    if effect not in scope.effects:
        return Reason.OUT_OF_SCOPE, f"effect {effect.value} is not in the scope of {agent.id}"
    if tool is not None and scope.actions and tool.action not in scope.actions:
        return Reason.OUT_OF_SCOPE, f"tool {tool.action} is not in the scope of {agent.id}"
    return None


def effect_of(method: str, tool: ToolFacts | None) -> Effect:
    """What the action does: from the tool's profile, or from the method's own nature."""
    return tool.effect if tool is not None else METHODS.get(method, EXTRA_METHOD_EFFECT)


REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.NO_POLICY: "An operator has to put a policy into force.",
    Reason.NOT_PERMITTED: "No rule permits this call. Try a smaller step, or ask the owner.",
    Reason.FORBIDDEN: "A rule forbids this call. Do not retry it; ask the agent's owner.",
    Reason.POLICY_ERROR: "The rules could not be decided. Report the decision id to the owner.",
    Reason.AGENT_NOT_ACTIVE: "The agent's owner has to activate it.",
    Reason.AGENT_UNREGISTERED: "An operator has to adopt this client: exeat agent unregistered.",
    Reason.INSUFFICIENT_SCOPE: "Sign in again, with the scopes that the answer names.",
    Reason.CHAIN_NOT_AUTHORIZED: "The agent that delegated this may not do it itself.",
    Reason.AGENT_EXPIRED: "The agent's owner has to renew it.",
    Reason.OWNER_NOT_LIVE: "The agent needs a new owner.",
    Reason.SCOPE_NOT_ACCEPTED: "The agent's owner has to accept its scope.",
    Reason.OUT_OF_SCOPE: "The agent's owner would have to widen and accept its scope.",
    Reason.USER_NOT_PERMITTED: "No rule permits this to the user. Ask the user's manager or an operator.",
    Reason.USER_NOT_LIVE: "The user has to sign in again, or another user has to ask.",
    Reason.SERVER_NOT_ACTIVE: "The server is switched off; an operator has to activate it.",
    Reason.ACTION_UNKNOWN: "There is no such tool. List the tools again.",
    Reason.METHOD_UNKNOWN: "This method is not available here.",
    Reason.DEFINITION_CHANGED: "The tool has changed; a person has to look at it first.",
    Reason.DEFINITION_UNPINNED: "The tool is new; a person has to look at it first.",
    Reason.APPROVAL_REQUIRED: "A person has to approve this call. Retry the same call once they have.",
    Reason.APPROVALS_UNAVAILABLE: "Approvals cannot be read now. Try again shortly.",
    Reason.BUDGETS_UNAVAILABLE: "Budgets cannot be read now. Try again shortly.",
    Reason.OBLIGATION_UNKNOWN: "Policy asks for something that cannot be done here; tell the owner.",
    Reason.BUDGET_EXHAUSTED: "The budget is used up. Wait, or ask the agent's owner.",
    Reason.KILLED: "Stop, and do not retry; ask the agent's owner.",
    Reason.CLOCK_BACKWARDS: "The gateway's clock has to be corrected by an operator.",
}
"""The next step, in words fit for the agent: no policy text, no names from the registry."""

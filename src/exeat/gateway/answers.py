"""How refusals and failures are told to a client (POL-3, GW-8, GW-11).  Pure."""

from typing import Any, Final

from exeat.core.controls import CONFIRMED_BY_USER
from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.errors import ExeatError
from exeat.core.facts import ToolFacts
from exeat.core.upstream_auth import CredentialFailed
from exeat.gateway.inbound import RequestId
from exeat.gateway.pipeline import Enforced
from exeat.gateway.wire import encode, error_body, error_message, result_message

DENIED: Final = -31001
UPSTREAM: Final = -31502
LEDGER: Final = -31503
CANCELLED: Final = -31499
UNKNOWN_TOOL: Final = -32602
NOT_FOUND_RESOURCE: Final = -32002
METHOD_NOT_FOUND: Final = -32601

_SAID: Final[dict[Reason, str]] = {
    Reason.NO_POLICY: "no policy is in force, so nothing is permitted",
    Reason.NOT_PERMITTED: "no policy permits this action",
    Reason.FORBIDDEN: "a policy forbids this action",
    Reason.POLICY_ERROR: "the policy could not be evaluated",
    Reason.ARGUMENTS_INVALID: "the arguments do not fit the tool's input schema",
    Reason.ARGUMENTS_UNTYPED: "an argument is not of the declared type",
    Reason.ARGUMENT_OVERSIZE: "an argument is too large to be decided on",
    Reason.ARGUMENT_NOT_CANONICAL: "a path, URL or address is not written in its plain form",
    Reason.AGENT_NOT_ACTIVE: "the agent is not active",
    Reason.AGENT_UNREGISTERED: "no agent is registered for this client",
    Reason.INSUFFICIENT_SCOPE: "the token carries too little scope",
    Reason.CHAIN_NOT_AUTHORIZED: "an agent that delegated this could not do it itself",
    Reason.AGENT_EXPIRED: "the agent's end date has passed",
    Reason.OWNER_NOT_LIVE: "the agent has no live owner or deputy",
    Reason.SCOPE_NOT_ACCEPTED: "the owner has not accepted the agent's present scope",
    Reason.OUT_OF_SCOPE: "the action is outside the scope that the owner accepted",
    Reason.USER_NOT_PERMITTED: "the user for whom the agent acts may not do this",
    Reason.USER_NOT_LIVE: "the user for whom the agent acts is no longer active",
    Reason.SERVER_NOT_ACTIVE: "the server is suspended",
    Reason.METHOD_UNKNOWN: "the method is not served",
    Reason.DEFINITION_CHANGED: "the tool's definition changed and waits for review",
    Reason.DEFINITION_UNPINNED: "the tool's definition was never reviewed",
    Reason.STATE_STALE: "the gateway cannot confirm its policy state",
    Reason.CLOCK_BACKWARDS: "the gateway's clock cannot be trusted",
    Reason.REQUEST_STATE_INVALID: "the retry does not belong to this call, or came too late",
    Reason.APPROVAL_REQUIRED: "a person has to approve this call first",
    Reason.APPROVAL_DENIED: "a person did not approve this call",
    Reason.HOLDS_CAPPED: "too many calls of this agent wait for people",
    Reason.APPROVALS_UNAVAILABLE: "approvals cannot be read",
    Reason.BUDGET_EXHAUSTED: "a budget is used up",
    Reason.BUDGETS_UNAVAILABLE: "budgets cannot be read",
    Reason.AMOUNT_INVALID: "an amount is not one that a budget can count",
    Reason.OBLIGATION_UNKNOWN: "policy asks for what this gateway cannot do",
    Reason.KILLED: "a person has switched this off",
    Reason.DENIALS_CAPPED: "too many denials in this run",
}
DENIED_KEY: Final = "exeat/denied"
_REMEDY: Final = "ask the agent's owner, naming the decision"


def said(decision: Decision) -> str:
    if decision.hold == ((CONFIRMED_BY_USER,),):
        return "its user has to confirm this call first"
    return _SAID.get(decision.reason, str(decision.reason))


def denial_data(enforced: Enforced) -> dict[str, Any]:
    return {
        "reason": str(enforced.decision.reason),
        "decision": enforced.id,
        "remedy": enforced.decision.remedy or _REMEDY,
    }


_WORDS: Final = {Verdict.HOLD: "Held", Verdict.DENY: "Denied", Verdict.PERMIT: "Denied"}


def denial(
    request_id: RequestId, method: str, enforced: Enforced, tool: ToolFacts | None = None
) -> bytes:
    """The whole message.  A tools/call is answered with a result that the model can read (POL-3).

    ``tool``: the one that was called.  If it promises structured output, the result has none: the
    TypeScript SDK 1.x holds even an error's against the schema, and shows its user the mismatch
    instead of the denial.  ``_meta`` has the same in every case."""
    data = denial_data(enforced)
    sentence = said(enforced.decision)
    if method == "tools/call":
        text = (
            f"{_WORDS[enforced.decision.verdict]} by exeat: {sentence}"
            f" (reason {data['reason']}, decision {data['decision']})."
            f" What can be done: {data['remedy'].rstrip('.')}."
        )
        result: dict[str, Any] = {
            "content": [{"type": "text", "text": text}],
            "isError": True,
            "resultType": "complete",
            "_meta": {DENIED_KEY: data},
        }
        if tool is None or not tool.promises_output:
            result["structuredContent"] = {"denied": data}
        return result_message(request_id, encode(result))
    return error_message(
        request_id, error_body(DENIED, f"{_WORDS[enforced.decision.verdict]}: {sentence}", data)
    )


def unknown(request_id: RequestId, method: str, target: str) -> bytes:
    """GW-8: what does not exist and what is hidden are answered with the same bytes."""
    if method == "tools/call":
        return error_message(request_id, error_body(UNKNOWN_TOOL, f"Unknown tool: {target}"))
    if method == "prompts/get":
        return error_message(request_id, error_body(UNKNOWN_TOOL, f"Unknown prompt: {target}"))
    if method.startswith("tasks/"):
        return error_message(request_id, error_body(UNKNOWN_TOOL, f"Unknown task: {target}"))
    if method.startswith("resources/"):
        return error_message(
            request_id, error_body(UNKNOWN_TOOL, f"Unknown resource: {target}", {"uri": target})
        )
    return error_message(
        request_id, error_body(METHOD_NOT_FOUND, f"Method not found: {method or target}")
    )


def cancelled(request_id: RequestId, cause: str = "", *, sent: bool = True) -> bytes:
    """APP-9: who was switched off in the middle of a call is told so, and what is known of the call."""
    if cause != Reason.KILLED:
        return error_message(request_id, error_body(CANCELLED, "Request cancelled"))
    known = "whether it was carried out is unknown" if sent else "it was not carried out"
    remedy = "stop, and do not repeat it; ask the agent's owner"
    data = {"reason": str(Reason.KILLED), "remedy": remedy}
    text = f"Request cancelled: {_SAID[Reason.KILLED]}; {known}; {remedy}"
    return error_message(request_id, error_body(CANCELLED, text, data))


def unrecorded(request_id: RequestId, failure: str) -> bytes:
    """GW-1: no ledger, no action."""
    return error_message(
        request_id,
        error_body(
            LEDGER,
            f"Denied: the decision could not be recorded, so nothing was done ({failure})",
            {"reason": "ledger_unavailable", "remedy": "try again; the operator has been told why"},
        ),
    )


def upstream_failed(
    request_id: RequestId, server: str, reason: str | ExeatError, decision: str, *, sent: bool
) -> bytes:
    """Where a credential is missing, what has to be done first is said instead of to try again."""
    known = "the action was not carried out; it is safe to try again"
    if sent:
        known = "whether it was carried out is unknown; do not repeat it blindly"
    elif isinstance(reason, CredentialFailed):
        if reason.remedy:
            known = f"the action was not carried out; {reason.remedy}"
        reason = f"cannot be used: {reason}"
    return error_message(
        request_id,
        error_body(
            UPSTREAM,
            f"Upstream {server} {reason}; {known}",
            {
                "reason": "upstream_failed",
                "server": server,
                "decision": decision,
                "sent": sent,
                "remedy": known,
            },
        ),
    )

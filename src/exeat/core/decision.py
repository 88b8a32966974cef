"""The PDP's answer, and the closed vocabulary of reasons (POL-3)."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from exeat.core.controls import Charge
from exeat.core.records import record


class Verdict(StrEnum):
    PERMIT = "permit"
    HOLD = "hold"
    """Cedar would permit it with an approval; nothing leaves before there is one (APP-1)."""
    DENY = "deny"


class Reason(StrEnum):
    """Why.  Closed: a reader may switch on these, and none is ever given a second meaning."""

    PERMITTED = "permitted"
    """A Cedar permit matched and no forbid did."""
    LIST_FILTERED = "list_filtered"
    """A list was asked for; it is answered with what this principal could ever be permitted."""
    NO_POLICY = "no_policy"
    """No policy version is in force (POL-1)."""
    NOT_PERMITTED = "not_permitted"
    """No permit matched (POL-1)."""
    FORBIDDEN = "forbidden"
    """A forbid matched."""
    POLICY_ERROR = "policy_error"
    """Cedar reported an error, or no decision: an erroring forbid would be skipped, so this denies."""
    ARGUMENTS_INVALID = "arguments_invalid"
    """The arguments do not fit the tool's pinned input schema."""
    ARGUMENTS_UNTYPED = "arguments_untyped"
    """A value cannot be encoded as the type that policy was validated against."""
    ARGUMENT_OVERSIZE = "argument_oversize"
    """A policy reads an argument whose value is over the cap (POL-9)."""
    ARGUMENT_NOT_CANONICAL = "argument_not_canonical"
    """A path, URL, host or address does not plainly denote its canonical form."""
    AGENT_NOT_ACTIVE = "agent_not_active"
    """The agent is a draft, suspended or retired."""
    AGENT_UNREGISTERED = "agent_unregistered"
    """The client's token is good, but nobody has registered it as an agent (ID-5)."""
    INSUFFICIENT_SCOPE = "insufficient_scope"
    """Everything else permits it, but the token carries too little scope (ID-2)."""
    CHAIN_NOT_AUTHORIZED = "chain_not_authorized"
    """An agent that the authority was delegated through could not do it itself (ID-5)."""
    AGENT_EXPIRED = "agent_expired"
    """The agent's end date has passed."""
    OWNER_NOT_LIVE = "owner_not_live"
    """Neither owner nor deputy is a live person (REG-2)."""
    SCOPE_NOT_ACCEPTED = "scope_not_accepted"
    """The owner has not accepted the scope as it now stands (REG-9)."""
    OUT_OF_SCOPE = "out_of_scope"
    """The action is outside the scope that the owner accepted (REG-9)."""
    USER_NOT_PERMITTED = "user_not_permitted"
    """The agent may, but policies say what users may, and none permits it to this one (ID-5)."""
    USER_NOT_LIVE = "user_not_live"
    """The user for whom the agent acts is not a live person."""
    SERVER_NOT_ACTIVE = "server_not_active"
    """The server is suspended."""
    ACTION_UNKNOWN = "action_unknown"
    """No such tool, prompt or resource for this principal; hidden ones answer the same (GW-8)."""
    METHOD_UNKNOWN = "method_unknown"
    """An MCP method that exeat does not know and the server is not registered to allow (GW-7)."""
    DEFINITION_CHANGED = "definition_changed"
    """The tool's definition is not the one that was pinned (REG-6)."""
    DEFINITION_UNPINNED = "definition_unpinned"
    """The tool was never pinned: a person has not seen its definition yet (REG-6)."""
    STATE_STALE = "state_stale"
    """The snapshot of registry and policy is older than its limit."""
    CLOCK_BACKWARDS = "clock_backwards"
    """The clock runs behind the ledger's high-water mark and the decision depends on time (EVD-9)."""
    REQUEST_STATE_INVALID = "request_state_invalid"
    """A retry's requestState is not one that was sealed for this very call."""
    APPROVAL_REQUIRED = "approval_required"
    """Cedar would permit it with an approval that has not been given (APP-1)."""
    APPROVAL_DENIED = "approval_denied"
    """The people who were asked said no, or nobody could be asked (APP-3)."""
    HOLDS_CAPPED = "holds_capped"
    """Too many calls of this agent wait for people already (APP-12)."""
    APPROVALS_UNAVAILABLE = "approvals_unavailable"
    """Approvals cannot be read or written, so none counts."""
    BUDGET_EXHAUSTED = "budget_exhausted"
    """A budget or rate would be exceeded (APP-8)."""
    BUDGETS_UNAVAILABLE = "budgets_unavailable"
    """Budgets cannot be read or written, so nothing is spent."""
    AMOUNT_INVALID = "amount_invalid"
    """An amount that a budget counts is negative, no number, or finer than four decimal places."""
    OBLIGATION_UNKNOWN = "obligation_unknown"
    """The decision asks for something that this gateway cannot do."""
    KILLED = "killed"
    """Somebody switched it off (APP-9)."""
    OBSERVED = "observed"
    """Permitted only because the agent is being observed; policy would have refused it (POL-7)."""
    DENIALS_CAPPED = "denials_capped"
    """Too many denials in this run; details are withheld so that they are no oracle (GW-8)."""


@record
class Decision:
    """One verdict with all that its record needs.

    ``policies``: ids of the determining policies, sorted.  ``bundle``: digest of the policy version
    in force, empty if none.  ``input_digest``: SHA-256 over everything the PDP saw, in hex.
    ``remedy``: what would make it permissible, fit for the agent's eyes.  ``detail``: for the
    operator only; never sent to the agent.  ``arguments``: the canonical bytes of the arguments that
    were decided, so that nobody has to write them again; empty if they were not written.

    ``narrowed``: what leaves instead of the arguments, None if they leave as they came (POL-4).
    ``hold``: of a HOLD, the sets of controls of which any one suffices.  ``slice``: digest of the
    policies and controls that asked for them.  ``charges``: what it takes from budgets.  ``would``: what
    shadow policies say, or what an observed agent would have met; it decides nothing (POL-5, POL-7).
    """

    verdict: Verdict
    reason: Reason
    policies: tuple[str, ...] = ()
    bundle: str = ""
    input_digest: str = ""
    remedy: str = ""
    detail: str = ""
    obligations: tuple[str, ...] = ()
    arguments: bytes = b""
    narrowed: Mapping[str, Any] | None = None
    hold: tuple[tuple[str, ...], ...] = ()
    slice: str = ""
    charges: tuple[Charge, ...] = ()
    would: tuple[str, ...] = ()

    def denied(self, reason: Reason, detail: str, remedy: str) -> "Decision":
        """The same inputs, refused all the same; nothing that a permit would bring is left."""
        return Decision(
            Verdict.DENY,
            reason,
            bundle=self.bundle,
            input_digest=self.input_digest,
            remedy=remedy,
            detail=detail,
            arguments=self.arguments,
        )

    @property
    def permitted(self) -> bool:
        return self.verdict is Verdict.PERMIT

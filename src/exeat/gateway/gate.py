"""Between decision and record: what people said about a held call, and what budgets have left.

Both lie in the database, so only a decision that needs one waits for it; and whatever cannot be read or
written there is a denial that says so (libraries.md, Failing closed).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from exeat.core.controls import APPROVED_BY, CONFIRMED_BY_USER, OWNER
from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.errors import ExeatError
from exeat.core.grant import Binding, Claim, Declined, Granted, Held, Pending
from exeat.core.records import record
from exeat.core.request import AccessRequest
from exeat.gateway.ports import Approvals, Budgets, NoRoom, Reserved
from exeat.policy.facts import CANONICAL
from exeat.policy.preconditions import REMEDIES

_DECLINED: Final = {
    "denied": Reason.APPROVAL_DENIED,
    "nobody": Reason.APPROVAL_DENIED,
    "capped": Reason.HOLDS_CAPPED,
}


@record
class Passed:
    """The request and decision that are to be recorded, and what was used for it."""

    request: AccessRequest
    decision: Decision
    approvals: tuple[str, ...] = ()
    pending: Pending | None = None
    reserved: str = ""
    authority: str = ""
    """Of an approved call: under what it was approved (``authority``)."""


Decide = Callable[[AccessRequest], tuple[AccessRequest, Decision]]
"""Once more, on the facts in force now."""
Then = Callable[[Passed], None]


class Gate:
    """``approvals`` or ``budgets`` None: there are none, so what would need them is denied."""

    def __init__(self, approvals: Approvals | None, budgets: Budgets | None) -> None:
        self._approvals = approvals
        self.budgets = budgets

    def states(self, holds: tuple[str, ...], then: Callable[[Mapping[str, str]], None]) -> None:
        """How they stand: ``pending`` or another word.  What cannot be told stays pending."""
        if self._approvals is None:
            then({})
        else:
            self._approvals.states(holds, then)

    def passed(
        self,
        request: AccessRequest,
        decision: Decision,
        beside: Mapping[str, Any] | None,
        decide: Decide,
        then: Then,
    ) -> None:
        """``then`` is called once, at once if nothing has to be asked."""
        if decision.verdict is Verdict.HOLD:
            self._claim(request, decision, beside, decide, then)
        elif decision.charges and decision.verdict is Verdict.PERMIT:
            self._reserve(Passed(request, decision), then)
        else:
            then(Passed(request, decision))

    # ---- people

    def _claim(
        self,
        request: AccessRequest,
        decision: Decision,
        beside: Mapping[str, Any] | None,
        decide: Decide,
        then: Then,
    ) -> None:
        if self._approvals is None:
            then(Passed(request, _unavailable(decision, "this gateway has no approvals")))
            return

        def claimed(claim: Claim | ExeatError) -> None:
            if isinstance(claim, Granted):
                bare, asks = decide(request)
                again, decided = decide(
                    replace(request, controls=request.controls | claim.controls)
                )
                bound = authority(request, decision)
                found = Passed(again, decided, claim.approvals, authority=bound)
                moved = asks.verdict is Verdict.HOLD and authority(bare, asks) != bound
                if decided.permitted and (moved or decided.narrowed != decision.narrowed):
                    found = replace(found, decision=_other(decided))  # not what they were shown
                    then(found)
                elif decided.charges and decided.permitted:
                    self._reserve(found, then)
                else:
                    then(_still_held(found) if decided.verdict is Verdict.HOLD else found)
            elif isinstance(claim, Pending):
                then(Passed(request, _asking(decision, claim), pending=claim))
            elif isinstance(claim, Declined):
                then(Passed(request, _declined(decision, claim)))
            else:
                then(Passed(request, _unavailable(decision, str(claim))))

        self._approvals.claim(held_of(request, decision, beside), request, claimed)

    # ---- budgets

    def _reserve(self, found: Passed, then: Then) -> None:
        decision = found.decision
        if self.budgets is None:
            why = "this gateway has no budgets"
            then(replace(found, decision=_no_budgets(decision, why)))
            return

        def reserved(answer: Reserved | NoRoom | ExeatError) -> None:
            if isinstance(answer, Reserved):
                then(replace(found, reserved=answer.id))
            elif isinstance(answer, NoRoom):
                why, remedy = f"budget {answer.budget}: {answer.says}", f"{answer.says}."
                spent = decision.denied(Reason.BUDGET_EXHAUSTED, why, remedy)
                then(replace(found, decision=spent))
            else:
                then(replace(found, decision=_no_budgets(decision, str(answer))))

        self.budgets.reserve(decision.charges, found.request, reserved)


def held_of(request: AccessRequest, decision: Decision, beside: Mapping[str, Any] | None) -> Held:
    """What people are shown, and to what their answer is bound (APP-2).  ``beside``: what leaves with the
    action and is no argument of the tool is bound with them."""
    agent, user = request.caller.agent, request.caller.user
    leaving = decision.arguments
    if decision.narrowed is not None:
        leaving = CANONICAL.encode(decision.narrowed)
    digest = hashlib.sha256(leaving)
    if beside:
        digest.update(b"\x00" + CANONICAL.encode(beside))
    live = f"{agent.owner_live:d}{agent.deputy_live:d}"
    tool = request.tool
    binding = Binding(
        agent=agent.id,
        user=None if user is None else user.id,
        run=request.run,
        server=request.server.id,
        method=request.method,
        action=request.action,
        pin=request.observed_pin if tool is None else tool.pin,
        arguments=digest.hexdigest(),
        slice=decision.slice,
        owner=f"{agent.owner}/{agent.deputy}/{live}/{agent.scope.acceptance}",
    )
    return Held(
        binding,
        decision.hold,
        request.arguments,
        decision.narrowed,
        decision.policies,
        "" if tool is None else tool.effect.value,
        "" if tool is None else tool.sink.value,
        request.now,
        hashlib.sha256(CANONICAL.encode(beside)).hexdigest() if beside else "",
    )


def authority(request: AccessRequest, decision: Decision) -> str:
    """Digest of what an approval is bound to beside the arguments: definition, policies, owner (APP-2)."""
    return replace(held_of(request, decision, None).binding, arguments="").digest


def _asking(decision: Decision, claim: Pending) -> Decision:
    alone = decision.hold == ((CONFIRMED_BY_USER,),)  # which is never called an approval (APP-3)
    what, noun = ("confirm", "confirmation") if alone else ("approve", "approval")
    remedy = (
        f"{asked_of(decision).capitalize()} has to {what} it ({noun} {claim.hold})."
        " Then retry the same call, unchanged."
    )
    return replace(decision, remedy=remedy)


def asked_of(decision: Decision) -> str:
    """Whose answer is awaited, by role: people's names are no agent's business."""
    ways = (
        " and ".join(_ROLES.get(c, c.removeprefix(APPROVED_BY)) for c in w) for w in decision.hold
    )
    return " or ".join(ways) or "a person"


_ROLES: Final = {
    f"{APPROVED_BY}{OWNER}": "the agent's owner",
    CONFIRMED_BY_USER: "its user",
}


def _declined(decision: Decision, claim: Declined) -> Decision:
    reason = _DECLINED.get(claim.word, Reason.APPROVAL_DENIED)
    remedy = claim.says or "Do not retry it; ask the agent's owner."
    return decision.denied(reason, f"{claim.word}: {claim.hold} {claim.says}".strip(), remedy)


def _still_held(found: Passed) -> Passed:
    """What was approved is not enough any more: nobody is asked twice in one call."""
    decision = found.decision.denied(
        Reason.APPROVAL_DENIED,
        "the approval was used, and policy in force now asks for another",
        "Retry the same call, so that it is asked for anew.",
    )
    return replace(found, decision=decision)


def _other(decision: Decision) -> Decision:
    return decision.denied(
        Reason.APPROVAL_DENIED,
        "what would leave now, or under which policy, is not what was approved",
        "Retry the same call, so that it is asked for anew.",
    )


def _unavailable(decision: Decision, why: str) -> Decision:
    remedy = REMEDIES[Reason.APPROVALS_UNAVAILABLE]
    return decision.denied(Reason.APPROVALS_UNAVAILABLE, why, remedy)


def _no_budgets(decision: Decision, why: str) -> Decision:
    remedy = REMEDIES[Reason.BUDGETS_UNAVAILABLE]
    return decision.denied(Reason.BUDGETS_UNAVAILABLE, why, remedy)

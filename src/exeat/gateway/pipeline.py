"""The PEP: every action is decided, written down, and only then done.

The order is the security argument (GW-1):

1. the facts, from one frozen view
2. the decision, pure
3. people and budgets, for a decision that needs them (``gate``)
4. the record, durable
5. a last look: if the state changed meanwhile, or could not be confirmed of late, the action is
   decided again (APP-10)
6. the effect, by whoever asked
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.errors import Invalid, LedgerUnavailable
from exeat.core.facts import CredentialFacts, Lifecycle
from exeat.core.grant import Pending
from exeat.core.obligations import on_result
from exeat.core.records import record
from exeat.core.request import AccessRequest, Caller
from exeat.evidence.model import DecisionContext, OutcomeFacts, Receipt, Status
from exeat.gateway import tasks
from exeat.gateway.authority import within_token
from exeat.gateway.gate import Gate, Passed, authority
from exeat.gateway.ports import LiveState, Recorder, View
from exeat.identity.rules.principal import still_stands
from exeat.policy.preconditions import REMEDIES, principal

DENIALS_MAX: Final = 200
"""Denials that one run is told the details of, per window (GW-8, APP-12)."""
DENIALS_WINDOW_NS: Final = 60 * 1_000_000_000
RUNS_MAX: Final = 10_000
_CAPPABLE: Final = frozenset(
    {
        Reason.NOT_PERMITTED,
        Reason.FORBIDDEN,
        Reason.ACTION_UNKNOWN,
        Reason.ARGUMENTS_INVALID,
        Reason.ARGUMENTS_UNTYPED,
        Reason.ARGUMENT_OVERSIZE,
        Reason.ARGUMENT_NOT_CANONICAL,
        Reason.OUT_OF_SCOPE,
    }
)


@record
class Enforced:
    """A decision on record.  ``receipt`` None: it could not be recorded, and nothing may happen."""

    request: AccessRequest
    decision: Decision
    index: int
    id: str
    receipt: Receipt | None
    failure: str = ""
    pending: Pending | None = None
    """Of a held call: who is being asked."""
    reserved: str = ""
    """What it took from budgets, until its outcome is known."""
    authority: str = ""
    """Of an approved call: under what it was approved."""

    @property
    def permitted(self) -> bool:
        return self.receipt is not None and self.decision.verdict is Verdict.PERMIT


Then = Callable[[Enforced], None]


_Submission = tuple["View", str, str, "Mapping[str, Any] | None", Then]
"""View, run, isolation, what leaves beside, and who is told: the same between decision and record."""


def doable(decision: Decision, beside: Mapping[str, Any] | None) -> Decision:
    """Whoever meets an obligation that cannot be met denies.  A task's result comes later, by another
    request, so nothing could be done to it."""
    try:
        asked = on_result(decision.obligations)
    except Invalid as unknown:
        why, remedy = str(unknown), REMEDIES[Reason.OBLIGATION_UNKNOWN]
        return decision.denied(Reason.OBLIGATION_UNKNOWN, why, remedy)
    if asked and beside is not None and tasks.EXTENSION in beside:
        why, remedy = "the result of a task cannot be changed", "Call the tool without a task."
        return decision.denied(Reason.OBLIGATION_UNKNOWN, why, remedy)
    return decision


def same_effect(now: Decision, recorded: Decision) -> bool:
    """Whether the call that would leave, what it takes from budgets, and what is done to its result, are
    as recorded."""
    return (
        now.narrowed == recorded.narrowed
        and now.obligations == recorded.obligations
        and now.charges == recorded.charges
    )


class Pipeline:
    """One per gateway.  ``submit`` never waits; ``then`` is called once."""

    def __init__(
        self,
        state: LiveState,
        ledger: Recorder,
        clock: Callable[[], int],
        met: Callable[[AccessRequest], None] | None = None,
        gate: Gate | None = None,
    ) -> None:
        """``met``: is told what an unregistered agent tried (ID-5).  ``gate``: people and budgets; without
        it whatever needs them is denied."""
        self._met = met
        self.gate = gate or Gate(None, None)
        self.state = state
        self.ledger = ledger
        self.clock = clock
        self._denials: dict[str, tuple[int, int]] = {}
        self._contexts: dict[tuple[str, str, str], DecisionContext] = {}
        self._credentials_of: View | None = None
        self._live: Mapping[str, CredentialFacts] = {}

    def submit(
        self,
        request: AccessRequest,
        run: str,
        isolation: str,
        then: Then,
        ruled: Decision | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        """``ruled``: a denial that needs no policy, such as a method that the era does not have.
        ``beside``: what leaves with the action and is no argument of the tool; it is committed to."""
        view = self.state.view
        request = self.refreshed(request, request.now)
        decision = self._decide(view, request) if ruled is None else ruled
        if decision.obligations:
            decision = doable(decision, beside)
        submission = (view, run, isolation, beside, then)
        if decision.verdict is Verdict.HOLD or decision.charges:
            self._through_gate(submission, request, decision)
        else:
            self._record(submission, request, decision, None)

    def _through_gate(
        self, submission: "_Submission", request: AccessRequest, decision: Decision
    ) -> None:
        view, run, isolation, beside, then = submission

        def decide(again: AccessRequest) -> tuple[AccessRequest, Decision]:
            nonlocal view
            view = self.state.view
            again = self.refreshed(again)
            return again, doable(self._decide(view, again), beside)

        def passed(found: Passed) -> None:
            self._record((view, run, isolation, beside, then), found.request, found.decision, found)

        self.gate.passed(request, decision, beside, decide, passed)

    def _record(
        self,
        submission: "_Submission",
        request: AccessRequest,
        decision: Decision,
        used: Passed | None,
    ) -> None:
        """``used``: what came of people and budgets; None: nobody was asked."""
        view, run, isolation, beside, then = submission
        if decision.verdict is not Verdict.PERMIT:
            decision = self._capped(run, decision, request.now)
            if decision.reason is Reason.AGENT_UNREGISTERED and self._met is not None:
                self._met(request)
        context = self._context(run, request, isolation, beside)
        if used is not None and used.approvals:
            context = replace(context, approval=",".join(used.approvals))
        ledger = self.ledger

        def durable(receipt: Receipt | LedgerUnavailable) -> None:
            if isinstance(receipt, LedgerUnavailable):
                if used is not None and used.reserved:
                    self._release(used.reserved)
                then(Enforced(request, decision, index, "", None, str(receipt)))
                return
            decision_id = ledger.decision_id(index)
            if used is None:
                enforced = Enforced(request, decision, index, decision_id, receipt)
            else:
                enforced = Enforced(
                    request, decision, index, decision_id, receipt, "", used.pending, used.reserved,
                    used.authority,
                )  # fmt: skip
            state = self.state
            if state.view is not view:
                then(self._again(enforced, "state_changed"))
            elif not state.fresh:  # APP-10: nobody could have told us of a change
                then(self._again(enforced, "state_stale"))
            else:
                then(enforced)

        index = ledger.record_decision(request, decision, context, durable)

    def _release(self, reserved: str) -> None:
        if self.gate.budgets is not None:
            self.gate.budgets.release(reserved)

    def _context(
        self,
        run: str,
        request: AccessRequest,
        isolation: str,
        beside: Mapping[str, Any] | None,
    ) -> DecisionContext:
        """The same for call after call of one run; ``beside`` never is."""
        policy, token = self.state.view.snapshot.policy, request.caller.token
        chain, key = (token.chain, token.thumbprint) if token is not None else ((), "")
        if beside:
            return DecisionContext(
                run=run,
                policy=policy,
                isolation=isolation,
                chain=chain,
                thumbprint=key,
                beside=beside,
            )
        name = (run, isolation, request.caller.credential)
        known = self._contexts.get(name)
        if known is None or known.policy is not policy or known.chain != chain:
            known = DecisionContext(
                run=run, policy=policy, isolation=isolation, chain=chain, thumbprint=key
            )
            if len(self._contexts) >= RUNS_MAX:
                self._contexts.clear()
            self._contexts[name] = known
        return known

    def _decide(self, view: View, request: AccessRequest) -> Decision:
        if not self.state.fresh:
            return Decision(
                Verdict.DENY,
                Reason.STATE_STALE,
                remedy="the gateway cannot confirm its policy state; try again shortly",
                detail="the snapshot of registry and policy is older than its limit",
            )
        decision = view.pdp.decide(request)
        if request.caller.token is None:
            return decision
        return within_token(request, decision, view.snapshot)

    def ruling(self, request: AccessRequest) -> Decision:
        """What would be decided now, with nothing recorded: for what precedes actions."""
        return self._decide(self.state.view, request)

    def _again(self, enforced: Enforced, cause: str) -> Enforced:
        """Step 5: what was suspended or forbidden while the record was written must not leave."""
        if enforced.decision.verdict is not Verdict.PERMIT:
            return enforced
        request = self.refreshed(enforced.request)
        decision = self._decide(self.state.view, request)
        if self._same(enforced, request, decision):
            return enforced
        if decision.verdict is Verdict.PERMIT:
            why = "what policy asks of the call changed while it was recorded"
            decision = decision.denied(Reason.POLICY_ERROR, why, "Retry the same call.")
        self.outcome(enforced, "failed", cause=cause)
        return replace(enforced, decision=decision)

    def still(self, enforced: Enforced) -> bool:
        """Whether a recorded action may leave once more, after what was sent came back undone."""
        request = self.refreshed(enforced.request)
        return self._same(enforced, request, self._decide(self.state.view, request))

    def _same(self, enforced: Enforced, request: AccessRequest, decision: Decision) -> bool:
        """Permitted still, to the same effect, and by an approval that counts still."""
        if decision.verdict is not Verdict.PERMIT or not same_effect(decision, enforced.decision):
            return False
        if not enforced.authority:
            return True
        bare = replace(request, controls=frozenset())
        asks = self._decide(self.state.view, bare)
        return asks.verdict is not Verdict.HOLD or authority(bare, asks) == enforced.authority

    def refreshed(self, request: AccessRequest, at: int | None = None) -> AccessRequest:
        """The same request on the facts in force now: a probe or a question may have taken a while.
        An agent, a key or a user that is gone counts as retired.  ``at``: the time to decide for."""
        now = self.clock() if at is None else at
        view = self.state.view
        snapshot, caller = view.snapshot, request.caller
        agent = snapshot.agents.get(caller.agent.id)
        if caller.agent.revision == 0:
            agent = caller.agent  # unregistered; and a stranger's id is never a registered one
        if agent is None or not self._stands(caller, view):
            agent = replace(caller.agent, lifecycle=Lifecycle.RETIRED)
        user = caller.user
        if user is not None:
            user = snapshot.people.get(user.id) or (
                replace(user, live=False) if user.live else user
            )
        server = snapshot.servers.get(request.server.id) or replace(request.server, active=False)
        tool = snapshot.tools.get(request.action) if request.tool is not None else None
        if (
            agent is caller.agent
            and user is caller.user
            and server is request.server
            and tool is request.tool
            and now == request.now
        ):
            return request
        caller = replace(caller, agent=agent, user=user)
        return replace(request, caller=caller, server=server, tool=tool, now=now)

    def stands(self, caller: Caller) -> bool:
        """Whether what the caller began may go on: credential, agent, user, and the agents that the
        authority came through, are good still."""
        view = self.state.view
        user, now = caller.user, self.clock()
        before = caller.token.actors if caller.token is not None else ()
        for name in (caller.agent.id, *before):
            agent = view.snapshot.agents.get(name)
            if agent is None or principal(Caller(agent, None, ""), now) is not None:
                return False
        known = view.snapshot.people.get(user.id) if user is not None else None
        if user is not None and (known is None or not known.live):
            return False
        return self._stands(caller, view)

    def _stands(self, caller: Caller, view: View) -> bool:
        """Whether the credential that the call began with is good still."""
        if caller.token is not None:
            return still_stands(caller, view.snapshot, self.clock())
        credential = self._credentials(view).get(caller.credential)
        if credential is None or caller.agent.id in view.snapshot.proofs:
            return False  # of a key nobody can prove possession (ID-4)
        return credential.expires_at > self.clock()

    def _credentials(self, view: View) -> Mapping[str, CredentialFacts]:
        """Live keys by their public id."""
        if view is not self._credentials_of:
            self._credentials_of = view
            self._live = {each.id: each for each in view.snapshot.credentials.values()}
        return self._live

    def _capped(self, run: str, decision: Decision, now: int) -> Decision:
        if decision.reason not in _CAPPABLE:
            return decision
        since, count = self._denials.get(run, (now, 0))
        if now - since > DENIALS_WINDOW_NS:
            since, count = now, 0
        if len(self._denials) >= RUNS_MAX and run not in self._denials:
            self._denials.clear()
        self._denials[run] = (since, count + 1)
        if count < DENIALS_MAX:
            return decision
        return replace(
            decision,
            reason=Reason.DENIALS_CAPPED,
            remedy="too many denials in this run; wait a minute, or ask the agent's owner",
            detail=f"{decision.reason}: {decision.detail}",
        )

    def outcome(
        self,
        enforced: Enforced,
        status: Status,
        *,
        cause: str = "",
        digest: bytes = b"",
        size: int = 0,
        rows: int = 0,
    ) -> None:
        """Bind what happened to its decision; written soon after, off the latency path.

        ``digest``: SHA-256 of the ``size`` bytes that were relayed.  ``cause``: a closed word."""
        reserved, budgets = enforced.reserved, self.gate.budgets
        if reserved and budgets is not None:
            if status == "failed":  # nothing left; what is unknown stays spent (APP-8)
                budgets.release(reserved)
            elif status in ("ok", "tool_error", "rpc_error"):
                budgets.settle(reserved, rows, size)
            else:
                budgets.keep(reserved)
        if enforced.receipt is not None:
            self.ledger.record_outcome(
                OutcomeFacts(
                    enforced.receipt,
                    status,
                    duration_ns=max(0, self.clock() - enforced.request.now),
                    bytes=size,
                    result_digest=digest,
                    cause=cause,
                )
            )

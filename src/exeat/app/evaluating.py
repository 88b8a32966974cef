"""The PDP of the running gateway, asked by other enforcement points (POL-8).

Facts, freshness, kills and the record are the gateway's own.  An evaluation is a decision without an effect:

1. the facts, from the view in force; an agent or user that is not registered is denied as one
2. the decision, as of a call; a hold asks nobody, and budgets are looked at, not reserved
3. the record, durable, in the mode ``evaluate``
4. a last look, as before an effect (APP-10)
5. of a permit, the outcome ``failed``/``evaluated``: nothing left this gateway
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from exeat.api.evaluation import Evaluated, Question
from exeat.app.claims import says
from exeat.core.controls import Charge, Controls, Exhausted
from exeat.core.decision import Decision, Reason
from exeat.core.errors import ExeatError, LedgerUnavailable
from exeat.core.facts import PersonFacts, ServerFacts, tool_action
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.obligations import BUDGET, CONTROL
from exeat.core.request import AccessRequest, Caller, TokenFacts
from exeat.evidence.model import DecisionContext, Receipt
from exeat.gateway.pipeline import Enforced, Pipeline, doable
from exeat.gateway.sessions import principal_key
from exeat.identity.model.token import Actor
from exeat.identity.rules.principal import stranger, unregistered_id
from exeat.policy.methods import TOOL_CALL
from exeat.policy.preconditions import REMEDIES

MODE: Final = "evaluate"
CAUSE: Final = "evaluated"
_TELLING: Final = frozenset({BUDGET, CONTROL})
"""Nothing has to be done about these."""
HELD: Final = (
    "A person has to approve this call, and nobody was asked. Make it through the gateway."
)
Observed = Callable[[ServerId, str, str], str]
"""(server, tool, its pin) → digest of the definition that the server showed last; of a server that nobody
has looked at, the pin."""


class Looks(Protocol):
    def look(self, charges: tuple[Charge, ...]) -> Exhausted | None:
        """Blocks.  Raises StateUnavailable."""
        ...


class Evaluating:
    """``api.evaluation.Evaluator``; on the gateway's loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        observed: Observed,
        budgets: Looks,
        controls: Callable[[], Controls],
        issuer: str,
    ) -> None:
        """``controls``: in force.  ``issuer``: our own, whose clients ask."""
        self._pipeline, self._observed = pipeline, observed
        self._budgets, self._controls, self._issuer = budgets, controls, issuer

    async def evaluate(self, question: Question, client: str) -> Evaluated:
        """Raises LedgerUnavailable."""
        request = self._request(question, client)
        decision = self._decided(request, question)
        if decision.permitted and decision.charges:
            room = await self._room(decision)
            request = self._request(question, client)  # that took a while
            again = self._decided(request, question)
            if again.permitted and again.charges != decision.charges:
                again = _changed(again)
            decision = again if room.permitted or not again.permitted else room
        view = self._pipeline.state.view
        enforced = await self._recorded(request, decision)
        if enforced.permitted:
            decision = self._last_look(view, enforced, question, client)
        return Evaluated(
            decision.permitted,
            decision.reason.value,
            enforced.id,
            HELD if decision.hold else decision.remedy,
            decision.obligations,
            decision.narrowed,
            decision.hold,
        )

    # ---- 1

    def _request(self, question: Question, client: str) -> AccessRequest:
        pipeline = self._pipeline
        snapshot, now = pipeline.state.view.snapshot, pipeline.clock()
        caller = self._caller(question, client, now)
        server_id = ServerId(question.server)
        server = snapshot.servers.get(server_id)
        if server is None:  # GW-8: as one outside of every scope
            server = ServerFacts(server_id, 0, False, PersonId(""), 0)
        tool, pin, action = None, "", ActionId(question.method)
        if question.method == TOOL_CALL:
            action = tool_action(server_id, question.target)
            tool = snapshot.tools.get(action)
            pin = self._observed(server_id, question.target, "" if tool is None else tool.pin)
        return AccessRequest(
            caller, question.method, action, server, question.target, tool, pin,
            question.arguments, now, pipeline.ledger.clock_trusted(now),
            question.run or principal_key(caller),
        )  # fmt: skip

    def _caller(self, question: Question, client: str, now: int) -> Caller:
        """As the enforcement point says it is, which alone saw a credential."""
        snapshot = self._pipeline.state.view.snapshot
        agent = snapshot.agents.get(AgentId(question.agent))
        if agent is None:
            agent = stranger(Actor(self._issuer, client), question.agent)
        user = None
        if question.user:
            user = snapshot.people.get(PersonId(question.user))
            if user is None:
                nobody = unregistered_id(self._issuer, "", question.user)
                user = PersonFacts(PersonId(nobody), live=False)
        chain = [f"evaluated for {client}"]
        if question.scopes is not None:
            chain.append(f"scope {' '.join(sorted(question.scopes))}")
        token = TokenFacts(self._issuer, client, question.scopes, now, chain=tuple(chain))
        return Caller(agent, user, client, token)

    # ---- 2

    def _decided(self, request: AccessRequest, question: Question) -> Decision:
        decision = self._pipeline.ruling(request)
        if decision.obligations:
            decision = doable(decision, None)
        if not decision.permitted:
            return decision
        # who does not say what it can meet may never have heard of obligations, and would meet none
        kinds = _TELLING if question.obligations is None else question.obligations
        lacking = sorted({each.partition(":")[0] for each in decision.obligations} - kinds)
        if not lacking:
            return decision
        why = f"the enforcement point does not say that it can meet {', '.join(lacking)}"
        remedy = REMEDIES[Reason.OBLIGATION_UNKNOWN]
        return decision.denied(Reason.OBLIGATION_UNKNOWN, why, remedy)

    async def _room(self, decision: Decision) -> Decision:
        """The decision as budgets stand, which are only looked at."""
        try:
            spent = await asyncio.to_thread(self._budgets.look, decision.charges)
        except ExeatError as error:
            remedy = REMEDIES[Reason.BUDGETS_UNAVAILABLE]
            return decision.denied(Reason.BUDGETS_UNAVAILABLE, str(error), remedy)
        if spent is None:
            return decision
        declared = {each.id: each for each in self._controls().budgets}
        said = says(spent, declared.get(spent.budget))
        why = f"budget {spent.budget}: {said}"
        return decision.denied(Reason.BUDGET_EXHAUSTED, why, f"{said}.")

    # ---- 3

    async def _recorded(self, request: AccessRequest, decision: Decision) -> Enforced:
        pipeline, token = self._pipeline, request.caller.token
        context = DecisionContext(
            run=request.run,
            policy=pipeline.state.view.snapshot.policy,
            chain=() if token is None else token.chain,
            mode=MODE,
        )
        waiting: asyncio.Future[Receipt | LedgerUnavailable]
        waiting = asyncio.get_running_loop().create_future()

        def durable(receipt: Receipt | LedgerUnavailable) -> None:
            if not waiting.done():
                waiting.set_result(receipt)

        index = pipeline.ledger.record_decision(request, decision, context, durable)
        receipt = await waiting
        if isinstance(receipt, LedgerUnavailable):
            raise receipt
        return Enforced(request, decision, index, pipeline.ledger.decision_id(index), receipt)

    # ---- 4 and 5

    def _last_look(
        self, view: object, enforced: Enforced, question: Question, client: str
    ) -> Decision:
        pipeline, decision, cause = self._pipeline, enforced.decision, CAUSE
        if pipeline.state.view is not view or not pipeline.state.fresh:
            cause = "state_changed" if pipeline.state.fresh else "state_stale"
            again = self._decided(self._request(question, client), question)
            same = again.narrowed == decision.narrowed and again.obligations == decision.obligations
            if again.permitted and same:
                cause = CAUSE
            else:
                decision = _changed(again) if again.permitted else again
        pipeline.outcome(enforced, "failed", cause=cause)
        return decision


def _changed(decision: Decision) -> Decision:
    why = "what policy asks of the call changed while it was evaluated"
    return decision.denied(Reason.POLICY_ERROR, why, "Ask again.")

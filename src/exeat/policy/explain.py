"""Why a request was decided as it was: facts, determining policies, nearest permit (POL-6).

For operators only: it shows policy text and facts of the registry.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cedarpy
from cedarpy import pst

from exeat.core.decision import Decision
from exeat.core.request import AccessRequest
from exeat.policy.decide import Pdp
from exeat.policy.encode import Refused
from exeat.policy.model import Policy
from exeat.policy.question import Question
from exeat.policy.tree import conjuncts


@dataclass(frozen=True, slots=True)
class Vote:
    """A policy and how it voted.  ``failed``: the parts of its conditions that did not hold."""

    policy: Policy
    determining: bool
    failed: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        return f"{self.policy.source.file}:{self.policy.source.line}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """``context``: the facts that the policies read, as Cedar JSON.  ``nearest``: the permit with
    the fewest conditions that did not hold, if the request was not permitted."""

    decision: Decision
    context: str
    considered: tuple[Vote, ...]
    nearest: Vote | None


def explain(pdp: Pdp, request: AccessRequest) -> Explanation:
    """Decide once more and say why.  The same facts give the same verdict (POL-2)."""
    decision = pdp.decide(request)
    part = pdp.slice_of(request)
    route = pdp.route(request.caller, request.server, request.method, request.action, request.tool)
    try:
        question = pdp.question(route, request)
    except Refused as refusal:
        considered = tuple(Vote(policy, determining=False) for policy in part.policies)
        return Explanation(decision, f"not encoded: {refusal}", considered, None)
    considered = tuple(
        Vote(policy, policy.id in decision.policies, failed_parts(policy, question))
        for policy in part.policies
    )
    permits = [each for each in considered if each.policy.permit]
    nearest = None if decision.permitted else _nearest(permits)
    return Explanation(decision, question.context, considered, nearest)


def _nearest(permits: Sequence[Vote]) -> Vote | None:
    return min(permits, key=lambda each: (len(each.failed), each.policy.id), default=None)


def failed_parts(policy: Policy, question: Question) -> tuple[str, ...]:
    """The parts of a policy's conditions that do not hold for the question, as Cedar text."""
    parsed = cedarpy.policies_to_pst(policy.text)
    (template,) = parsed.static_policies.values()
    failed: list[str] = []
    for clause in template.clauses:
        whole = isinstance(clause, pst.Unless)
        for expr in [clause.expr] if whole else conjuncts(clause.expr):
            one: pst.Clause = pst.Unless(expr) if whole else pst.When(expr)
            single = replace(
                template,
                effect="permit",
                principal=pst.ScopeAny(),
                action=pst.ScopeAny(),
                resource=pst.ScopeAny(),
                clauses=(one,),
                annotations={},
            )
            handle = cedarpy.PolicySet.from_pst(
                replace(parsed, static_policies={template.id: single})
            )
            if not question.put(handle).allowed:
                failed.append(_condition(str(handle)))
    scope = replace(template, effect="permit", clauses=())
    handle = cedarpy.PolicySet.from_pst(replace(parsed, static_policies={template.id: scope}))
    if not question.put(handle).allowed:
        failed.insert(0, "its scope (principal, action, resource)")
    return tuple(failed)


def _condition(text: str) -> str:
    start = max(text.find("when"), text.find("unless"))
    return " ".join(text[start:].rstrip().rstrip(";").split())

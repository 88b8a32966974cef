"""Shadow policies: evaluated and recorded beside, never deciding (POL-5).

``@shadow("why")`` keeps a policy out of the index that decides.  A second PDP holds all policies, and is
asked only where a shadow policy covers the call; what it says differently stands in ``Decision.would``.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from exeat.core.decision import Decision
from exeat.core.facts import AgentFacts, PersonFacts
from exeat.core.request import AccessRequest
from exeat.policy.methods import ANY_METHOD, LIST_METHODS
from exeat.policy.model import Policy
from exeat.policy.slices import Index
from exeat.policy.world import tool_ancestors

if TYPE_CHECKING:
    from exeat.policy.decide import Pdp

SHADOW: Final = "shadow"
SAID_MAX_CHARS: Final = 1_000
"""An entry of the ledger has room for that, however many shadow policies there are."""


class Shadows:
    """``twin``: decides as if the shadow policies were in force, all of them together."""

    def __init__(self, policies: Sequence[Policy], twin: "Pdp") -> None:
        self.index = Index(policies)
        self.names = frozenset(policy.id for policy in policies)
        self.twin = twin

    def covering(self, request: AccessRequest, kind: str, name: str) -> tuple[Policy, ...]:
        """Shadow policies whose scope could match the call."""
        caller, tool = request.caller, request.tool
        who: list[AgentFacts | PersonFacts] = [caller.agent]
        if caller.user is not None:
            who.append(caller.user)
        ancestors = (ANY_METHOD,) if tool is None else tool_ancestors(tool)
        place = (kind, name, request.server.id)
        numbers = {
            n for each in who for n in self.index.pick(each, request.action, ancestors, place)
        }
        return tuple(self.index.policies[n] for n in sorted(numbers))


def is_shadow(policy: Policy) -> bool:
    return any(name == SHADOW for name, _ in policy.annotations)


def would_say(pdp: "Pdp", request: AccessRequest, decision: Decision) -> tuple[str, ...]:
    """``shadow:<verdict>:<ids of shadow policies>`` if all that cover the call, put in force together,
    gave another verdict than ``decision``; else nothing."""
    shadows = pdp.shadows
    if shadows is None or request.method in LIST_METHODS:
        return ()
    route = pdp.route(request.caller, request.server, request.method, request.action, request.tool)
    name = {"Tool": request.action, "Server": request.server.id}.get(route.kind, "")
    covering = shadows.covering(request, route.kind, name)
    if not covering and request.caller.user is not None:
        # it covers other users only, and would still bind this one, to whom then nothing is permitted
        covering = tuple(policy for policy in shadows.index.policies if policy.of_users)
    if not covering:
        return ()
    said = shadows.twin.decide(request)
    if said.verdict is decision.verdict:
        return ()
    named = [each for each in said.policies if each in shadows.names]
    return (_written(said.verdict.value, named or [policy.id for policy in covering]),)


def _written(verdict: str, names: Iterable[str]) -> str:
    text = f"{SHADOW}:{verdict}:{','.join(names)}"
    return text if len(text) <= SAID_MAX_CHARS else f"{text[: SAID_MAX_CHARS - 1]}…"

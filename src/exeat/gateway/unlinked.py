"""Actions that are decided without an upstream, and what stands for it then."""

from dataclasses import replace
from typing import Any, Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.gateway.call import Call
from exeat.gateway.inbound import RequestId
from exeat.gateway.methods import Era

SAID_TO_ALL: Final = frozenset(
    {
        Reason.AGENT_NOT_ACTIVE,
        Reason.AGENT_EXPIRED,
        Reason.OWNER_NOT_LIVE,
        Reason.SCOPE_NOT_ACCEPTED,
        Reason.USER_NOT_LIVE,
        Reason.STATE_STALE,
        Reason.CLOCK_BACKWARDS,
        Reason.NO_POLICY,
        Reason.DENIALS_CAPPED,
        Reason.METHOD_UNKNOWN,
        Reason.SERVER_NOT_ACTIVE,
    }
)


def assume_pinned(call: Call) -> None:
    """Nobody looked at the server: that is no reason to say that its definition changed."""
    if call.access.tool is not None:
        call.access = replace(call.access, observed_pin=call.access.tool.pin)


class _NoLink:
    """Stands for an upstream that is never called: the action is denied, or cannot be sent."""

    era = Era.MODERN
    usable = False

    def __init__(self, isolation: str) -> None:
        self.isolation = isolation

    def call(self, outbound: Any, sink: Any) -> Any:
        raise AssertionError("there is no upstream to call")

    def notify(self, method: str, params: dict[str, Any]) -> None: ...

    def reply(self, request_id: RequestId, payload: bytes) -> None: ...


NOT_SERVED: Final = Decision(Verdict.DENY, Reason.METHOD_UNKNOWN)
NOT_A_TASK: Final = Decision(Verdict.DENY, Reason.ACTION_UNKNOWN)
NO_LINK: Final = _NoLink("")
UNREACHABLE: Final = _NoLink("unreachable")

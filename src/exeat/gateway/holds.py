"""A call waits for people: how its client is served meanwhile (APP-4).

In the way that it understands: modern clients that open URLs are asked with ``input_required`` to look at a
status page; any client is kept waiting for a bounded time, with progress if it asked for that; then legacy
clients that open URLs get error −32042 (2025-11-25, URLElicitationRequired), and to all others the model says
that the same call is to be made again.  The page shows how things stand; it has no button for the requester.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from exeat.core.grant import Pending
from exeat.gateway import answers
from exeat.gateway.consent import URL_ELICITATION_REQUIRED, opens_urls
from exeat.gateway.gate import asked_of
from exeat.gateway.methods import RETRYABLE_WITH_INPUT, Era
from exeat.gateway.pipeline import Enforced
from exeat.gateway.wire import encode, error_body, error_message, result_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.front import Front

HOLD_KEY: Final = "exeat/approval"
LOOK_EVERY_S: Final = 0.2
PROGRESS_EVERY_S: Final = 5.0
PENDING: Final = "pending"
_PROGRESS: Final = "notifications/progress"
_TINY: Final = 1e-6
"""The server's own progress comes after ours and must be more (2026-07-28, Progress)."""


class Waiting:
    __slots__ = ("enforced", "pending", "since", "told", "until")

    def __init__(
        self, enforced: Enforced, pending: Pending, since: float, told: float, until: float
    ) -> None:
        """``since``: its first wait, if people were asked more than once.  ``told``: when its client
        last heard of it."""
        self.enforced, self.pending = enforced, pending
        self.since, self.told, self.until = since, told, until


class Holds:
    """Calls of this gateway that are kept open.  What people are asked lives in the database."""

    def __init__(self, front: "Front") -> None:
        self._front = front
        self._waiting: dict[Call, Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking = False

    def held(self, call: "Call", enforced: Enforced, pending: Pending) -> None:
        """The decision HOLD is on record; the call's client is to be served."""
        now = self._front.loop.time()
        since = call.held_since or now
        until = since + self._front.settings.hold_wait_s
        if not call.answer.open:
            call.over()
        elif self._may_ask(call):
            self._ask(call, enforced, pending)
        elif until > now:
            self._waiting[call] = Waiting(enforced, pending, since, now, until)
            call.held, call.held_since, call.unlimited = pending.hold, since, True
            self._soon()
        else:
            self._refuse(call, enforced, pending)

    def forget(self, call: "Call") -> None:
        self._waiting.pop(call, None)
        call.held = ""

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for call, waiting in list(self._waiting.items()):
            self.forget(call)
            self._refuse(call, waiting.enforced, waiting.pending)

    # ---- kept open

    def _soon(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._front.loop.call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._front.loop.time()
        for call, waiting in list(self._waiting.items()):
            if now >= waiting.until:
                self.forget(call)
                self._refuse(call, waiting.enforced, waiting.pending)
            elif now - waiting.told >= PROGRESS_EVERY_S:
                waiting.told = now
                _progress(call, waiting, now)
        if self._waiting and not self._asking:
            holds = tuple({each.pending.hold for each in self._waiting.values()})
            self._asking = True
            self._front.pipeline.gate.states(holds, self._answered)
        self._soon()

    def _answered(self, words: Mapping[str, str]) -> None:
        """Whatever the answer is, the call is decided again, and finds it."""
        self._asking = False
        for call, waiting in list(self._waiting.items()):
            if words.get(waiting.pending.hold, PENDING) != PENDING:
                self.forget(call)
                call.again()

    # ---- told

    def _url(self, pending: Pending) -> str:
        base = self._front.settings.holds_url
        return f"{base}/{pending.hold}" if base else ""

    def _may_ask(self, call: "Call") -> bool:
        """Not if it brings answers to a server's questions: they would be lost with the next retry."""
        request = call.request
        return (
            request.era is Era.MODERN
            and request.method in RETRYABLE_WITH_INPUT
            and not call.waited
            and not call.given
            and call.turn is None
            and bool(self._front.settings.holds_url)
            and opens_urls(call.route)
        )

    def _ask(self, call: "Call", enforced: Enforced, pending: Pending) -> None:
        request, route = call.request, call.route
        elicitation = {"mode": "url", "url": self._url(pending), "message": _message(enforced)}
        own = request.params.get("requestState")
        result = {
            "resultType": "input_required",
            "inputRequests": {HOLD_KEY: {"method": "elicitation/create", "params": elicitation}},
            "requestState": self._front.asks.sealed(request, route, own, {}),
        }
        call.answer.final(result_message(request.id, encode(result)))
        call.over()

    def _refuse(self, call: "Call", enforced: Enforced, pending: Pending) -> None:
        request = call.request
        url = self._url(pending)
        if request.era is Era.LEGACY and url and opens_urls(call.route):
            elicitation = {
                "mode": "url", "url": url, "message": _message(enforced), "elicitationId": pending.hold
            }  # fmt: skip
            data = {"elicitations": [elicitation], **answers.denial_data(enforced)}
            body = error_body(URL_ELICITATION_REQUIRED, _message(enforced), data)
            call.answer.final(error_message(request.id, body))
        else:
            message = answers.denial(request.id, request.method, enforced, call.access.tool)
            call.answer.final(message)
        call.over()


def _message(enforced: Enforced) -> str:
    who = asked_of(enforced.decision)
    return f"This call waits until {who} has approved it. The page shows how it stands."


def _progress(call: "Call", waiting: Waiting, now: float) -> None:
    token = call.request.meta.get("progressToken")
    if token is None:
        call.answer.keep_alive()
        return
    params: dict[str, Any] = {
        "progressToken": token,
        "progress": (now - waiting.since) * _TINY,
        "message": f"waiting for {asked_of(waiting.enforced.decision)} ({waiting.pending.hold})",
    }
    call.answer.notification(_PROGRESS, encode(params))

"""A modern server asks a legacy client (GW-4, GW-7).

The server ends its call with an ``input_required`` result; the legacy client is asked with requests on
the stream of its own, which stays open.  When every answer is there and decided, the call is decided
again and sent again, with the answers and the server's state.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Final

from exeat.gateway import answers
from exeat.gateway.inbound import Response
from exeat.gateway.methods import kind_of
from exeat.gateway.pipeline import Enforced
from exeat.gateway.sessions import PENDING_MAX, Asked, ClientSession
from exeat.gateway.wire import encode, error_message, request_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.front import Front

ROUNDS_MAX: Final = 10
"""Rounds of one call, as the official clients count them."""
STATE_ONLY_PAUSE_S: Final = 0.05
"""Before a call is sent again that brought a state and no question (2026-07-28, MRTR)."""


class Round:
    """The questions of one ``input_required`` result, until they are answered or the call is over."""

    def __init__(
        self, front: "Front", call: "Call", session: ClientSession, value: dict[str, Any]
    ) -> None:
        self._front, self._call, self._session = front, call, session
        self._questions: dict[str, Any] = value.get("inputRequests", {})
        self._state: str | None = value.get("requestState")
        self._mine: list[str] = []
        self._given: dict[str, Any] = {}
        self._enforced: list[Enforced] = []

    @classmethod
    def cannot(cls, call: "Call", questions: dict[str, Any]) -> str:
        """Why the client cannot be asked; empty if it can."""
        session = call.route.session
        missing = [
            each["method"] for each in questions.values() if kind_of(each["method"]) not in call.route.offers
        ]  # fmt: skip
        if session is None or missing:
            return f"asks for {', '.join(missing)}, which this client does not serve"
        if len(session.asked) + len(questions) > PENDING_MAX:
            return "asks more than this client can have open"
        return "asks without end" if call.rounds >= ROUNDS_MAX else ""

    def put(self, done: list[Enforced]) -> None:
        """Ask, and wait.  ``done``: the questions' decisions, in order."""
        call = self._call
        if not call.answer.open:  # it gave up while the questions were decided
            for enforced in done:
                self._front.pipeline.outcome(enforced, "failed", cause="client_gone")
            call.finish("unknown", cause="client_gone")
            return
        result = encode({"inputRequests": self._questions})
        digest = hashlib.sha256(result).digest()
        call.finish("ok", cause="input_required", digest=digest, size=len(result))
        call.wait(self)
        for (key, each), enforced in zip(self._questions.items(), done, strict=True):
            mine = self._session.ask_id()
            self._mine.append(mine)
            self._session.asked[mine] = Asked(None, key, enforced, call.answer, self)
            call.answer.event(request_message(mine, each["method"], each.get("params", {})))
        if not self._questions:
            self._front.loop.call_later(STATE_ONLY_PAUSE_S, self._go)

    def answered(self, asked: Asked, response: Response, enforced: Enforced) -> None:
        """One answer, decided."""
        call, pipeline = self._call, self._front.pipeline
        if not enforced.permitted:
            if enforced.receipt is None:
                message = answers.unrecorded(call.request.id, enforced.failure)
            else:
                request, tool = call.request, call.access.tool
                message = answers.denial(request.id, request.method, enforced, tool)
            self.end(message)
        elif call.round is not self:  # the call is over
            pipeline.outcome(enforced, "failed", cause="not_sent")
        elif response.error is not None:
            pipeline.outcome(enforced, "ok", cause="answered")
            self.end(error_message(call.request.id, encode(response.error)))
        else:
            self._given[str(asked.id)] = response.result
            self._enforced.append(enforced)
            if len(self._given) == len(self._questions):
                self._go()

    def _go(self) -> None:
        """Every answer is there: decided again, with them on record, and sent again."""
        call = self._call
        if call.round is not self:
            return
        if not call.answer.open:
            self.end(b"")
            return
        kept = {key: call.request.params[key] for key in call.request.params if key not in _RETRY}
        kept["inputResponses"] = self._given
        if self._state is not None:
            kept["requestState"] = self._state
        call.request.params = kept
        call.given = [
            (key, self._questions[key]["method"], answer) for key, answer in self._given.items()
        ]
        call.go_on(self._enforced)

    def end(self, message: bytes) -> None:
        """The call is over, with this as its answer; what was asked and is open is forgotten."""
        if self._call.round is not self:
            return
        for mine in self._mine:
            asked = self._session.asked.pop(mine, None)
            if asked is not None:
                self._front.pipeline.outcome(asked.enforced, "cancelled", cause="withdrawn")
        for enforced in self._enforced:
            self._front.pipeline.outcome(enforced, "failed", cause="not_sent")
        if message:
            self._call.answer.final(message)
        self._call.over()


_RETRY: Final = frozenset({"inputResponses", "requestState"})

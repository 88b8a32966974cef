"""A legacy server asks a modern client (GW-4, GW-7).

The server asks with a request and waits, while the modern client can only be told that input is
required, and comes back with another request.  So the server's call is held in between: its question,
decided and recorded, goes out as an ``input_required`` result; the retry is decided again, answers and
all, and then takes the held call over.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exeat.core.errors import ExeatError, UpstreamFailed
from exeat.core.limits import REQUEST_STATE_LIFE_S
from exeat.gateway.inbound import RequestId
from exeat.gateway.killing import killed
from exeat.gateway.link import Handle, Link
from exeat.gateway.methods import CANCELLED, SERVER_METHODS, kind_of
from exeat.gateway.pipeline import Enforced
from exeat.gateway.ports import View
from exeat.gateway.wire import encode, error_body, error_message, params_of, result_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.front import Front

HELD_MAX: Final = 64
"""Calls of one principal that wait for their client at a time."""
QUESTIONS_MAX: Final = 16
"""Questions of one call that wait to be put."""


@dataclass(frozen=True, slots=True)
class Question:
    """A permitted question.  ``id``: under which the server asked."""

    id: RequestId
    method: str
    params: dict[str, Any]
    enforced: Enforced


class Turn:
    """Sink of a call that may be held.  ``to``: the client's request whose turn it is; None between
    two of them, when the end of the call is kept for the next and notifications reach nobody."""

    __slots__ = (
        "access", "asked", "end", "handle", "link", "pending", "principal", "put_at", "run", "sent", "to",
    )  # fmt: skip

    def __init__(self, call: "Call", link: Link, sent: Mapping[str, Any] | None) -> None:
        """``sent``: the arguments that it left with, if policy had narrowed them."""
        self.to: Call | None = call
        self.sent = sent
        self.link = link
        self.access, self.run = call.access, call.route.run
        self.principal = call.route.principal
        self.handle: Handle | None = None
        self.asked: dict[str, Question] = {}
        self.pending: list[Question] = []
        self.end: Callable[[Call], None] | None = None
        self.put_at = 0.0

    def cancel(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None and self.end is None:
            handle.cancel()

    def _last(self, end: "Callable[[Call], None]") -> None:
        if self.to is not None:
            end(self.to)
        else:
            self.end = end

    # ---- MessageSink

    def link_notification(self, method: str, params: bytes) -> None:
        if self.to is not None:
            self.to.link_notification(method, params)
        elif method == CANCELLED:  # it takes a question back, and waits for no answer
            named = (params_of(params) or {}).get("requestId")
            self.asked = {k: q for k, q in self.asked.items() if not _same(q.id, named)}

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        if self.to is not None:
            self.to.link_request(request_id, method, params)
        else:
            text = f"{method[:64]} came while the client was away with another question"
            self.link.reply(request_id, error_message(request_id, error_body(-32603, text)))

    def link_piece(self, data: bytes) -> None:
        if self.to is not None:
            self.to.link_piece(data)
            return
        self.cancel()
        self.link_failed("sent a large result while its question was open", sent=True)

    def link_result_end(self, result_type: str) -> None:
        self._last(lambda call: call.link_result_end(result_type))

    def link_result(self, result: bytes) -> None:
        self._last(lambda call: call.link_result(result))

    def link_error(self, error: bytes, status: int) -> None:
        self._last(lambda call: call.link_error(error, status))

    def link_unauthorized(self, error: ExeatError) -> None:
        self._last(lambda call: call.link_unauthorized(error))

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self._last(lambda call: call.link_failed(reason, sent=sent))


def _same(mine: RequestId, named: object) -> bool:
    return mine == named and type(mine) is type(named)


class Held:
    """All calls that wait for their client, each under an id that is good for one retry."""

    def __init__(self, front: "Front") -> None:
        self._front = front
        self._turns: dict[str, Turn] = {}

    def asked(self, turn: Turn, request_id: RequestId, method: str, raw: bytes) -> None:
        """A question of the server: decided and on record before the client sees it."""
        call, params = turn.to, params_of(raw)
        waiting = sum(each.principal == turn.principal for each in self._turns.values())
        if call is None or params is None or method not in SERVER_METHODS:
            text = "Invalid params"
        elif kind_of(method) not in call.route.offers:
            text = f"the client does not serve {method}"
        elif waiting >= HELD_MAX or len(turn.pending) >= QUESTIONS_MAX:
            text = "too many questions wait for this client"
        else:
            params.pop("_meta", None)
            self._decide(turn, call, request_id, method, params)
            return
        error = error_message(request_id, error_body(-32602, text))
        turn.link.reply(request_id, error)

    def _decide(
        self, turn: Turn, call: "Call", request_id: RequestId, method: str, params: dict[str, Any]
    ) -> None:
        front = self._front
        access = front.asks.question_of(call, method, params)

        def then(enforced: Enforced) -> None:
            mine = turn.to  # the client may have come back meanwhile
            if not enforced.permitted or (mine is not None and not mine.answer.open):
                front.asks.refuse(turn.link, request_id, enforced)
                return
            turn.pending.append(Question(request_id, method, params, enforced))
            self._put(turn)

        front.pipeline.submit(access, call.route.run, turn.link.isolation, then)

    def _put(self, turn: Turn) -> None:
        """End the client's request with what is asked; the server's call goes on being held."""
        call, front = turn.to, self._front
        if call is None or not turn.pending:
            return
        asked = {f"q{number}": question for number, question in enumerate(turn.pending, 1)}
        turn.asked, turn.pending, turn.to = asked, [], None
        turn.handle, turn.put_at = call.hand_over(), front.loop.time()
        held = front.new_id()
        self._turns[held] = turn
        methods = {key: question.method for key, question in asked.items()}
        value = {
            "resultType": "input_required",
            "inputRequests": {
                key: {"method": question.method, "params": question.params}
                for key, question in asked.items()
            },
            "requestState": front.asks.sealed(call.request, call.route, None, methods, held),
        }
        result = encode(value)
        call.answer.final(result_message(call.request.id, result))
        for question in asked.values():
            front.pipeline.outcome(question.enforced, "ok", cause="asked")
        digest = hashlib.sha256(result).digest()
        call.finish("ok", cause="input_required", digest=digest, size=len(result))

    def take(self, held: str, principal: str) -> Turn | None:
        """None if nobody waits under that id any more: it was taken, or too late."""
        turn = self._turns.pop(held, None)
        return turn if turn is not None and turn.principal == principal else None

    def resume(self, call: "Call", turn: Turn) -> bool:
        """The answers of a permitted retry go to the server, and the rest of its call to the client.
        False if nothing left."""
        turn.to = call
        if turn.end is not None:
            self._forget(turn)
            turn.end(call)
            return False
        given = {key: answer for key, _, answer in call.given}
        asked, turn.asked = turn.asked, {}
        try:
            for key, question in asked.items():
                body = error_body(-32603, "the client did not answer")
                payload = error_message(question.id, body)
                if key in given:
                    payload = result_message(question.id, encode(given[key]))
                turn.link.reply(question.id, payload)
        except UpstreamFailed as failure:
            call.link_failed(str(failure), sent=True)
            return False
        self._put(turn)
        return True

    def drop(self, turn: Turn) -> None:
        """Nobody comes back for it: the server is told, as for any call that is given up."""
        self._forget(turn)
        turn.cancel()

    def _forget(self, turn: Turn) -> None:
        """What was permitted to be asked, and never was."""
        pending, turn.pending = turn.pending, []
        for question in pending:
            self._front.pipeline.outcome(question.enforced, "failed", cause="not_sent")

    def end_killed(self, view: View) -> list[str]:
        """APP-9: those that a kill stops.  Returns the kill of each."""
        found = {key: killed(view, turn.access, turn.run) for key, turn in self._turns.items()}
        stopped = {key: kill for key, kill in found.items() if kill}
        for held in stopped:
            self.drop(self._turns.pop(held))
        return list(stopped.values())

    def sweep(self) -> None:
        oldest = self._front.loop.time() - REQUEST_STATE_LIFE_S
        for held in [key for key, turn in self._turns.items() if turn.put_at < oldest]:
            self.drop(self._turns.pop(held))

    def close(self) -> None:
        for turn in self._turns.values():
            self.drop(turn)
        self._turns.clear()

"""What a server asks of a client: sampling, elicitation, roots.  Egress towards a model or a person,
so each question is decided and recorded before the client sees it (GW-7).

Legacy servers ask with a request on the event stream; modern ones with an ``input_required`` result.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exeat.core.errors import UpstreamFailed
from exeat.core.ids import ActionId
from exeat.core.request import AccessRequest
from exeat.core.strictjson import parse
from exeat.gateway import answers
from exeat.gateway.consent import CONSENT_KEY
from exeat.gateway.holds import HOLD_KEY
from exeat.gateway.inbound import METHOD_NOT_FOUND, Request, RequestId, Response
from exeat.gateway.link import Link
from exeat.gateway.methods import CANCELLED, RETRYABLE_WITH_INPUT, SERVER_METHODS, Era
from exeat.gateway.pipeline import Enforced
from exeat.gateway.rounds import Round
from exeat.gateway.sealing import binding
from exeat.gateway.sessions import PENDING_MAX, Asked, ClientSession
from exeat.gateway.wire import (
    encode,
    error_body,
    error_message,
    params_of,
    request_message,
    result_message,
)

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.front import Front
    from exeat.gateway.routes import Route

INPUTS_MAX: Final = 16
ANSWER_KEY: Final = "exeat/answer"
Given = tuple[str, str, Any]
"""The key of a question, its method, and the client's answer to it."""


@dataclass(frozen=True, slots=True)
class Reopened:
    """What a retry brings.  ``held``: the call of a legacy server that waits for it, or empty."""

    answers: Sequence[Given] = ()
    held: str = ""
    waited: bool = False
    """It says that its person has seen that the call waits for an approval."""
    consented: bool = False
    """The client says that its person opened the page that the gateway asked them to open."""


_NOTHING_GIVEN: Final = Reopened()


def question(
    call_access: AccessRequest, method: str, params: dict[str, Any], now: int
) -> AccessRequest:
    """The question as an action of the same principal on the same server."""
    return AccessRequest(
        caller=call_access.caller,
        method=method,
        action=ActionId(method),
        server=call_access.server,
        target="",
        tool=None,
        observed_pin="",
        arguments=params,
        now=now,
        clock_trusted=call_access.clock_trusted,
        run=call_access.run,
    )


class Asks:
    """Decides questions, keeps what was asked, and carries the answers back."""

    def __init__(self, front: "Front") -> None:
        self._front = front

    # ---- legacy: requests of the server

    def asked(
        self, call: "Call", link: Link, request_id: RequestId, method: str, raw: bytes
    ) -> None:
        session = call.route.session
        if method == "ping":
            link.reply(request_id, result_message(request_id, b"{}"))
            return
        if call.turn is not None and method in SERVER_METHODS:
            self._front.held.asked(call.turn, request_id, method, raw)
            return
        if method not in SERVER_METHODS or session is None or call.request.era is not Era.LEGACY:
            self._front.pipeline.ledger.count("server_request_refused", {"method": method[:64]})
            text = f"{method[:64]} is not available through this gateway for this client"
            link.reply(request_id, error_message(request_id, error_body(METHOD_NOT_FOUND, text)))
            return
        params = params_of(raw)
        if params is None or len(session.asked) >= PENDING_MAX:
            link.reply(request_id, error_message(request_id, error_body(-32602, "Invalid params")))
            return
        meta = params.pop("_meta", None)
        access = self.question_of(call, method, params)

        def then(enforced: Enforced) -> None:
            if not enforced.permitted or not call.answer.open:
                self.refuse(link, request_id, enforced)
                return
            mine = session.ask_id()
            session.asked[mine] = Asked(link, request_id, enforced, call.answer)
            token = meta.get("progressToken") if isinstance(meta, dict) else None
            sent = {**params, "_meta": {"progressToken": token}} if token is not None else params
            call.answer.event(request_message(mine, method, sent))

        self._front.pipeline.submit(access, call.route.run, link.isolation, then)

    def question_of(self, call: "Call", method: str, params: dict[str, Any]) -> AccessRequest:
        asker = self._front.pipeline.refreshed(call.access)  # the call may be old by now
        return question(asker, method, params, self._front.clock())

    def refuse(self, link: Link, request_id: RequestId, enforced: Enforced) -> None:
        if enforced.permitted:
            self._front.pipeline.outcome(enforced, "failed", cause="client_gone")
            text, data = "the client is gone", None
        else:
            data = answers.denial_data(enforced)
            text = f"Denied: {answers.said(enforced.decision)}"
        body = error_body(answers.DENIED, text, data)
        link.reply(request_id, error_message(request_id, body))

    def answered(self, session: ClientSession, response: Response) -> bool:
        """The client's answer goes to whoever asked; False if nothing was asked under that id."""
        asked = session.asked.pop(str(response.id), None)
        if asked is None or type(response.id) is not str:
            return False
        self._decide_answer(asked, session.principal, response)
        return True

    def _decide_answer(self, asked: Asked, run: str, response: Response) -> None:
        """The answer is egress towards the server: decided and on record before it leaves."""
        link, body = asked.link, encode(response.result or response.error or {})
        message = result_message if response.error is None else error_message
        payload = message(asked.id, body)
        pipeline = self._front.pipeline
        asker = pipeline.refreshed(asked.enforced.request)
        access = question(
            asker, asked.enforced.request.method, {ANSWER_KEY: parse(body)}, self._front.clock()
        )
        digest = hashlib.sha256(body).digest()

        def then(enforced: Enforced) -> None:
            pipeline.outcome(asked.enforced, "ok", cause="answered")
            if asked.round is not None:
                asked.round.answered(asked, response, enforced)
                return
            if link is None:
                return
            if not enforced.permitted:
                self.refuse(link, asked.id, enforced)
                return
            try:
                link.reply(asked.id, payload)
            except UpstreamFailed:
                pipeline.outcome(enforced, "failed", cause="upstream_failed")
                return
            pipeline.outcome(enforced, "ok", digest=digest, size=len(body))

        pipeline.submit(access, run, link.isolation if link is not None else "", then)

    def withdrawn(self, session: ClientSession | None, link: Link, raw: bytes) -> None:
        """A server takes its own question back, and the client is told under the id that it knows.  Ids of
        others, of this client or of another server, mean nothing in a server's mouth."""
        named = (params_of(raw) or {}).get("requestId")
        pending = session.asked if session is not None else {}
        for mine, asked in pending.items():
            if asked.link is link and asked.id == named and type(asked.id) is type(named):
                del pending[mine]
                asked.answer.notification(CANCELLED, encode({"requestId": mine}))
                self._front.pipeline.outcome(asked.enforced, "cancelled", cause="withdrawn")
                return
        self._front.pipeline.ledger.count("server_cancelled_unknown", None)

    # ---- modern: input_required

    def input_required(
        self, call: "Call", original: Enforced, value: dict[str, Any], raw: bytes
    ) -> None:
        """Decide every question in the result; one refusal refuses the whole result."""
        questions = value.get("inputRequests", {})
        if not isinstance(questions, dict) or len(questions) > INPUTS_MAX:
            call.link_failed("answered nonsense (malformed inputRequests)", sent=True)
            return
        if not isinstance(value.get("requestState"), str | None):
            call.link_failed("answered nonsense (malformed requestState)", sent=True)
            return
        asker = self._front.pipeline.refreshed(call.access)
        pending: list[AccessRequest] = []
        for each in questions.values():
            method = each.get("method") if isinstance(each, dict) else None
            params = each.get("params", {}) if isinstance(each, dict) else None
            if method not in SERVER_METHODS or not isinstance(params, dict):
                call.link_failed("asks for input of an unknown kind", sent=True)
                return
            pending.append(question(asker, str(method), params, self._front.clock()))
        session = call.route.session
        if session is None:
            self._each(call, pending, [], lambda done: self._release(call, value, done))
            return
        cannot = Round.cannot(call, questions)
        if cannot:
            call.link_failed(cannot, sent=True)
            return
        self._each(call, pending, [], Round(self._front, call, session, value).put)

    def _each(
        self,
        call: "Call",
        pending: list[AccessRequest],
        done: list[Enforced],
        then: Callable[[list[Enforced]], None],
    ) -> None:
        """One decision after the other; ``then`` gets them all, and the first refusal ends the call."""
        if not pending:
            then(done)
            return
        access, *rest = pending

        def recorded(enforced: Enforced) -> None:
            if enforced.permitted:
                self._each(call, rest, [*done, enforced], then)
                return
            for earlier in done:
                self._front.pipeline.outcome(earlier, "failed", cause="not_sent")
            if enforced.receipt is None:
                call.answer.final(answers.unrecorded(call.request.id, enforced.failure))
            else:
                request = call.request
                denial = answers.denial(request.id, request.method, enforced, call.access.tool)
                call.answer.final(denial)
            call.finish("unknown", cause="input_denied")

        self._front.pipeline.submit(access, call.route.run, "", recorded)

    def _release(self, call: "Call", value: dict[str, Any], done: list[Enforced]) -> None:
        """The state goes out sealed, and with it what was asked: only that can be answered."""
        own, questions = value.get("requestState"), value.get("inputRequests", {})
        if own is not None or questions:
            asked = {key: each["method"] for key, each in questions.items()}
            value["requestState"] = self.sealed(call.request, call.route, own, asked)
        result = encode(value)
        call.answer.final(result_message(call.request.id, result))
        digest = hashlib.sha256(result).digest()
        for enforced in done:
            self._front.pipeline.outcome(enforced, "ok", cause="asked")
        call.finish("ok", cause="input_required", digest=digest, size=len(result))

    def sealed(
        self,
        request: Request,
        route: "Route",
        own: str | None,
        asked: dict[str, str],
        held: str = "",
    ) -> str:
        """``own``: the server's state.  ``asked``: the method of each question by its key."""
        state = encode([own, asked, held]).decode()
        return self._front.sealer.seal(state, self._bound(request, route), self._front.clock())

    # ---- modern: the answers of a retry

    def reopened(self, request: Request, route: "Route") -> Reopened | str:
        """The answers that a retry brings, or in words why it is none.  Its state must be ours and of
        this very call.  An answer that was not asked for there is dropped at the door: what kind of
        answer it is, nobody could decide upon."""
        params = request.params
        if "requestState" not in params and "inputResponses" not in params:
            return _NOTHING_GIVEN
        if request.method not in RETRYABLE_WITH_INPUT:
            return _NOTHING_GIVEN
        sealed, given = params.pop("requestState", None), params.pop("inputResponses", {})
        consent = given.pop(CONSENT_KEY, None)
        if isinstance(consent, dict) and consent.get("action") != "accept":
            return "The person did not give access to the server"
        seen = given.pop(HOLD_KEY, None)
        if isinstance(seen, dict) and seen.get("action") == "decline":
            return "The person did not want to wait for an approval"
        asked: dict[str, str] = {}
        held = ""
        if sealed is not None:
            opened = self._unsealed(sealed, self._bound(request, route))
            if opened is None:
                self._front.pipeline.ledger.count("request_state_refused", None)
                return "Invalid requestState: it does not belong to this call, or it has expired"
            own, asked, held = opened
            if own is not None:
                params["requestState"] = own
        kept = {key: given[key] for key in given if key in asked}
        if len(kept) < len(given):
            self._front.pipeline.ledger.count("answer_unasked", None)
        if kept:
            params["inputResponses"] = kept
        answered = [(key, asked[key], answer) for key, answer in kept.items()]
        return Reopened(answered, held, seen is not None, consent is not None)

    def _unsealed(self, sealed: str, bound: bytes) -> tuple[str | None, dict[str, str], str] | None:
        """The upstream's own state, the method of each question by its key, and the call held."""
        state = self._front.sealer.unseal(sealed, bound, self._front.clock())
        if state is None:
            return None
        own, asked, held = parse(state.encode())
        return own, asked, held

    def decide_answers(self, call: "Call", then: Callable[[list[Enforced]], None]) -> None:
        """Each answer is egress towards the server, so it is decided like its question was (GW-7),
        before the call that carries them."""
        asker, now = self._front.pipeline.refreshed(call.access), self._front.clock()
        pending = [
            question(asker, method, {ANSWER_KEY: answer}, now) for _, method, answer in call.given
        ]
        self._each(call, pending, [], then)

    def _bound(self, request: Request, route: "Route") -> bytes:
        return binding(
            route.principal, route.server.id, request.method, route.target, request.params
        )

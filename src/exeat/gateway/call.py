"""One client request on its way: decided, recorded, sent, answered, its outcome bound (GW-1)."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from exeat.core.decision import Decision, Reason
from exeat.core.errors import ExeatError, Invalid
from exeat.core.request import AccessRequest
from exeat.core.strictjson import MalformedJson, parse
from exeat.core.upstream_auth import ConsentNeeded
from exeat.evidence.model import Status
from exeat.gateway import answers, consent, tasks
from exeat.gateway.answer import ClientAnswer
from exeat.gateway.held import Turn
from exeat.gateway.inbound import Request, RequestId
from exeat.gateway.link import Handle, Link, MessageSink, Outbound
from exeat.gateway.methods import (
    CANCELLED,
    META_UNSHOWN,
    RETRYABLE_WITH_INPUT,
    SERVER_NOTIFICATIONS,
    Era,
)
from exeat.gateway.outbound import translate
from exeat.gateway.pipeline import Enforced
from exeat.gateway.redaction.filter import ResultFilter
from exeat.gateway.results import FILTERED_MAX_BYTES, filter_for, questions, quotable, told
from exeat.gateway.routes import INPUTS_KEY, STATE_KEY
from exeat.gateway.wire import (
    Nonsense,
    encode,
    error_body,
    error_message,
    imitates_result_type,
    needs_strict_reading,
    params_of,
    peek,
    result_message,
)

if TYPE_CHECKING:
    from exeat.gateway.asks import Given
    from exeat.gateway.front import Front
    from exeat.gateway.rounds import Round
    from exeat.gateway.routes import Route

_LISTEN: Final = "subscriptions/listen"
_SUBSCRIBES: Final = frozenset({"resources/subscribe", "resources/unsubscribe"})


class Call:
    """``Exchange`` to the edge, ``MessageSink`` to the link."""

    __slots__ = (
        "_answered", "_enforced", "_front", "_handle", "_hash", "_link", "_size", "access", "answer",
        "consented", "filter", "given", "given_up", "held", "held_since", "obstacle", "request", "round",
        "rounds", "route", "ruled", "started", "turn", "unlimited", "waited",
    )  # fmt: skip

    def __init__(
        self,
        front: "Front",
        route: "Route",
        request: Request,
        access: AccessRequest,
        answer: ClientAnswer,
    ) -> None:
        self._front = front
        self.route = route
        self.request = request
        self.access = access
        self.answer = answer
        self.started = front.loop.time()
        self.unlimited = request.method == _LISTEN
        self.obstacle: ExeatError | None = None
        """Why there is no link."""
        self.consented = False
        """The client says that its person went to give consent."""
        self.waited = False
        """Its person has seen that it waits for an approval."""
        self.held = ""
        """The approval that it waits for."""
        self.held_since = 0.0
        """When it was first kept waiting; 0: never."""
        self.filter: ResultFilter | None = None
        """What policy wants done to its result."""
        self.given_up = ""
        """Why it is not to be sent any more; empty while it is."""
        self.ruled: Decision | None = None
        self.given: Sequence[Given] = ()
        """The client's answers to questions of an earlier round; they leave with the call."""
        self.turn: Turn | None = None
        """A legacy server that may ask a modern client speaks through this."""
        self.round: Round | None = None
        """The questions of a modern server that a legacy client is answering."""
        self.rounds = 0
        self._answered: list[Enforced] = []
        self._enforced: Enforced | None = None
        self._link: Link | None = None
        self._handle: Handle | None = None
        self._hash: Any = None
        self._size = 0

    # ---- the order of things

    def submit(self, link: Link) -> None:
        self._link = link
        self._front.calls.add(self)
        if self.given and link.usable:
            self._front.asks.decide_answers(self, self._with_answers)
        else:
            self._decide(link)

    def _with_answers(self, answered: list[Enforced]) -> None:
        if self._link is not None:
            self._answered = answered
            access = self._front.pipeline.refreshed(self.access)  # that took a while
            self.access = self._front.router.seen(access, self.route)
            self._decide(self._link)

    def _decide(self, link: Link) -> None:
        self._front.pipeline.submit(
            self.access, self.route.run, link.isolation, self._recorded, self.ruled, self._beside()
        )

    def _beside(self) -> dict[str, Any] | None:
        """The client's answers to earlier questions, and the server's state, leave with the call, so they
        are on record, and a person who approves one call does not approve where another stood."""
        params = self.request.params
        if self.request.method != "tools/call":
            return None
        state = params.get("requestState")
        leaving = {
            INPUTS_KEY: params.get("inputResponses"),
            STATE_KEY: None if state is None else hashlib.sha256(state.encode()).hexdigest(),
            tasks.EXTENSION: params.get("task"),
        }
        return {key: value for key, value in leaving.items() if value is not None} or None

    def _recorded(self, enforced: Enforced) -> None:
        pending = enforced.pending
        if pending is not None and enforced.receipt is not None and not self.given_up:
            self._not_sent()
            self._front.holds.held(self, enforced, pending)
            return
        self._enforced = enforced
        sent = False
        if not enforced.permitted:
            self._end()
            self._refuse(enforced)
        elif self.given_up:
            self._end()
            self._front.pipeline.outcome(enforced, "failed", cause=self.given_up)
        else:
            sent = self._send(enforced)
        if not sent:
            self._not_sent()
            return
        for answer in self._answered:
            self._front.pipeline.outcome(answer, "ok", cause="answered")

    def _not_sent(self) -> None:
        """What the client answered to questions went nowhere."""
        answered, self._answered = self._answered, []
        for answer in answered:
            self._front.pipeline.outcome(answer, "failed", cause="not_sent")

    def again(self) -> None:
        """People have answered: decided anew, on the facts in force now."""
        if not self.answer.open:
            self._end()
            return
        self._timed()
        link = self._link
        if self.route.upstream.closed:  # it cannot leave, so nothing is used up for it
            self.link_failed("is not running", sent=False)
        elif self.turn is None and (link is None or not link.usable):
            self.obstacle = None
            self._front.linked_again(self)
        elif self.given:
            self._front.asks.decide_answers(self, self._with_answers)
        else:
            self.go_on([])

    def _timed(self) -> None:
        """Its time limit runs from now on."""
        self.unlimited, self.started = self.request.method == _LISTEN, self._front.loop.time()

    def _leaving(self, enforced: Enforced) -> tuple[Request, AccessRequest]:
        """Exactly the decided values (POL-4), and with what was approved nothing that was not shown."""
        request, smaller = self.request, enforced.decision.narrowed
        if enforced.authority:
            meta = {key: request.meta[key] for key in request.meta if key not in META_UNSHOWN}
            request = replace(request, meta=meta)
        if smaller is None:
            return request, self.access
        params = {**request.params, "arguments": dict(smaller)}
        return replace(request, params=params), replace(self.access, arguments=smaller)

    def _send(self, enforced: Enforced) -> bool:
        """False if nothing left."""
        self.filter = filter_for(enforced)
        if self.filter is not None:
            server = self.route.server.id
            self._front.afterwards.redacted(self.route.principal, server, self.filter.on)
        if self.turn is not None:
            self._handle = self.turn.handle
            if (
                self.turn.sent != enforced.decision.narrowed
            ):  # what runs there is not what was decided
                self.link_failed("runs it with arguments that policy has narrowed since", sent=True)
                return False
            return self._front.held.resume(self, self.turn)
        link = self._link
        if link is None or not link.usable or self.route.upstream.closed:
            if self.obstacle is not None:
                self.link_unauthorized(self.obstacle)
            else:
                self.link_failed("is not running", sent=False)
            return False
        method, target = self.request.method, self.access.target
        if method in tasks.OWNED or "task" in self.request.params:
            if link.era is not self.request.era:
                self.link_failed(
                    "has tasks of another protocol revision than the client", sent=False
                )
                return False
            target = self.request.params.get("taskId", target)
        if link.era is not self.request.era and self._changes(link):
            return True
        outbound = self._outbound(enforced, link, target)
        if outbound is None:
            return False
        sink: MessageSink = self
        across = link.era is Era.LEGACY and self.request.era is Era.MODERN
        if across and self.route.offers and method in RETRYABLE_WITH_INPUT:
            sink = self.turn = Turn(self, link, enforced.decision.narrowed)
        handle = link.call(outbound, sink)
        if self._enforced is None:  # the link said at once that it could not
            return False
        self._handle = handle
        return True

    def _outbound(self, enforced: Enforced, link: Link, target: str) -> Outbound | None:
        """What leaves; None if its permit cannot be made, and then the call has failed."""
        method, session = self.request.method, self.route.session
        level = session.log_level if session is not None else ""
        leaving, access = self._leaving(enforced)
        outbound = translate(leaving, link.era, target, self.route.offers, level)
        outbound.may_stream = method in RETRYABLE_WITH_INPUT
        if self._whole(enforced):
            outbound.may_stream = False
            outbound.result_max_bytes = FILTERED_MAX_BYTES
        if self.route.upstream.guarded:
            outbound.still = self._still
        if link.era is Era.MODERN and method == "tools/call" and access.tool is not None:
            outbound.param_headers = self._front.mirrors.headers(access)
        if method == "tools/call" and not self._permit(enforced, access, outbound):
            return None
        return outbound

    def _whole(self, enforced: Enforced) -> bool:
        """Whether its result is looked at, or added to, before any of it passes."""
        return self.filter is not None or enforced.decision.narrowed is not None

    def _permit(self, enforced: Enforced, access: AccessRequest, outbound: Outbound) -> bool:
        """ID-11: where the server demands one; False if it cannot be made, and then nothing leaves."""
        audience, permits = self.route.upstream.spec.permit, self._front.permits
        if not audience:
            return True
        try:
            if permits is None:
                raise Invalid("needs a permit, and this gateway has no key to sign one")
            outbound.permit = permits.sign(
                access, audience, enforced.id, self.route.run, outbound.params
            )
        except Invalid as error:
            self.link_failed(str(error), sent=False)
            return False
        return True

    def _changes(self, link: Link) -> bool:
        """What one era asks for in another way than the other; False if it is something else."""
        session, method = self.route.session, self.request.method
        if method == _LISTEN:
            self._handle = self._front.clients.heard.listen(self, link)
        elif method in _SUBSCRIBES and session is not None:
            uri, clients = self.access.target, self._front.clients
            if clients.subscribe(session, self.route.server.id, link, method, uri):
                self.link_result(b"{}")
            else:
                self.link_failed("is subscribed to as often as it may be", sent=False)
        elif method == "logging/setLevel" and session is not None:
            session.log_level = str(self.request.params.get("level", ""))
            self.link_result(b"{}")
        else:
            return False
        return True

    def _refuse(self, enforced: Enforced) -> None:
        request = self.request
        if enforced.receipt is None:
            self.answer.final(answers.unrecorded(request.id, enforced.failure))
        elif enforced.decision.reason is Reason.METHOD_UNKNOWN:
            self.answer.final(
                answers.unknown(request.id, "", request.method), error_code=answers.METHOD_NOT_FOUND
            )
        elif enforced.decision.reason is Reason.ACTION_UNKNOWN or self._front.visibility.hides(
            enforced
        ):
            code = answers.UNKNOWN_TOOL if request.method != "tools/call" else 0
            self.answer.final(
                answers.unknown(request.id, request.method, self.route.shown), error_code=code
            )
        else:
            self._front.deny(self.answer, request, enforced, self.access.tool)

    def _end(self) -> None:
        self._handle = None
        turn, self.turn = self.turn, None
        if turn is not None and turn.to is None:  # it was to be taken over, and is not
            self._front.held.drop(turn)
        self._front.ended(self)

    def finish(
        self,
        status: Status,
        *,
        cause: str = "",
        digest: bytes = b"",
        size: int = 0,
        rows: int = 0,
    ) -> None:
        """The end of a call that was sent: its outcome, bound to its decision, exactly once."""
        enforced, self._enforced = self._enforced, None
        self._end()
        if enforced is not None:
            self._front.pipeline.outcome(
                enforced, status, cause=cause, digest=digest, size=size, rows=rows
            )

    # ---- questions between eras

    def hand_over(self) -> Handle | None:
        """The server's call is held from now on, and no longer this request's."""
        handle, self._handle, self.turn = self._handle, None, None
        return handle

    def wait(self, on: "Round") -> None:
        """The client is asked something, and this request goes on when it has answered."""
        self.round, self.unlimited = on, True
        self.rounds += 1
        self._front.calls.add(self)
        if self.route.session is not None:
            self.route.session.calls[self.request.id] = self

    def go_on(self, answered: list[Enforced]) -> None:
        """Once more from the decision on, with the answers among the parameters."""
        self.round = None
        self._timed()
        self._answered, self._hash, self._size = answered, None, 0
        router = self._front.router
        access = router.describe(self.request, self.route, self._front.clock())
        self.access = router.seen(self._front.pipeline.refreshed(access), self.route)
        if self._link is not None:
            self._decide(self._link)

    def over(self) -> None:
        self.round = None
        self._end()

    # ---- MessageSink

    def link_notification(self, method: str, params: bytes) -> None:
        if method == "notifications/tools/list_changed":
            self.route.upstream.said_changed()
        if method in SERVER_NOTIFICATIONS:
            clean = self._cleaned(method, params)
            if clean is None:
                return
            params = clean
        if method == CANCELLED:
            self._cancelled(params)
        elif method in SERVER_NOTIFICATIONS:
            self.answer.notification(method, params)
        else:
            self._front.pipeline.ledger.count("server_notification_unknown", None)

    def _cleaned(self, method: str, params: bytes) -> bytes | None:
        if self.filter is not None:
            return self.filter.notification(method, params)
        principal, server = self.route.principal, self.route.server.id
        return self._front.afterwards.clean(principal, server, method, params)

    def _cancelled(self, params: bytes) -> None:
        """A modern server may end this very request; a legacy one, a question of its own."""
        link = self._link
        if link is not None and link.era is Era.LEGACY:
            self._front.asks.withdrawn(self.route.session, link, params)
            return
        named = (params_of(params) or {}).get("requestId")
        if named == self.request.id and type(named) is type(self.request.id):
            self.answer.notification(CANCELLED, encode({"requestId": named}))

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        link = self._link
        if link is None:
            return
        if self.filter is not None:
            clean = self.filter.notification(method, params)
            if clean is None:
                error = error_body(-32602, "the question cannot be shown as policy asks")
                link.reply(request_id, error_message(request_id, error))
                return
            params = clean
        self._front.server_asks(self, link, request_id, method, params)

    def link_piece(self, data: bytes) -> None:
        enforced = self._enforced
        if enforced is not None and self._whole(enforced):  # policy asked for less when it was sent
            handle, self._handle = self._handle, None
            if handle is not None:
                handle.cancel()
            self.link_failed("sends in pieces what has to be looked at as a whole", sent=True)
            return
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._hash.update(data)
        self._size += len(data)
        self.answer.result_piece(data)

    def link_result_end(self, result_type: str) -> None:
        self.answer.result_end()
        digest = self._hash.digest() if self._hash is not None else b""
        self.finish("ok", digest=digest, size=self._size)

    def link_result(self, result: bytes) -> None:
        try:
            self._result(result)
        except Nonsense as broken:
            self.link_failed(f"answered nonsense ({broken})", sent=True)

    def _result(self, result: bytes) -> None:
        link = self._link
        modern = link is not None and link.era is Era.MODERN
        if modern and needs_strict_reading(result):
            value = self._read_result(result)
            kind = value.get("resultType", "complete")
            if kind == "input_required" and self.request.method in RETRYABLE_WITH_INPUT:
                enforced = self._enforced
                if self.filter is not None:
                    value = questions(self.filter, value)
                if enforced is not None:
                    self._front.input_required(self, enforced, value, result)
                return
            may_be_task = self._may_be_task and self.filter is None
            if kind == "task" and may_be_task and self.request.era is Era.MODERN:
                kind = "complete"
            if kind != "complete":
                raise Nonsense(f"the result type {str(kind)[:40]!r} is not known")
            result = encode(value)
        if self.request.method in tasks.OWNED or self._may_be_task:
            result = self._renamed(result)
        seen = peek(result)
        if modern != (self.request.era is Era.MODERN):
            result = self._across(result, to_modern=not modern)
        rows = 0
        if self.filter is not None:
            result = self.filter.result(result)
            rows = self.filter.summary.passed
        try:
            result = told(result, self._enforced)
        except MalformedJson as broken:
            raise Nonsense(str(broken)) from None
        self.answer.final(result_message(self.request.id, result))
        self.finish(
            "tool_error" if seen.isError else "ok",
            digest=hashlib.sha256(result).digest(),
            size=len(result),
            rows=rows,
        )

    @property
    def _may_be_task(self) -> bool:
        return self.request.method == "tools/call" and tasks.served(self.route.server)

    def _renamed(self, result: bytes) -> bytes:
        """The task under the name that is this principal's.  Its questions are not carried: what is
        not decided does not reach a model or a person (GW-7)."""
        value = self._read_result(result)
        if "inputRequests" in value:
            raise Nonsense("a task that asks for input, which this gateway does not carry")
        if self.filter is not None and isinstance(value.get("task"), dict):
            raise Nonsense("a task instead of a result that policy wants looked at")
        names, route = self._front.task_names, self.route
        tasks.rename(value, lambda task: names.shown(route.server.id, route.principal, task))
        return encode(value)

    def _strictly(self, result: bytes) -> dict[str, Any]:
        try:
            value = parse(result)
        except MalformedJson as broken:
            raise Nonsense(str(broken)) from None
        if not isinstance(value, dict):
            raise Nonsense("a result that is not an object")
        return value

    def _read_result(self, result: bytes) -> dict[str, Any]:
        value = self._strictly(result)
        if any(imitates_result_type(name) for name in value):
            raise Nonsense("a member that only looks like resultType")
        return value

    def _across(self, result: bytes, *, to_modern: bool) -> bytes:
        """GW-4: members that only one era knows."""
        value = self._read_result(result)
        if to_modern:
            value["resultType"] = "complete"
            if self.request.method == "resources/read":
                value.setdefault("ttlMs", 0)
                value.setdefault("cacheScope", "private")
        else:
            for key in ("resultType", "ttlMs", "cacheScope"):
                value.pop(key, None)
        return encode(value)

    def link_error(self, error: bytes, status: int) -> None:
        try:
            value = self._strictly(error)
        except Nonsense:
            self.link_failed("answered with a malformed error", sent=True)
            return
        code, text = value.get("code"), value.get("message")
        if type(code) is not int or not isinstance(text, str):
            self.link_failed("answered with a malformed error", sent=True)
            return
        body = error_body(code, text, value.get("data"))
        rows = 0
        if self.filter is not None:
            body = self.filter.error(body)
            rows = self.filter.summary.passed
        self.answer.final(error_message(self.request.id, body), error_code=code)
        digest = hashlib.sha256(body).digest()
        self.finish("rpc_error", digest=digest, size=len(body), rows=rows)

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self._fail(reason, sent=sent)

    def _fail(self, reason: str | ExeatError, *, sent: bool) -> None:
        enforced = self._enforced
        if self.filter is not None and isinstance(reason, str):
            reason = quotable(self.filter, reason)
        self.answer.final(
            answers.upstream_failed(
                self.request.id,
                self.access.server.id,
                reason,
                enforced.id if enforced is not None else "",
                sent=sent,
            )
        )
        self.finish(
            "unknown" if sent else "failed", cause="upstream_failed" if sent else "not_sent"
        )

    def link_unauthorized(self, error: ExeatError) -> None:
        """There is no credential for the upstream, so nothing was done there."""
        if isinstance(error, ConsentNeeded):
            consent.ask(self._front, self, error)
        else:
            self._fail(error, sent=False)

    def _still(self) -> bool:
        enforced = self._enforced
        return enforced is not None and self._front.pipeline.still(enforced)

    def broke(self) -> None:
        """The gateway itself failed before the call was sent."""
        self.answer.broke()
        self.finish("failed", cause="gateway_failed")

    # ---- Exchange

    def client_gone(self) -> None:
        """Modern: closing the stream cancels.  Legacy: it does not; only a notification does."""
        self.answer.gone()
        if self.request.era is Era.MODERN or self.held:
            self.give_up("client_closed")

    def give_up(self, cause: str) -> None:
        """GW-9: cancel at the upstream; what it did by then is unknown, and is recorded so."""
        if self.round is not None:
            self.round.end(answers.cancelled(self.request.id, cause))
            return
        if self.held:
            self._front.holds.forget(self)
            self.answer.final(answers.cancelled(self.request.id, cause, sent=False))
            self._end()
            return
        handle, self._handle = self._handle, None
        if handle is None and self._enforced is not None:
            return
        sent = handle is not None
        self.answer.final(answers.cancelled(self.request.id, cause, sent=sent))
        if handle is None:
            self.given_up = cause
            return
        handle.cancel()
        self.finish("cancelled", cause=cause)

    def too_late(self) -> None:
        """GW-11: the upstream took longer than its limit."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
        sent = self._enforced is not None
        if not sent:
            self.given_up = "timeout"
        self.link_failed("did not answer in time", sent=sent)

    def client_slow(self) -> None:
        if self._handle is not None:
            self._handle.pause()

    def client_ready(self) -> None:
        if self._handle is not None:
            self._handle.resume()

"""The front of the gateway: from one HTTP request to who asks, where to, and who answers it.

Steps: Host and Origin, path, credential, ladder, session, route; then the method's own way.
Nothing here decides: every action goes through the pipeline.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final

from exeat.core.decision import Decision, Reason
from exeat.core.errors import ExeatError
from exeat.core.facts import ToolFacts
from exeat.core.ids import ServerId
from exeat.core.request import Caller
from exeat.gateway import answers, consent
from exeat.gateway.answer import ClientAnswer
from exeat.gateway.asks import Asks
from exeat.gateway.authority import scopes_for
from exeat.gateway.call import Call
from exeat.gateway.clients import Clients
from exeat.gateway.connection import Connection
from exeat.gateway.credentials import Credentials, Unknown
from exeat.gateway.doors import Door, Doors
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.handover import Elsewhere, Handover
from exeat.gateway.held import Held
from exeat.gateway.holds import Holds
from exeat.gateway.http1 import RequestHead
from exeat.gateway.inbound import (
    HEADER_MISMATCH,
    Notification,
    Rejection,
    Request,
    RequestId,
    Response,
    read_body,
    read_post,
)
from exeat.gateway.link import Link
from exeat.gateway.lists import Lists
from exeat.gateway.methods import CLIENT_METHODS, LIST_KEY, Era
from exeat.gateway.param_headers import Mirrors, disagreement
from exeat.gateway.permits import Permits
from exeat.gateway.pipeline import Enforced, Pipeline
from exeat.gateway.redaction.afterwards import Afterwards
from exeat.gateway.routes import Route, Router
from exeat.gateway.sealing import StateSealer
from exeat.gateway.sessions import ClientSession, Sessions
from exeat.gateway.settings import GatewaySettings
from exeat.gateway.tasks import OWNED, TaskNames, augmentation, served
from exeat.gateway.unlinked import (
    NO_LINK,
    NOT_A_TASK,
    NOT_SERVED,
    UNREACHABLE,
    assume_pinned,
)
from exeat.gateway.upstreams import Upstreams
from exeat.gateway.visibility import Visibility
from exeat.gateway.wire import encode, error_body, error_message
from exeat.identity.model.token import Refused
from exeat.identity.tokens import Tokens

KEEP_ALIVE_S: Final = 15.0
SWEEP_S: Final = 1.0
_HANDSHAKES: Final = frozenset({"initialize", "server/discover"})


class Front:
    """One per gateway process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pipeline: Pipeline,
        upstreams: Upstreams,
        settings: GatewaySettings,
        state_key: bytes,
        clock: Callable[[], int],
        handover: Handover | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """``handover``: there are other workers, and sessions and held calls live in one.
        ``tokens``: of issuers that are trusted; None: keys alone open anything."""
        self.loop = loop
        self.handover = handover
        self.pipeline = pipeline
        self.upstreams = upstreams
        self.settings = settings
        self.clock = clock
        self.sealer = StateSealer(state_key, os.urandom)
        self.new_id = handover.new_id if handover is not None else _new_id
        self.sessions = Sessions(self.new_id, loop.time)
        self.router = Router(upstreams, pipeline)
        self.credentials = Credentials(pipeline, tokens)
        self.doors = Doors(settings, self.router, self.credentials, pipeline, clock, handover)
        self.visibility, self.mirrors = Visibility(pipeline), Mirrors()
        self.asks = Asks(self)
        self.afterwards = Afterwards()
        self.held = Held(self)
        self.holds = Holds(self)
        self.task_names = TaskNames(state_key)
        self.lists = Lists(self)
        self.clients = Clients(self)
        self.permits: Permits | None = None
        """Signs for servers that demand permits; without it they cannot be called."""
        self.calls: set[Call] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._last_alive = loop.time()
        self._timer = loop.call_later(SWEEP_S, self._sweep)

    # ---- HTTP

    def dispatch(self, connection: Connection, head: RequestHead, body: bytes) -> Exchange | None:
        """The edge's entry: answers at once, or returns what will."""
        door = self.doors.find(connection, head)
        if door is None:
            return None
        caller = self.doors.caller(connection, head, door)
        if type(caller) is not Caller:
            return self._not_let_in(connection, head, body, caller)  # type: ignore[arg-type]
        if door.owner:
            return self._move(connection, head, body, door.owner)
        served = self._serve(connection, head, body, door, caller)
        if type(served) is Elsewhere:
            return self._move(connection, head, body, served.owner)
        return served  # type: ignore[return-value]  # mypy does not narrow by type()

    def _not_let_in(
        self,
        connection: Connection,
        head: RequestHead,
        body: bytes,
        found: Refused | Unknown | None,
    ) -> Exchange | None:
        if not isinstance(found, Unknown):
            self.doors.refuse(connection, head, found)
            return None
        checking = Checking()

        async def settle() -> None:
            await found.settle()
            if not checking.gone:
                connection.take_back(self.dispatch(connection, head, body))

        self.spawn(settle(), connection.abort)
        return checking

    def _serve(
        self, connection: Connection, head: RequestHead, body: bytes, door: Door, caller: Caller
    ) -> Exchange | Elsewhere | None:
        if head.method != "POST":
            return self.clients.get_or_delete(connection, head, caller, door.server)
        message = read_body(head, body) if door.checked else read_post(head, body)
        if type(message) is Request:
            return self._request(connection, head, message, caller, door.server)
        self._not_a_request(connection, head, message, caller, door.server)
        return None

    def _move(
        self, connection: Connection, head: RequestHead, body: bytes, owner: str
    ) -> Exchange | None:
        """GW-13: to the worker that knows what the request speaks of.  If that one is gone, so is
        what it knew, and the answer here says so."""
        assert self.handover is not None  # noqa: S101 - only then has anybody else an owner's name

        def here() -> Exchange | None:
            door = self.doors.find(connection, head)
            if door is None:
                return None
            caller = self.doors.caller(connection, head, door)
            if not isinstance(caller, Caller):
                return self._not_let_in(connection, head, body, caller)
            served = self._serve(connection, head, body, door, caller)
            if isinstance(served, Elsewhere):
                served.over()
                return None
            return served

        return self.handover.move(connection, body, owner, here)

    def admit(self, connection: Connection, head: RequestHead) -> bool | None:
        """Before a body is waited for: is it from an agent, and for an endpoint?  Answers if not.
        None: its token's issuer is asked."""
        door = self.doors.find(connection, head)
        if door is None:
            return False
        found = self.doors.admits(connection, head, door)
        if isinstance(found, Caller):
            return True
        if not isinstance(found, Unknown):
            self.doors.refuse(connection, head, found)
            return False
        unknown = found

        async def settle() -> None:
            await unknown.settle()
            connection.again()

        self.spawn(settle(), connection.abort)
        return None

    def reject(self, connection: Connection, rejection: Rejection) -> None:
        self.pipeline.ledger.count("malformed", {"code": str(rejection.code)})
        body = error_body(rejection.code, rejection.message, rejection.data)
        connection.respond(rejection.status, b"application/json", error_message(rejection.id, body))

    # ---- messages

    def _not_a_request(
        self,
        connection: Connection,
        head: RequestHead,
        message: Notification | Response | Rejection | Request,
        caller: Caller,
        server: ServerId | None,
    ) -> None:
        if isinstance(message, Rejection):
            self.reject(connection, message)
            return
        if isinstance(message, Notification) and message.era is Era.MODERN:
            self.pipeline.ledger.count("client_notification_modern", None)
            connection.respond(202, b"", b"")
            return
        session = self._session(connection, head, caller, server, None)
        if session is None:
            return
        if isinstance(message, Response):
            if not self.asks.answered(session, message):
                self.pipeline.ledger.count("answer_unasked", None)
        elif isinstance(message, Notification):
            self.clients.notified(session, message)
        connection.respond(202, b"", b"")

    def _session(
        self,
        connection: Connection,
        head: RequestHead,
        caller: Caller,
        server: ServerId | None,
        request_id: RequestId | None,
    ) -> ClientSession | None:
        """GW-13.  Answers the client itself if there is none."""
        given = head.fields.get("mcp-session-id")
        principal = self.router.principal(caller)
        session = self.sessions.find(given, principal, server) if given else None
        if session is None:
            text = "Session not found; initialize again" if given else "Missing Mcp-Session-Id"
            body = error_message(request_id, error_body(-32600, text))
            connection.respond(404 if given else 400, b"application/json", body)
        return session

    def _request(
        self,
        connection: Connection,
        head: RequestHead,
        request: Request,
        caller: Caller,
        server: ServerId | None,
    ) -> Exchange | Elsewhere | None:
        modern = request.era is Era.MODERN
        answer = ClientAnswer(connection, request.id, modern=modern, head=head)
        method = request.method
        if method in _HANDSHAKES and method in CLIENT_METHODS[request.era]:
            return self.clients.handshake(answer, request, caller, server)
        session = None
        if request.era is Era.LEGACY:
            session = self._session(connection, head, caller, server, request.id)
            if session is None:
                return None
            if method == "ping":
                self.pipeline.ledger.count("ping", None)
                answer.final(b'{"jsonrpc":"2.0","id":%b,"result":{}}' % encode(request.id))
                return None
            if request.id in session.calls:
                self.reject(
                    connection,
                    Rejection(400, -32600, "this id is already in use in this session", request.id),
                )
                return None
        if method in LIST_KEY:
            return self.lists.start(answer, request, caller, server, session)
        if server is None and method in ("subscriptions/listen", "logging/setLevel"):
            return self.clients.local(answer, request, caller, session)
        route = self.router.route(request, caller, server, session)
        if route is None:
            self._unroutable(answer, request)
            return None
        return self._act(answer, head, request, route)

    def _unroutable(self, answer: ClientAnswer, request: Request) -> None:
        """A name that could be no server's of the aggregate: nothing to decide upon."""
        self.pipeline.ledger.count("unroutable", {"method": request.method[:64]})
        method, target, code = request.method, request.target, answers.UNKNOWN_TOOL
        if method not in CLIENT_METHODS[request.era]:
            target, code = "", answers.METHOD_NOT_FOUND
        elif method == "tools/call":
            code = 0
        answer.final(answers.unknown(request.id, method, target), error_code=code)

    def _act(
        self, answer: ClientAnswer, head: RequestHead, request: Request, route: Route
    ) -> Exchange | Elsewhere | None:
        """One action on one server."""
        legacy = request.era is Era.LEGACY
        augmentation(request.params, allowed=legacy and served(route.server))
        given = self.asks.reopened(request, route)
        if isinstance(given, str):
            answer.final(error_message(request.id, error_body(-32602, given)), error_code=-32602)
            return None
        owner = self.handover.owner(given.held) if self.handover is not None else ""
        if (
            owner and legacy
        ):  # its connection is where its session is, and nothing of it is held there
            error = error_body(-32602, "this requestState belongs to another session")
            answer.final(error_message(request.id, error), error_code=-32602)
            return None
        if owner:
            return Elsewhere(owner, lambda: _over(answer, request))
        access = self.router.describe(request, route, self.clock())
        ruled = self._ruled(request, route)
        if ruled is not None:
            call = Call(self, route, request, access, answer)
            call.ruled = ruled
            call.submit(NO_LINK)
            return call
        if request.era is Era.MODERN and access.tool is not None:
            declared = self.mirrors.of(access.tool)
            if declared:
                mismatch = disagreement(declared, access.arguments, head.fields)
                if mismatch and self.visibility.of(
                    access
                ):  # a hidden tool has nothing to say (GW-8)
                    answer.final(
                        error_message(request.id, error_body(HEADER_MISMATCH, mismatch)),
                        error_code=HEADER_MISMATCH,
                    )
                    return None
        if request.method == "completion/complete" and not self.visibility.of_reference(access):
            answer.final(answers.unknown(request.id, "prompts/get", route.shown), error_code=-32602)
            return None
        call = Call(self, route, request, access, answer)
        call.given = given.answers
        call.consented, call.waited = given.consented, given.waited
        if given.held:
            return self._taken_over(call, given.held)
        if route.session is not None:
            route.session.calls[request.id] = call
        link = self.router.link_now(route)
        if link is not None:
            call.access = self.router.seen(call.access, route)
            call.submit(link)
        else:
            self.spawn(self._later(call), call.broke)
        return call

    def _ruled(self, request: Request, route: Route) -> Decision | None:
        """A denial that needs no policy: a method that is not served, a task that is not the
        principal's.  A task that is gets the server's own name."""
        if not self.router.serves(request, route):
            return NOT_SERVED
        if request.method in OWNED:
            given = request.params.get("taskId")
            task = self.task_names.meant(route.server.id, route.principal, given)
            if task is None:
                return NOT_A_TASK
            request.params["taskId"] = task
        return None

    def _taken_over(self, call: Call, held: str) -> Exchange | None:
        """The answers are for a server that waits for them."""
        modern = call.request.era is Era.MODERN
        turn = self.held.take(held, call.route.principal) if modern else None
        if turn is None:
            _over(call.answer, call.request)
            return None
        call.turn = turn
        call.access = self.router.seen(call.access, call.route)
        call.submit(turn.link)
        return call

    def linked_again(self, call: Call) -> None:
        """A call that waited for people, and whose link is gone by now."""
        self.spawn(self._later(call), call.broke)

    async def _later(self, call: Call) -> None:
        """The server must be probed, started or opened first; a denial needs none of that."""
        route = call.route
        if self.router.denied_anyway(call.access):
            assume_pinned(call)
            call.submit(NO_LINK)
            return
        if call.consented and route.upstream.http is not None:
            await route.upstream.http.account(route.principal).consented(consent.WAIT_S)
        made = await self.router.make_link(route)
        call.access = self.pipeline.refreshed(call.access)  # that took a while
        if isinstance(made, ExeatError):
            # GW-11: the attempt is decided and recorded all the same; its outcome is "not sent"
            call.obstacle = made
            assume_pinned(call)
            call.submit(UNREACHABLE)
            return
        call.access = self.router.seen(call.access, route)
        call.submit(made)

    # ---- for calls

    def deny(
        self,
        answer: ClientAnswer,
        request: Request,
        enforced: Enforced,
        tool: ToolFacts | None = None,
    ) -> None:
        """A denial that more scope would cure is the HTTP challenge of ID-2; others are for the model
        or the client to read (POL-3)."""
        message = answers.denial(request.id, request.method, enforced, tool)
        if enforced.decision.reason is not Reason.INSUFFICIENT_SCOPE or answer.head is None:
            answer.final(message)
            return
        access = enforced.request
        needed = scopes_for(access)
        lines = self.doors.too_little_scope(answer.head, needed, access.caller)
        data = {**answers.denial_data(enforced), "scope": " ".join(sorted(needed))}
        error = error_body(answers.DENIED, f"Denied: {answers.said(enforced.decision)}", data)
        answer.forbidden(error_message(request.id, error), lines)

    def server_asks(
        self, call: Call, link: Link, request_id: RequestId, method: str, params: bytes
    ) -> None:
        self.asks.asked(call, link, request_id, method, params)

    def input_required(
        self, call: Call, enforced: Enforced, value: dict[str, Any], raw: bytes
    ) -> None:
        self.asks.input_required(call, enforced, value, raw)

    def ended(self, call: Call) -> None:
        self.calls.discard(call)
        session = call.route.session
        if session is not None and session.calls.get(call.request.id) is call:
            del session.calls[call.request.id]

    def spawn(self, work: Any, broke: Callable[[], None]) -> None:
        """``broke`` answers the client if the work fails in a way that nobody foresaw."""
        task = self.loop.create_task(work)
        self.tasks.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self.tasks.discard(task)
            if not task.cancelled() and task.exception() is not None:
                broke()
                self.loop.call_exception_handler(
                    {"message": "a task of the gateway failed", "exception": task.exception()}
                )

        task.add_done_callback(done)

    # ---- time

    def _sweep(self) -> None:
        now = self.loop.time()
        limit = self.settings.upstream_answer_max_s
        for call in [c for c in self.calls if not c.unlimited and now - c.started > limit]:
            call.too_late()
        if now - self._last_alive >= KEEP_ALIVE_S:
            self._last_alive = now
            for call in [c for c in self.calls if now - c.started >= KEEP_ALIVE_S / 2]:
                call.answer.keep_alive()
            self.clients.keep_alive()
            self.sessions.sweep()
            self.held.sweep()
        self._timer = self.loop.call_later(SWEEP_S, self._sweep)

    async def close(self) -> None:
        self._timer.cancel()
        self.holds.close()
        for call in list(self.calls):
            call.give_up("gateway_stopped")
        self.held.close()
        self.clients.close()
        self.sessions.close()
        for task in list(self.tasks):
            task.cancel()
        await self.upstreams.close()


class Checking:
    """A request whose token is being checked with its issuer."""

    def __init__(self) -> None:
        self.gone = False

    def client_gone(self) -> None:
        self.gone = True

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


def _new_id() -> str:
    return os.urandom(24).hex()


def _over(answer: ClientAnswer, request: Request) -> None:
    text = "Invalid requestState: the call that asked is over, or was answered already"
    answer.final(error_message(request.id, error_body(-32602, text)), error_code=-32602)

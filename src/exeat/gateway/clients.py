"""The client's own lifecycle: handshakes, sessions, notifications, standing streams (mcp.md).

Handshakes precede actions.  They are answered from what the upstream said of itself, only to an
agent that may act at all, and are counted.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from exeat.core.decision import Decision
from exeat.core.errors import ExeatError
from exeat.core.facts import Lifecycle, ServerFacts
from exeat.core.ids import ActionId, AgentId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.core.upstream_auth import ConsentNeeded
from exeat.gateway import answers, tasks
from exeat.gateway.answer import ClientAnswer, Waiting
from exeat.gateway.changes import (
    KINDS,
    LISTEN,
    SUBSCRIBED_MAX,
    Heard,
    listening_for,
)
from exeat.gateway.connection import Connection
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.http1 import RequestHead
from exeat.gateway.inbound import Notification, Request, RequestId
from exeat.gateway.killing import server_killed
from exeat.gateway.link import Link, raw_bytes
from exeat.gateway.link_http import LegacyHttpLink
from exeat.gateway.methods import (
    CANCELLED,
    LEGACY_LATEST,
    LEGACY_VERSIONS,
    META_SUBSCRIPTION,
    MODERN_VERSIONS,
    SERVER_NOTIFICATIONS,
    Era,
)
from exeat.gateway.pipeline import Enforced
from exeat.gateway.routes import Route, offered
from exeat.gateway.sessions import ClientSession, principal_key
from exeat.gateway.standing import INFO, Standing, Stream, capabilities_of, info_of
from exeat.gateway.upstreams import UpstreamServer
from exeat.gateway.wire import (
    Incoming,
    encode,
    error_body,
    error_message,
    notification_message,
    result_message,
)
from exeat.policy.preconditions import principal

if TYPE_CHECKING:
    from exeat.gateway.front import Front

_AGGREGATE: Final[dict[str, Any]] = {"tools": {}, "prompts": {}, "resources": {}, "completions": {}}
NO_SERVER: Final = ServerId("all")
"""Stands for the servers of an agent that has none: a place to deny it at."""
_RELISTEN_S: Final = 1.0


class Clients:
    def __init__(self, front: "Front") -> None:
        self.front = front
        self.streams: dict[ClientAnswer, Caller] = {}
        """Those that stand open, and who opened each: they end with the credential that did."""
        self.heard = Heard(self)
        self._local: dict[ClientAnswer, tuple[RequestId, frozenset[str]]] = {}

    # ---- handshakes

    def handshake(
        self, answer: ClientAnswer, request: Request, caller: Caller, server: ServerId | None
    ) -> Exchange | None:
        refused = self._may_not_act(caller, server)
        if refused is not None:
            self._refuse_handshake(answer, request, *refused)
            return Waiting(answer)
        self.front.pipeline.ledger.count("handshake", None)
        work = self._initialize if request.era is Era.LEGACY else self._discover
        self.front.spawn(work(answer, request, caller, server), answer.broke)
        return Waiting(answer)

    def _may_not_act(
        self, caller: Caller, server: ServerId | None
    ) -> tuple[AccessRequest, Decision] | None:
        """No process is started and no session opened for an agent that can do nothing.  One killed server
        of several does not close the aggregate."""
        router = self.front.router
        now = self.front.clock()
        found = router.servers(caller) if server is None else [router.named(server)]
        kills = self.front.pipeline.state.view.snapshot.kills
        found = [each for each in found if not server_killed(kills, each[0].id)][:1] or found[:1]
        if not found and principal(caller, now) is not None:
            found = [router.named(NO_SERVER)]
        for facts, _ in found:
            access = AccessRequest(
                caller, "tools/list", ActionId("tools/list"), facts, "", None, "", {}, now,
                run=principal_key(caller),
            )  # fmt: skip
            decision = self.front.pipeline.ruling(access)
            if not decision.permitted:
                return access, decision
        return None

    def _refuse_handshake(
        self, answer: ClientAnswer, request: Request, access: AccessRequest, decision: Decision
    ) -> None:
        """On record like any denial, so that the owner who asks finds the attempt and its reason."""

        def then(enforced: Enforced) -> None:
            if enforced.receipt is None:
                answer.final(answers.unrecorded(request.id, enforced.failure))
            else:
                self.front.deny(answer, request, enforced)

        run = principal_key(access.caller)
        self.front.pipeline.submit(access, run, "", then, decision)

    async def _initialize(
        self, answer: ClientAnswer, request: Request, caller: Caller, server: ServerId | None
    ) -> None:
        front = self.front
        asked = request.params.get("protocolVersion")
        version = str(asked) if asked in LEGACY_VERSIONS else LEGACY_LATEST
        session = front.sessions.open(principal_key(caller), server, version, request.params)
        about: Mapping[str, Any] = {"capabilities": _AGGREGATE, "serverInfo": INFO}
        if server is not None:
            found = front.router.one(server)
            opened = await self._open(session, found, caller) if found is not None else "is unknown"
            if isinstance(opened, str | ExeatError):
                front.sessions.end(session)
                failed = answers.upstream_failed(request.id, server, opened, "", sent=False)
                answer.final(failed)
                return
            about = opened
        result = {
            "protocolVersion": version,
            "capabilities": self._capabilities(about, server),
            "serverInfo": info_of(about),
        }
        if isinstance(about.get("instructions"), str):
            result["instructions"] = about["instructions"]
        answer.extra = f"mcp-session-id: {session.id}\r\n".encode("ascii")
        answer.final(result_message(request.id, encode(result)))

    async def _open(
        self, session: ClientSession, found: tuple[ServerFacts, UpstreamServer], caller: Caller
    ) -> Mapping[str, Any] | ExeatError:
        facts, upstream = found
        route = Route(facts, upstream, caller, session, session.principal, "", "", session.offers)
        try:
            made = await self.front.router.make_link(route)
            if isinstance(made, ExeatError):
                raise made
            if made.era is Era.LEGACY:
                return upstream.about_of(made)
            return await upstream.about_for(route.principal, route.offers)
        except ConsentNeeded:  # each later request can lead to the page
            return {"capabilities": _AGGREGATE, "serverInfo": INFO}
        except ExeatError as failure:
            return failure

    async def _discover(
        self, answer: ClientAnswer, request: Request, caller: Caller, server: ServerId | None
    ) -> None:
        about: Mapping[str, Any] = {"capabilities": _AGGREGATE, "serverInfo": INFO}
        if server is not None:
            found = self.front.router.one(server)
            try:
                if found is not None:
                    who = principal_key(caller)
                    about = await found[1].about_for(who, offered(request, None))
            except ConsentNeeded:  # each later request can lead to the page
                pass
            except ExeatError as failure:
                failed = answers.upstream_failed(request.id, server, failure, "", sent=False)
                answer.final(failed)
                return
        result: dict[str, Any] = {
            "supportedVersions": [*MODERN_VERSIONS],
            "capabilities": self._capabilities(about, server),
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": info_of(about)},
        }
        if isinstance(about.get("instructions"), str):
            result["instructions"] = about["instructions"]
        answer.final(result_message(request.id, encode(result)))

    def _capabilities(self, about: Mapping[str, Any], server: ServerId | None) -> dict[str, Any]:
        facts = self.front.pipeline.state.view.snapshot.servers.get(server) if server else None
        known = capabilities_of(about)
        if facts is not None and tasks.served(facts):
            known |= tasks.capability(about.get("capabilities", {}))
        return known

    # ---- legacy sessions

    def notified(self, session: ClientSession, message: Notification) -> None:
        """GW-9 for legacy clients; what else they notify of is counted and goes no further."""
        self.front.pipeline.ledger.count("client_notification", None)
        if message.method == "notifications/cancelled":
            named = message.params.get("requestId")
            call = session.calls.get(named) if isinstance(named, str | int) else None
            if call is not None:
                call.give_up("client_cancelled")
        elif message.method == "notifications/roots/list_changed":
            for link in session.links.values():
                link.notify(message.method, {})

    def get_or_delete(
        self, connection: Connection, head: RequestHead, caller: Caller, server: ServerId | None
    ) -> Exchange | None:
        version = head.fields.get("mcp-protocol-version", "")
        session_id = head.fields.get("mcp-session-id")
        if version in MODERN_VERSIONS or not session_id:
            connection.plain(405, "use POST", b"allow: POST\r\n")
            return None
        session = self.front.sessions.find(session_id, principal_key(caller), server)
        if session is None:
            connection.plain(404, "session not found; initialize again")
            return None
        if head.method == "DELETE":
            self.front.sessions.end(session)
            connection.respond(204, b"", b"")
            return None
        if self._may_not_act(caller, server) is not None:
            connection.plain(403, "this agent may not act now; an initialize says why")
            return None
        if "text/event-stream" not in head.fields.get("accept", ""):
            connection.plain(406, "accept text/event-stream")
            return None
        if session.stream is not None and session.stream.open:
            connection.plain(409, "this session already has a stream")
            return None
        answer = ClientAnswer(connection, 0, modern=False)
        answer.start_stream()
        answer.keep_alive()
        session.stream = answer
        self.streams[answer] = caller
        for server_id, link in session.links.items():
            self.listen(session, server_id, link)
        return Stream(answer, self)

    def listen(self, session: ClientSession, server: ServerId, link: Link) -> None:
        """Open the server's own standing stream behind the client's, or what stands for it."""
        if server_killed(self.front.pipeline.state.view.snapshot.kills, server):
            return
        before, sink = session.listening.get(server), Standing(self, session, server, link)
        if isinstance(link, LegacyHttpLink) and link.usable:
            session.listening[server] = link.listen(sink)
        elif link.era is Era.MODERN and link.usable:
            session.listening[server] = link.call(listening_for(session, server), sink)
            if before is not None:
                before.cancel()

    def subscribe(
        self, session: ClientSession, server: ServerId, link: Link, method: str, uri: str
    ) -> bool:
        """A legacy client's wish for a modern server.  False if it has too many."""
        mine = session.subscribed.setdefault(server, set())
        if method == "resources/unsubscribe":
            mine.discard(uri)
        elif len(mine) >= SUBSCRIBED_MAX:
            return False
        else:
            mine.add(uri)
        if session.stream is not None and session.stream.open:
            self.listen(session, server, link)
        return True

    def relisten(self, session: ClientSession, server: ServerId, link: Link) -> None:
        stream = session.stream
        if stream is not None and stream.open and link.usable:
            self.front.loop.call_later(_RELISTEN_S, self._relisten, session, server, link)

    def _relisten(self, session: ClientSession, server: ServerId, link: Link) -> None:
        if session.stream is not None and session.stream.open:
            self.listen(session, server, link)

    # ---- subscriptions that the gateway itself serves

    def local(
        self, answer: ClientAnswer, request: Request, caller: Caller, session: ClientSession | None
    ) -> Exchange | None:
        """On the aggregate: changes of the lists, as the gateway sees them; log levels to every server."""
        refused = self._may_not_act(caller, None)
        if refused is not None:
            self._refuse_handshake(answer, request, *refused)
            return Waiting(answer)
        self.front.pipeline.ledger.count("local_" + request.method.replace("/", "_"), None)
        if request.method == "logging/setLevel":
            answer.final(result_message(request.id, b"{}"))
            return None
        wanted = request.params.get("notifications")
        wanted = wanted if isinstance(wanted, dict) else {}
        honored = {key: True for key in KINDS if wanted.get(key) is True}
        meta = {META_SUBSCRIPTION: request.id}
        answer.notification(
            "notifications/subscriptions/acknowledged",
            encode({"notifications": honored, "_meta": meta}),
        )
        self.streams[answer] = caller
        self._local[answer] = (request.id, frozenset(honored))
        return Stream(answer, self)

    def end_stopped(self) -> None:
        """Sessions of agents that are no longer active end with the change that stopped them."""
        agents = self.front.pipeline.state.view.snapshot.agents
        for session in self.front.sessions:
            agent = agents.get(AgentId(session.principal.partition("/")[0]))
            if agent is None or agent.lifecycle is not Lifecycle.ACTIVE:
                self.front.sessions.end(session)
        self._end_unproven()

    def _end_unproven(self) -> None:
        """What stands open ends when the credential that opened it is revoked, unbound or over."""
        stands = self.front.pipeline.stands
        for answer, caller in list(self.streams.items()):
            if answer.open and not stands(caller):
                del self.streams[answer]
                answer.end_stream()
        for call in list(self.front.calls):
            if call.request.method == LISTEN and not stands(call.access.caller):
                call.give_up("credential_ended")

    def lists_changed(self) -> None:
        """Registry or policy changed: what a principal may see may have changed too."""
        for answer, (request_id, kinds) in list(self._local.items()):
            if not answer.open:
                del self._local[answer]
                continue
            for kind in kinds:
                params = encode({"_meta": {META_SUBSCRIPTION: request_id}})
                answer.event(notification_message(KINDS[kind], params))
        for session in self.front.sessions:
            if session.stream is not None and session.stream.open:
                for method in KINDS.values():
                    session.stream.event(notification_message(method, b"{}"))

    def unbound(self, server: ServerId, principal: str, message: Incoming) -> None:
        """A server on stdio says something outside of any call: to its principal's streams."""
        method = str(message.method)
        if method not in SERVER_NOTIFICATIONS:
            self.front.pipeline.ledger.count("server_notification_unknown", None)
            return
        if server_killed(self.front.pipeline.state.view.snapshot.kills, server):
            return
        told = self.front.afterwards.clean(principal, server, method, raw_bytes(message.params))
        if told is None:
            return
        params = told
        upstream = self.front.upstreams.servers.get(server)
        for link in upstream.links_of(principal) if upstream is not None else ():
            self.heard.said(link, method, params)
        event = notification_message(method, params)
        for session in self.front.sessions:
            if session.principal != principal or server not in session.links:
                continue
            if method == CANCELLED:
                self.front.asks.withdrawn(session, session.links[server], params)
            elif session.stream:
                session.stream.event(event)

    def withdrawn(self, session: ClientSession, link: Link, params: bytes) -> None:
        self.front.asks.withdrawn(session, link, params)

    def refuse(self, link: Link, request_id: RequestId, method: str) -> None:
        """A question that belongs to no call has no action that it could be decided with."""
        self.front.pipeline.ledger.count("server_request_unbound", {"method": method[:64]})
        text = f"{method[:64]} must belong to a request of the client"
        link.reply(request_id, error_message(request_id, error_body(-32601, text)))

    # ---- time

    def keep_alive(self) -> None:
        self._end_unproven()
        for answer in list(self.streams):
            if answer.open:
                answer.keep_alive()
            else:
                self.streams.pop(answer, None)

    def close(self) -> None:
        for answer in list(self.streams):
            answer.end_stream()

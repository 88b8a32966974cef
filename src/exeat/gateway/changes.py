"""Changes of lists and resources, told across eras (GW-4).

A legacy client has one standing stream and subscribes to resources one by one; a modern one says with
``subscriptions/listen`` what it wants to hear.  Each is given the other's: a modern server is listened
to for a legacy session, and a legacy server's standing stream serves the modern client's listening.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from exeat.core.ids import ServerId
from exeat.evidence.model import Status
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Handle, Link, Outbound
from exeat.gateway.link_http import LegacyHttpLink
from exeat.gateway.link_stdio import StdioLink
from exeat.gateway.methods import META_SUBSCRIPTION, Era
from exeat.gateway.outbound import own_request
from exeat.gateway.pipeline import Enforced
from exeat.gateway.routes import strings
from exeat.gateway.sessions import ClientSession
from exeat.gateway.wire import encode, params_of, result_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.clients import Clients

SUBSCRIBED_MAX: Final = 256
"""Resources of one server that one client wants to hear of."""
SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
UPDATED: Final = "notifications/resources/updated"
LISTEN: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
KINDS: Final[Mapping[str, str]] = {
    "toolsListChanged": "notifications/tools/list_changed",
    "promptsListChanged": "notifications/prompts/list_changed",
    "resourcesListChanged": "notifications/resources/list_changed",
}


def listening_for(session: ClientSession, server: ServerId) -> Outbound:
    """What a legacy session hears unasked or has subscribed to, as a modern server is asked for it."""
    wanted: dict[str, Any] = dict.fromkeys(KINDS, True)
    if session.subscribed.get(server):
        wanted["resourceSubscriptions"] = sorted(session.subscribed[server])
    return own_request(Era.MODERN, session.ask_id(), LISTEN, {"notifications": wanted})


def legacy_params(params: dict[str, Any]) -> dict[str, Any]:
    """Without the id of a subscription that the client knows nothing of."""
    meta = {k: v for k, v in params.pop("_meta", {}).items() if k != META_SUBSCRIPTION}
    return {**params, "_meta": meta} if meta else params


@dataclass(eq=False, slots=True)
class Listening:
    """A modern client's open request at a legacy server; a ``Handle`` to its call."""

    heard: "Heard"
    call: "Call"
    kinds: frozenset[str]
    uris: set[str] = field(default_factory=set)

    def tell(self, method: str, raw: bytes) -> None:
        if method == KINDS["toolsListChanged"]:
            self.call.route.upstream.said_changed()
        told: dict[str, Any] = {"_meta": {META_SUBSCRIPTION: self.call.request.id}}
        if method == UPDATED:
            told["uri"] = uri = (params_of(raw) or {}).get("uri")
            if not isinstance(uri, str) or uri not in self.uris:
                return
        elif method not in self.kinds:
            return
        self.call.answer.notification(method, encode(told))

    def cancel(self) -> None:
        self.heard.ended(self)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Heard:
    """What legacy servers say outside of any call, for all who listen on the same link."""

    def __init__(self, clients: "Clients") -> None:
        self._clients = clients
        self._open: dict[Link, list[Listening]] = {}
        self._streams: dict[Link, Handle] = {}

    def listen(self, call: "Call", link: Link) -> Listening:
        """Acknowledged is what can be heard there: changes of lists, and of those resources that the
        client may subscribe to, each decided and on record, and that the server grants."""
        asked = call.request.params.get("notifications")
        wanted = asked if isinstance(asked, dict) else {}
        honored = [key for key in KINDS if wanted.get(key) is True]
        mine = Listening(self, call, frozenset(KINDS[key] for key in honored))
        self._open.setdefault(link, []).append(mine)
        if isinstance(link, LegacyHttpLink) and link not in self._streams:
            self._streams[link] = link.listen(_Stream(self, link, self._clients))
        elif isinstance(link, StdioLink):
            link.on_down = lambda _: self.broke(link)
        uris = wanted.get("resourceSubscriptions")
        self._subscribe(mine, link, list(strings(uris if isinstance(uris, list) else ())), honored)
        return mine

    def _subscribe(self, mine: Listening, link: Link, uris: list[str], honored: list[str]) -> None:
        """One after the other; then the acknowledgement."""
        call, front = mine.call, self._clients.front
        if not uris or len(mine.uris) >= SUBSCRIBED_MAX:
            self._acknowledge(mine, honored)
            return
        uri, *rest = uris
        access = front.asks.question_of(call, SUBSCRIBE, {"uri": uri})

        def then(enforced: Enforced) -> None:
            def granted(status: Status) -> None:
                front.pipeline.outcome(enforced, status)
                if status == "ok":
                    mine.uris.add(uri)
                self._subscribe(mine, link, rest, honored)

            if not enforced.permitted:
                self._subscribe(mine, link, rest, honored)
            elif not call.answer.open:
                front.pipeline.outcome(enforced, "failed", cause="client_gone")
            else:
                outbound = Outbound("exeat-subscribe", SUBSCRIBE, {"uri": uri}, uri)
                link.call(outbound, _Granting(granted))

        front.pipeline.submit(replace(access, target=uri), call.route.run, link.isolation, then)

    def _acknowledge(self, mine: Listening, honored: list[str]) -> None:
        told: dict[str, Any] = dict.fromkeys(honored, True)
        if mine.uris:
            told["resourceSubscriptions"] = sorted(mine.uris)
        meta = {META_SUBSCRIPTION: mine.call.request.id}
        params = encode({"notifications": told, "_meta": meta})
        mine.call.answer.notification(ACKNOWLEDGED, params)

    def said(self, link: Link, method: str, params: bytes) -> None:
        for each in list(self._open.get(link, ())):
            each.tell(method, params)

    def ended(self, gone: Listening) -> None:
        for link, mine in list(self._open.items()):
            if gone in mine:
                mine.remove(gone)
                for uri in gone.uris.difference(*(each.uris for each in mine)):
                    outbound = Outbound("exeat-unsubscribe", UNSUBSCRIBE, {"uri": uri}, uri)
                    link.call(outbound, _Granting(lambda _: None))
            if not mine:
                del self._open[link]
                stream = self._streams.pop(link, None)
                if stream is not None:
                    stream.cancel()

    def broke(self, link: Link) -> None:
        """The stream is gone: who listened is told by the end of its own, and comes again."""
        self._streams.pop(link, None)
        for each in self._open.pop(link, []):
            each.call.link_failed("ended its stream of notifications", sent=True)


class _Granting:
    """Sink of one subscription at a legacy server: ``then`` is told how it ended."""

    def __init__(self, then: Callable[[Status], None]) -> None:
        self._then = then

    def link_notification(self, method: str, params: bytes) -> None: ...

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None: ...

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None:
        self._then("ok")

    def link_result(self, result: bytes) -> None:
        self._then("ok")

    def link_error(self, error: bytes, status: int) -> None:
        self._then("rpc_error")

    def link_failed(self, reason: str, *, sent: bool) -> None:
        self._then("unknown" if sent else "failed")


class _Stream:
    """Sink of a legacy server's standing stream."""

    def __init__(self, heard: Heard, link: LegacyHttpLink, clients: "Clients") -> None:
        self._heard, self._link, self._clients = heard, link, clients

    def link_notification(self, method: str, params: bytes) -> None:
        self._heard.said(self._link, method, params)

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        if method == "ping":
            self._link.reply(request_id, result_message(request_id, b"{}"))
        else:
            self._clients.refuse(self._link, request_id, method)

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None: ...

    def link_result(self, result: bytes) -> None: ...

    def link_error(self, error: bytes, status: int) -> None: ...

    def link_failed(self, reason: str, *, sent: bool) -> None:
        if "HTTP status 405" not in reason:  # a server that says nothing unasked is as good
            self._heard.broke(self._link)

"""Changes of lists and resources, told across eras (GW-4).

A legacy client has one standing stream and subscribes to resources one by one; a modern one says with
``subscriptions/listen`` what it wants to hear.  Each is given the other's: a modern server is listened
to for a legacy session, and a legacy server's standing stream serves the modern client's listening.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exeat.core.ids import ServerId
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Handle, Link, Outbound
from exeat.gateway.link_http import LegacyHttpLink
from exeat.gateway.link_stdio import StdioLink
from exeat.gateway.methods import META_SUBSCRIPTION, Era
from exeat.gateway.outbound import own_request
from exeat.gateway.sessions import ClientSession
from exeat.gateway.wire import encode, result_message

if TYPE_CHECKING:
    from exeat.gateway.call import Call
    from exeat.gateway.clients import Clients

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

    def tell(self, method: str) -> None:
        if method == KINDS["toolsListChanged"]:
            self.call.route.upstream.said_changed()
        if method in self.kinds and self.call.answer.open:
            named = {"_meta": {META_SUBSCRIPTION: self.call.request.id}}
            self.call.answer.notification(method, encode(named))

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
        """Acknowledge what can be heard there: changes of lists.  Resources are not among it."""
        asked = call.request.params.get("notifications")
        wanted = asked if isinstance(asked, dict) else {}
        honored = [key for key in KINDS if wanted.get(key) is True]
        mine = Listening(self, call, frozenset(KINDS[key] for key in honored))
        call.answer.notification(
            ACKNOWLEDGED,
            encode(
                {
                    "notifications": dict.fromkeys(honored, True),
                    "_meta": {META_SUBSCRIPTION: call.request.id},
                }
            ),
        )
        self._open.setdefault(link, []).append(mine)
        if isinstance(link, LegacyHttpLink) and link not in self._streams:
            self._streams[link] = link.listen(_Stream(self, link, self._clients))
        elif isinstance(link, StdioLink):
            link.on_down = lambda _: self.broke(link)
        return mine

    def said(self, link: Link, method: str) -> None:
        for each in list(self._open.get(link, ())):
            each.tell(method)

    def ended(self, gone: Listening) -> None:
        for link, mine in list(self._open.items()):
            if gone in mine:
                mine.remove(gone)
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


class _Stream:
    """Sink of a legacy server's standing stream."""

    def __init__(self, heard: Heard, link: LegacyHttpLink, clients: "Clients") -> None:
        self._heard, self._link, self._clients = heard, link, clients

    def link_notification(self, method: str, params: bytes) -> None:
        self._heard.said(self._link, method)

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

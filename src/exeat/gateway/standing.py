"""Standing streams and handshakes as the edge and the links see them, and what a server says of itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from exeat import __version__
from exeat.core.ids import ServerId
from exeat.gateway.answer import ClientAnswer
from exeat.gateway.changes import ACKNOWLEDGED, legacy_params
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Link
from exeat.gateway.methods import CANCELLED, SERVER_NOTIFICATIONS, Era
from exeat.gateway.sessions import ClientSession
from exeat.gateway.wire import encode, notification_message, params_of, result_message

if TYPE_CHECKING:
    from exeat.gateway.clients import Clients

INFO: Final = {"name": "exeat", "title": "exeat gateway", "version": __version__}


class Stream:
    """The edge's view of a standing stream: gone means closed."""

    def __init__(self, answer: ClientAnswer, clients: "Clients") -> None:
        self.answer = answer
        self._clients = clients

    def client_gone(self) -> None:
        self.answer.gone()
        self._clients.streams.pop(self.answer, None)

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


class Standing:
    """Sink of a server's standing stream, or of what stands for it: notifications go on, questions
    are not served."""

    def __init__(
        self, clients: "Clients", session: ClientSession, server: ServerId, link: Link
    ) -> None:
        self._clients, self._session, self._server, self._link = clients, session, server, link

    def link_notification(self, method: str, params: bytes) -> None:
        stream = self._session.stream
        if self._link.era is Era.MODERN:
            if method in (ACKNOWLEDGED, CANCELLED):
                return
            params = encode(legacy_params(params_of(params) or {}))
        if method == CANCELLED:
            self._clients.withdrawn(self._session, self._link, params)
        elif method in SERVER_NOTIFICATIONS and stream is not None:
            afterwards, principal = self._clients.front.afterwards, self._session.principal
            told = afterwards.clean(principal, self._server, method, params)
            if told is not None:
                stream.event(notification_message(method, told))

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        if method == "ping":
            self._link.reply(request_id, result_message(request_id, b"{}"))
            return
        self._clients.refuse(self._link, request_id, method)

    def link_piece(self, data: bytes) -> None: ...

    def link_result_end(self, result_type: str) -> None: ...

    def link_result(self, result: bytes) -> None:
        self._clients.relisten(self._session, self._server, self._link)

    def link_error(self, error: bytes, status: int) -> None: ...

    def link_failed(self, reason: str, *, sent: bool) -> None:
        if "HTTP status 405" not in reason:
            self._clients.relisten(self._session, self._server, self._link)


def capabilities_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the upstream offers, less what the gateway cannot carry."""
    offered = about.get("capabilities")
    known = {"tools", "prompts", "resources", "completions", "logging"}
    return {
        key: value
        for key, value in (offered.items() if isinstance(offered, dict) else ())
        if key in known and isinstance(value, dict)
    }


def info_of(about: Mapping[str, Any]) -> dict[str, Any]:
    meta = about.get("_meta")
    inner = meta.get("io.modelcontextprotocol/serverInfo") if isinstance(meta, dict) else None
    info = about.get("serverInfo", inner)
    return info if isinstance(info, dict) else dict(INFO)

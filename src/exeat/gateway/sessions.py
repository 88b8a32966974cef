"""Sessions of legacy clients: ids of ours, bound to the principal and the endpoint (GW-13)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from exeat.core.ids import ServerId
from exeat.core.request import Caller
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Handle, Link
from exeat.gateway.link_http import LegacyHttpLink
from exeat.gateway.pipeline import Enforced

if TYPE_CHECKING:
    from exeat.gateway.answer import ClientAnswer
    from exeat.gateway.call import Call
    from exeat.gateway.rounds import Round

SESSIONS_MAX: Final = 10_000
SESSIONS_PER_PRINCIPAL_MAX: Final = 256
IDLE_MAX_S: Final = 3600.0
PENDING_MAX: Final = 64
_ASKABLE: Final = frozenset({"elicitation", "sampling", "roots"})


def principal_key(caller: Caller) -> str:
    """Agent × user: who a session, a process and a run belong to."""
    return f"{caller.agent.id}/{caller.user.id if caller.user is not None else '-'}"


@dataclass(slots=True)
class Asked:
    """A question of a server that the client has been given, on ``answer``, and has not answered.

    ``link``: who gets the answer (legacy); else ``round``, where ``id`` is the question's key."""

    link: Link | None
    id: RequestId
    enforced: Enforced
    answer: "ClientAnswer"
    round: "Round | None" = None


@dataclass(slots=True, eq=False)
class ClientSession:
    """``endpoint``: the server of a per-server endpoint, or None for the aggregate."""

    id: str
    principal: str
    endpoint: ServerId | None
    version: str
    capabilities: dict[str, Any]
    client: Any
    used_at: float
    links: dict[ServerId, Link] = field(default_factory=dict)
    calls: dict[RequestId, "Call"] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    stream: "ClientAnswer | None" = None
    listening: dict[ServerId, Handle] = field(default_factory=dict)
    subscribed: dict[ServerId, set[str]] = field(default_factory=dict)
    """Resources of modern servers that the client wants to hear of."""
    log_level: str = ""
    """As the client set it, for modern servers, which are told with each request."""
    last_asked: int = 0

    @property
    def offers(self) -> dict[str, Any]:
        """What a server may ask this client for."""
        return {key: value for key, value in self.capabilities.items() if key in _ASKABLE}

    def ask_id(self) -> str:
        """The id under which a server's question goes to the client."""
        self.last_asked += 1
        return f"exeat-{self.last_asked}"

    def close(self) -> None:
        for handle in self.listening.values():
            handle.cancel()
        self.listening.clear()
        for call in list(self.calls.values()):
            call.give_up("session_closed")
        if self.stream is not None:
            self.stream.end_stream()
        for link in self.links.values():
            if isinstance(link, LegacyHttpLink):
                link.close()


class Sessions:
    """All open sessions; bounded, and dropped when idle."""

    def __init__(self, new_id: Callable[[], str], now: Callable[[], float]) -> None:
        self._new_id = new_id
        self._now = now
        self._open: dict[str, ClientSession] = {}

    def open(
        self, principal: str, endpoint: ServerId | None, version: str, params: dict[str, Any]
    ) -> ClientSession:
        mine = [each for each in self._open.values() if each.principal == principal]
        if len(mine) >= SESSIONS_PER_PRINCIPAL_MAX or len(self._open) >= SESSIONS_MAX:
            self._drop(min(mine or self._open.values(), key=lambda each: each.used_at))
        capabilities = params.get("capabilities")
        session = ClientSession(
            self._new_id(),
            principal,
            endpoint,
            version,
            capabilities if isinstance(capabilities, dict) else {},
            params.get("clientInfo"),
            self._now(),
        )
        self._open[session.id] = session
        return session

    def find(
        self, session_id: str, principal: str, endpoint: ServerId | None
    ) -> ClientSession | None:
        """None if unknown, or another's, or of another endpoint: these are not told apart."""
        session = self._open.get(session_id)
        if session is None or session.principal != principal or session.endpoint != endpoint:
            return None
        session.used_at = self._now()
        return session

    def end(self, session: ClientSession) -> None:
        self._drop(session)

    def _drop(self, session: ClientSession) -> None:
        self._open.pop(session.id, None)
        session.close()

    def sweep(self) -> None:
        oldest = self._now() - IDLE_MAX_S
        for session in [s for s in self._open.values() if s.used_at < oldest and s.stream is None]:
            self._drop(session)

    def __iter__(self) -> "Any":
        return iter(list(self._open.values()))

    def close(self) -> None:
        for session in list(self._open.values()):
            self._drop(session)

"""Endpoints, and who may come in: from a head to a door, and the answers to whoever may not (ID-1, ID-2).

The metadata of RFC 9728 and every challenge name the endpoint as the client addressed it, or under the
gateway's public URL: a token is for exactly that resource (RFC 8707).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from exeat.core.ids import ServerId
from exeat.core.request import Caller
from exeat.gateway.authority import SCOPES
from exeat.gateway.connection import Connection
from exeat.gateway.credentials import Credentials, Found
from exeat.gateway.handover import Handover
from exeat.gateway.http1 import CACHED_HEAD_BYTES, RequestHead
from exeat.gateway.inbound import check_http
from exeat.gateway.methods import MODERN_VERSIONS
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.routes import Router
from exeat.gateway.settings import GatewaySettings
from exeat.gateway.wire import encode, error_body, error_message
from exeat.identity.dpop import ALGORITHMS
from exeat.identity.model.token import Flaw, Refused

DOORS_MAX: Final = 4096
METADATA: Final = "/.well-known/oauth-protected-resource"
UNAUTHENTICATED: Final = -31401
UNAVAILABLE: Final = -31504
_JSON: Final = b"application/json"
_NO_ENDPOINT: Final = "no such endpoint; MCP is served at /mcp and /mcp/SERVER"
_NO_REGISTRATION: Final = (
    "clients cannot register themselves now; if they sign in at exeat, an admin opens that with"
    " `exeat client open --minutes 5`, then sign in again"
)
"""Where SDKs ask whose authorization server names no registration endpoint: at the MCP server."""
_DPOP: Final = frozenset({Flaw.PROOF})


@dataclass(frozen=True, slots=True)
class Door:
    """A head that may come in: to which server (None: the aggregate), under which URL, with which
    credential.  ``checked``: the ladder's first rung is passed.  ``owner``: another worker has its
    session."""

    server: ServerId | None
    resource: str
    authorization: str | None
    checked: bool
    owner: str = ""


class Doors:
    """Heads come again and again, so doors are kept by the head's identity, within a bound."""

    def __init__(
        self,
        settings: GatewaySettings,
        router: Router,
        credentials: Credentials,
        pipeline: Pipeline,
        clock: Callable[[], int],
        handover: Handover | None,
    ) -> None:
        self._settings, self._router = settings, router
        self._credentials, self._pipeline = credentials, pipeline
        self._clock, self._handover = clock, handover
        self._kept: dict[RequestHead, Door] = {}

    def find(self, connection: Connection, head: RequestHead) -> Door | None:
        """None: answered already."""
        return self._kept.get(head) or self._make(connection, head)

    def caller(self, connection: Connection, head: RequestHead, door: Door) -> Found:
        return self._credentials.caller(
            door.authorization, door.resource, head, connection, self._clock()
        )

    def admits(self, connection: Connection, head: RequestHead, door: Door) -> Found:
        return self._credentials.admits(
            door.authorization, door.resource, head, connection, self._clock()
        )

    def _make(self, connection: Connection, head: RequestHead) -> Door | None:
        """What the head alone decides."""
        settings = self._settings
        refused = settings.refuses(head.fields)
        if refused:
            self._pipeline.ledger.count("host_or_origin_refused", None)
            connection.plain(403, refused)
            return None
        endpoint = self._router.endpoint(head.path)
        if endpoint is None:
            self._other_path(connection, head)
            return None
        if head.method not in ("POST", "GET", "DELETE"):
            connection.plain(405, "use POST", b"allow: POST, GET, DELETE\r\n")
            return None
        checked = head.method == "POST" and check_http(head.fields) is None
        owner = ""  # only a legacy session lives anywhere
        legacy = head.fields.get("mcp-protocol-version") not in MODERN_VERSIONS
        if self._handover is not None and legacy:
            owner = self._handover.owner(head.fields.get("mcp-session-id", ""))
        resource = settings.base(head.fields) + _path(endpoint.server)
        door = Door(endpoint.server, resource, head.fields.get("authorization"), checked, owner)
        if head.size <= CACHED_HEAD_BYTES:
            if len(self._kept) >= DOORS_MAX:
                self._kept.clear()
            self._kept[head] = door
        return door

    def _other_path(self, connection: Connection, head: RequestHead) -> None:
        get = head.method == "GET"
        if get and head.path.startswith(METADATA):
            self._metadata(connection, head)
        elif head.path == "/healthz" and get:
            connection.plain(200, "ok")
        elif head.path == "/readyz" and get:
            ready = self._pipeline.state.fresh
            connection.plain(200 if ready else 503, "ready" if ready else "state unconfirmed")
        else:
            connection.plain(404, _NO_REGISTRATION if head.path == "/register" else _NO_ENDPOINT)

    def _metadata(self, connection: Connection, head: RequestHead) -> None:
        """RFC 9728 section 3.1: the path of the resource follows the well-known one.  The same for a
        server that does not exist (GW-8)."""
        endpoint = self._router.endpoint(head.path[len(METADATA) :])
        if endpoint is None:
            connection.plain(404, f"no such resource; ask for {METADATA}/mcp or /mcp/SERVER")
            return
        settings = self._settings
        resource = settings.base(head.fields) + _path(endpoint.server)
        document: dict[str, object] = {
            "resource": resource,
            "authorization_servers": list(settings.authorization_servers),
            "scopes_supported": list(SCOPES),
            "bearer_methods_supported": ["header"],
            "resource_name": f"exeat: {endpoint.server or 'all servers'}",
            "dpop_signing_alg_values_supported": list(ALGORITHMS),
        }
        if settings.client_certificates:
            document["tls_client_certificate_bound_access_tokens"] = True
        connection.respond(200, _JSON, encode(document), b"cache-control: max-age=300\r\n")

    # ---- refusals

    def refuse(self, connection: Connection, head: RequestHead, found: Refused | None) -> None:
        """401 with where to get a token and for what (RFC 6750, RFC 9728 section 5.1); 503 if the
        token may be good and nobody can say."""
        given = "authorization" in head.fields
        why = found.flaw.value if found is not None else "unknown" if given else "none"
        self._pipeline.ledger.count("unauthenticated", {"path": head.path[:128], "credential": why})
        says = found.says if found is not None else "The credential is not known"
        if found is not None and found.flaw is Flaw.UNREACHABLE:
            data = {"reason": "issuer_unreachable", "remedy": "try again shortly"}
            body = error_message(None, error_body(UNAVAILABLE, f"Unauthenticated: {says}", data))
            connection.respond(503, _JSON, body, b"retry-after: 5\r\n")
            return
        sentence = says if given else "this endpoint needs a bearer token"
        data = {
            "reason": "unauthenticated",
            "remedy": "sign in as the challenge says, or ask the agent's owner for a key",
        }
        body = error_message(
            None, error_body(UNAUTHENTICATED, f"Unauthenticated: {sentence}", data)
        )
        fields = ['realm="exeat"']
        if given:
            fields += ['error="invalid_token"', f'error_description="{says}"']
        lines = self.challenge(head, fields, SCOPES)
        if found is not None and found.flaw in _DPOP:
            lines += f'www-authenticate: DPoP algs="{" ".join(ALGORITHMS)}"\r\n'.encode("ascii")
        connection.respond(401, _JSON, body, lines)

    def challenge(self, head: RequestHead, fields: list[str], scopes: tuple[str, ...]) -> bytes:
        base, endpoint = self._settings.base(head.fields), self._router.endpoint(head.path)
        where = base + METADATA + _path(endpoint.server if endpoint is not None else None)
        said = [*fields, f'resource_metadata="{where}"', f'scope="{" ".join(scopes)}"']
        return f"www-authenticate: Bearer {', '.join(said)}\r\n".encode("ascii")

    def too_little_scope(self, head: RequestHead, needed: frozenset[str], caller: Caller) -> bytes:
        """ID-2: header lines of the 403, with every scope of the operation and those that the token
        has, so that the next one has all."""
        held = caller.token.scopes if caller.token is not None else None
        scopes = sorted((needed | (held or frozenset())) & frozenset(SCOPES) | needed)
        says = "The operation needs more scope than the token has"
        fields = ['error="insufficient_scope"', f'error_description="{says}"']
        return self.challenge(head, fields, tuple(scopes))


def _path(server: ServerId | None) -> str:
    return "/mcp" if server is None else f"/mcp/{server}"

"""ASGI middleware in front of an MCP endpoint over HTTP: no tools/call without a permit (ID-11).

What passes without one: every other method (lists, handshakes, notifications, answers to questions of
the server), GET and DELETE.  What is refused whatever it asks for, because server and middleware could read
it differently: a body that is no single JSON object in UTF-8, a member that comes twice, a compressed
body, a batch, an upgrade to WebSocket.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from exeat.permit.keys import Keys
from exeat.permit.seen import Seen
from exeat.permit.token import Permit, PermitRefused, Refusal, parse_object
from exeat.permit.verify import LEEWAY_S, verify_call

HEADER: Final = "Exeat-Permit"
SCOPE_KEY: Final = "exeat.permit"
"""Where the application finds the ``Permit`` of a tools/call in its ASGI scope."""
BODY_MAX_BYTES: Final = 4 * 1024 * 1024
REFUSED: Final = -31403
"""The JSON-RPC error code of a refusal."""
_FIELD: Final = HEADER.lower().encode("ascii")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Definitions = Mapping[str, str]


class _Gone(Exception):
    """The client left before its request was whole."""


class PermitRequired:
    """``keys``: see ``load_keys``.  ``audience``: what the server is registered with at the gateway.
    ``definitions``: tool → ``definition_digest``, so that a permit for another definition is refused."""

    def __init__(
        self,
        app: App,
        *,
        keys: Keys,
        audience: str,
        definitions: Definitions | None = None,
        seen: Seen | None = None,
        body_max_bytes: int = BODY_MAX_BYTES,
        leeway_s: float = LEEWAY_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._keys, self._audience, self._definitions = keys, audience, definitions
        self._seen = Seen() if seen is None else seen
        self._body_max_bytes, self._leeway_s, self._clock = body_max_bytes, leeway_s, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        request_id: Any = None
        try:
            body = await self._body(scope, receive)
            message = _message(body)
            request_id = message.get("id")
            if message.get("method") == "tools/call":
                scope = {**scope, SCOPE_KEY: self._verified(scope, message)}
        except PermitRefused as refused:
            await _refuse(send, request_id, refused)
        except _Gone:
            return
        else:
            await self._app(scope, _again(body, receive), send)

    def _verified(self, scope: Scope, message: Mapping[str, Any]) -> Permit:
        fields = [value for name, value in scope["headers"] if name.lower() == _FIELD]
        params = message.get("params")
        if len(fields) != 1:
            raise PermitRefused(Refusal.MISSING, f"The call needs one permit, in {HEADER}.")
        if type(params) is not dict:
            raise PermitRefused(Refusal.MALFORMED, "The call has no params.")
        definition = None
        if self._definitions is not None:
            definition = self._definitions.get(str(params.get("name")), "unknown")
        return verify_call(
            params,
            permit=fields[0].decode("latin-1"),
            keys=self._keys,
            audience=self._audience,
            seen=self._seen,
            definition=definition,
            now=self._clock(),
            leeway_s=self._leeway_s,
        )

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if any(name.lower() == b"content-encoding" for name, _ in scope["headers"]):
            raise PermitRefused(Refusal.MALFORMED, "A compressed body is not accepted.")
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size > self._body_max_bytes:
                raise PermitRefused(
                    Refusal.MALFORMED, f"The body is larger than {self._body_max_bytes} bytes."
                )
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)


def _message(body: bytes) -> dict[str, Any]:
    try:
        return parse_object(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise PermitRefused(
            Refusal.MALFORMED, "The body is not one JSON object in UTF-8 with every member once."
        ) from None


def _again(body: bytes, receive: Receive) -> Receive:
    """The body for the application, unchanged; then what comes after it."""
    given = False

    async def once() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once


async def _refuse(send: Send, request_id: Any, refused: PermitRefused) -> None:
    known = request_id if type(request_id) in (str, int) else None
    error = {
        "code": REFUSED,
        "message": f"Refused: {refused}",
        "data": {"reason": refused.reason.value},
    }
    body = json.dumps({"jsonrpc": "2.0", "id": known, "error": error}).encode("ascii")
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 403, "headers": fields})
    await send({"type": "http.response.body", "body": body})

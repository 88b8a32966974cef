"""The inbound ladder: head and body in, one message or the first rejection out.  Pure (GW-2).

Rungs, in order; the first failure wins:

1. the method, content type and accepted types of HTTP
2. one strict parse of the body (duplicate names, UTF-8, depth, numbers)
3. one JSON-RPC object, no batch (2025-06-18 removed batches), well-formed id and method
4. the era: a modern version in the header or in ``params._meta`` makes the request modern
5. modern: routing fields once each, envelope present, header equal to body, version served
   (2026-07-28, Transports and Basic; codes −32020, −32602, −32022)
6. the shape of what is decided upon: params, name, uri, arguments
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.strictjson import MalformedJson
from exeat.gateway.fastjson import parse
from exeat.gateway.http1 import RequestHead
from exeat.gateway.methods import (
    CLIENT_METHODS,
    LEGACY_DEFAULT,
    LEGACY_VERSIONS,
    MEMBERS,
    META_CAPABILITIES,
    META_VERSION,
    MODERN_VERSIONS,
    NAME_KEY,
    TARGET_KEY,
    Era,
)

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
HEADER_MISMATCH: Final = -32020
UNSUPPORTED_VERSION: Final = -32022
ID_MAX_CHARACTERS: Final = 256
METHOD_MAX_CHARACTERS: Final = 128
NAME_MAX_CHARACTERS: Final = 2048

RequestId = str | int
Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejection:
    """The first rung that failed.  ``id`` None: it could not be read, or the message had none."""

    status: int
    code: int
    message: str
    id: RequestId | None = None
    data: Any = None


@dataclass(slots=True)
class Request:
    """One JSON-RPC request.  ``params`` is without ``_meta``; ``meta`` is what stood there.

    ``target``: tool or prompt name, resource URI, or empty.
    """

    era: Era
    version: str
    id: RequestId
    method: str
    params: Params
    meta: Params
    target: str


@dataclass(frozen=True, slots=True)
class Notification:
    era: Era
    version: str
    method: str
    params: Params


@dataclass(frozen=True, slots=True)
class Response:
    """A client's answer to a request of the server (legacy only)."""

    id: RequestId
    result: Params | None
    error: Params | None


Message = Request | Notification | Response


def read_post(head: RequestHead, body: bytes) -> Message | Rejection:
    """Run the ladder over one POST."""
    return check_http(head.fields) or read_body(head, body)


def read_body(head: RequestHead, body: bytes) -> Message | Rejection:
    """The ladder above its first rung, for a head that passed ``check_http``."""
    fields = head.fields
    try:
        message = parse(body)
    except MalformedJson as broken:
        return Rejection(400, PARSE_ERROR, f"Parse error: {broken}")
    if type(message) is not dict:
        return Rejection(
            400,
            INVALID_REQUEST,
            "The body must be a single JSON-RPC message; batches are not served",
        )
    if message.get("jsonrpc") != "2.0":
        return Rejection(400, INVALID_REQUEST, 'The member "jsonrpc" must be "2.0"')
    method = message.get("method")
    if method is None:
        return _read_response(message, fields)
    if type(method) is not str or not 0 < len(method) <= METHOD_MAX_CHARACTERS:
        return Rejection(400, INVALID_REQUEST, 'The member "method" must be a short string')
    if "id" in message:
        request_id = message["id"]
        if not valid_id(request_id):
            return Rejection(400, INVALID_REQUEST, 'The member "id" must be a string or an integer')
    else:
        request_id = None
    if "result" in message or "error" in message:
        return Rejection(400, INVALID_REQUEST, "A request has no result and no error", request_id)
    params = message.get("params", {})
    if type(params) is not dict:
        return Rejection(400, INVALID_PARAMS, "params must be an object", request_id)
    if request_id is None:
        return _read_notification(method, params, fields)
    return _read_request(head, request_id, method, params)


def valid_id(value: object) -> bool:
    """JSON-RPC ids as MCP allows them: strings and integers, of bounded size."""
    return type(value) is int or (type(value) is str and len(value) <= ID_MAX_CHARACTERS)


def check_http(fields: Mapping[str, str]) -> Rejection | None:
    """The first rung; it reads nothing but the head."""
    media = fields.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        return Rejection(415, INVALID_REQUEST, "Content-Type must be application/json")
    accept = fields.get("accept", "")
    if accept == "application/json, text/event-stream" or "*/*" in accept:
        return None
    lowered = accept.lower()
    if "application/json" not in lowered or "text/event-stream" not in lowered:
        return Rejection(
            406,
            INVALID_REQUEST,
            "Not Acceptable: Accept must list application/json and text/event-stream",
        )
    return None


def _read_response(message: Params, fields: Mapping[str, str]) -> Response | Rejection:
    if fields.get("mcp-protocol-version") in MODERN_VERSIONS:
        return Rejection(400, INVALID_REQUEST, "Clients send no responses at this revision")
    request_id = message.get("id")
    result, error = message.get("result"), message.get("error")
    if not valid_id(request_id) or (result is None) == (error is None):
        return Rejection(400, INVALID_REQUEST, "Not a JSON-RPC request, notification or response")
    if type(result if error is None else error) is not dict:
        return Rejection(400, INVALID_REQUEST, "result and error must be objects")
    return Response(request_id, result, error)  # type: ignore[arg-type]


def _read_notification(
    method: str, params: Params, fields: Mapping[str, str]
) -> Notification | Rejection:
    version = fields.get("mcp-protocol-version", LEGACY_DEFAULT)
    if version in MODERN_VERSIONS:
        return Notification(Era.MODERN, version, method, params)
    if version not in LEGACY_VERSIONS:
        return _unsupported(version, None)
    return Notification(Era.LEGACY, version, method, params)


def _unsupported(version: str, request_id: RequestId | None) -> Rejection:
    return Rejection(
        400,
        UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        request_id,
        {"supported": [*MODERN_VERSIONS], "requested": version},
    )


def _read_request(
    head: RequestHead, request_id: RequestId, method: str, params: Params
) -> Request | Rejection:
    fields = head.fields
    meta = params.get("_meta", {})
    if type(meta) is not dict:
        return Rejection(400, INVALID_PARAMS, "params._meta must be an object", request_id)
    header_version = fields.get("mcp-protocol-version")
    if header_version in MODERN_VERSIONS or META_VERSION in meta:
        refused = _check_modern(head, request_id, method, params, meta)
        if refused is not None:
            return refused
        era, version = Era.MODERN, str(meta[META_VERSION])
    else:
        era, version = Era.LEGACY, header_version or LEGACY_DEFAULT
        if method != "initialize" and version not in LEGACY_VERSIONS:
            return _unsupported(version, request_id)
        if head.routing_repeated:
            return Rejection(
                400, INVALID_REQUEST, f"{head.routing_repeated} appears more than once", request_id
            )
    bad = _check_shape(method, params) if method in CLIENT_METHODS[era] else ""
    if bad:
        return Rejection(400 if era is Era.MODERN else 200, INVALID_PARAMS, bad, request_id)
    key = TARGET_KEY.get(method)
    target = params.get(key) if key else ""
    members = MEMBERS.get(method)
    if members is None:
        params.pop("_meta", None)
    elif not params.keys() <= members:
        params = {name: params[name] for name in params if name in members}
    named = target if type(target) is str else ""
    return Request(era, version, request_id, method, params, meta, named)


def _check_modern(
    head: RequestHead, request_id: RequestId, method: str, params: Params, meta: Params
) -> Rejection | None:
    """Rung 5, in the order of the reference implementation."""
    fields = head.fields
    if head.routing_repeated:
        return Rejection(
            400,
            HEADER_MISMATCH,
            f"{head.routing_repeated} header appears more than once",
            request_id,
        )
    missing = [key for key in (META_VERSION, META_CAPABILITIES) if key not in meta]
    if missing:
        return Rejection(
            400, INVALID_PARAMS, f"params._meta lacks the required {', '.join(missing)}", request_id
        )
    version = meta[META_VERSION]
    header = fields.get("mcp-protocol-version")
    if header is None or header != version:  # an absent header does not equal a null in the body
        return Rejection(
            400,
            HEADER_MISMATCH,
            "mcp-protocol-version header does not match the request's protocol version",
            request_id,
        )
    if fields.get("mcp-method") != method:
        return Rejection(
            400,
            HEADER_MISMATCH,
            "mcp-method header does not match the request's method",
            request_id,
        )
    key = NAME_KEY.get(method)
    if key is not None:
        named = params.get(key)
        if named is not None and decode_header(fields.get("mcp-name")) != named:
            return Rejection(
                400,
                HEADER_MISMATCH,
                f"mcp-name header does not match the request's {key!r} parameter",
                request_id,
            )
    if version not in MODERN_VERSIONS:
        return _unsupported(str(version), request_id)
    if type(meta[META_CAPABILITIES]) is not dict:
        return Rejection(400, INVALID_PARAMS, f"{META_CAPABILITIES} must be an object", request_id)
    return None


def _check_shape(method: str, params: Params) -> str:
    """What must hold of the parameters that a decision reads; empty if it does."""
    key = TARGET_KEY.get(method)
    if key is not None:
        value = params.get(key)
        if type(value) is not str or not 0 < len(value) <= NAME_MAX_CHARACTERS:
            return f"{method} needs {key!r}: a non-empty string"
    if method in ("tools/call", "prompts/get") and type(params.get("arguments", {})) is not dict:
        return f"{method}: 'arguments' must be an object"
    state = params.get("requestState")
    if state is not None and type(state) is not str:
        return f"{method}: 'requestState' must be a string"
    if type(params.get("inputResponses", {})) is not dict:
        return f"{method}: 'inputResponses' must be an object"
    token = params.get("_meta", {}).get("progressToken")
    if token is not None and not valid_id(token):
        return "progressToken must be a string or an integer"
    return ""


_SENTINEL_START: Final = "=?base64?"
_SENTINEL_END: Final = "?="


def decode_header(value: str | None) -> str | None:
    """The string that an Mcp-Name or Mcp-Param-* value stands for; None if malformed or absent."""
    if value is None or not (value.startswith(_SENTINEL_START) and value.endswith(_SENTINEL_END)):
        return value
    payload = value[len(_SENTINEL_START) : -len(_SENTINEL_END)]
    try:
        decoded = base64.b64decode(payload, validate=True)
        text = decoded.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return text if base64.b64encode(decoded).decode("ascii") == payload else None


def encode_header(value: str) -> str:
    """Inverse of ``decode_header``: plain printable ASCII as it is, anything else in base64."""
    plain = value.isascii() and value.isprintable() and value == value.strip()
    if plain and value and not value.startswith(_SENTINEL_START):
        return value
    return f"{_SENTINEL_START}{base64.b64encode(value.encode()).decode('ascii')}{_SENTINEL_END}"

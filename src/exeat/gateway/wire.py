"""JSON-RPC on the wire: what leaves is serialized here from decided values (GW-2, POL-4).

Fractions are ``Decimal`` and keep every digit.  Messages from an upstream are read into their
parts; results stay raw bytes unless something must look inside.
"""

from typing import Any, Final

import msgspec

from exeat.core.strictjson import MalformedJson, parse
from exeat.gateway.inbound import RequestId, valid_id

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
encode: Final = _ENCODER.encode
"""Any JSON value → UTF-8 bytes.  Raises on lone surrogates, which the strict parse refuses."""

Raw = msgspec.Raw


class Incoming(msgspec.Struct, frozen=True):
    """One JSON-RPC message from an upstream, in its parts."""

    jsonrpc: str
    id: Any = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: Raw | msgspec.UnsetType = msgspec.UNSET
    result: Raw | msgspec.UnsetType = msgspec.UNSET
    error: Raw | msgspec.UnsetType = msgspec.UNSET


class ResultPeek(msgspec.Struct, frozen=True):
    """The two members of a result that the gateway acts on without reading the rest."""

    isError: bool | None = None
    resultType: str | None = None


_INCOMING: Final = msgspec.json.Decoder(Incoming)
_PEEK: Final = msgspec.json.Decoder(ResultPeek)


class Nonsense(ValueError):
    """What the upstream sent is not a JSON-RPC message."""


def read_incoming(data: bytes) -> Incoming:
    """Raises Nonsense."""
    try:
        message = _INCOMING.decode(data)
        if not data.isascii():
            data.decode("utf-8")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Nonsense("not a JSON-RPC message") from None
    if message.jsonrpc != "2.0":
        raise Nonsense("not JSON-RPC 2.0")
    if message.method is msgspec.UNSET:
        if (message.result is msgspec.UNSET) == (message.error is msgspec.UNSET):
            raise Nonsense("neither a result nor an error")
    elif message.id is not msgspec.UNSET and not valid_id(message.id):
        raise Nonsense("a request with a malformed id")
    return message


def params_of(raw: bytes) -> dict[str, Any] | None:
    """Parameters that the gateway itself reads, strictly; None if they are no object."""
    try:
        value = parse(raw)
    except MalformedJson:
        return None
    return value if isinstance(value, dict) else None


def peek(result: bytes) -> ResultPeek:
    """Raises Nonsense if the result is not an object."""
    try:
        return _PEEK.decode(result)
    except (msgspec.MsgspecError, RecursionError):
        raise Nonsense("a result that is not an object") from None


def needs_strict_reading(result: bytes) -> bool:
    """True unless the result plainly is complete: a ``resultType`` that is repeated, in other letters,
    or not exactly ``"complete"``, or any escape that could spell the name, asks for the strict parser."""
    mentions = result.lower().count(b"ulttype")  # behind the s, which has a long form
    if mentions and (mentions > 1 or b'"resultType":"complete"' not in result):
        return True
    return b"\\" in result and b"\\u" in result


def imitates_result_type(name: str) -> bool:
    """Whether a reader that does not mind the case of names (Go's, for one) takes it for ``resultType``."""
    return name != "resultType" and name.casefold() == "resulttype"


def result_message(request_id: RequestId, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(request_id), result)


def error_body(code: int, message: str, data: Any = None) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return encode(error)


def error_message(request_id: RequestId | None, error: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (encode(request_id), error)


def request_message(request_id: RequestId, method: str, params: Any) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (
        encode(request_id),
        encode(method),
        encode(params),
    )


def notification_message(method: str, params: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode(method), params)

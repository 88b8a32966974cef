"""What the bridge reads from its client and says to it (GW-6).  Pure.

The client's bytes go on unchanged: the gateway is the one that parses strictly and decides.
"""

import json
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.errors import UpstreamFailed
from exeat.gateway.inbound import RequestId, encode_header, valid_id
from exeat.gateway.methods import META_VERSION, NAME_KEY
from exeat.gateway.param_headers import Mirrored, mirrored, render
from exeat.gateway.wire import Nonsense, error_body, error_message

_LINE_ENDS_TO_SPACE: Final = bytes.maketrans(b"\r\n", b"  ")
HANDSHAKES: Final = frozenset({"initialize", "server/discover"})


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One line of the client.  ``method`` empty: a response.  ``id`` None: a notification.

    ``version``: the modern revision named in ``params._meta``, empty for a legacy message.
    """

    raw: bytes
    method: str
    id: RequestId | None
    params: dict[str, Any]
    version: str

    @property
    def is_request(self) -> bool:
        return bool(self.method) and self.id is not None


def read_client(line: bytes) -> ClientMessage:
    """Raises Nonsense if the line is not one JSON-RPC message."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise Nonsense("a line that is not JSON") from None
    if not isinstance(message, dict):
        raise Nonsense("a line that is not one JSON-RPC message")
    method, params = message.get("method", ""), message.get("params", {})
    if not isinstance(method, str) or ("id" in message and not valid_id(message["id"])):
        raise Nonsense("a message whose method or id is malformed")
    if not method and not ("result" in message or "error" in message):
        raise Nonsense("a message that is no request, notification or response")
    if not isinstance(params, dict):
        params = {}
    meta = params.get("_meta")
    version = meta.get(META_VERSION, "") if isinstance(meta, dict) else ""
    return ClientMessage(
        line, method, message.get("id"), params, version if isinstance(version, str) else ""
    )


def modern_headers(
    message: ClientMessage, declared: dict[str, tuple[Mirrored, ...]]
) -> dict[str, str]:
    """2026-07-28, Transports: the fields that mirror the body; ``declared``: tool → arguments."""
    headers = {
        "MCP-Protocol-Version": encode_header(message.version),
        "Mcp-Method": encode_header(message.method),
    }
    key = NAME_KEY.get(message.method)
    name = message.params.get(key) if key else None
    if isinstance(name, str):
        headers["Mcp-Name"] = encode_header(name)
        arguments = message.params.get("arguments")
        if message.method == "tools/call" and isinstance(arguments, dict):
            fields = render(declared.get(name, ()), arguments)
            headers.update({field: encode_header(value) for field, value in fields.items()})
    return headers


def declared_by(result: bytes) -> dict[str, tuple[Mirrored, ...]]:
    """tool → the arguments that it wants mirrored, from a tools/list result."""
    try:
        tools = json.loads(result).get("tools", [])
    except (ValueError, AttributeError, RecursionError):
        return {}
    found = {}
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and isinstance(tool.get("inputSchema"), dict):
            found[str(tool.get("name"))] = mirrored(tool["inputSchema"])
    return found


def one_line(data: bytes) -> bytes:
    """JSON without line ends: inside JSON they are only white space (RFC 8259, section 2)."""
    return data.translate(_LINE_ENDS_TO_SPACE)


def failure(
    request_id: RequestId | None, sentence: str, code: int = UpstreamFailed.rpc_code
) -> bytes:
    """The bridge's own answer to a request that got none."""
    return error_message(request_id, error_body(code, sentence))


def refusal(status: int) -> str:
    """What an HTTP status without a JSON-RPC body means to the person at the client."""
    if status == 401:
        return (
            "The gateway does not accept this key (HTTP 401). Check the file named by --key-file,"
            " or EXEAT_KEY; ask for a new key if it has expired."
        )
    if status == 403:
        return "The gateway refuses this key or origin for this address (HTTP 403). Check the URL."
    if status == 404:
        return "The gateway serves no MCP at this address (HTTP 404). Check the URL and its path."
    if 300 <= status < 400:
        return (
            f"The gateway redirects elsewhere (HTTP {status}), and the bridge follows no redirect."
            " Give the bridge the final URL."
        )
    return f"The gateway answered HTTP {status} and no JSON-RPC message. Look at the gateway's log."

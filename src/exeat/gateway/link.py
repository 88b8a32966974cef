"""A link: how one principal's messages reach one upstream, in the upstream's era.

HTTP and stdio links behave alike to a call: it hands over one decided request and is told, in
order, of notifications, requests of the server, and exactly one end: result, error or failure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from exeat.gateway.inbound import RequestId
from exeat.gateway.methods import Era
from exeat.gateway.wire import Incoming


@dataclass(slots=True)
class Outbound:
    """A decided request in the era of its link.  ``target`` is mirrored in Mcp-Name (modern)."""

    id: RequestId
    method: str
    params: dict[str, Any]
    target: str = ""
    param_headers: Mapping[str, str] = field(default_factory=dict)
    permit: str = ""
    """The signed permit for a server that demands one (ID-11)."""
    may_stream: bool = False
    """A result larger than the buffer is passed on in pieces; otherwise it is an error."""
    result_max_bytes: int = 0
    still: Callable[[], bool] | None = None
    """Asked before it is sent once more: is it still permitted?"""


class MessageSink(Protocol):
    """Where the messages of one request go.  One of the last four ends it."""

    def link_notification(self, method: str, params: bytes) -> None: ...

    def link_request(self, request_id: RequestId, method: str, params: bytes) -> None:
        """The server asks something of the client (legacy)."""
        ...

    def link_piece(self, data: bytes) -> None:
        """A part of a large result, in order, before ``link_result_end``."""
        ...

    def link_result_end(self, result_type: str) -> None: ...

    def link_result(self, result: bytes) -> None: ...

    def link_error(self, error: bytes, status: int) -> None: ...

    def link_failed(self, reason: str, *, sent: bool) -> None: ...


class Handle(Protocol):
    """A request under way on a link."""

    def cancel(self) -> None:
        """The client is gone or gave up: tell the upstream; nothing more comes to the sink."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Link(Protocol):
    @property
    def era(self) -> Era: ...

    @property
    def isolation(self) -> str:
        """What stands in evidence about the upstream's process: ``remote``, ``none``, …"""
        ...

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle: ...

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification; nobody waits for it."""
        ...

    def reply(self, request_id: RequestId, payload: bytes) -> None:
        """Answer a request of the server.  ``payload``: the whole message (legacy)."""
        ...

    @property
    def usable(self) -> bool: ...


def raw_bytes(part: object) -> bytes:
    """The bytes of a raw member; an absent one counts as an empty object."""
    return b"{}" if part is msgspec.UNSET else bytes(part)  # type: ignore[call-overload]


def deliver(sink: MessageSink, message: Incoming, expected: RequestId, status: int = 200) -> bool:
    """Hand one message to its sink; True if it ended the request.  An answer counts only if its id
    equals the request's in value and type; an error without id is believed, since it denies."""
    method = message.method
    if type(method) is str:
        if message.id is msgspec.UNSET:
            sink.link_notification(method, raw_bytes(message.params))
        else:
            sink.link_request(message.id, method, raw_bytes(message.params))
        return False
    mine = message.id == expected and type(message.id) is type(expected)
    if message.error is not msgspec.UNSET:
        if mine or message.id is None or message.id is msgspec.UNSET:
            sink.link_error(raw_bytes(message.error), status)
        else:
            sink.link_failed("answered for another request", sent=True)
    elif mine:
        sink.link_result(raw_bytes(message.result))
    else:
        sink.link_failed("answered for another request", sent=True)
    return True

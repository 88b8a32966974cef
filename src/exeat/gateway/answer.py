"""The client's side of one request: one JSON answer, an event stream, or a large result in pieces."""

from typing import Final

from exeat.gateway.connection import Connection
from exeat.gateway.http1 import RequestHead
from exeat.gateway.inbound import RequestId
from exeat.gateway.sse import KEEP_ALIVE, render
from exeat.gateway.wire import encode, error_body, error_message, notification_message

JSON: Final = b"application/json"
SSE: Final = b"text/event-stream"
_SSE_EXTRA: Final = b"cache-control: no-cache, no-transform\r\nx-accel-buffering: no\r\n"
MODERN_STATUS: Final = {
    -32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404,
}  # fmt: skip
"""HTTP status of a JSON-RPC error at the modern revision; others are 200."""


class ClientAnswer:
    """Writes to one connection; silent once the client is gone or the answer is complete."""

    __slots__ = (
        "_connection", "_modern", "_pieces", "_streaming", "extra", "head", "request_id",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        request_id: RequestId,
        *,
        modern: bool,
        head: RequestHead | None = None,
    ) -> None:
        self._connection: Connection | None = connection
        self.head = head
        self.request_id = request_id
        self._modern = modern
        self._streaming = False
        self._pieces = False
        self.extra = b""

    @property
    def open(self) -> bool:
        return self._connection is not None

    @property
    def streaming(self) -> bool:
        return self._streaming

    def gone(self) -> None:
        self._connection = None

    def final(self, message: bytes, *, error_code: int = 0) -> None:
        """The last message; ``error_code`` picks the HTTP status where the era has one."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pieces:
            connection.abort()
        elif self._streaming:
            connection.piece(render(message))
            connection.finish()
        else:
            status = MODERN_STATUS.get(error_code, 200) if self._modern and error_code else 200
            connection.respond(status, JSON, message, self.extra)

    def forbidden(self, message: bytes, lines: bytes) -> None:
        """403 with a challenge, if the head of the answer is still ours to choose."""
        if self._streaming or self._pieces:
            self.final(message)
            return
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.respond(403, JSON, message, self.extra + lines)

    def broke(self) -> None:
        """The gateway itself failed: the client is told so, and nothing of why."""
        error = error_body(-32603, "The gateway failed; the operator has been told why")
        self.final(error_message(self.request_id, error), error_code=-32603)

    def event(self, message: bytes) -> None:
        """A message before the last one: the answer becomes an event stream."""
        connection = self._connection
        if connection is None or self._pieces:
            return
        if not self._streaming:
            self.start_stream()
        connection.piece(render(message))

    def notification(self, method: str, params: bytes) -> None:
        self.event(notification_message(method, params))

    def start_stream(self) -> None:
        if self._connection is not None and not self._streaming and not self._pieces:
            self._streaming = True
            self._connection.start(200, SSE, _SSE_EXTRA + self.extra)

    def keep_alive(self) -> None:
        """A comment, so that nothing between client and gateway thinks the stream dead."""
        if self._connection is None or self._pieces:
            return
        self.start_stream()
        self._connection.piece(KEEP_ALIVE)

    def result_piece(self, data: bytes) -> None:
        """A part of a large result, in order."""
        connection = self._connection
        if connection is None:
            return
        if not self._pieces:
            self._pieces = True
            head = b'{"jsonrpc":"2.0","id":%b,"result":' % encode(self.request_id)
            if self._streaming:
                connection.piece(b"event: message\ndata: " + head)
            else:
                connection.start(200, JSON, self.extra)
                connection.piece(head)
        if self._streaming:
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        connection.piece(data)

    def result_end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.piece(b"}\n\n" if self._streaming else b"}")
            connection.finish()

    def end_stream(self) -> None:
        """End an event stream without a last message."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._streaming:
                connection.finish()
            else:
                connection.abort()


class Waiting:
    """The edge's view of a list or handshake under way: gone means not answered."""

    def __init__(self, answer: ClientAnswer) -> None:
        self._answer = answer

    def client_gone(self) -> None:
        self._answer.gone()

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...

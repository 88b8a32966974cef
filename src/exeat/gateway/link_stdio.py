"""A link over stdio: one child process, one principal (or shared, once confirmed stateless).

Many calls share the pipe, so ids and progress tokens are ours on the upstream's side and are
mapped back; nothing that one call is told can reach another.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from exeat.core.errors import UpstreamFailed
from exeat.gateway.inbound import RequestId
from exeat.gateway.link import Handle, MessageSink, Outbound, deliver, raw_bytes
from exeat.gateway.methods import CANCELLED, META_SUBSCRIPTION, Era
from exeat.gateway.process import StdioProcess
from exeat.gateway.wire import (
    Incoming,
    Nonsense,
    encode,
    error_body,
    error_message,
    notification_message,
    params_of,
    read_incoming,
    request_message,
    result_message,
)
from exeat.permit.verify import META_KEY

NONSENSE_MAX: Final = 100
"""Lines that are no message: a chatty server is tolerated, a flood is not."""


@dataclass(slots=True)
class _Waiting:
    """``id``, ``token``: as the client gave them."""

    sink: MessageSink
    id: RequestId
    token: RequestId | None
    standing: bool = False
    """It only listens: nothing that the server says unasked is about it."""


class StdioLink:
    """``on_unbound``: told of notifications of the server that belong to no call.  ``shared``: the
    process serves several principals."""

    def __init__(self, isolation: str, *, shared: bool = False) -> None:
        self.era = Era.MODERN
        self.isolation = isolation
        self._shared = shared
        self._process: StdioProcess | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0
        self._nonsense = 0
        self._down = ""
        self._stopping: asyncio.Future[None] | None = None
        self.on_unbound: Callable[[Incoming], None] | None = None
        self.on_down: Callable[[str], None] | None = None

    def attach(self, process: StdioProcess) -> None:
        self._process = process

    @property
    def usable(self) -> bool:
        return not self._down and self._process is not None and self._process.alive

    @property
    def down_reason(self) -> str:
        return self._down

    @property
    def busy(self) -> bool:
        return any(not each.standing for each in self._waiting.values())

    # ---- Link

    def call(self, outbound: Outbound, sink: MessageSink) -> Handle:
        self._last += 1
        mine = self._last
        params, token = outbound.params, None
        meta = params.get("_meta")
        if meta is not None and "progressToken" in meta:
            token = meta["progressToken"]
            params = {**params, "_meta": {**meta, "progressToken": mine}}
        if outbound.permit:
            params = {**params, "_meta": {**params.get("_meta", {}), META_KEY: outbound.permit}}
        standing = outbound.method == "subscriptions/listen"
        self._waiting[mine] = _Waiting(sink, outbound.id, token, standing)
        handle = _StdioCall(self, mine)
        try:
            self._send(request_message(mine, outbound.method, params))
        except UpstreamFailed as error:
            self._waiting.pop(mine, None)
            sink.link_failed(str(error), sent=False)
        return handle

    def notify(self, method: str, params: dict[str, Any]) -> None:
        if self.usable:
            with contextlib.suppress(UpstreamFailed):  # nobody waits for it
                self._send(notification_message(method, encode(params)))

    def reply(self, request_id: RequestId, payload: bytes) -> None:
        if self.usable:
            self._send(payload)

    def _send(self, line: bytes) -> None:
        if self._process is None:
            raise UpstreamFailed("the server's process is not running")
        self._process.send(line)

    def give_up(self, mine: int) -> None:
        if self._waiting.pop(mine, None) is not None:
            self.notify(
                "notifications/cancelled", {"requestId": mine, "reason": "the client gave up"}
            )

    # ---- from the process

    def line(self, data: bytes) -> None:
        try:
            message = read_incoming(data)
        except Nonsense:
            self._nonsense += 1
            if self._nonsense > NONSENSE_MAX and self._process is not None:
                self.exited("wrote too many lines that are no JSON-RPC messages")
                self._stopping = asyncio.ensure_future(self._process.stop())
            return
        if type(message.method) is str:
            with contextlib.suppress(UpstreamFailed):  # it asks, and does not read our answers
                self._spoken(message)
            return
        waiting = self._waiting.pop(message.id, None) if type(message.id) is int else None
        if waiting is not None:
            deliver(waiting.sink, message, message.id)

    def _spoken(self, message: Incoming) -> None:
        """A request or notification of the server: to the call that it names, else to nobody's."""
        if message.id is not msgspec.UNSET:
            self._asked(message.id, str(message.method), raw_bytes(message.params))
        elif message.method == "notifications/progress":
            self._progress(message)
        else:
            self._told(message)

    def _asked(self, request_id: RequestId, method: str, params: bytes) -> None:
        """On stdio a question names no call, so it is put to the only one that it can belong to; with
        none or several under way it is refused at once, for the server waits for an answer."""
        sink = self.only_sink()
        if method == "ping":
            self.reply(request_id, result_message(request_id, b"{}"))
        elif sink is not None:
            sink.link_request(request_id, method, params)
        else:
            text = f"{method[:64]} must belong to exactly one request of the client"
            self.reply(request_id, error_message(request_id, error_body(-32601, text)))

    def _told(self, message: Incoming) -> None:
        method, params = str(message.method), params_of(raw_bytes(message.params)) or {}
        if method == CANCELLED and self.era is Era.MODERN:
            self._ended(params)
            return
        meta = params.get("_meta")
        named = meta.get(META_SUBSCRIPTION) if isinstance(meta, dict) else None
        waiting = self._waiting.get(named) if type(named) is int else None
        if waiting is not None and isinstance(meta, dict):
            params["_meta"] = {**meta, META_SUBSCRIPTION: waiting.id}
            waiting.sink.link_notification(method, encode(params))
            return
        sink = self.only_sink() if method == "notifications/message" else None
        if sink is not None:
            sink.link_notification(method, raw_bytes(message.params))
        elif self.on_unbound is not None and not self._shared:
            self.on_unbound(message)

    def _ended(self, params: dict[str, Any]) -> None:
        """A modern server ends a subscription: it can name only a request that it was sent."""
        named = params.get("requestId")
        waiting = self._waiting.get(named) if type(named) is int else None
        if waiting is not None:
            waiting.sink.link_notification(CANCELLED, encode({**params, "requestId": waiting.id}))

    def _progress(self, message: Incoming) -> None:
        params = params_of(raw_bytes(message.params)) or {}
        token = params.get("progressToken")
        waiting = self._waiting.get(token) if type(token) is int else None
        if waiting is not None and waiting.token is not None:
            params["progressToken"] = waiting.token
            waiting.sink.link_notification("notifications/progress", encode(params))

    def only_sink(self) -> MessageSink | None:
        """The sink of the only call under way, if there is exactly one and no other principal's
        call could have been meant."""
        waiting = [each for each in self._waiting.values() if not each.standing]
        return waiting[0].sink if len(waiting) == 1 and not self._shared else None

    def exited(self, reason: str) -> None:
        """GW-5: the end of the process fails its calls; each is told once."""
        self._down = reason
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.sink.link_failed(reason, sent=True)
        if self.on_down is not None:
            self.on_down(reason)

    async def close(self) -> None:
        if self._process is not None:
            await self._process.stop()


class _StdioCall:
    __slots__ = ("_id", "_link")

    def __init__(self, link: StdioLink, mine: int) -> None:
        self._link, self._id = link, mine

    def cancel(self) -> None:
        self._link.give_up(self._id)

    def pause(self) -> None:
        """One pipe serves many calls: a slow client is buffered within its own bounds instead."""

    def resume(self) -> None: ...

"""The load generator: N kept-alive connections, one call in flight on each, every answer checked.

Raw protocol on uvloop, about as cheap as a client in Python can be.  An answer counts only if it is
HTTP 200, carries the id of its request, is no error, and holds the note that was sent.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
_DECODE: Final = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Plan:
    """What to call.  ``era``: MODERN or LEGACY.  ``tools``: called in turn.  ``bearer``: empty = none."""

    host: str
    port: int
    path: str
    era: str
    tools: Sequence[str]
    bearer: str = ""
    session: str = ""
    fresh: bool = False
    """Arguments that no call had before, so that nothing remembered can answer."""
    text_bytes: int = 0
    """Ask for so much text in the result beside the note."""

    def request(self, number: int, note: str) -> bytes:
        """One tools/call of about 0.5 kB."""
        name = self.tools[number % len(self.tools)]
        to = number if self.fresh else number % 50
        arguments = {"to": f"account-{to}", "amount": number % 90 + 1, "note": note}
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        headers = [f"POST {self.path} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        headers += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        headers += [f"MCP-Protocol-Version: {self.era}", "User-Agent: exeat-bench/1"]
        if self.era == MODERN:
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
            }
            headers += ["Mcp-Method: tools/call", f"Mcp-Name: {name}"]
        if self.bearer:
            headers.append(f"Authorization: Bearer {self.bearer}")
        if self.session:
            headers.append(f"Mcp-Session-Id: {self.session}")
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        body = msgspec.json.encode(message)
        headers.append(f"Content-Length: {len(body)}")
        return "\r\n".join(headers).encode() + b"\r\n\r\n" + body


@dataclass(slots=True)
class Tally:
    """What one round saw.  Times in seconds."""

    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    example: str = ""
    began: float = 0.0
    ended: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.latencies) / (self.ended - self.began) if self.ended > self.began else 0.0

    def quantile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


class Connection(asyncio.Protocol):
    """Sends a call, waits for the whole answer, checks it, sends the next until told to stop."""

    def __init__(
        self, plan: Plan, numbers: "itertools.count[int]", done: asyncio.Future[None]
    ) -> None:
        self._plan, self._numbers, self._done = plan, numbers, done
        self._pending = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._number, self._note, self._sent = 0, "", 0.0
        self._transport: asyncio.Transport
        self.tally = Tally()
        self.stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self.tally.wrong += 1
            self.tally.example = f"connection lost: {exc}"
            self._done.set_result(None)

    def _send(self) -> None:
        self._number = next(self._numbers)
        self._note = f"n{self._number:09d}"
        if self._plan.text_bytes:
            self._note += f"+{self._plan.text_bytes}"
        request = self._plan.request(self._number, self._note)
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._plan.text_bytes:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._plan.text_bytes:
                return
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._pending = b""
        self._pending = self._pending + data if self._pending else data
        whole = _body(self._pending)
        if whole is None:
            if self._plan.text_bytes:
                self._parts, self._size = [self._pending], len(self._pending)
            return
        now = time.perf_counter()
        if _right(self._pending, whole, self._number, self._note):
            self.tally.latencies.append(now - self._sent)
        else:
            self.tally.wrong += 1
            self.tally.example = self._pending[:600].decode("utf-8", "replace")
        self._pending = b""
        if self.stopping:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
        else:
            self._send()


def _body(data: bytes) -> bytes | None:
    """The body of one complete answer, or None while it is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, rest = data[:end].lower(), data[end + 4 :]
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        return rest[:length] if len(rest) >= length else None
    if not rest.endswith(b"0\r\n\r\n"):
        return None
    parts: list[bytes] = []
    position = 0
    while (line := rest.find(b"\r\n", position)) >= 0:
        size = int(rest[position:line], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(rest[line + 2 : line + 2 + size])
        position = line + 4 + size
    return None


def _right(data: bytes, body: bytes, number: int, note: str) -> bool:
    if not data.startswith(b"HTTP/1.1 200"):
        return False
    if body[:1] != b"{":
        lines = body.replace(b"\r\n", b"\n").split(b"\n")
        body = next((x[5:] for x in reversed(lines) if x.startswith(b"data:") and len(x) > 6), b"")
    try:
        answer = _DECODE(body)
        text = answer["result"]["content"][0]["text"]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError):
        return False
    more = int(note.partition("+")[2] or 0)
    right = text.startswith(f"paid {note}") and len(text) == len(note) + 5 + more
    return answer["id"] == number and right and not answer["result"].get("isError")


_NUMBERS: Final = itertools.count(1)


async def drive(plan: Plan, connections: int, seconds: float) -> Tally:
    """One round; the tally of all connections together."""
    loop = asyncio.get_running_loop()
    made: list[Connection] = []
    waits: list[asyncio.Future[None]] = []
    began = time.perf_counter()
    for _ in range(connections):
        done = loop.create_future()
        connection = Connection(plan, _NUMBERS, done)
        await loop.create_connection(lambda c=connection: c, plan.host, plan.port)  # type: ignore[misc]
        made.append(connection)
        waits.append(done)
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.ALL_COMPLETED)
    for connection in made:
        connection.stopping = True
    await asyncio.wait(waits, timeout=30)
    ended = time.perf_counter()
    tallies = [connection.tally for connection in made]
    return Tally(
        latencies=list(itertools.chain.from_iterable(tally.latencies for tally in tallies)),
        wrong=sum(tally.wrong for tally in tallies) + sum(not wait.done() for wait in waits),
        example=next((tally.example for tally in tallies if tally.example), ""),
        began=began,
        ended=ended,
    )


async def open_session(plan: Plan) -> str:
    """The legacy handshake; returns the session id, empty if the server gives none."""
    hello = {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    head = await _post(
        plan, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, ""
    )
    found = next((x for x in head.split("\r\n") if x.lower().startswith("mcp-session-id:")), "")
    session = found.partition(":")[2].strip()
    await _post(plan, {"jsonrpc": "2.0", "method": "notifications/initialized"}, session)
    return session


async def _post(plan: Plan, message: dict[str, Any], session: str) -> str:
    reader, writer = await asyncio.open_connection(plan.host, plan.port)
    body = msgspec.json.encode(message)
    lines = [f"POST {plan.path} HTTP/1.1", f"Host: {plan.host}:{plan.port}", "Connection: close"]
    lines += ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
    lines += [f"MCP-Protocol-Version: {LEGACY}", f"Content-Length: {len(body)}"]
    if plan.bearer:
        lines.append(f"Authorization: Bearer {plan.bearer}")
    if session:
        lines.append(f"Mcp-Session-Id: {session}")
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if not head.startswith("HTTP/1.1 20"):
            raise SystemExit(f"the handshake was refused: {head}{(await reader.read(500))!r}")
    writer.close()
    return head

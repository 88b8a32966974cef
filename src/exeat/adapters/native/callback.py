"""Where the browser brings the authorization server's answer: a listener on this machine, for as long
as one sign-in takes (RFC 8252 section 7.3)."""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import parse_qsl

from exeat.core.errors import Unauthenticated

HOST: Final = "127.0.0.1"
PATH: Final = "/callback"
HEAD_MAX_BYTES: Final = 16 * 1024
REQUEST_MAX_S: Final = 10.0
FIELDS_MAX: Final = 16
_LINE: Final = re.compile(r"(?P<verb>[A-Z]+) (?P<path>/[^?# ]*)(?:\?(?P<query>[^# ]*))? HTTP/1\.1")
_TEXT: Final = {
    200: "exeat has the answer. You can close this page and go back to your program.",
    400: "This is not the answer to a sign-in that is under way. You can close this page.",
    404: "There is nothing here.",
    405: "There is nothing here.",
}
_FIELDS: Final = (
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nConnection: close\r\n"
    "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n"
)


def read_callback(head: bytes, authority: str) -> Mapping[str, str] | int:
    """The parameters of a request to the redirect URI, or the HTTP status that refuses it.

    ``authority``: the only Host that is meant (a page elsewhere may have a name that leads here).
    A parameter that comes twice is refused (RFC 6749 section 3.1).  Pure.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(first)
    hosts = [line[5:].strip() for line in lines if line[:5].lower() == "host:"]
    if found is None or hosts != [authority]:
        return 400
    if found["path"] != PATH:
        return 404
    if found["verb"] != "GET":
        return 405
    try:
        pairs = parse_qsl(
            found["query"] or "", keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        return 400
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else 400


class Callback:
    """Takes exactly one answer: that which holds ``state``.  Others change nothing."""

    def __init__(self, state: str) -> None:
        self._state = state.encode()
        self._answer: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
        self.port = 0

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}{PATH}"

    async def answer(self) -> Mapping[str, str]:
        """Waits without end."""
        return await self._answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(REQUEST_MAX_S):
                said = read_callback(await reader.readuntil(b"\r\n\r\n"), f"{HOST}:{self.port}")
                if not isinstance(said, int) and not self._take(said):
                    said = 400
                writer.write(_page(said if isinstance(said, int) else 200))
                await writer.drain()
        writer.close()

    def _take(self, said: Mapping[str, str]) -> bool:
        meant = hmac.compare_digest(said.get("state", "").encode(), self._state)
        if not meant or self._answer.done():
            return False
        self._answer.set_result(said)
        return True


def _page(status: int) -> bytes:
    """Fixed words: nothing of the request is repeated."""
    body = f"<!doctype html><title>exeat</title><p>{_TEXT[status]}</p>\n".encode()
    return f"HTTP/1.1 {status} -\r\n{_FIELDS}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def listening(state: str, port: int) -> AsyncIterator[Callback]:
    """At ``port`` if it is free (0: any), else at another one.  Raises Unauthenticated."""
    callback, server = Callback(state), None
    for wanted in dict.fromkeys((port, 0)):
        with suppress(OSError):
            server = await asyncio.start_server(callback.serve, HOST, wanted, limit=HEAD_MAX_BYTES)
            break
    if server is None:
        raise Unauthenticated(
            f"No port of {HOST} can be opened for the browser's answer",
            remedy="use a key instead: --key-file",
        )
    callback.port = server.sockets[0].getsockname()[1]
    try:
        yield callback
    finally:
        server.close()

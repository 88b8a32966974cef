"""GW-10: fetches a document that someone else named, and can be led nowhere else.

The name is resolved once, every address is judged, and the connection goes to a judged one with the
name in SNI, certificate check and Host (no second resolution, so no rebinding).  No redirect is
followed, no proxy of the environment is used, no cookie is kept.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import h11
import msgspec

from exeat.adapters.destinations import (
    Address,
    AllowList,
    Destination,
    FetchRefused,
    check_addresses,
    destination,
)
from exeat.core import strictjson

__all__ = ["FetchRefused", "Fetched", "Fetcher", "Resolver"]

BODY_MAX_BYTES: Final = 256 * 1024
HEAD_MAX_BYTES: Final = 32 * 1024
TIME_MAX_S: Final = 5.0
"""From the resolution of the name to the last byte of the answer."""
CONNECT_MAX_S: Final = 2.0
"""For one address; then the next is tried."""
ADDRESSES_MAX: Final = 4
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → its addresses, best first.  Raises OSError."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer, of any status but a redirect.  Header names are lower case, repeats joined by ", "."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    def json(self) -> Mapping[str, Any]:
        """The body as a JSON object.  Raises FetchRefused."""
        try:
            value = strictjson.parse(self.body)
        except strictjson.MalformedJson as error:
            raise FetchRefused(f"{self.url} did not answer with JSON ({error})") from None
        if not isinstance(value, dict):
            raise FetchRefused(f"{self.url} did not answer with a JSON object")
        return value


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, proto=6)  # TCP
    return [str(address[0]) for *_, address in found]


class Fetcher:
    """``allow``: see AllowList.  ``ca``: a PEM file of certificate authorities trusted besides the
    system's.  Raises ValueError on a malformed entry of ``allow``, OSError on a bad ``ca``."""

    def __init__(
        self,
        allow: frozenset[str] = frozenset(),
        ca: Path | None = None,
        *,
        resolve: Resolver = resolve_by_system,
        time_max_s: float = TIME_MAX_S,
    ) -> None:
        self._allow = AllowList(allow)
        self._resolve = resolve
        self._time_max_s = time_max_s
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        if ca is not None:
            self._tls.load_verify_locations(ca)

    def check(self, url: str) -> None:
        """Raises FetchRefused if ``url`` could not be fetched whatever its name resolves to."""
        destination(url, self._allow)

    async def get(
        self,
        url: str,
        *,
        accept: str = "application/json",
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Fetched:
        """Raises FetchRefused."""
        return await self._fetch("GET", url, {"accept": accept, **headers}, b"")

    async def post(
        self,
        url: str,
        form: Mapping[str, str] | Sequence[tuple[str, str]],
        *,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Fetched:
        """A form (application/x-www-form-urlencoded).  Raises FetchRefused."""
        media = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        return await self._fetch("POST", url, {**media, **headers}, urlencode(form).encode())

    async def post_json(
        self, url: str, document: Mapping[str, Any], *, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Fetched:
        """Raises FetchRefused."""
        media = {"accept": "application/json", "content-type": "application/json"}
        return await self._fetch("POST", url, {**media, **headers}, msgspec.json.encode(document))

    async def post_body(
        self, url: str, body: bytes, media: str, *, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Fetched:
        """Exactly these bytes, which may have been signed.  Raises FetchRefused."""
        found = {"accept": "application/json", "content-type": media}
        return await self._fetch("POST", url, {**found, **headers}, body)

    async def _fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Fetched:
        found = destination(url, self._allow)
        try:
            async with asyncio.timeout(self._time_max_s):
                addresses = await self._addresses(found)
                reader, writer = await self._connect(found, addresses)
                try:
                    return await _exchange(found, method, headers, body, reader, writer)
                finally:
                    writer.transport.abort()
        except TimeoutError:
            raise FetchRefused(
                f"{found.shown} did not answer within {self._time_max_s:g} seconds"
            ) from None
        except OSError as error:  # ssl.SSLError among them
            reason = error.strerror or type(error).__name__
            raise FetchRefused(f"{found.shown} broke the connection ({reason})") from None

    async def _addresses(self, found: Destination) -> tuple[Address, ...]:
        if found.literal is not None:
            return check_addresses(found, [str(found.literal)], self._allow)
        try:
            addresses = await self._resolve(found.host, found.port)
        except (OSError, UnicodeError):
            raise FetchRefused(f"the name {found.host!r} cannot be resolved") from None
        return check_addresses(found, addresses, self._allow)

    async def _connect(
        self, found: Destination, addresses: Sequence[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reason = "no address"
        for address in addresses[:ADDRESSES_MAX]:
            try:
                async with asyncio.timeout(CONNECT_MAX_S):
                    return await asyncio.open_connection(
                        str(address),
                        found.port,
                        limit=BODY_MAX_BYTES,
                        ssl=self._tls if found.https else None,
                        server_hostname=found.host if found.https else None,
                    )
            except TimeoutError:
                reason = "no connection in time"
            except ssl.SSLCertVerificationError as error:
                reason = f"its certificate is not good: {error.verify_message}"
                break
            except OSError as error:
                reason = error.strerror or type(error).__name__
        raise FetchRefused(f"{found.shown} cannot be reached ({reason})")


async def _exchange(
    found: Destination,
    method: str,
    headers: Mapping[str, str],
    body: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> Fetched:
    wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
    own = {"host": found.authority, "connection": "close", "accept-encoding": "identity"}
    if method == "POST":
        own["content-length"] = str(len(body))
    try:
        request = h11.Request(
            method=method, target=found.target, headers=list({**headers, **own}.items())
        )
        writer.write(wire.send(request) or b"")
        writer.write(wire.send(h11.Data(data=body)) or b"")
        writer.write(wire.send(h11.EndOfMessage()) or b"")
    except h11.LocalProtocolError as error:
        raise FetchRefused(f"the request to {found.shown} cannot be written ({error})") from None
    try:
        return await _answer(found, wire, reader)
    except h11.RemoteProtocolError as error:
        raise FetchRefused(f"{found.shown} answered nonsense ({error})") from None


async def _answer(
    found: Destination, wire: h11.Connection, reader: asyncio.StreamReader
) -> Fetched:
    head: h11.Response | None = None
    pieces: list[bytes] = []
    size = 0
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            head = event
            if 300 <= head.status_code < 400:
                raise FetchRefused(f"{found.shown} redirects, and redirects are not followed")
            if _fields(head).get("content-encoding", "identity").lower() != "identity":
                raise FetchRefused(f"{found.shown} answered in an encoding that was not asked for")
        elif isinstance(event, h11.Data):
            size += len(event.data)
            if size > BODY_MAX_BYTES:
                raise FetchRefused(f"{found.shown} answered more than {BODY_MAX_BYTES} bytes")
            pieces.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return Fetched(head.status_code, _fields(head), b"".join(pieces), found.shown)
        elif not isinstance(event, h11.InformationalResponse):
            raise FetchRefused(f"{found.shown} ended without an answer")


def _fields(head: h11.Response) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    for name, value in head.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return MappingProxyType(fields)

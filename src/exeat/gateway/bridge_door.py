"""The gateway's side of the bridge: one URL, one key, no other place ever (GW-6).

No redirect is followed, no proxy is taken from the environment, no netrc is read.
"""

import ssl
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from exeat.core.errors import Invalid

if TYPE_CHECKING:
    import httpx2

CONNECT_MAX_S: Final = 5.0
WRITE_MAX_S: Final = 30.0
GOODBYE_MAX_S: Final = 2.0
CONNECTIONS_MAX: Final = 300
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_POST: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the bridge leads.  ``key``: bearer, or empty.  ``ca_file``: extra trust, or None."""

    url: str
    key: str = ""
    ca_file: Path | None = None

    def __repr__(self) -> str:
        return f"Address({self.shown})"

    @property
    def shown(self) -> str:
        """The URL without its query, for people."""
        return self.url.partition("?")[0]


def check_address(address: Address, plain_http: frozenset[str] = LOOPBACK) -> Address:
    """Raises Invalid.  ``plain_http``: hosts to which the key may travel unencrypted."""
    parts = urlsplit(address.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(
            f"{address.shown} is not an http or https URL",
            remedy="give the URL that the gateway shows, such as http://127.0.0.1:8080/mcp",
        )
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            "the URL holds a user name or password",
            remedy="put the key in a file and name it with --key-file",
        )
    if parts.scheme == "http" and parts.hostname not in plain_http:
        raise Invalid(
            f"the key would travel unencrypted to {parts.hostname}",
            remedy="use https, or allow it with --allow-http if the network is yours",
        )
    if not address.key.isascii() or not address.key.isprintable() or " " in address.key:
        raise Invalid("the key holds characters that no key has", remedy="check the key file")
    return address


class Door:
    """An HTTP client that knows one URL."""

    def __init__(self, address: Address) -> None:
        import httpx2

        self.shown = address.shown
        self._url = address.url
        headers = {"Accept-Encoding": "identity", "User-Agent": "exeat-bridge"}
        if address.key:
            headers["Authorization"] = f"Bearer {address.key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_MAX_S, write=WRITE_MAX_S),
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX),
            follow_redirects=False,
            trust_env=False,
            verify=_trust(address),
        )

    def post(
        self, body: bytes, headers: dict[str, str]
    ) -> "AbstractAsyncContextManager[httpx2.Response]":
        return self._client.stream("POST", self._url, content=body, headers=_POST | headers)

    def listen(self, headers: dict[str, str]) -> "AbstractAsyncContextManager[httpx2.Response]":
        accept = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        return self._client.stream("GET", self._url, headers=accept | headers)

    async def goodbye(self, headers: dict[str, str]) -> None:
        """End the session; best effort, since the gateway ends idle sessions by itself."""
        import httpx2

        try:
            await self._client.delete(self._url, headers=headers, timeout=GOODBYE_MAX_S)
        except httpx2.HTTPError:
            return

    async def close(self) -> None:
        await self._client.aclose()


def _trust(address: Address) -> ssl.SSLContext | bool:
    if not address.url.startswith("https:"):
        return False  # no TLS, so no certificate to check; saves loading the system's list
    context = ssl.create_default_context()
    if address.ca_file is not None:
        try:
            context.load_verify_locations(address.ca_file)
        except (OSError, ssl.SSLError):
            raise Invalid(
                f"{address.ca_file} is not a readable file of certificates (PEM)",
                remedy="check --ca-file",
            ) from None
    return context

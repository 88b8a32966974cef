"""The gateway's side of the bridge: one URL, one key or sign-in, no other place ever (GW-6).

No redirect is followed, no proxy is taken from the environment, no netrc is read.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from exeat.core.errors import Invalid
from exeat.core.upstream_auth import Credential, Refused
from exeat.identity.upstream.challenge import read_challenge

if TYPE_CHECKING:
    import httpx2

CONNECT_MAX_S: Final = 5.0
WRITE_MAX_S: Final = 30.0
GOODBYE_MAX_S: Final = 2.0
CONNECTIONS_MAX: Final = 300
SENT_MAX: Final = 3
"""Times that one request may leave: refused, refused with another credential or for want of scope, and
carried out.  401 and ``insufficient_scope`` say that it was not carried out before."""
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


class Access(Protocol):
    """A credential that changes, and may have to be obtained from a person."""

    def held(self) -> Credential:
        """What there is, as it is."""

    async def current(self) -> Credential:
        """What a request carries now; asks nobody."""

    def accepted(self, used: Credential) -> None:
        """The gateway took it."""

    async def obtain(self, refused: Refused) -> None:
        """Another one than the refused one.  Raises Unauthenticated."""

    async def other_than(self, used: Credential) -> None:
        """Waits for another one; asks nobody."""

    async def close(self) -> None: ...


class Door:
    """An HTTP client that knows one URL.  ``access``: where there is no key."""

    def __init__(self, address: Address, access: Access | None = None) -> None:
        import httpx2

        self.shown = address.shown
        self._url = address.url
        self._access = access
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
        """Raises Unauthenticated, and the transport's errors."""
        if self._access is None:
            return self._client.stream("POST", self._url, content=body, headers=_POST | headers)
        return self._post(self._access, body, _POST | headers)

    @asynccontextmanager
    async def _post(
        self, access: Access, body: bytes, headers: dict[str, str]
    ) -> "AsyncIterator[httpx2.Response]":
        stepped_up = False
        for times in range(1, SENT_MAX + 1):
            used = await access.current()
            carried = headers | _carrying(used)
            async with self._client.stream(
                "POST", self._url, content=body, headers=carried
            ) as answer:
                refused = _refusal(answer, used)
                if refused is None or refused.status != 401:
                    access.accepted(used)
                wide = refused is not None and refused.status == 403
                if refused is None or times == SENT_MAX or (wide and stepped_up):
                    yield answer
                    return
                stepped_up = stepped_up or wide
            await access.obtain(refused)

    def listen(self, headers: dict[str, str]) -> "AbstractAsyncContextManager[httpx2.Response]":
        accept = {"Accept": "text/event-stream", "Cache-Control": "no-store"} | headers
        if self._access is None:
            return self._client.stream("GET", self._url, headers=accept)
        return self._listen(self._access, accept)

    @asynccontextmanager
    async def _listen(
        self, access: Access, headers: dict[str, str]
    ) -> "AsyncIterator[httpx2.Response]":
        """Nobody waits for it, so nobody is asked to sign in for it."""
        while True:
            used = await access.current()
            async with self._client.stream(
                "GET", self._url, headers=headers | _carrying(used)
            ) as answer:
                if answer.status_code != 401:
                    yield answer
                    return
            await access.other_than(used)

    async def goodbye(self, headers: dict[str, str]) -> None:
        """End the session; best effort, since the gateway ends idle sessions by itself."""
        import httpx2

        try:
            used = _carrying(self._access.held()) if self._access is not None else {}
            await self._client.delete(self._url, headers=headers | used, timeout=GOODBYE_MAX_S)
        except httpx2.HTTPError:
            return

    async def close(self) -> None:
        if self._access is not None:
            await self._access.close()
        await self._client.aclose()


def _carrying(credential: Credential) -> dict[str, str]:
    return {"Authorization": credential.value} if credential.value else {}


def _refusal(answer: "httpx2.Response", used: Credential) -> Refused | None:
    """None if the gateway may have carried the request out, or no credential would help."""
    if answer.status_code not in (401, 403):
        return None
    challenge = ", ".join(answer.headers.get_list("www-authenticate"))
    if answer.status_code == 403 and read_challenge(challenge).error != "insufficient_scope":
        return None
    return Refused(used, answer.status_code, challenge)


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

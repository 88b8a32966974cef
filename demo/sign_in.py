"""A person with a browser, and the official SDK's OAuth client: nothing here knows of exeat's insides."""

import re
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from office_day import Failed

CALLBACK: Final = "http://127.0.0.1:33418/callback"


class Person:
    """Somebody who opened a one-time link, and consents to what a client asks for."""

    def __init__(self, printed: str) -> None:
        """``printed``: what `exeat person link` said."""
        link = re.search(r"https?://\S+/link/\S+", printed)
        if link is None:
            raise Failed(f"no one-time link was printed: {printed}")
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(link[0]))
        self._http = httpx2.Client(base_url=origin, headers={"Origin": origin}, timeout=20)
        form = {"csrf": csrf(self._http.get(link[0]).text), "token": link[0].rpartition("/")[2]}
        if self._http.post("/link", data=form).status_code != 303:
            raise Failed("the one-time link does not sign in")

    def consent(self, url: str) -> dict[str, str]:
        """Allows what the page at ``url`` shows, as no agent yet.  Returns what the client is told."""
        page = self._http.get(url)
        seen = re.search(r'name="seen" value="([0-9a-f]+)"', page.text)
        if seen is None:
            raise Failed(f"no consent page: {page.status_code}")
        form = {"csrf": csrf(page.text), "seen": seen[1], "agent": "later", "decision": "allow"}
        return dict(parse_qsl(urlsplit(self._http.post(url, data=form).headers["location"]).query))

    def __enter__(self) -> "Person":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._http.close()


def csrf(page: str) -> str:
    found = re.search(r'name="csrf" content="([0-9a-f]+)"', page)
    if found is None:
        raise Failed("the page has no form")
    return found[1]


class Told(TokenStorage):
    """What the client keeps."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None
        self._client: OAuthClientInformationFull | None = None

    @property
    def access_token(self) -> str:
        return self._tokens.access_token if self._tokens is not None else ""

    @property
    def client_id(self) -> str:
        return (self._client.client_id or "") if self._client is not None else ""

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


def stock_client(url: str, person: Person, told: Told) -> OAuthClientProvider:
    """The SDK's provider as it is: discovery, registration, code with PKCE, token."""
    answer: dict[str, str] = {}

    async def open_browser(where: str) -> None:
        answer.update(person.consent(where))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(
            code=answer.get("code", ""), state=answer.get("state"), iss=answer.get("iss")
        )

    metadata = OAuthClientMetadata(
        client_name="Desk client",
        redirect_uris=[CALLBACK],  # type: ignore[list-item]
    )
    return OAuthClientProvider(url, metadata, told, open_browser, callback)


async def at_endpoint(url: str, token: str) -> tuple[int, str]:
    """The status that the token gets there, and what the challenge says is wrong with it."""
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    fields = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
    }
    async with httpx2.AsyncClient(timeout=20) as http:
        answer = await http.post(url, json=body, headers=fields)
    said = re.search(r'error_description="([^"]*)"', answer.headers.get("www-authenticate", ""))
    return answer.status_code, said[1] if said is not None else ""

"""People and stock clients against a real `exeat up`: pages over HTTP, the official SDK's OAuth client."""

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from gateways import Gateway
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

CALLBACK = "http://127.0.0.1:33418/callback"
STARTED_S = 20.0


def issuer_of(gateway: Gateway) -> str:
    """Where people sign in, as `exeat up` printed it."""
    import time

    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        if found := re.search(r"sign-in and consent: (\S+)", gateway.output):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"no address was printed: {gateway.output}")


class Person:
    """Somebody with a browser that runs no scripts: signs in with a one-time link, and consents."""

    def __init__(self, issuer: str, verify: Any = True) -> None:
        self.issuer = issuer
        self.http = httpx2.Client(
            base_url=issuer, headers={"Origin": issuer}, timeout=20, verify=verify
        )

    def close(self) -> None:
        self.http.close()

    def sign_in(self, link: str) -> None:
        token = link.rpartition("/")[2]
        form = {"csrf": _csrf(self.http.get(link).text), "token": token}
        answer = self.http.post("/link", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/passkeys"), answer.text

    def allow(self, url: str, agent: str = "later", decision: str = "allow") -> dict[str, str]:
        """What the client is told at its redirect URI."""
        return dict(parse_qsl(urlsplit(self.sent_to(url, agent, decision)).query))

    def sent_to(self, url: str, agent: str = "later", decision: str = "allow") -> str:
        """Where the browser is sent after the person decided."""
        page = self.http.get(url)
        if page.status_code == 200:
            found = re.search(r'name="seen" value="([0-9a-f]+)"', page.text)
            assert found is not None, page.text
            form = {
                "csrf": _csrf(page.text), "seen": found[1], "agent": agent, "decision": decision,
            }  # fmt: skip
            page = self.http.post(url, data=form)
        assert page.status_code == 303, page.text
        return str(page.headers["location"])


def _csrf(text: str) -> str:
    found = re.search(r'name="csrf" content="([0-9a-f]+)"', text)
    assert found is not None, text
    return found[1]


class Kept(TokenStorage):
    """What the client keeps."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def stock_client(
    url: str, person: Person, kept: Kept, document: str | None = None, **consent: Any
) -> OAuthClientProvider:
    """The SDK's own provider; the person stands behind its browser.  ``document``: its client id, if it
    is an address (CIMD)."""
    told: dict[str, str] = {}

    async def open_browser(where: str) -> None:
        told.update(person.allow(where, **consent))

    async def callback() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(
            code=told.get("code", ""), state=told.get("state"), iss=told.get("iss")
        )

    metadata = OAuthClientMetadata(
        client_name="Stock Client",
        redirect_uris=[CALLBACK],  # type: ignore[list-item]
    )
    return OAuthClientProvider(url, metadata, kept, open_browser, callback, document)

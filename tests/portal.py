"""The control listener's app in memory, on a real database: browsers, clients, and a clock in hand."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import ECKey
from registry_world import ADA, NOW, World
from starlette.types import ASGIApp

from exeat.app.control_app import Beside, control_app
from exeat.core.ids import PersonId
from exeat.identity.authorization.model.client import Client
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.service.authentication import Answer
from exeat.identity.authorization.service.clients import Clients, New
from exeat.identity.authorization.service.tokens import Mint
from exeat.identity.signin.service import RelyingParty, SignIn
from exeat.storage.state import State
from exeat.web.site import site_at

ISSUER = "http://localhost:8718"
RESOURCE = "http://127.0.0.1:8717/mcp"
CALLBACK = "http://127.0.0.1:33418/callback"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
SECOND = 10**9
KEY = ECKey.generate_key("P-256", private=True)


def random(size: int) -> bytes:
    import os

    return os.urandom(size)


async def _settled() -> None:
    """No gateway runs here."""


@dataclass
class Page:
    status: int
    body: bytes


class Web:
    """What documents there are.  ``asked``: every fetch."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []

    async def get(self, url: str, *, accept: str = "application/json") -> Answer:
        self.asked.append(url)
        return self.pages.get(url, Page(404, b""))


class Portal:
    """People of ``World`` (ada: admin), one clock, one key."""

    def __init__(self, state: State, beside: Beside | None = None) -> None:
        self.state, self.now = state, NOW
        self.world = World(state)
        self.web = Web()
        self.site = site_at(ISSUER, 8718, frozenset())
        self.mint = Mint(ISSUER, KEY, random)
        self.app = self.served(beside)
        self.clients = Clients(state.authorization, random)
        self.sign_in = SignIn(state.sign_in, RelyingParty("localhost", ISSUER), random)

    def served(self, beside: Beside | None) -> ASGIApp:
        resources = Resources.at("http", "127.0.0.1", 8717, (), "")
        return control_app(
            self.state,
            self.site,
            self.mint,
            resources,
            self.web,
            _settled,
            lambda: self.now,
            beside,
        )

    def doing(self, actor: PersonId = ADA) -> Doing:
        return Doing(actor, "test", self.now, "for a test")

    def later(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def add(self, name: str, *redirects: str, **more: Any) -> tuple[Client, str]:
        return self.clients.add(New(name, 30, redirects, **more), self.doing())

    def native(self) -> str:
        """The id of a client that registered itself, as a stock one does."""
        self.clients.open_window(5, self.doing())
        said = {
            "client_name": "Stock Client",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
        }
        return self.clients.register(said, self.now).id

    def browser(self) -> "Browser":
        return Browser(self)

    async def post(self, path: str, form: Mapping[str, Any], **headers: str) -> httpx2.Response:
        async with self._http() as http:
            return await http.post(path, data=dict(form), headers=headers)

    def _http(self) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url=ISSUER)

    async def token(self, **form: str) -> httpx2.Response:
        return await self.post("/oauth/token", form)

    async def redeem(self, client: str, code: str, /, **more: str) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            "resource": RESOURCE,
        }
        return await self.token(**{**form, **more})

    async def renew(self, client: str, refresh: str, **more: str) -> httpx2.Response:
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": refresh}
        return await self.token(**{**form, **more})

    async def signed_up(self, client: str, person: PersonId = ADA, **more: str) -> dict[str, Any]:
        """The whole way once: link, consent, code, tokens."""
        browser = self.browser()
        await browser.sign_in(person)
        code = await browser.consent(client, **more)
        answer = await self.redeem(client, code)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def redeem_as(self, web: Client, browser: "Browser", there: str) -> dict[str, Any]:
        """A confidential client that was consented to before; its secret is set anew here."""
        import dataclasses

        from exeat.identity.authorization.model.client import secret_digest

        with self.state.authorization.change() as tx:
            tx.save_client(dataclasses.replace(web, secret_digest=secret_digest("known")))
        shown = await browser.get(authorize_path(web.id, redirect_uri=there))
        answer = await self.redeem(
            web.id, answered(shown)["code"], redirect_uri=there, client_secret="known"
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def claims(self, token: str) -> dict[str, Any]:
        return dict(jwt.decode(token, KEY, algorithms=["ES256"]).claims)

    def ended(self) -> set[str]:
        return set(self.state.snapshot().endings)

    def events(self) -> list[str]:
        return self.world.events()


class Browser:
    """Cookies and the forms of the page that it shows."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.http = portal._http()
        self.page: httpx2.Response | None = None

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        self.page = await self.http.get(path, headers=headers)
        return self.page

    def hidden(self, name: str) -> str:
        assert self.page is not None
        found = re.search(rf'name="{name}" value="([^"]*)"', self.page.text)
        return found[1] if found else ""

    @property
    def csrf(self) -> str:
        assert self.page is not None
        found = re.search(r'name="csrf" content="([0-9a-f]*)"', self.page.text)
        return found[1] if found else ""

    async def submit(self, path: str, **fields: str) -> httpx2.Response:
        form = {"csrf": self.csrf, **fields}
        headers = {"Origin": ISSUER}
        self.page = await self.http.post(path, data=form, headers=headers)
        return self.page

    async def script(self, path: str, said: Any, **headers: str) -> httpx2.Response:
        """As passkey.js sends it."""
        fields = {"Origin": ISSUER, "X-CSRF-Token": self.csrf, **headers}
        return await self.http.post(path, json=said, headers=fields)

    async def sign_in(self, person: PersonId = ADA) -> None:
        token = self.portal.sign_in.make_link(person, self.portal.doing())
        await self.get(f"/link/{token}")
        answer = await self.submit("/link", token=token)
        assert (answer.status_code, answer.headers["location"]) == (303, "/passkeys")

    async def consent(self, client: str, *, agent: str = "later", **more: str) -> str:
        """Ask for authorization, and allow it.  The code."""
        where = authorize_path(client, **more)
        shown = await self.get(where)
        if shown.status_code == 200:
            fields = {"decision": "allow", "agent": agent, "seen": self.hidden("seen")}
            shown = await self.submit(where, **fields)
        assert shown.status_code == 303, shown.text
        return answered(shown)["code"]


def authorize_path(client: str, **more: str | None) -> str:
    """None leaves a parameter out."""
    given = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": CALLBACK,
        "resource": RESOURCE,
        "scope": "mcp:read",
        "state": "s1",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **more,
    }
    return "/oauth/authorize?" + urlencode({k: v for k, v in given.items() if v is not None})


def answered(response: httpx2.Response) -> dict[str, str]:
    """What the client is told at its redirect URI."""
    return dict(parse_qsl(urlsplit(response.headers["location"]).query))

"""A real browser with an authenticator: one-time link, passkey, sign-in, consent, code (ID-7, ID-8)."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from gateways import Gateway, denied, running
from homes import ADA, BOB, Home
from offices import CONFIRMED, Office
from playwright.sync_api import Page, Route, sync_playwright
from portal import CALLBACK, authorize_path
from requirements import requirement
from signing_in import issuer_of

from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.service.clients import Clients

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt install chromium)"),
]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    (made.path / "operator").write_text("ada\n")
    yield made
    made.state.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)  # before the browser's own loop runs in this thread
    yield made
    made.close()


@pytest.fixture
def page() -> Iterator[Page]:
    """With a virtual authenticator that keeps passkeys and verifies its user; refusals of the page's
    own policy and errors of its script fail the test."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        devtools = page.context.new_cdp_session(page)
        devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        yield page
        browser.close()
        assert [each for each in wrong if not each.startswith("Failed to load resource")] == []


def caught(page: Page) -> list[str]:
    """What arrives at the client's redirect URI."""
    found: list[str] = []

    def answer(route: Route) -> None:
        found.append(route.request.url)
        route.fulfill(body="done", content_type="text/plain")

    page.route("http://127.0.0.1:33418/**", answer)
    return found


@requirement("ID-7")
@requirement("ID-8")
def test_link_passkey_sign_in_consent(home: Home, page: Page) -> None:
    act = home.act()
    doing = Doing(ADA, "test", act.at, "for a test")
    clients = Clients(home.state.authorization, lambda size: b"x" * size)
    clients.open_window(5, doing)
    said = {"client_name": "Stock <b>Client</b>", "redirect_uris": [CALLBACK]}
    client = clients.register(said, act.at).id
    with running(Gateway(home.path)) as gateway:
        issuer = issuer_of(gateway)
        resource = f"http://127.0.0.1:{gateway.port}/mcp"
        link = _printed_link(gateway)

        page.goto(link)
        page.click("#use-link")
        page.wait_for_url("**/passkeys")
        page.click("#enrol")
        page.wait_for_selector(".rows li")
        _no_overflow(page)

        page.click("text=Sign out")
        page.wait_for_url("**/sign-in")
        page.goto(issuer + authorize_path(client, resource=resource))
        page.wait_for_url("**/sign-in?next=*")
        page.click("#sign-in")
        page.wait_for_selector("#allow")
        assert page.inner_text("#redirect-uri") == CALLBACK
        assert page.inner_text("#client-name") == "Stock <b>Client</b>"
        assert page.inner_text("#host") == "127.0.0.1:33418"
        _no_overflow(page)
        arrived = caught(page)
        page.check("input[value=later]")
        page.click("#allow")
        page.wait_for_url("http://127.0.0.1:33418/**")
        answer = parse_qs(urlsplit(arrived[0]).query)
        assert answer["iss"] == [issuer] and answer["state"] == ["s1"] and len(answer["code"]) == 1

        page.goto(link)  # it was used
        assert "unknown, was used" in page.inner_text("main")


@requirement("APP-3", "APP-4")
def test_a_held_call_is_confirmed_with_a_passkey(office: Office, page: Page) -> None:
    """The page follows by itself; the answer is a link, a page, a passkey."""
    home = office.home
    (home.path / "operator").write_text("ada\n")
    home.registry.depart(BOB, home.act())
    home.registry.apply_policy({"office.cedar": CONFIRMED}, ADA, home.act())
    office.key = home.key("bot", ADA)
    with running(Gateway(home.path, hold_wait_s="0")) as gateway:
        office.gateway = gateway
        page.goto(_printed_link(gateway))
        page.click("#use-link")
        page.wait_for_url("**/passkeys")
        page.click("#enrol")
        page.wait_for_selector(".rows li")

        wire = office.wire()
        wire.offers = {"elicitation": {"url": {}}}
        call = {"name": "pay", "arguments": {"amount": 500, "to": "eve"}}
        result = wire.ask("tools/call", call, "pay")["result"]
        ((key, question),) = result["inputRequests"].items()
        page.goto(question["params"]["url"])
        assert page.inner_text("#state") == "waits"
        _no_overflow(page)
        page.click("#approve")
        page.wait_for_selector("#answer")
        _no_overflow(page)
        page.fill("#reason", "agreed")
        page.click("#answer")
        page.wait_for_url(question["params"]["url"])
        assert page.inner_text("#state") == "confirmed"
        retry = {
            **call, "requestState": result["requestState"],
            "inputResponses": {key: {"action": "accept"}},
        }  # fmt: skip
        assert not denied(wire.ask("tools/call", retry, "pay"))
        page.reload()
        assert page.inner_text("#state") == "confirmed, and made"


def _no_overflow(page: Page) -> None:
    """Readable on a narrow screen, in light and dark."""
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1280, "height": 800})


def _printed_link(gateway: Gateway) -> str:
    found = re.search(r"open this within 15 minutes, once: (\S+)", gateway.output)
    while found is None:
        issuer_of(gateway)
        found = re.search(r"open this within 15 minutes, once: (\S+)", gateway.output)
    return found[1]

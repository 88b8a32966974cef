"""The consent page against those who would have a person consent to something else (ID-7)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from portal import CALLBACK, ISSUER, RESOURCE, Browser, Page, Portal, answered, authorize_path
from registry_world import ADA
from requirements import requirement
from starlette.routing import Route

from exeat.app.control_app import Beside
from exeat.identity.authorization.model.grant import Grant
from exeat.storage.state import open_state

pytestmark = pytest.mark.anyio
DOCUMENT = "https://app.example.com/client.json"
EVIL = "https://evil.example/client.json"


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Portal]:
    state = open_state(tmp_path / "home")
    yield Portal(state)
    state.close()


class NoConsents:
    """Upstream pages that nobody may reach here."""

    async def show(self, link: str, person: str) -> Any:
        raise AssertionError(link)

    begin = show

    async def finish(self, answer: dict[str, str], person: str) -> str:
        raise AssertionError(answer)

    def document(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def consenting(tmp_path: Path) -> Iterator[Portal]:
    state = open_state(tmp_path / "home")
    yield Portal(state, Beside(NoConsents()))
    state.close()


@pytest.fixture
async def browser(portal: Portal) -> Browser:
    made = portal.browser()
    await made.sign_in()
    return made


def publish(portal: Portal, where: str = DOCUMENT, **changes: object) -> str:
    said = {
        "client_id": where,
        "client_name": "Your Bank",
        "redirect_uris": [CALLBACK, "https://app.example.com/cb"],
        "logo_uri": "https://evil.example/logo.png",
        "client_uri": "https://evil.example/",
        **changes,
    }
    portal.web.pages[where] = Page(200, json.dumps(said).encode())
    return where


@requirement("ID-7")
async def test_what_a_person_is_shown(portal: Portal, browser: Browser) -> None:
    """The host that answers for the client stands above the name that it chose itself."""
    publish(portal, client_name="<script>alert(1)</script> exeat")
    shown = await browser.get(authorize_path(DOCUMENT, scope="mcp:read mcp:pay"))
    assert shown.status_code == 200
    text = shown.text
    assert text.index('id="host">app.example.com<') < text.index('id="client-name"')
    assert "&lt;script&gt;alert(1)&lt;/script&gt; exeat" in text and "<script>alert" not in text
    assert f'id="redirect-uri">{CALLBACK}<' in text
    assert "Any program here could have asked" in text
    assert "look things up" in text and "pay and order" in text
    assert "evil.example" not in text  # neither logo nor other addresses of a stranger
    assert portal.web.asked == [DOCUMENT]  # nothing but the document was fetched, and once


@requirement("ID-7")
async def test_the_page_cannot_be_framed_and_runs_nothing(portal: Portal, browser: Browser) -> None:
    shown = await browser.get(authorize_path(portal.native()))
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:33418;" in policy
    assert "base-uri 'none'" in policy and "unsafe" not in policy
    assert shown.headers["x-frame-options"] == "DENY"
    assert shown.headers["cache-control"] == "no-store"
    assert (
        "<script" not in shown.text
        and "style=" not in shown.text
        and " on" + "click" not in shown.text
    )


@requirement("ID-7")
async def test_consent_cannot_be_forged(portal: Portal, browser: Browser) -> None:
    """CSRF: another origin, no origin, no token, another person's token, a token of before."""
    client = portal.native()
    where = authorize_path(client)
    await browser.get(where)
    form = {"decision": "allow", "agent": "later", "seen": browser.hidden("seen")}
    good = {"csrf": browser.csrf, **form}
    other = portal.browser()
    await other.sign_in()
    await other.get(where)
    for origin, body in (
        ("http://evil.example", good),
        ("http://localhost:3000", good),  # same site for cookies, but not our page
        ("null", good),
        (None, good),
        (ISSUER, form),
        (ISSUER, {**good, "csrf": ""}),
        (ISSUER, {**good, "csrf": other.csrf}),
        (ISSUER, {**good, "csrf": "é"}),
    ):
        headers = {} if origin is None else {"Origin": origin}
        answer = await browser.http.post(where, data=body, headers=headers)
        assert answer.status_code == 403 and "location" not in answer.headers
    out = portal.browser()  # nobody is signed in there
    answer = await out.http.post(where, data=good, headers={"Origin": ISSUER})
    assert answer.status_code == 403
    assert "authorization.granted" not in portal.events()
    answer = await browser.http.post(where, data=good, headers={"Origin": ISSUER})
    assert answer.status_code == 303


POSTS = (
    "/oauth/authorize", "/sign-in/options", "/sign-in/passkey", "/sign-out", "/link",
    "/passkeys/options", "/passkeys/enrol", "/passkeys/remove", "/authorizations/revoke",
    "/upstreams/consent/{link}",
)  # fmt: skip
FOR_CLIENTS = {"/oauth/token", "/oauth/revoke", "/oauth/register"}
"""These read no cookie."""


@requirement("ID-7", "ID-8")
def test_no_page_that_changes_something_is_forgotten(consenting: Portal) -> None:
    changing = {
        route.path
        for route in consenting.app._app.routes  # type: ignore[attr-defined]
        if isinstance(route, Route) and set(route.methods or ()) - {"GET", "HEAD"}
    }
    assert changing == {*POSTS, *FOR_CLIENTS}


@requirement("ID-7", "ID-8", "ID-9")
@pytest.mark.parametrize("path", POSTS)
async def test_no_page_is_changed_from_elsewhere(consenting: Portal, path: str) -> None:
    """CSRF, also of the sign-in: whose cookies come along, another page's form does nothing."""
    browser, other = consenting.browser(), consenting.browser()
    for each in (browser, other):
        await each.sign_in()
        await each.get("/passkeys")
    where = authorize_path(consenting.native()) if "authorize" in path else path.format(link="any")
    script = path in (
        "/sign-in/options",
        "/sign-in/passkey",
        "/passkeys/options",
        "/passkeys/enrol",
    )
    for origin, token in (
        ("https://evil.example", browser.csrf),
        ("http://localhost:3000", browser.csrf),
        ("null", browser.csrf),
        (None, browser.csrf),
        (ISSUER, None),
        (ISSUER, ""),
        (ISSUER, other.csrf),
    ):
        headers = {} if origin is None else {"Origin": origin}
        shown = {} if token is None else {"csrf": token}
        if script:
            headers |= {} if token is None else {"X-CSRF-Token": token}
            answer = await browser.http.post(where, json={}, headers=headers)
        else:
            answer = await browser.http.post(where, data={"x": "y", **shown}, headers=headers)
        assert answer.status_code == 403, (origin, token, answer.text)
        assert "location" not in answer.headers and "set-cookie" not in answer.headers


@requirement("ID-9")
@pytest.mark.parametrize("twice", ["code=a&code=b", "state=a&state=b", "iss=a&iss=b"])
async def test_an_answer_of_an_upstream_that_says_two_things_is_none(
    consenting: Portal, twice: str
) -> None:
    browser = consenting.browser()
    await browser.sign_in()
    answer = await browser.get(f"/upstreams/callback?{twice}")
    assert answer.status_code == 422 and "location" not in answer.headers
    out = await consenting.browser().get("/upstreams/callback?code=a&state=b&iss=c")
    assert out.status_code in (401, 403) and "location" not in out.headers


@requirement("ID-7")
async def test_a_client_that_changed_meanwhile_is_shown_again(
    portal: Portal, browser: Browser
) -> None:
    publish(portal)
    where = authorize_path(DOCUMENT)
    await browser.get(where)
    seen = browser.hidden("seen")
    publish(portal, client_name="Somebody else")
    portal.later(301)
    again = await browser.submit(where, decision="allow", agent="later", seen=seen)
    assert again.status_code == 409 and "changed meanwhile" in again.text
    assert "authorization.granted" not in portal.events()


@requirement("ID-7")
@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:33418/callback/",
        "http://127.0.0.1:33418/callback?x",
        "http://127.0.0.1:33418/callback#x",
        "http://127.0.0.1:33418/%63allback",
        "http://localhost:33418/callback",
        "http://user@127.0.0.1:33418/callback",
        "http://127.0.0.1:33418@evil.example/callback",
        "http://127.0.0.1\\@evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "https://evil.example/callback",
        "javascript:alert(1)//127.0.0.1/callback",
        "data:text/html,x",
        "//evil.example/callback",
        "/callback",
        "http://127.0.0.1:033418/callback",
        "http://127.0.0.1:99999/callback",
        "http://127.0.0.1:33418/callback\r\nX: y",
        "",
        None,
    ],
)
async def test_nothing_is_sent_to_another_address(
    portal: Portal, browser: Browser, uri: str | None
) -> None:
    answer = await browser.get(authorize_path(portal.native(), redirect_uri=uri))
    assert answer.status_code == 400 and "location" not in answer.headers
    assert "evil.example" not in answer.text


@requirement("ID-7")
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"resource": None}, "invalid_request"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"resource": RESOURCE + "/unknown"}, "invalid_target"),
        ({"scope": "mcp:root"}, "invalid_scope"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "https://evil.example/x"}, "request_not_supported"),
        ({"state": "s" * 3000}, "invalid_request"),
    ],
)
async def test_what_the_client_is_told(
    portal: Portal, browser: Browser, change: dict[str, str | None], code: str
) -> None:
    """RFC 9207: with ``iss`` in errors, too, so that no mix-up goes unseen."""
    answer = await browser.get(authorize_path(portal.native(), **change))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(CALLBACK + "?")
    told = answered(answer)
    assert (told["error"], told["iss"]) == (code, ISSUER)
    assert told["state"] == (change.get("state") or "s1")[:2048]


@requirement("ID-7")
async def test_we_are_no_open_redirector(portal: Portal, browser: Browser) -> None:
    """A stranger publishes a document and sends people here with a request that must fail: we do not
    send them on to the stranger by ourselves (OAuth 2.1 7.12.2)."""
    publish(portal, EVIL, redirect_uris=["https://evil.example/phish"])
    where = authorize_path(EVIL, redirect_uri="https://evil.example/phish", scope="x")
    answer = await browser.get(where)
    assert answer.status_code == 400 and "location" not in answer.headers
    assert "not possible" in answer.text and "tell the client at evil.example" in answer.text
    nobody = portal.browser()
    portal.web.asked.clear()
    portal.later(301)
    answer = await nobody.get(where)
    assert answer.headers["location"].startswith("/sign-in?next=")
    answer = await nobody.get(where + "&prompt=none")
    assert answer.status_code == 401 and "location" not in answer.headers
    assert portal.web.asked == []  # for strangers we fetch nothing


@requirement("GW-10")
async def test_the_token_endpoint_fetches_little_for_strangers(portal: Portal) -> None:
    """Nothing of clients that nobody gave an authorization to, and of others so much a minute."""
    names = [f"https://app{n}.example.com/client.json" for n in range(30)]

    async def shown() -> int:
        for name in names:
            answer = await portal.token(
                grant_type="refresh_token", client_id=name, refresh_token="x"
            )
        return int(answer.status_code)

    assert await shown() == 429
    assert portal.web.asked == []
    portal.later(60)
    with portal.state.authorization.change() as tx:
        for name in names:
            tx.save_grant(
                Grant(f"g-{name}", name, ADA, None, RESOURCE, (), portal.now, portal.now + 10**15)
            )
    assert await shown() == 429
    assert len(portal.web.asked) == 20


@requirement("ID-7")
async def test_repeated_parameters_and_unknown_clients(portal: Portal, browser: Browser) -> None:
    client = portal.native()
    for path in (
        authorize_path(client) + "&client_id=CL-other",
        authorize_path(client) + "&redirect_uri=https%3A%2F%2Fevil.example%2F",
        authorize_path(client) + "&x=%ff",
        authorize_path(client) + "".join(f"&x{n}=1" for n in range(60)),
        "/oauth/authorize",
    ):
        answer = await browser.get(path)
        assert answer.status_code == 400 and "location" not in answer.headers
    for name in ("CL-none", "http://app.example.com/client.json", "https://app.example.com/", EVIL):
        answer = await browser.get(authorize_path(name))
        assert answer.status_code == 401 and "location" not in answer.headers


@requirement("ID-7")
async def test_saying_no(portal: Portal, browser: Browser) -> None:
    where = authorize_path(portal.native())
    await browser.get(where)
    seen = browser.hidden("seen")
    answer = await browser.submit(where, decision="deny", agent="later", seen=seen)
    assert answered(answer) == {
        "error": "access_denied",
        "error_description": "The person said no.",
        "state": "s1",
        "iss": ISSUER,
    }
    nothing = await browser.get(where)
    assert nothing.status_code == 200
    answer = await browser.submit(where, agent="later", seen=seen)  # neither button
    assert answered(answer)["error"] == "access_denied"


@requirement("ID-8")
async def test_after_signing_in_one_comes_back_here_only(portal: Portal) -> None:
    browser = portal.browser()
    where = authorize_path(portal.native())
    sent = await browser.get(where)
    assert sent.status_code == 303
    assert unquote(sent.headers["location"]) == f"/sign-in?next={where}"
    for wrong in (
        "//evil.example", "https://evil.example", "/\\evil.example", "/oauth/authorize\\evil",
        "/%5cevil.example", "javascript:alert(1)", "/passkeys/../..//evil.example", "/link/x",
        "/oauth/authorize?x\nLocation: y", "", "/" * 9000,
    ):  # fmt: skip
        shown = await browser.http.get("/sign-in", params={"next": wrong})
        assert 'data-next="/"' in shown.text
    await browser.sign_in()
    for wrong in ("//evil.example", "/\\evil.example"):
        back = await browser.http.get("/sign-in", params={"next": wrong})
        assert back.headers["location"] == "/"


@requirement("ID-7")
async def test_silence_is_kept(portal: Portal, browser: Browser) -> None:
    """prompt=none: never a page."""
    client = portal.native()
    out = portal.browser()
    asked = await out.get(authorize_path(client, prompt="none"))
    assert answered(asked)["error"] == "login_required"
    asked = await browser.get(authorize_path(client, prompt="none"))
    assert answered(asked)["error"] == "consent_required"


@requirement("ID-6")
async def test_an_agent_has_one_client_per_person(portal: Portal, browser: Browser) -> None:
    portal.world.active()
    first, second = portal.native(), portal.native()
    await browser.consent(first, agent="bot")
    shown = await browser.get(authorize_path(second))
    assert f"now {first}, which would be this agent no more" in shown.text
    assert "checked" not in shown.text.partition('value="bot"')[2].partition(">")[0]
    await browser.consent(second, agent="bot")
    assert set(portal.state.snapshot().clients) == {(ISSUER, second, ADA)}


@requirement("ID-7")
async def test_a_document_is_fetched_seldom(portal: Portal, browser: Browser) -> None:
    publish(portal)
    for _ in range(5):
        await browser.get(authorize_path(DOCUMENT))
    assert portal.web.asked == [DOCUMENT]
    for _ in range(5):
        await browser.get(authorize_path(EVIL))  # there is none
    assert portal.web.asked == [DOCUMENT, EVIL]
    portal.later(16)
    await browser.get(authorize_path(EVIL))
    assert portal.web.asked == [DOCUMENT, EVIL, EVIL]
    code = await browser.consent(DOCUMENT)
    answer = await portal.redeem(DOCUMENT, code)
    assert answer.status_code == 200 and "refresh_token" not in answer.json()  # it asked for none


@requirement("ID-7")
async def test_an_apps_own_scheme_takes_an_admin(portal: Portal, browser: Browser) -> None:
    uri = "cursor://anysphere.cursor-mcp/oauth/callback"
    publish(portal, redirect_uris=[uri])
    refused = await browser.get(authorize_path(DOCUMENT, redirect_uri=uri))
    assert refused.status_code == 401 and "redirect URI is https" in refused.text
    client, _ = portal.add("cursor", uri)
    shown = await browser.get(authorize_path(client.id, redirect_uri=uri))
    assert "form-action 'self' cursor:;" in shown.headers["content-security-policy"]
    assert "Any program here could have asked" in shown.text
    code = await browser.consent(client.id, redirect_uri=uri)
    assert (await portal.redeem(client.id, code, redirect_uri=uri)).status_code == 200
    again = await browser.get(authorize_path(client.id, redirect_uri=uri))
    assert again.status_code == 200  # asked each time
    for other in (uri + "/", "cursor://other/oauth/callback"):
        wrong = await browser.get(authorize_path(client.id, redirect_uri=other))
        assert wrong.status_code == 400 and "location" not in wrong.headers

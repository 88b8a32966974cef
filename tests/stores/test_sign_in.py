"""People's sign-in on both databases: links, passkeys, sessions (ID-8)."""

from typing import Any

import pytest
from authenticator import Authenticator
from portal import ISSUER, Browser, Portal
from registry_world import ADA, BOB, EVE, act
from requirements import requirement

from exeat.core.errors import Conflict, NotFound
from exeat.storage.state import State

pytestmark = pytest.mark.anyio


@pytest.fixture
def portal(state: State) -> Portal:
    return Portal(state)


async def enrolled(portal: Portal, person: Any = ADA) -> tuple[Browser, Authenticator]:
    browser, device = portal.browser(), Authenticator(ISSUER)
    await browser.sign_in(person)
    await browser.get("/passkeys")
    options = (await browser.script("/passkeys/options", {})).json()
    made = await browser.script("/passkeys/enrol", {"credential": device.create(options)})
    assert (made.status_code, made.json()) == (200, {"next": "/passkeys"})
    return browser, device


async def sign_in(
    portal: Portal, device: Authenticator, browser: Browser | None = None, **client: Any
) -> Any:
    browser = browser or portal.browser()
    await browser.get("/sign-in")
    options = (await browser.script("/sign-in/options", {})).json()
    return await browser.script(
        "/sign-in/passkey", {"credential": device.get(options, **client), "next": "/passkeys"}
    )


async def signed_in(browser: Browser) -> bool:
    return (await browser.get("/")).status_code == 200


@requirement("ID-8")
async def test_a_link_signs_in_once(portal: Portal) -> None:
    token = portal.sign_in.make_link(BOB, portal.doing())
    thief, bob = portal.browser(), portal.browser()
    for each in (thief, bob):  # looking at it uses nothing up
        assert "signs you in once" in (await each.get(f"/link/{token}")).text
    assert (await bob.submit("/link", token=token)).status_code == 303
    assert await signed_in(bob)
    again = await thief.submit("/link", token=token)
    assert again.status_code == 401 and "was used" in again.text
    assert not await signed_in(thief)
    assert (await thief.get(f"/link/{token}")).status_code == 401
    told = [w.event for w in portal.state.outbox.take(100)]
    assert [e.kind for e in told][-2:] == ["link.made", "link.used"]
    assert token not in repr(told)


@requirement("ID-8")
async def test_a_link_ends_and_a_newer_one_replaces_it(portal: Portal) -> None:
    first = portal.sign_in.make_link(BOB, portal.doing())
    second = portal.sign_in.make_link(BOB, portal.doing())
    browser = portal.browser()
    assert (await browser.get(f"/link/{first}")).status_code == 401
    assert (await browser.get(f"/link/{second}")).status_code == 200
    portal.later(901)
    assert (await browser.submit("/link", token=second)).status_code == 401
    with pytest.raises(Conflict, match="admin"):
        portal.sign_in.make_link(ADA, portal.doing(EVE))
    with pytest.raises(NotFound):
        portal.sign_in.make_link("nobody", portal.doing())  # type: ignore[arg-type]


@requirement("ID-8")
async def test_the_first_link_is_made_only_while_nobody_has_a_passkey(portal: Portal) -> None:
    assert portal.sign_in.make_first_link(ADA, portal.doing(EVE))  # exeat itself, at its start
    await enrolled(portal, BOB)
    with pytest.raises(Conflict, match="has a passkey"):
        portal.sign_in.make_first_link(ADA, portal.doing(EVE))


@requirement("ID-8")
async def test_enrol_and_sign_in(portal: Portal) -> None:
    browser, device = await enrolled(portal)
    await browser.get("/")
    out = await browser.submit("/sign-out")
    assert out.headers["location"] == "/sign-in" and not await signed_in(browser)
    answer = await sign_in(portal, device, browser)
    assert answer.json() == {"next": "/passkeys"} and await signed_in(browser)
    (passkey,) = portal.sign_in.passkeys_of(ADA)
    assert passkey.sign_count == 1
    assert portal.events()[-2:] == ["passkey.enrolled", "person.signed_in"]
    assert portal.sign_in.any_passkey()


@requirement("ID-8")
@pytest.mark.parametrize(
    "client",
    [
        {"origin": "http://localhost:8719"},
        {"origin": "http://127.0.0.1:8718"},
        {"origin": "https://localhost:8718"},
        {"origin": "http://localhost.evil.example:8718"},
        {"challenge": "AAAA"},
        {"type": "webauthn.create"},
    ],
)
async def test_what_a_passkey_must_say(portal: Portal, client: dict[str, str]) -> None:
    _, device = await enrolled(portal)
    browser = portal.browser()
    answer = await sign_in(portal, device, browser, **client)
    assert answer.status_code == 401
    assert answer.json()["error"] == "The passkey could not be verified."
    assert not await signed_in(browser)


@requirement("ID-8")
async def test_a_copied_passkey_is_noticed(portal: Portal) -> None:
    """Its counter does not grow."""
    _, device = await enrolled(portal)
    assert (await sign_in(portal, device)).status_code == 200
    device.count = 0
    assert (await sign_in(portal, device)).status_code == 401


@requirement("ID-8")
async def test_the_user_must_be_verified(portal: Portal) -> None:
    _, device = await enrolled(portal)
    device.verified = False
    assert (await sign_in(portal, device)).status_code == 401
    browser, weak = portal.browser(), Authenticator(ISSUER, verified=False)
    await browser.sign_in(BOB)
    await browser.get("/passkeys")
    options = (await browser.script("/passkeys/options", {})).json()
    made = await browser.script("/passkeys/enrol", {"credential": weak.create(options)})
    assert made.status_code == 401 and portal.sign_in.passkeys_of(BOB) == ()


@requirement("ID-8")
async def test_a_challenge_answers_once_in_one_browser_and_soon(portal: Portal) -> None:
    _, device = await enrolled(portal)
    mine, other = portal.browser(), portal.browser()
    await mine.get("/sign-in")
    await other.get("/sign-in")
    options = (await mine.script("/sign-in/options", {})).json()
    said = {"credential": device.get(options)}
    assert (await other.script("/sign-in/passkey", said)).status_code == 401
    assert (await mine.script("/sign-in/passkey", said)).status_code == 200
    await mine.get("/")
    assert (await mine.script("/sign-in/passkey", said)).status_code == 401
    late = portal.browser()
    await late.get("/sign-in")
    options = (await late.script("/sign-in/options", {})).json()
    portal.later(301)
    said = {"credential": device.get(options)}
    assert (await late.script("/sign-in/passkey", said)).status_code == 401


@requirement("ID-8")
async def test_another_persons_handle_or_an_unknown_key_opens_nothing(portal: Portal) -> None:
    _, device = await enrolled(portal)
    device.user = b"x" * 32
    assert (await sign_in(portal, device)).status_code == 401
    stranger = Authenticator(ISSUER)
    assert (await sign_in(portal, stranger)).status_code == 401
    for nonsense in ({}, {"credential": 7}, {"credential": {"id": "x"}}, {"credential": {}}):
        browser = portal.browser()
        await browser.get("/sign-in")
        await browser.script("/sign-in/options", {})
        assert (await browser.script("/sign-in/passkey", nonsense)).status_code == 401


@requirement("ID-8")
async def test_signing_in_never_keeps_a_session_that_was_there(portal: Portal) -> None:
    """Session fixation: whatever cookies a browser brings along, it gets new ones."""
    _, device = await enrolled(portal)
    attacker, victim = portal.browser(), portal.browser()
    await attacker.sign_in(EVE)
    planted = attacker.http.cookies["exeat-session-8718"]
    victim.http.cookies.set("exeat-session-8718", planted, domain="localhost.local")
    victim.http.cookies.set("exeat-visit-8718", "a" * 64, domain="localhost.local")
    link = portal.sign_in.make_link(ADA, portal.doing())
    await victim.get(f"/link/{link}")
    took = await victim.submit("/link", token=link)
    assert took.status_code == 303
    given = took.cookies["exeat-session-8718"]
    assert given != planted
    found = portal.sign_in.session(given, portal.now)
    assert found is not None and found.person == ADA
    assert portal.sign_in.session(planted, portal.now) is None  # and the planted one is over
    invented = portal.browser()
    invented.http.cookies.set("exeat-session-8718", "b" * 64, domain="localhost.local")
    answer = await sign_in(portal, device, invented)
    assert answer.cookies["exeat-session-8718"] != "b" * 64
    assert portal.sign_in.session("b" * 64, portal.now) is None


@requirement("ID-8")
async def test_sessions_end(portal: Portal) -> None:
    browser, _ = await enrolled(portal)
    for _ in range(12):  # used all the time: it still ends after twelve hours
        portal.later(3500)
        assert await signed_in(browser)
    portal.later(1201)
    assert not await signed_in(browser)
    again, _ = await enrolled(portal, BOB)
    portal.later(3600)
    assert not await signed_in(again)  # not used for an hour


@requirement("ID-8")
async def test_the_departed_are_out_at_once(portal: Portal) -> None:
    browser, device = await enrolled(portal, BOB)
    link = portal.sign_in.make_link(BOB, portal.doing())
    assert await signed_in(browser)
    portal.world.registry.depart(BOB, act())
    assert not await signed_in(browser)
    assert (await sign_in(portal, device)).status_code == 401
    late = portal.browser()
    await late.get(f"/link/{link}")
    assert (await late.submit("/link", token=link)).status_code == 401


@requirement("ID-8")
async def test_removing_a_passkey_ends_the_sessions(portal: Portal) -> None:
    browser, device = await enrolled(portal, BOB)
    (passkey,) = portal.sign_in.passkeys_of(BOB)
    with pytest.raises(Conflict):
        portal.sign_in.remove_passkey(passkey.id, BOB, portal.doing(EVE))
    with pytest.raises(NotFound):
        portal.sign_in.remove_passkey("pk-0", BOB, portal.doing())
    await browser.get("/passkeys")
    assert (await browser.submit("/passkeys/remove", passkey=passkey.id)).status_code == 303
    assert not await signed_in(browser)
    assert (await sign_in(portal, device)).status_code == 401
    assert portal.events()[-1] == "passkey.removed"


@requirement("ID-8")
async def test_one_cannot_enrol_for_another(portal: Portal) -> None:
    """A ceremony begun in one session is finished in that session only."""
    eve, bob = portal.browser(), portal.browser()
    await eve.sign_in(EVE)
    await bob.sign_in(BOB)
    for each in (eve, bob):
        await each.get("/passkeys")
    options = (await eve.script("/passkeys/options", {})).json()
    made = Authenticator(ISSUER).create(options)
    assert (await bob.script("/passkeys/enrol", {"credential": made})).status_code == 401
    assert portal.sign_in.passkeys_of(BOB) == ()


@requirement("ID-8")
async def test_attempts_are_limited(portal: Portal) -> None:
    browser = portal.browser()
    await browser.get("/sign-in")
    statuses = [(await browser.script("/sign-in/options", {})).status_code for _ in range(61)]
    assert statuses == [200] * 60 + [429]
    portal.later(60)
    assert (await browser.script("/sign-in/options", {})).status_code == 200


@requirement("ID-8")
async def test_a_passkey_leads_to_no_other_place(portal: Portal) -> None:
    _, device = await enrolled(portal)
    for wrong in (
        "//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", 7,
    ):  # fmt: skip
        browser = portal.browser()
        await browser.get("/sign-in")
        options = (await browser.script("/sign-in/options", {})).json()
        said = {"credential": device.get(options), "next": wrong}
        answer = await browser.script("/sign-in/passkey", said)
        assert (answer.status_code, answer.json()) == (200, {"next": "/"}), wrong

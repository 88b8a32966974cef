"""``/holds/ID``: who sees what, who gets a button, and what counts as an answer (APP-1, APP-3, APP-4, APP-5)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from approvals_world import (
    ADA,
    BOB,
    BY_FINANCE,
    BY_OWNER,
    DAN,
    EVE,
    FINANCE,
    UMA,
    Seals,
    World,
    drawing,
    held,
    standing,
)
from authenticator import Authenticator
from portal import ISSUER, Browser, Portal
from registry_world import act
from requirements import requirement

from exeat.app.control_app import Beside
from exeat.approvals.model.hold import Hold, HoldState
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.approvals import Approvals
from exeat.console.holds import Held
from exeat.core.controls import CONFIRMED_BY_USER, OWNER, OWNER_ROLE, Channel
from exeat.core.facts import PersonFacts
from exeat.core.grant import Granted
from exeat.core.ids import PersonId
from exeat.storage.state import State, open_state

pytestmark = pytest.mark.anyio


class Desk:
    """Held calls and the pages that tell of them.  ``now``: who stands where, as the pages see it."""

    def __init__(self, state: State) -> None:
        self.now: Standing = standing()
        self.world = World(state)
        self.portal = Portal(state)
        for person in (DAN, UMA):
            self.portal.world.registry.register_person(person, [], act())
        self.pages(self.world.approvals)

    def pages(self, approvals: Approvals) -> None:
        beside = Beside(held=Held(approvals, lambda: self.now))
        self.portal.app = self.portal.served(beside)

    def hold(self, *alternatives: str, **more: Any) -> str:
        return self.world.asked(held(alternatives=(alternatives or (BY_OWNER,),), **more), self.now)

    def found(self, hold: str) -> Hold:
        return self.world.approvals.hold(hold)

    def state(self, hold: str) -> HoldState:
        return self.found(hold).state

    async def browser(self, person: PersonId) -> Browser:
        made = self.portal.browser()
        await made.sign_in(person)
        return made

    async def with_passkey(self, person: PersonId) -> tuple[Browser, Authenticator]:
        browser, key = await self.browser(person), Authenticator(ISSUER)
        await browser.get("/passkeys")
        options = (await browser.script("/passkeys/options", {})).json()
        made = await browser.script("/passkeys/enrol", {"credential": key.create(options)})
        assert made.status_code == 200, made.text
        return browser, key

    async def answer(self, browser: Browser, hold: str, word: str = "approve") -> httpx2.Response:
        """As a person does it: the page, the link, the form."""
        await browser.get(f"/holds/{hold}")
        page = await browser.get(f"/holds/{hold}/{word}")
        assert page.status_code == 200, page.text
        return await browser.submit(
            f"/holds/{hold}/{word}", seen=browser.hidden("seen"), reason="looks right"
        )

    async def confirm(
        self, browser: Browser, key: Authenticator, hold: str, word: str = "approve", **other: Any
    ) -> httpx2.Response:
        """As passkey.js does it.  ``other``: what is answered instead of what was asked."""
        await browser.get(f"/holds/{hold}/{word}")
        seen = self.found(hold).binding.digest
        path = f"/holds/{hold}/{word}"
        options = await browser.script(f"{path}/options", {"seen": seen})
        assert options.status_code == 200, options.text
        said = {"seen": seen, "reason": "", "credential": key.get(options.json())}
        to = other.pop("to", path)
        return await browser.script(f"{to}/passkey", {**said, **other})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    state = open_state(tmp_path / "home")
    yield Desk(state)
    state.close()


# ---- looking


@requirement("APP-4")
async def test_a_stranger_signs_in_first_and_learns_of_no_id(desk: Desk) -> None:
    hold = desk.hold()
    stranger = desk.portal.browser()
    for name in (hold, "h-none"):
        shown = await stranger.get(f"/holds/{name}")
        assert (shown.status_code, shown.text) == (303, "")
        assert shown.headers["location"] == f"/sign-in?next=%2Fholds%2F{name}"
    page = await stranger.get(f"/sign-in?next=%2Fholds%2F{hold}")
    assert f'data-next="/holds/{hold}"' in page.text
    for path in ("options", "passkey"):
        refused = await stranger.script(f"/holds/{hold}/approve/{path}", {})
        assert refused.status_code == 401


@requirement("APP-4", "APP-3")
async def test_the_requester_sees_how_it_stands_and_never_a_button(desk: Desk) -> None:
    hold = desk.hold()
    uma = await desk.browser(UMA)
    page = await uma.get(f"/holds/{hold}")
    assert page.status_code == 200 and "bank/pay" in page.text
    assert 'id="state">waits<' in page.text and "approved_by_owner" in page.text
    assert '<meta http-equiv="refresh" content="5">' in page.text
    assert "DE02" not in page.text and "99.50" not in page.text, "arguments are for approvers"
    assert f"/holds/{hold}/" not in page.text and page.text.count("<form") == 1  # to sign out
    for word in ("approve", "deny"):
        assert (await uma.get(f"/holds/{hold}/{word}")).status_code == 409
        await uma.get(f"/holds/{hold}")
        seen = desk.found(hold).binding.digest
        assert (await uma.submit(f"/holds/{hold}/{word}", seen=seen)).status_code == 409
        await uma.get(f"/holds/{hold}")
        options = await uma.script(f"/holds/{hold}/{word}/options", {"seen": seen})
        assert options.status_code == 409
    assert desk.state(hold) is HoldState.PENDING and desk.found(hold).answers == ()


@requirement("APP-3")
async def test_the_requester_gets_no_button_as_owner_or_admin_either(desk: Desk) -> None:
    hold = desk.hold(user=ADA)
    roles = PersonFacts(ADA, True, frozenset({"admin"}))
    desk.now = standing(people={**standing().people, ADA: roles})
    ada = await desk.browser(ADA)
    page = await ada.get(f"/holds/{hold}")
    assert "DE02" in page.text and 'id="approve"' not in page.text and 'id="deny"' not in page.text
    assert (await ada.get(f"/holds/{hold}/approve")).status_code == 409


@requirement("APP-4")
async def test_unknown_and_not_allowed_look_the_same(desk: Desk) -> None:
    hold = desk.hold()
    dan = await desk.browser(DAN)
    for path in ("", "/approve", "/deny"):
        pages = [await dan.get(f"/holds/{name}{path}") for name in (hold, "h-none", "x" * 500)]
        assert {each.status_code for each in pages} == {404}
        assert len({each.text for each in pages}) == 1
    assert (await dan.get(f"/holds/{hold}/revoke")).status_code == 404
    await dan.get("/passkeys")
    for name in (hold, "h-none"):
        refused = await dan.submit(f"/holds/{name}/approve", seen="")
        assert refused.status_code == 404
        await dan.get("/passkeys")


@requirement("APP-1")
async def test_an_admin_who_is_no_approver_sees_it_and_cannot_answer(desk: Desk) -> None:
    hold = desk.hold()
    people = {**standing().people, DAN: PersonFacts(DAN, True, frozenset({"admin"}))}
    desk.now = standing(people=people)
    dan = await desk.browser(DAN)
    page = await dan.get(f"/holds/{hold}")
    assert "DE02" in page.text and 'id="approve"' not in page.text
    assert (await dan.get(f"/holds/{hold}/approve")).status_code == 409


@requirement("APP-1")
async def test_nothing_in_a_call_acts_or_hides(desk: Desk) -> None:
    hostile = {
        '"><script>alert(1)</script>': "x",
        "to": "a\u202eb</dd><form action=//evil>",
        "long": "y" * 5000,
        "amount = 1, harmless": 10**18,
    }
    hold = desk.hold(arguments=hostile, narrowed={**hostile, "long": "y"})
    page = (await (await desk.browser(ADA)).get(f"/holds/{hold}")).text
    assert "<script>alert" not in page and "<form action=//evil" not in page
    assert "\u202e" not in page and "\\u202e" in page
    assert "NOT SHOWN HERE: 1002 more characters" in page and "made smaller: &#34;y&#34;" in page
    assert "&#34;amount = 1, harmless&#34;" in page and "1000000000000000000" in page
    assert "more than is listed here" not in page
    many = desk.hold(arguments={"to": [f"a{n}@x.example" for n in range(51)]})
    assert (
        "more than is listed here" in (await (await desk.browser(ADA)).get(f"/holds/{many}")).text
    )


@requirement("APP-5")
async def test_headers_of_these_pages(desk: Desk) -> None:
    hold = desk.hold()
    ada = await desk.browser(ADA)
    for path in ("", "/approve"):
        headers = (await ada.get(f"/holds/{hold}{path}")).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert (
            headers["referrer-policy"] == "same-origin" and headers["cache-control"] == "no-store"
        )


# ---- answering, signed in


@requirement("APP-5", "APP-2", "APP-4")
async def test_an_approver_approves_with_a_form_and_looking_changes_nothing(desk: Desk) -> None:
    hold = desk.hold()
    ada = await desk.browser(ADA)
    page = await ada.get(f"/holds/{hold}")
    assert "DE02" in page.text and "99.50" in page.text and 'id="approve"' in page.text
    for method in ("GET", "HEAD"):
        for word in ("approve", "deny", "approve/options", "approve/passkey"):
            await ada.http.request(method, f"/holds/{hold}/{word}")
    assert desk.state(hold) is HoldState.PENDING
    done = await desk.answer(ada, hold)
    assert (done.status_code, done.headers["location"]) == (303, f"/holds/{hold}")
    assert 'id="state">approved<' in (await ada.get(f"/holds/{hold}")).text
    (answer,) = desk.found(hold).answers
    assert (answer.person, answer.channel, answer.reason) == (ADA, Channel.CONSOLE, "looks right")
    events = [each.event for each in desk.world.state.outbox.take(1000)]
    (event,) = [each for each in events if each.kind == "approval.approved"]
    assert (event.actor, event.channel) == (ADA, "console:link")
    assert isinstance(desk.world.claim(), Granted)
    again = await ada.get(f"/holds/{hold}/approve")
    assert again.status_code == 409


@requirement("APP-5")
async def test_an_approver_denies(desk: Desk) -> None:
    hold = desk.hold()
    bob = await desk.browser(BOB)
    assert (await desk.answer(bob, hold, "deny")).status_code == 303
    assert desk.state(hold) is HoldState.DENIED
    page = await bob.get(f"/holds/{hold}")
    assert 'id="state">denied<' in page.text and 'http-equiv="refresh"' not in page.text


@requirement("APP-5")
async def test_only_our_own_form_of_this_session_answers(desk: Desk) -> None:
    hold = desk.hold()
    ada, bob = await desk.browser(ADA), await desk.browser(BOB)
    path = f"/holds/{hold}/approve"
    await ada.get(path)
    await bob.get(path)
    good = {"csrf": ada.csrf, "seen": ada.hidden("seen"), "reason": ""}
    for origin, form, status in (
        ("http://evil.example", good, 403),
        ("http://localhost:3000", good, 403),
        (None, good, 403),
        (ISSUER, {**good, "csrf": ""}, 403),
        (ISSUER, {**good, "csrf": bob.csrf}, 403),
        (ISSUER, {**good, "seen": ""}, 409),
        (ISSUER, {**good, "seen": "0" * 64}, 409),
    ):
        headers = {} if origin is None else {"Origin": origin}
        refused = await ada.http.post(path, data=form, headers=headers)
        assert refused.status_code == status, (origin, form)
    long = await ada.submit(path, seen=good["seen"], reason="x" * 600)
    assert long.status_code == 409 and "The reason is long" in long.text
    assert desk.state(hold) is HoldState.PENDING


@requirement("APP-3")
async def test_two_of_a_quorum(desk: Desk) -> None:
    hold = desk.hold(BY_FINANCE)
    eve, dan = await desk.browser(EVE), await desk.browser(DAN)
    assert (await desk.answer(eve, hold)).status_code == 303
    page = await eve.get(f"/holds/{hold}")
    assert "You have answered" in page.text and 'id="approve"' not in page.text
    assert (await eve.get(f"/holds/{hold}/approve")).status_code == 409
    assert desk.state(hold) is HoldState.PENDING
    assert (await desk.answer(dan, hold)).status_code == 303
    assert desk.state(hold) is HoldState.APPROVED


@requirement("APP-2", "APP-3")
async def test_after_its_time_and_without_authority_there_is_nothing_to_answer(desk: Desk) -> None:
    hold = desk.hold()
    ada = await desk.browser(ADA)
    await ada.get(f"/holds/{hold}/approve")
    csrf, seen = ada.csrf, ada.hidden("seen")
    desk.now = standing(people={**standing().people, ADA: PersonFacts(ADA, False)})
    gone = await ada.http.post(
        f"/holds/{hold}/approve", data={"csrf": csrf, "seen": seen}, headers={"Origin": ISSUER}
    )
    assert gone.status_code == 404
    desk.now = standing()
    for _ in range(3):  # a session ends when it is not used for an hour
        desk.portal.later(25 * 60)
        page = await ada.get(f"/holds/{hold}")
    ada = await desk.browser(ADA)
    page = await ada.get(f"/holds/{hold}")
    assert 'id="state">over' in page.text and 'id="approve"' not in page.text
    assert (await ada.get(f"/holds/{hold}/approve")).status_code == 409
    assert desk.state(hold) is HoldState.PENDING


# ---- answering, with a passkey


def by_passkey() -> Standing:
    role = replace(OWNER_ROLE, channels=frozenset({Channel.PASSKEY}))
    return standing(roles={OWNER: role, "finance": FINANCE})


@requirement("APP-3", "APP-5")
async def test_a_role_of_passkeys_takes_a_fresh_one_and_nothing_less(desk: Desk) -> None:
    desk.now = by_passkey()
    hold = desk.hold()
    ada, key = await desk.with_passkey(ADA)
    page = await ada.get(f"/holds/{hold}/approve")
    assert 'id="answer"' in page.text and 'id="go"' not in page.text
    assert f'data-seen="{desk.found(hold).binding.digest}"' in page.text
    assert page.text.count("<form") == 1, "the key Enter must not send a form"
    refused = await ada.submit(f"/holds/{hold}/approve", seen=desk.found(hold).binding.digest)
    assert refused.status_code == 409 and desk.state(hold) is HoldState.PENDING
    done = await desk.confirm(ada, key, hold)
    assert (done.status_code, done.json()) == (200, {"next": f"/holds/{hold}"})
    (answer,) = desk.found(hold).answers
    assert (answer.channel, desk.state(hold)) == (Channel.PASSKEY, HoldState.APPROVED)
    events = [each.event for each in desk.world.state.outbox.take(1000)]
    (event,) = [each for each in events if each.kind == "approval.approved"]
    assert event.channel.startswith("passkey:pk-")


@requirement("APP-5")
async def test_a_challenge_serves_one_answer_alone(desk: Desk) -> None:
    """It is for this hold, this word, this session and this person's passkey, once."""
    desk.now = by_passkey()
    hold, other = desk.hold(), desk.hold(run="run-2")
    ada, key = await desk.with_passkey(ADA)
    bob, bobs = await desk.with_passkey(BOB)
    word = await desk.confirm(ada, key, hold, to=f"/holds/{hold}/deny")
    assert word.status_code == 401
    another = await desk.confirm(
        ada, key, hold, to=f"/holds/{other}/approve", seen=desk.found(other).binding.digest
    )
    assert another.status_code == 401
    assert (await desk.confirm(ada, bobs, hold)).status_code == 401
    assert (await desk.confirm(ada, key, hold, seen="0" * 64)).status_code == 409
    assert (await desk.confirm(ada, key, hold, credential="x")).status_code == 422

    await bob.get(f"/holds/{hold}/approve")  # in another session
    seen, path = desk.found(hold).binding.digest, f"/holds/{hold}/approve"
    await ada.get(path)
    options = (await ada.script(f"{path}/options", {"seen": seen})).json()
    said = {"seen": seen, "reason": "", "credential": bobs.get(options)}
    assert (await bob.script(f"{path}/passkey", said)).status_code == 401

    signing = (await ada.script("/sign-in/options", {})).json()  # nor does one for signing in
    said = {"seen": seen, "reason": "", "credential": key.get(signing)}
    assert (await ada.script(f"{path}/passkey", said)).status_code == 401

    options = (await ada.script(f"{path}/options", {"seen": seen})).json()
    desk.portal.later(301)
    said["credential"] = key.get(options)
    late = await ada.script(f"{path}/passkey", said)
    assert late.status_code == 401

    options = (await ada.script(f"{path}/options", {"seen": seen})).json()
    key.verified = False  # present, but it asked for neither PIN nor finger
    said["credential"] = key.get(options)
    assert (await ada.script(f"{path}/passkey", said)).status_code == 401
    key.verified = True
    assert {desk.state(hold), desk.state(other)} == {HoldState.PENDING}

    options = (await ada.script(f"{path}/options", {"seen": seen})).json()
    said["credential"] = key.get(options)
    assert (await ada.script(f"{path}/passkey", said)).status_code == 200
    assert (await ada.script(f"{path}/passkey", said)).status_code == 401
    assert desk.state(hold) is HoldState.APPROVED and desk.state(other) is HoldState.PENDING


@requirement("APP-3", "APP-5")
async def test_a_session_makes_no_passkey_that_answers_for_its_person(desk: Desk) -> None:
    """Who has come into a session could enrol one; the person had one when the call was held."""
    desk.now = by_passkey()
    _, old = await desk.with_passkey(ADA)
    hold = desk.hold()
    desk.portal.later(60)
    stolen, fresh = await desk.with_passkey(ADA)
    refused = await desk.confirm(stolen, fresh, hold)
    assert refused.status_code == 409 and "newer than the question" in refused.text
    assert desk.state(hold) is HoldState.PENDING
    assert (await desk.confirm(stolen, old, hold)).status_code == 200
    assert desk.state(hold) is HoldState.APPROVED


@requirement("APP-3")
async def test_alone_the_user_confirms_and_nobody_calls_it_an_approval(desk: Desk) -> None:
    desk.now = standing(people={UMA: PersonFacts(UMA, True)}, solo=True)
    hold = desk.hold(CONFIRMED_BY_USER)
    uma, key = await desk.with_passkey(UMA)
    texts = [(await uma.get(f"/holds/{hold}{path}")).text for path in ("", "/approve")]
    assert "DE02" in texts[0] and 'id="approve"' in texts[0] and "Confirm" in texts[1]
    refused = await uma.submit(f"/holds/{hold}/approve", seen=desk.found(hold).binding.digest)
    assert refused.status_code == 409 and desk.state(hold) is HoldState.PENDING
    assert (await desk.confirm(uma, key, hold)).status_code == 200
    texts.append((await uma.get(f"/holds/{hold}")).text)
    assert 'id="state">confirmed<' in texts[2]
    for text in texts:
        plain = text
        for name in (f"/holds/{hold}/approve", 'id="approve"', "pay-with-approval"):
            plain = plain.replace(name, "")  # addresses, and a policy's id
        assert "approv" not in plain.lower(), plain
    kinds = desk.world.events()
    assert "hold.confirmed" in kinds and "approval.approved" not in kinds


@requirement("APP-3")
async def test_alone_one_confirms_also_for_an_agent_without_a_user(desk: Desk) -> None:
    desk.now = standing(people={UMA: PersonFacts(UMA, True)}, solo=True)
    hold = desk.hold(CONFIRMED_BY_USER, user=None)
    uma, key = await desk.with_passkey(UMA)
    assert "the one person there is, with a passkey" in (await uma.get(f"/holds/{hold}")).text
    assert (await desk.confirm(uma, key, hold, "deny")).status_code == 200
    assert desk.state(hold) is HoldState.DENIED


@requirement("APP-1")
async def test_what_cannot_be_shown_is_not_approved(desk: Desk) -> None:
    hold = desk.hold()
    other = Approvals(desk.world.state.approvals, Seals(b"x" * 32), drawing())
    desk.pages(other)
    ada = await desk.browser(ADA)
    page = await ada.get(f"/holds/{hold}")
    assert "cannot be shown" in page.text and 'id="approve"' not in page.text
    assert (await ada.get(f"/holds/{hold}/approve")).status_code == 409
    assert (await ada.get(f"/holds/{hold}/deny")).status_code == 200

"""New holds are posted, signed, again and again until they arrive, and only where that is allowed (APP-5)."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from approvals_world import ADA, BOB, CALL, HOUR, NOW, World, held, standing
from local_site import Answer, LocalSite, local_site
from requirements import requirement

from exeat.adapters.approval_notices import Poster, Targets, chat_text
from exeat.adapters.fetch import Fetcher
from exeat.app.held_calls import open_held_calls, webhook_secret
from exeat.app.noticing import AGAIN_FIRST_NS, LEASE, Noticing, Sources
from exeat.app.settings import Settings
from exeat.app.vault import open_vault, without_vault_key
from exeat.approvals.model.hold import SECOND_NS, Word
from exeat.approvals.rules.messages import verified
from exeat.core.errors import ExeatError, Invalid, NotFound
from exeat.core.ids import ActionId
from exeat.storage.state import State, open_state

pytestmark = pytest.mark.anyio
SECRET = b"s" * 32
HOOK, CHAT = "/hook?token=x", "/chat"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = open_state(tmp_path / "home")
    yield made
    made.close()


class Desk:
    """One gateway's notices; time is set by the test."""

    def __init__(self, state: State, targets: Targets, allow: str = "127.0.0.1") -> None:
        self.world = World(state)
        self.now = NOW
        self.secret: bytes | ExeatError = SECRET
        self.noticing = Noticing(
            self.world.approvals,
            state.leases,
            Poster(Fetcher(frozenset({allow}) if allow else frozenset()), targets),
            Sources(self._secret, standing, lambda: self.now),
        )

    def _secret(self) -> bytes:
        if isinstance(self.secret, ExeatError):
            raise self.secret
        return self.secret

    async def look(self, after: int = 0) -> None:
        self.now += after
        await self.noticing.look()


@contextlib.asynccontextmanager
async def site(**answers: Answer) -> AsyncIterator[LocalSite]:
    routes = {"/hook": answers.get("hook", Answer()), CHAT: answers.get("chat", Answer(b"ok"))}
    async with local_site(routes) as made:
        yield made


def both(found: LocalSite) -> Targets:
    return Targets(found.url + HOOK, found.url + CHAT)


@requirement("APP-5", "APP-1")
async def test_a_new_hold_is_posted_once_signed_with_the_whole_call(state: State) -> None:
    async with site() as found:
        desk = Desk(state, both(found))
        hold = desk.world.asked()
        await desk.look()
        await desk.look(after=HOUR // 2)
        assert sorted(found.paths()) == [CHAT, "/hook"]
        (asked,) = [each for each in found.asked if each.path == "/hook"]
        headers = {name: [value] for name, value in asked.headers.items()}
        received = verified(SECRET, headers, asked.body, NOW // SECOND_NS)
        assert received.id == f"requested-{hold}"
        assert (asked.json["type"], asked.json["data"]["id"]) == ("approval.requested", hold)
        assert json.loads(asked.json["data"]["arguments"])["to"] == CALL["to"]
        assert asked.json["data"]["asked"][0][0]["people"] == [ADA, BOB]


@requirement("APP-5")
async def test_a_chat_is_told_no_argument_and_nothing_in_it_acts(state: State) -> None:
    async with site() as found:
        desk = Desk(state, Targets(notifier=found.url + CHAT))
        hold = desk.world.asked(held(action=ActionId("bank/<!channel> @here *pay*\u202e")))
        await desk.look()
        (asked,) = found.asked
        text = asked.json["text"]
        assert text == (
            "exeat: bot for uma waits for people to answer bank/_!channel_ _here _pay_?"
            f" (effect pay, sink external). Asked: ada, bob. See it: exeat approvals show {hold}"
        )
        assert "DE02" not in asked.body.decode()


@requirement("APP-5")
@pytest.mark.parametrize(
    "failing", [Answer(status=500), Answer(status=302, headers={"location": "/"})]
)
async def test_what_does_not_arrive_is_sent_again_ever_later(state: State, failing: Answer) -> None:
    async with site(hook=failing) as found:
        desk = Desk(state, both(found))
        desk.world.asked()
        await desk.look()
        assert sorted(found.paths()) == [CHAT, "/hook"]
        for wait in (AGAIN_FIRST_NS, 2 * AGAIN_FIRST_NS, 4 * AGAIN_FIRST_NS):
            before = len(found.asked)
            await desk.look(after=wait - 1)
            assert len(found.asked) == before
            await desk.look(after=1)
            assert found.paths()[before:] == ["/hook"], "the chat was told before"
        found.routes["/hook"] = Answer()
        await desk.look(after=8 * AGAIN_FIRST_NS)
        ids = {each.headers.get("webhook-id") for each in found.asked if each.path == "/hook"}
        assert len(ids) == 1, "the receiver knows a repetition by its id"
        before = len(found.asked)
        await desk.look(after=AGAIN_FIRST_NS * 1000)
        assert len(found.asked) == before


@requirement("APP-5")
async def test_a_receiver_that_is_not_there_or_not_allowed_harms_nobody(state: State) -> None:
    async with site() as found:
        desk = Desk(state, Targets(found.url + HOOK, "http://127.0.0.1:1/gone"), allow="")
        hold = desk.world.asked()
        await desk.look()
        assert found.asked == [], "an address that nobody allowed is not called (GW-10)"
        desk.world.say(hold, ADA)
        await desk.look(after=AGAIN_FIRST_NS)
        with desk.world.approvals.store.read() as read:
            assert read.notices(NOW + HOUR, 10) == (), "decided: nobody needs to be told"


@requirement("APP-5")
async def test_without_its_secret_the_webhook_waits_and_the_chat_does_not(state: State) -> None:
    async with site() as found:
        desk = Desk(state, both(found))
        desk.secret = NotFound("no secret")
        desk.world.asked()
        await desk.look()
        assert found.paths() == [CHAT]
        desk.secret = SECRET
        await desk.look(after=AGAIN_FIRST_NS)
        assert found.paths() == [CHAT, "/hook"]


@requirement("APP-2", "APP-5")
async def test_of_several_gateways_one_posts_and_expires(state: State) -> None:
    async with site() as found:
        first, second = Desk(state, both(found)), Desk(state, both(found))
        first.world.asked()
        await first.look()
        second.world.asked(held({"n": 1}))
        await second.look()
        assert len(found.asked) == 2
        await first.look()
        assert len(found.asked) == 4
        await second.look(after=2 * HOUR)
        assert "approval.expired" not in first.world.events()
        await first.look(after=2 * HOUR)
        assert first.world.events().count("approval.expired") == 2
        state.leases.give_up(LEASE, first.noticing._owner)


@requirement("APP-5")
async def test_denied_before_anybody_was_told(state: State) -> None:
    async with site() as found:
        desk = Desk(state, both(found))
        desk.world.say(desk.world.asked(), ADA, Word.DENY)
        await desk.look()
        assert found.asked == []


@requirement("APP-5")
async def test_settings_that_do_not_fit_together(state: State, tmp_path: Path) -> None:
    settings = Settings(approval_webhook_url="https://hooks.example/x")
    vault = open_vault(tmp_path / "home", settings, state)
    with pytest.raises(Invalid, match="there is no secret"):
        open_held_calls(settings, state, vault)
    alone = open_held_calls(Settings(), state, vault)
    assert alone.endpoint is None


@requirement("APP-5", "ID-10")
async def test_the_secret_comes_from_the_vault_or_the_environment_and_goes_nowhere(
    state: State, tmp_path: Path
) -> None:
    text = "whsec_" + "c3Nz" * 8
    by_name = Settings(approval_webhook_secret="env:HOOK_KEY")
    vault = open_vault(tmp_path / "home", by_name, state)
    environ: dict[str, Any] = {"HOOK_KEY": text, "PATH": "/bin"}
    assert webhook_secret(by_name, vault, environ)() == b"s" * 24
    assert without_vault_key(by_name, environ) == {"PATH": "/bin"}
    with pytest.raises(Invalid):
        webhook_secret(by_name, vault, {})()
    in_vault = Settings(approval_webhook_secret="hook")
    with pytest.raises(NotFound):
        webhook_secret(in_vault, vault, {})()
    with pytest.raises(ValueError, match="approval_webhook_secret"):
        Settings(approval_webhook_secret="whsec_AAAA/BBB=")


@requirement("APP-5")
def test_chat_text_without_people() -> None:
    call = {
        "id": "h-1",
        "agent": "bot",
        "user": "",
        "tool": "t",
        "effect": "",
        "sink": "",
        "asked": [],
    }
    assert chat_text(call).startswith("exeat: bot waits for people to answer t (effect unknown")
    assert replace(Targets(), webhook="x").names == {"webhook"}

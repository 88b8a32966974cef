"""ID-9: calls to servers that want a credential of the gateway's, and what a client is told without one."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from requirements import requirement
from worlds import META, Answer, Seen, World, content, until

from exeat.core.errors import ExeatError
from exeat.core.facts import Lifecycle, ServerSpec
from exeat.core.upstream_auth import (
    NO_CREDENTIAL,
    AuthMode,
    ConsentNeeded,
    Credential,
    CredentialFailed,
    Refused,
    UpstreamAuth,
)

pytestmark = pytest.mark.anyio
PER_USER = UpstreamAuth(AuthMode.AUTHORIZATION_CODE)
LINK = "http://localhost:8718/upstreams/consent/abc"
URLS = {"elicitation": {"url": {}}}


@dataclass
class Purse:
    """Credentials as the test hands them out.  ``next``: what a refusal brings, by principal."""

    held: dict[str, Credential] = field(default_factory=dict)
    next: dict[str, list[Credential | ExeatError]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    held_back: asyncio.Event | None = None

    def account(self, spec: ServerSpec, principal: str) -> "Account":
        return Account(self, principal)


@dataclass
class Account:
    purse: Purse
    principal: str

    def current(self) -> Credential | None:
        return self.purse.held.get(self.principal)

    async def obtain(self, refused: Refused | None) -> Credential:
        purse = self.purse
        if refused is None:
            return purse.held.setdefault(self.principal, NO_CREDENTIAL)
        purse.refused.append(refused)
        purse.asked.set()
        if purse.held_back is not None:
            await purse.held_back.wait()
        found = purse.next[self.principal].pop(0)
        if isinstance(found, ExeatError):
            raise found
        purse.held[self.principal] = found
        return found

    async def consented(self, seconds: float) -> bool:
        self.purse.held[self.principal] = Credential("Bearer good")
        return True


def bearer(seen: Seen) -> str:
    lines = [line for line in seen.head.split(b"\r\n") if line.startswith(b"authorization: ")]
    return lines[0][15:].decode() if lines else ""


def refuse(seen: Seen, status: int = 401, challenge: str = 'Bearer scope="a"') -> None:
    head = f"HTTP/1.1 {status} No\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n"
    seen.writer.write(head.encode())


class Guarded(World):
    """The upstream takes ``good`` alone, for every method."""

    good: tuple[str, ...] = ("Bearer good",)

    async def __aenter__(self) -> "Guarded":
        await super().__aenter__()
        answer = self.upstream._answer

        async def guarded(seen: Seen) -> None:
            if bearer(seen) in self.good:
                await answer(seen)
            else:
                refuse(seen)

        self.upstream._answer = guarded  # type: ignore[method-assign]
        return self

    def tool_with(self, capabilities: Any, **params: Any) -> bytes:
        meta = {**META, "io.modelcontextprotocol/clientCapabilities": capabilities}
        return self.modern("tools/call", {"name": "add", "arguments": {}, **params, "_meta": meta})


def purse(*found: Credential | ExeatError, principal: str = "bot/-") -> Purse:
    return Purse(next={principal: list(found)})


def consent() -> ConsentNeeded:
    return ConsentNeeded("up", LINK, "id-1")


GOOD = Credential("Bearer good")


@requirement("ID-9")
@pytest.mark.parametrize("legacy", [False, True])
async def test_a_refused_request_is_sent_once_more_with_a_better_credential(legacy: bool) -> None:
    held = purse(GOOD)
    async with Guarded(auth=PER_USER, credentials=held, legacy=legacy) as world:
        answer = await world.ask(world.tool())
        assert answer.json["result"]["content"] == []
        assert held.refused[0].challenge == 'Bearer scope="a"'
        assert [bearer(seen) for seen in world.upstream.calls] == ["Bearer good"]
        assert world.ledger.ended == [("ok", "")]
        held.next["bot/-"] = [Credential("Bearer newer")]
        world.good = ("Bearer newer",)  # the server ended the token: a call meets that
        await world.ask(world.tool())
        calls = [bearer(seen) for seen in world.upstream.calls]
        assert calls == ["Bearer good", "Bearer good", "Bearer newer"]
        assert world.ledger.ended == [("ok", "")] * 2


@requirement("ID-9")
async def test_who_never_gets_a_good_one_is_not_sent_on_and_on() -> None:
    held = purse(GOOD)
    async with Guarded(auth=PER_USER, credentials=held) as world:
        await world.ask(world.tool())
        world.good = ()
        held.next["bot/-"] = [Credential(f"Bearer {n}") for n in range(9)]
        answer = await world.ask(world.tool())
        assert "refused the gateway's credential" in answer.error["message"]
        assert answer.error["data"]["sent"] is False
        assert len(world.upstream.calls) == 1 + 3
        assert world.ledger.ended[-1] == ("failed", "not_sent")


@requirement("ID-9", "GW-11")
@pytest.mark.parametrize("how", ["403", "500", "cut", "401 in the result"])
async def test_what_may_have_been_carried_out_is_never_sent_again(how: str) -> None:
    held = purse(GOOD)

    async def script(seen: Seen) -> None:
        if how == "cut":
            seen.cut()
        elif how == "401 in the result":
            seen.error(401, "unauthorized")
        else:
            refuse(seen, int(how), 'Bearer error="invalid_token"')

    async with Guarded(auth=PER_USER, credentials=held) as world:
        world.upstream.script = script
        answer = await world.ask(world.tool())
        assert "error" in answer.json
        assert len(world.upstream.calls) == 1 and len(held.refused) == 1


@requirement("ID-9")
async def test_want_of_scope_is_told_apart_from_a_plain_no() -> None:
    held = purse(GOOD, Credential("Bearer more"))

    async def script(seen: Seen) -> None:
        if bearer(seen) == "Bearer more":
            await content(seen)
        else:
            refuse(seen, 403, 'Bearer error="insufficient_scope", scope="b"')

    async with Guarded(auth=PER_USER, credentials=held) as world:
        world.good = ("Bearer good", "Bearer more")
        world.upstream.script = script
        assert "result" in (await world.ask(world.tool())).json
        assert held.refused[-1].status == 403


@requirement("ID-9", "APP-10")
async def test_an_agent_that_was_suspended_meanwhile_is_not_sent_again() -> None:
    held = purse(GOOD)
    async with Guarded(auth=PER_USER, credentials=held) as world:
        await world.ask(world.tool())
        world.good = ("Bearer newer",)
        held.next["bot/-"], held.held_back = [Credential("Bearer newer")], asyncio.Event()
        held.asked.clear()
        asking = asyncio.create_task(world.ask(world.tool()))
        await held.asked.wait()
        world.state.view = world.view(lifecycle=Lifecycle.SUSPENDED)
        held.held_back.set()
        answer = await asking
        assert "changed meanwhile" in answer.error["message"]
        assert [bearer(seen) for seen in world.upstream.calls] == ["Bearer good"] * 2
        assert world.ledger.ended == [("ok", ""), ("failed", "not_sent")]  # one outcome each


@requirement("ID-9")
async def test_one_principals_credential_serves_no_other() -> None:
    eve = Credential("Bearer eve")
    held = Purse(next={"bot/-": [GOOD], "eve/-": [eve]})
    async with Guarded(auth=PER_USER, credentials=held) as world:
        world.good = ("Bearer good", "Bearer eve")
        for key in ("bot", "eve", "bot", "eve"):
            assert "result" in (await world.ask(world.tool(key=key))).json
        calls = [bearer(seen) for seen in world.upstream.calls]
        assert calls == ["Bearer good", "", "Bearer eve", "Bearer good", "Bearer eve"]


@requirement("ID-9")
async def test_what_a_server_says_of_itself_to_one_person_is_shown_to_no_other() -> None:
    """Its instructions may speak of whose account it is; who has given no consent learns nothing."""
    held = Purse(next={"bot/-": [GOOD], "eve/-": [consent(), consent(), Credential("Bearer eve")]})
    async with Guarded(auth=PER_USER, credentials=held) as world:
        world.good = ("Bearer good", "Bearer eve")

        async def personal(seen: Seen) -> None:
            about = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            seen.result({**about, "instructions": f"for {bearer(seen)}"})

        async def modern_only(seen: Seen) -> None:
            seen.error(-32601)

        world.upstream.own |= {"server/discover": personal, "initialize": modern_only}

        async def told(key: str) -> Any:
            found = await world.ask(world.modern("server/discover", {}, key=key))
            return found.json["result"].get("instructions")

        assert await told("bot") == "for Bearer good"
        assert await told("eve") is None  # no consent yet
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}
        for key, says in (("eve", None), ("bot", "for Bearer good")):
            legacy = await world.ask(world.old("initialize", hello, "", key=key))
            assert legacy.json["result"].get("instructions") == says
        assert await told("eve") == "for Bearer eve"
        assert await told("bot") == "for Bearer good"


@requirement("ID-9")
async def test_an_agents_own_key_never_reaches_the_server() -> None:
    async with Guarded(auth=PER_USER, credentials=purse(GOOD)) as world:
        await world.ask(world.tool())
        assert not any(b"Bearer bot" in seen.head for seen in world.upstream.seen)


@requirement("ID-9")
async def test_a_client_that_gives_up_ends_the_renewal() -> None:
    held = purse(GOOD)
    async with Guarded(auth=PER_USER, credentials=held) as world:
        await world.ask(world.tool())
        world.good, held.held_back = (), asyncio.Event()
        held.asked.clear()
        async with world.connect() as client:
            client.write(world.tool())
            await held.asked.wait()
        await until(lambda: world.ledger.ended[-1] == ("cancelled", "client_closed"))
        held.held_back.set()
        assert len(world.upstream.calls) == 2


# ---- consent


@requirement("ID-9")
async def test_a_modern_client_is_asked_to_open_the_page_and_its_retry_waits() -> None:
    async with Guarded(auth=PER_USER, credentials=purse(consent())) as world:
        answer = await world.ask(world.tool_with(URLS))
        result = answer.json["result"]
        assert result["resultType"] == "input_required"
        ((key, question),) = result["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        assert (question["params"]["mode"], question["params"]["url"]) == ("url", LINK)
        assert world.ledger.ended == [("failed", "consent_needed")]
        retry = world.tool_with(
            URLS, requestState=result["requestState"], inputResponses={key: {"action": "accept"}}
        )
        again = await world.ask(retry)
        assert again.json["result"]["resultType"] == "complete"
        (call,) = world.upstream.calls
        assert bearer(call) == "Bearer good"
        assert "inputResponses" not in call.message["params"]
        assert "requestState" not in call.message["params"]
        assert "answer_unasked" not in world.ledger.counts


@requirement("ID-9")
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_person_who_does_not_want_to_is_not_asked_again(action: str) -> None:
    async with Guarded(auth=PER_USER, credentials=purse(consent())) as world:
        result = (await world.ask(world.tool_with(URLS))).json["result"]
        (key,) = result["inputRequests"]
        retry = world.tool_with(
            URLS, requestState=result["requestState"], inputResponses={key: {"action": action}}
        )
        answer = await world.ask(retry)
        assert "did not give access" in answer.error["message"]
        assert world.upstream.calls == []


def check_tool_error(answer: Answer) -> None:
    result = answer.json["result"]
    assert result["isError"] is True
    assert LINK in result["content"][0]["text"]
    assert result["_meta"]["exeat/consent"]["url"] == LINK


@requirement("ID-9")
async def test_who_cannot_open_pages_is_told_where_the_page_is() -> None:
    held = purse(*(consent() for _ in range(9)))
    async with Guarded(auth=PER_USER, credentials=held) as world:
        check_tool_error(await world.ask(world.tool()))
        check_tool_error(await world.ask(world.tool_with({"elicitation": {"form": {}}})))
        session = await world.session()
        check_tool_error(
            await world.ask(world.old("tools/call", {"name": "add", "arguments": {}}, session))
        )
        assert world.upstream.calls == []


@requirement("ID-9")
async def test_a_legacy_client_that_opens_pages_gets_its_own_error() -> None:
    held = purse(*(consent() for _ in range(9)))
    async with Guarded(auth=PER_USER, credentials=held) as world:
        session = await world.session(capabilities=URLS)
        for method, params in (
            ("tools/call", {"name": "add", "arguments": {}}),
            ("prompts/get", {"name": "p"}),
            ("prompts/list", {}),
        ):
            error = (await world.ask(world.old(method, params, session))).error
            assert error["code"] == -32042
            (elicitation,) = error["data"]["elicitations"]
            assert elicitation["mode"] == "url" and elicitation["url"] == LINK
            assert elicitation["elicitationId"] == "id-1" and elicitation["message"]


@requirement("ID-9")
async def test_tools_are_listed_as_they_are_pinned_until_consent_is_there() -> None:
    held = purse(*(consent() for _ in range(9)))
    async with Guarded(auth=PER_USER, credentials=held) as world:
        answer = await world.ask(world.modern("tools/list", {}))
        assert [tool["name"] for tool in answer.json["result"]["tools"]] == ["add", "secret"]
        everything = world.modern("tools/list", {}).replace(b"POST /mcp/up ", b"POST /mcp ")
        answer = await world.ask(everything)
        assert [tool["name"] for tool in answer.json["result"]["tools"]] == [
            "up__add",
            "up__secret",
        ]
        answer = await world.ask(world.modern("prompts/list", {}))
        assert answer.error["code"] == -31506 and answer.error["data"]["url"] == LINK
        answer = await world.ask(world.modern("server/discover", {}))
        assert "tools" in answer.json["result"]["capabilities"]


@requirement("ID-9", "GW-8")
async def test_a_call_that_is_denied_leads_to_no_page() -> None:
    held = purse(*(consent() for _ in range(9)))
    async with Guarded(
        auth=PER_USER, credentials=held, policy='@id("none") forbid(principal, action, resource);'
    ) as world:
        answer = await world.ask(world.tool_with(URLS))
        assert LINK not in answer.body.decode()
        assert held.refused == [] and world.upstream.seen == []


@requirement("ID-9")
async def test_a_credential_that_nobody_can_help_is_a_failure_that_says_so() -> None:
    failed = CredentialFailed("https://as.example gave no token (HTTP 400, invalid_client)")
    async with Guarded(auth=PER_USER, credentials=purse(failed, failed, failed)) as world:
        answer = await world.ask(world.tool_with(URLS))
        assert "invalid_client" in answer.error["message"]
        assert answer.error["data"]["sent"] is False
        assert world.ledger.ended == [("failed", "not_sent")]


@requirement("ID-9")
async def test_what_must_be_done_first_is_said_instead_of_try_again() -> None:
    failed = CredentialFailed("bot acts for nobody", remedy="show a key that names the person")
    async with Guarded(auth=PER_USER, credentials=purse(failed, failed, failed)) as world:
        error = (await world.ask(world.tool_with(URLS))).error
        assert "cannot be used: bot acts for nobody" in error["message"]
        assert "was not carried out" in error["data"]["remedy"]
        assert "show a key that names the person" in error["data"]["remedy"]
        assert "try again" not in error["message"]


@requirement("ID-9")
async def test_at_the_command_line_there_is_no_credential() -> None:
    async with Guarded(auth=PER_USER) as world:
        answer = await world.ask(world.tool())
        assert "only a running gateway has" in answer.error["message"]
        assert world.upstream.seen == []

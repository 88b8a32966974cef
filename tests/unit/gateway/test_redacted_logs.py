"""What a server logs outside of the call whose result was redacted is redacted, too (POL-9)."""

import asyncio
import json
from typing import Any

import pytest
from requirements import requirement
from worlds import UP, Seen, World, definition, sse, until

from exeat.core.obligations import OnResult
from exeat.gateway.redaction import afterwards
from exeat.gateway.redaction.afterwards import LOG, Afterwards

pytestmark = pytest.mark.anyio
WHO = "ada.lovelace@example.org"
POLICY = """
@id("clean") permit(principal, action == Action::"up/people", resource) when
  { context.session.controls.contains(Control::"redacted_pii") };
@id("slow") permit(principal, action == Action::"up/slow", resource);
"""
STANDING = (
    b"GET /mcp/up HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer bot\r\n"
    b"Accept: text/event-stream\r\nMcp-Session-Id: %b\r\n\r\n"
)


def log(**params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": LOG, "params": {"level": "info", **params}})


@requirement("POL-9")
@pytest.mark.parametrize("place", ["the standing stream", "another call's stream"])
async def test_a_log_line_outside_of_the_call_shows_no_more_than_its_result(place: str) -> None:
    streams: list[Seen] = []

    async def script(seen: Seen) -> None:
        if seen.message is None or seen.message.get("params", {}).get("name") == "slow":
            streams.append(seen)
            seen.stream()
        elif seen.method == "tools/call":
            seen.result({"content": [{"type": "text", "text": WHO}]})
        else:
            seen.accept()

    tools = [definition("people"), definition("slow")]
    async with World(legacy=True, tools=tools, policy=POLICY) as world:
        world.upstream.script = script
        session = await world.session()
        async with asyncio.timeout(10), world.connect() as client:
            if place == "the standing stream":
                client.write(STANDING % session.encode())
            else:
                client.write(world.old("tools/call", {"name": "slow"}, session, id=9))
            await until(lambda: len(streams) == 1)
            before, after = log(data={"who": f"before {WHO}"}), log(data={"who": f"after {WHO}"})
            streams[0].writer.write(sse(before))
            await client.head()
            while b"before" not in (said := await client.chunk()):
                pass
            assert WHO.encode() in said, "nothing was redacted yet"
            answer = await world.ask(world.old("tools/call", {"name": "people"}, session, id=2))
            assert WHO not in json.dumps(answer.json)
            streams[0].writer.write(sse(after))
            while b"after" not in (said := await client.chunk()):
                pass
            assert WHO.encode() not in said and b"[redacted:email]" in said


@requirement("POL-9")
async def test_others_hear_what_they_heard() -> None:
    """Only the principal and the server whose results were redacted, and only the log."""
    params = json.dumps({"data": WHO}).encode()
    found = Afterwards()
    found.redacted("bot/-", UP, OnResult(frozenset({"email"})))
    found.redacted("bot/-", UP, OnResult(frozenset({"iban"}), ("/note",)))
    assert WHO.encode() not in (found.clean("bot/-", UP, LOG, params) or b"")
    hidden = json.dumps({"data": {"note": "the note", "n": 1}}).encode()
    assert b"the note" not in (found.clean("bot/-", UP, LOG, hidden) or b"")
    assert found.clean("bot/-", UP, "notifications/progress", params) == params
    assert found.clean("eve/-", UP, LOG, params) == params
    assert found.clean("bot/-", UP, LOG, b"[") is None
    capped = Afterwards()
    capped.redacted("bot/-", UP, OnResult(rows=1))
    assert capped.clean("bot/-", UP, LOG, params) == params, "nothing was hidden in results"


@requirement("POL-9")
async def test_when_too_many_are_known_no_log_of_others_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(afterwards, "KEPT_MAX", 1)
    found, asked = Afterwards(), OnResult(frozenset({"email"}))
    assert found.clean("a/-", UP, LOG, b"{}") == b"{}"
    found.redacted("a/-", UP, asked)
    found.redacted("b/-", UP, asked)
    assert found.clean("b/-", UP, LOG, b'{"data":"x"}') is None
    assert found.clean("a/-", UP, LOG, b'{"data":"x"}') is not None


@requirement("POL-9")
async def test_a_failure_quotes_nothing_that_the_result_may_not_show() -> None:
    async def script(seen: Seen) -> None:
        seen.result({"content": [], "resultType": WHO})

    async with World(tools=[definition("people")], policy=POLICY) as world:
        world.upstream.script = script
        answer = await world.ask(world.tool("people"))
        assert "lovelace" not in json.dumps(answer.json)
        assert "[redacted:email]" in json.dumps(answer.json)

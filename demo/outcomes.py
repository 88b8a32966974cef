"""Scenes of the demo that end otherwise than in yes or no: a call made smaller, a result redacted, a call
held for a person, a bounded grant, a budget that ends, and the kill switch.

People act through the `exeat` command, as an operator would.
"""

import asyncio
import json
from typing import Any, Final

from mcp import Client
from mcp.shared.exceptions import MCPError
from story import Story, agent, asking_for_a_report, first, text, until

KEPT_OPEN_S: Final = 300
BOUND: Final = 10
SECRET: Final = ("erin@customer.example", "ben@customer.example", "4111", "AKIA")
TO_SUPPLIER: Final = {"from_account": "ops", "to_account": "supplier-17", "currency": "EUR"}


def payment(amount: int) -> dict[str, Any]:
    return {**TO_SUPPLIER, "amount": amount}


async def narrowed(story: Story) -> None:
    """The policy's own bound goes to the office; the agent is told."""
    asked, tried = {"words": "", "limit": 500}, "search the mail, for 500\nanswers"
    async with agent(story.world, story.keys["assistant"]) as client:
        result, entry = await story.carried_out(client, "office__search_mail", asked, tried)
    sent = story.world.executed("search_mail")[-1]["arguments"]
    story.expect(sent == {**asked, "limit": BOUND}, f"{tried}: the office got {sent}")
    got = len(result.structured_content["mails"])
    story.expect(got == BOUND, f"{tried}: {got} mails came back")
    told = (result.meta or {}).get("exeat/narrowed", {}).get("changes")
    story.expect(told == {"limit": {"asked": 500, "sent": BOUND}}, f"{tried}: it was told {told}")
    story.expect("limit: 500 → 10" in text(result), f"{tried}: it was told {text(result)}")
    story.expect("narrow:limit" in entry.obligations, f"{tried}: the ledger says {entry}")
    why = f"limit: 500 → {BOUND}, the policy's bound;\nthe office saw {BOUND}, the agent was told"
    story.line(tried, "[green]narrowed[/]", why, f"#{entry.number}")


async def redacted(story: Story) -> None:
    """Nothing of the customer's comes back; the SDK's client holds what does against the output schema."""
    tried = "read a mail with addresses,\na card number and a key"
    async with agent(story.world, story.keys["assistant"]) as client:
        result, entry = await story.carried_out(client, "office__read_mail", {"id": "m3"}, tried)
    seen = json.dumps(result.model_dump(mode="json"))
    through = [each for each in SECRET if each in seen]
    story.expect(not through, f"{tried}: {through} came through")
    mail = result.structured_content
    story.expect(mail["subject"] == "How to charge us", f"{tried}: {mail}")
    story.expect(mail["from"] == "[redacted:email]", f"{tried}: {mail}")
    for kind in ("email", "card", "secret"):
        story.expect(f"redact:{kind}" in entry.obligations, f"{tried}: the ledger says {entry}")
        story.expect(f"[redacted:{kind}]" in mail["body"], f"{tried}: {mail}")
    why = text(result).rpartition("exeat ")[2].partition(" (decision")[0]
    story.line(tried, "[green]redacted[/]", why, f"#{entry.number}")


async def held(story: Story) -> None:
    """A person sees the real call and approves exactly this one, once."""
    world, tool = story.world, "office__transfer"
    async with agent(world, story.keys["assistant"]) as client:
        wait = "the agent's owner has to approve it"
        hold = await story.held(client, tool, payment(500), "transfer 500 EUR", wait)
        story.expect(newest(story) == hold, f"`exeat approvals list` does not show {hold}")
        shows(story, hold, "amount = 500", "approved_by_owner: ada, bob", "supplier-17", "pay")
        world.exeat("approvals", "approve", hold, "--as", "ada", "--reason", "invoice 4711")
        other = "no approval is for another amount"
        await story.held(client, tool, payment(501), "501 EUR, after ada approved\n500", other)
        await with_approval(story, client, payment(500), "500 EUR, the same call again", hold)
        once = "an approval is good for one call"
        await story.held(client, tool, payment(500), "500 EUR once more", once)


def shows(story: Story, hold: str, *expected: str) -> None:
    """What a person is shown before they answer."""
    said = story.world.exeat("approvals", "show", hold)
    for each in expected:
        story.expect(each in said, f"`exeat approvals show` does not say {each}: {said}")


async def with_approval(
    story: Story, client: Client, asked: dict[str, Any], tried: str, hold: str, by: str = "ada"
) -> None:
    _, entry = await story.carried_out(client, "office__transfer", asked, tried)
    story.expect(entry.approval == hold, f"{tried}: the ledger names the approval {entry.approval}")
    story.line(tried, "[green]permitted[/]", f"approved by {by}, as {hold}", f"#{entry.number}")


async def granted(story: Story) -> None:
    """Three payments up to 300, to the same account."""
    world, tool = story.world, "office__transfer"
    bounds = ["--at-most", "amount=300", "--same", "to_account", "--until", "8h", "--times", "3"]
    async with agent(world, story.keys["assistant"]) as client:
        wait = "the agent's owner has to approve it"
        hold = await story.held(client, tool, payment(200), "transfer 200 EUR", wait)
        world.exeat(
            "approvals", "approve", hold, "--grant", *bounds, "--as", "bob", "--reason", "August"
        )
        (grant,) = json.loads(world.exeat("grants", "list", "--json"))
        uses = [(200, "200 EUR, once bob granted\nthree up to 300"), (250, "250 EUR")]
        for amount, tried in uses:
            await with_grant(story, client, payment(amount), tried, grant["id"])
        over = "no grant is for that much"
        await story.held(client, tool, payment(301), "301 EUR", over)
        await with_grant(story, client, payment(300), "300 EUR", grant["id"])
        await story.held(client, tool, payment(150), "150 EUR", "the grant is used up")
    said = world.exeat("grants", "show", grant["id"])
    story.expect("used up" in said and "3 of 3" in said, f"`exeat grants show` says {said}")


async def with_grant(
    story: Story, client: Client, asked: dict[str, Any], tried: str, grant: str
) -> None:
    _, entry = await story.carried_out(client, "office__transfer", asked, tried)
    story.expect(entry.approval == grant, f"{tried}: the ledger names {entry.approval}")
    story.line(tried, "[green]permitted[/]", f"within the grant {grant}", f"#{entry.number}")


async def exhausted(story: Story) -> None:
    """Three people may be written to; a colleague had a mail before."""
    tool, mail = "office__send_mail", {"subject": "Q3", "body": "The figures."}
    async with agent(story.world, story.keys["assistant"]) as client:
        for who, which in (("emil", "second"), ("fred", "third")):
            to = {**mail, "to": f"{who}@office.example"}
            await story.permitted(client, tool, to, f"mail to a {which} colleague")
        to = {**mail, "to": "gerd@office.example"}
        await story.denied(client, tool, to, "mail to a fourth colleague", "budget_exhausted")
    said = story.world.exeat("budgets", "list")
    story.expect("recipients" in said and "3" in said, f"`exeat budgets list` says {said}")


async def switched_off(story: Story) -> None:
    """Any person stops the agent: its next call is denied, and the one under way is cancelled."""
    world, before = story.world, len(story.world.recorded())
    async with agent(world, story.keys["assistant"]) as client:
        async with asking_for_a_report(story) as call:
            world.exeat("kill", "agent", "assistant", "--as", "bob", "--reason", "it acts oddly")
            tried = "ask for a report; bob kills the\nagent meanwhile"
            story.expect("carried out is unknown" in await told(call), f"{tried}: not told why")
        entry = await story.settled(world.recorded()[before].number)
        story.expect(entry.outcome == "cancelled", f"{tried}: the ledger says {entry}")
        kill, why = await reported(story)
        story.line(tried, "[red]cancelled[/]", why, f"#{entry.number}")
        await story.denied(client, "office__list_files", {}, "go on all the same", "killed")
        world.exeat("revive", kill, "--reason", "it was another's mistake")
        await until(lambda: alive(client), "the revived agent sees no tools")
        await story.permitted(client, "office__list_files", {}, "go on once ada revived it")


async def told(call: "asyncio.Task[None]") -> str:
    """The error that the call ended with; empty if it did not."""
    try:
        await call
    except BaseExceptionGroup as group:
        return str(first(group))
    except MCPError as error:
        return str(error)
    return ""


async def reported(story: Story) -> tuple[str, str]:
    """The kill, and how fast it was, from `exeat kill --report`."""
    found: list[dict[str, Any]] = []

    async def effective() -> bool:
        found[:] = json.loads(story.world.exeat("kill", "--report", "--json"))["kills"]
        return bool(found and found[0]["gateways"])

    await until(effective, "no gateway reports the kill")
    (where,) = found[0]["gateways"]
    story.expect(where["cancelled"] == 1, f"`exeat kill --report` says {found}")
    return found[0]["kill"], f"in effect {where['after_ms']} ms after the order"


async def alive(client: Client) -> bool:
    try:
        return bool((await client.list_tools(cache_mode="bypass")).tools)
    except MCPError:
        return False


async def kept_open(story: Story) -> None:
    """The gateway waits with the call; the agent knows nothing of it but the time."""
    world, before = story.world, len(story.world.recorded())
    tried = "transfer 600 EUR, and wait;\nada approves meanwhile"
    async with agent(world, story.keys["assistant"]) as client:
        waiting = asyncio.create_task(client.call_tool("office__transfer", payment(600)))

        async def asked() -> bool:
            return any(each.verdict == "hold" for each in world.recorded()[before:])

        await until(asked, "the call of 600 EUR is not held")
        story.expect(not waiting.done(), f"{tried}: the call was not kept open")
        hold = newest(story)
        shows(story, hold, "amount = 600")
        world.exeat("approvals", "approve", hold, "--as", "ada", "--reason", "invoice 4712")
        result = await waiting
    entry = await story.settled(world.recorded()[-1].number)
    story.expect(not result.is_error, f"{tried}: {text(result)}")
    story.expect(entry.verdict == "permit" and entry.approval == hold, f"{tried}: {entry}")
    why = "kept open until a person answered;\nto the agent it is one call"
    story.line(tried, "[green]permitted[/]", why, f"#{entry.number}")


def newest(story: Story) -> str:
    """The hold that was asked for last."""
    waiting = json.loads(story.world.exeat("approvals", "list", "--json"))
    return str(max(waiting, key=lambda each: str(each["asked_at"]))["id"])


OUTCOMES: Final = (narrowed, redacted, held, granted, exhausted)

"""`make demo`: a real agent works through exeat; what happens is shown, checked and proved.

Against mcp-server-git, mcp-server-time (stdio) and the office server (HTTP).  Exits 0 only if every
scene went as it must, the calls that the office carried out are exactly those that the ledger
permits, and the record verifies offline while a tampered copy is refused.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from office_day import Failed, World, found, office_server, prepare
from outcomes import KEPT_OPEN_S, OUTCOMES, kept_open, switched_off
from rich.console import Console
from rich.table import Table
from sign_in import Person, Told, at_endpoint, stock_client
from story import CALL_S, Story, agent, asking_for_a_report, first, text, until


async def everyday(story: Story) -> None:
    async with agent(story.world, story.keys["assistant"]) as client:
        await story.permitted(
            client, "time__get_current_time", {"timezone": "UTC"}, "ask for the time"
        )
        repository = str(story.world.folder / "repository")
        await story.permitted(client, "git__git_log", {"repo_path": repository}, "read the git log")
        await story.permitted(client, "office__get_balance", {"account": "ops"}, "read a balance")
        pay = {"from_account": "ops", "to_account": "supplier-17", "currency": "EUR"}
        await story.permitted(client, "office__transfer", {**pay, "amount": 80}, "transfer 80 EUR")
        await story.denied(
            client,
            "office__transfer",
            {**pay, "amount": 9000},
            "transfer 9000 EUR",
            "not_permitted",
        )
        mail = {"subject": "Q3", "body": "The figures."}
        await story.denied(
            client, "office__send_mail", {**mail, "to": "someone@elsewhere.example"},
            "mail to a stranger", "not_permitted",
        )  # fmt: skip
        await story.permitted(
            client,
            "office__send_mail",
            {**mail, "to": "dana@office.example"},
            "mail to a colleague",
        )
        await story.hidden(
            client, "office__delete_file", {"path": "reports/q3.md"}, "delete a file"
        )


async def around(story: Story) -> None:
    """Straight to the office: it shows its tools, and carries none out without the gateway's signature."""
    world = story.world
    executed, decided = len(world.executed()), len(world.recorded())
    async with (
        httpx2.AsyncClient(timeout=CALL_S) as http,
        Client(streamable_http_client(world.office_url, http_client=http), mode="auto") as client,
    ):
        shown = {each.name for each in (await client.list_tools()).tools}
        try:
            said = text(await client.call_tool("get_balance", {"account": "payroll"}))
        except MCPError as error:
            said = str(error)
    story.expect("get_balance" in shown, f"the office showed {sorted(shown)}")
    story.expect("Refused: The call needs one permit" in said, f"around the gateway: {said}")
    story.expect(
        len(world.executed()) == executed, "the office carried out a call without a permit"
    )
    story.expect(len(world.recorded()) == decided, "a call around the gateway is on record")
    modes = {each.action.partition("/")[0]: each.mode for each in world.recorded() if each.mode}
    story.expect(modes.get("office") == "permit-enforced", f"the proofs say {modes}")
    story.line(
        "go around exeat, straight to\nthe office", "[red]refused[/] by it",
        "it takes no call without a permit that\nexeat signed for exactly this one", "none",
    )  # fmt: skip


async def sign_in(story: Story) -> None:
    """A stock client finds the way by itself; whoever it is, it may do nothing until somebody answers
    for it.  Its token is for one endpoint, and ends when it is revoked."""
    world, told = story.world, Told()
    world.exeat("client", "open", "--minutes", "5", "--reason", "demo")
    url, utc = f"{world.url}/time", {"timezone": "UTC"}
    with Person(world.exeat("person", "link", "ada")) as ada:
        auth = stock_client(url, ada, told)
        refused = await entered(url, auth)
        story.expect("no agent is registered" in refused, f"a stranger was told: {refused!r}")
        await until(adopted_by(world), "the unregistered agent did not appear")
        story.line(
            "sign in with a stock client", "[red]denied[/]",
            "signed in as ada, but no agent is\nregistered for this client", "yes",
        )  # fmt: skip
        for act in ("accept", "activate"):
            world.exeat("agent", act, "desk-client", "--reason", "demo")
        await asyncio.sleep(0.6)  # the state's poll interval, twice
        async with connected(url, auth) as client:
            await story.permitted(
                client, "get_current_time", utc, "the same, once ada adopted it:\nask for the time"
            )
        token = told.access_token
        for server, tried in (
            ("office", "use its token elsewhere"),
            ("time", "go on once revoked"),
        ):
            if server == "time":
                world.exeat("client", "revoke", told.client_id, "--reason", "demo")
                await asyncio.sleep(0.6)
            status, said = await at_endpoint(f"{world.url}/{server}", token)
            story.expect(status == 401 and said != "", f"{tried}: {status} {said}")
            story.line(tried, "[red]refused[/] (401)", said.lower(), "counted")


@contextlib.asynccontextmanager
async def connected(url: str, auth: httpx2.Auth) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(auth=auth, timeout=CALL_S * 2) as http,
        Client(streamable_http_client(url, http_client=http), mode="auto") as client,
    ):
        yield client


async def entered(url: str, auth: httpx2.Auth) -> str:
    """What the client is told when it is not let in; empty if it is."""
    try:
        async with connected(url, auth):
            return ""
    except BaseExceptionGroup as group:
        return str(first(group))
    except MCPError as error:
        return str(error)


def adopted_by(world: World) -> Callable[[], Awaitable[bool]]:
    async def adopted() -> bool:
        for each in json.loads(world.exeat("agent", "unregistered", "--json")):
            world.exeat("agent", "adopt", each["id"], "--name", "desk-client", "--deputy", "bob")
            return True
        return False

    return adopted


async def changed_definition(story: Story) -> None:
    """The server now shows another definition of send_mail; nobody has seen it yet."""
    (story.world.office / "changed").touch()
    mail = {"to": "dana@office.example", "subject": "Q3", "body": "The figures."}
    async with agent(story.world, story.keys["assistant"]) as client:
        await until(
            lambda: seen_change(client), "the gateway did not notice the changed definition"
        )
        await story.denied(
            client,
            "office__send_mail",
            mail,
            "mail, after the server\nchanged the tool",
            "definition_changed",
        )
    (story.world.office / "changed").unlink()


async def seen_change(client: Client) -> bool:
    return "office__send_mail" not in {
        each.name for each in (await client.list_tools(cache_mode="bypass")).tools
    }


async def owner_leaves(story: Story) -> None:
    async with agent(story.world, story.keys["intern-bot"]) as client:
        await story.permitted(
            client,
            "time__get_current_time",
            {"timezone": "UTC"},
            "another agent asks for\nthe time",
        )
        for person in ("cleo", "dan"):
            story.world.exeat("person", "depart", person, "--reason", "left the company")
        await asyncio.sleep(0.6)  # the state's poll interval, twice
        await story.denied(
            client, "time__get_current_time", {"timezone": "UTC"},
            "the same, after its owner\nand deputy left", "owner_not_live",
        )  # fmt: skip


async def crashed(story: Story) -> None:
    """kill -9 while the office works on a call; after the restart the record says what is known."""
    world = story.world
    before, done = len(world.recorded()), len(world.executed("slow_report"))
    async with asking_for_a_report(story) as call:
        world.stop(signal.SIGKILL)
        with contextlib.suppress(BaseExceptionGroup, Exception):
            await call
    world.hold_wait_s = KEPT_OPEN_S
    world.up()

    async def outcome_written() -> bool:
        return world.recorded()[before].outcome != ""

    await until(outcome_written, "the recovery left the killed call without an outcome")
    entry = world.recorded()[before]
    story.expect(entry.verdict == "permit", f"the killed call is on record as {entry}")
    story.expect(entry.outcome == "unknown", f"the killed call's outcome is {entry.outcome}")
    once = len(world.executed("slow_report")) == done + 1
    story.expect(once, "the killed call was carried out twice")
    (world.office / "release").touch()
    story.line(
        "ask for a report; the gateway\nis killed (-9) meanwhile", "[yellow]outcome unknown[/]",
        "on record before it left; after the\nrestart said to be unknown", f"#{entry.number}",
    )  # fmt: skip
    async with agent(world, story.keys["assistant"]) as client:
        await story.permitted(client, "office__list_files", {}, "go on after the restart")


def counted(story: Story) -> str:
    """Calls carried out at the office against permits in the ledger, tool by tool."""
    executed = sorted(call["tool"] for call in story.world.executed())
    permits = [each for each in story.world.recorded() if each.verdict == "permit"]
    recorded = sorted(
        x.action.removeprefix("office/") for x in permits if x.action.startswith("office/")
    )
    story.expect(executed == recorded, f"carried out {executed}, but permitted {recorded}")
    open_ended = [each.number for each in permits if not each.outcome]
    story.expect(not open_ended, f"permits without an outcome: {open_ended}")
    return f"The office carried out {len(executed)} calls; the ledger permits exactly these {len(recorded)}."


def verified(story: Story, out: Console) -> None:
    """Offline, with the gateway stopped: the record is whole, and a tampered copy is refused."""
    world = story.world
    world.stop()
    said = world.exeat("evidence", "verify", str(world.ledger))
    story.expect("SOUND" in said and "NOT SOUND" not in said, f"the record does not verify: {said}")
    out.print(
        "[bold]exeat evidence verify[/] (offline):",
        next(x for x in said.splitlines() if "SOUND" in x),
    )
    copy = world.folder / "tampered.db"
    shutil.copy(world.ledger, copy)
    tamper(copy)
    said = world.exeat("evidence", "verify", str(copy), expect=1)
    story.expect("NOT SOUND" in said, f"the tampered copy was not refused: {said}")
    problem = next((x.strip(" -") for x in said.splitlines() if x.startswith("  -")), said.strip())
    out.print(f"[bold]A copy in which one decision names another owner[/] is refused: {problem}")


def tamper(path: Path) -> None:
    """Name another owner in one decision, as somebody with write access to the file could."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        for first, leaves in database.execute("SELECT first, leaves FROM batches").fetchall():
            if b'"kind":"decision"' in leaves and b'"owner":"ada"' in leaves:
                forged = leaves.replace(b'"owner":"ada"', b'"owner":"bob"', 1)
                database.execute("UPDATE batches SET leaves = ? WHERE first = ?", (forged, first))
                database.commit()
                return
    raise Failed("there is no decision on record to tamper with")


async def play(story: Story) -> None:
    scenes = (
        everyday, *OUTCOMES, around, sign_in, changed_definition, switched_off, owner_leaves, crashed,
        kept_open,
    )  # fmt: skip
    for scene in scenes:
        await scene(story)
        story.scene_ends()


def show(story: Story, out: Console) -> None:
    table = Table(title="What the agents tried", title_justify="left", show_lines=False)
    for column in ("the agent tried to", "exeat", "why", "evidence"):
        table.add_column(column)
    for number, line in enumerate(story.lines, 1):
        table.add_row(*line, end_section=number in story.ends)
    out.print(table)


def main() -> int:
    logging.disable(logging.CRITICAL)
    out = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="exeat-demo-"))
    world = World(folder)
    out.print("Starting three MCP servers and exeat; a real MCP client plays the agents.")
    try:
        found(world)
        with office_server(world):
            story = Story(world, prepare(world))
            world.up()
            asyncio.run(play(story))
            show(story, out)
            out.print(counted(story))
            verified(story, out)
    except Failed as why:
        out.print(f"[red]The demo failed:[/] {why}")
        return 1
    finally:
        world.stop(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    for problem in story.wrong:
        out.print(f"[red]Not as it must be:[/] {problem}")
    if story.wrong:
        return 1
    out.print(f"[green]Everything happened as it must[/] ({time.monotonic() - began:.0f} s).")
    out.print(
        "Next: . .venv/bin/activate && exeat init --me YOU && exeat up     (README.md goes on from there)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

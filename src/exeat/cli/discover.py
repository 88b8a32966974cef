"""``exeat discover``: the MCP servers that this machine's clients use already (REG-5)."""

from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from exeat.app.inventory.look import Inventory
from exeat.cli.clients import ClientOption, RootOption, count, found_here, gateways_known, short
from exeat.cli.desk import HomeOption, JsonOption, next_step, printable, say, show_json
from exeat.governance.inventory.survey import Seen, summary


def discover(
    client: ClientOption = None,
    root: RootOption = None,
    gateway: Annotated[
        str | None, typer.Option(help="A gateway's address (else: that of this home).")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the MCP servers in the files of known clients: what they run, the secrets that stand in
    the files, and which bypass the gateway.  Changes nothing; exit 1 if a file could not be read.
    """
    known = gateways_known(home, gateway)
    inventory, seen = found_here(client, root, known)
    if as_json:
        show_json(
            {
                "gateways": list(known.urls),
                "servers": [each.as_json() for each in seen],
                "problems": inventory.problems,
                "warnings": inventory.warnings,
                "summary": summary(seen),
            }
        )
    else:
        _show(seen)
        _show_troubles(inventory)
        _show_summary(seen, root)
    if inventory.problems:
        raise typer.Exit(1)


def _show(seen: tuple[Seen, ...]) -> None:
    for (title, file), group in groupby(seen, lambda s: (s.entry.client.title, s.entry.file)):
        say(printable(f"{title}: {short(file)}"))
        for each in group:
            _show_server(each)


def _show_server(each: Seen) -> None:
    entry = each.entry
    gateway = "BYPASSES the gateway" if each.bypasses else "through the gateway"
    off = "" if entry.enabled else ", switched off"
    project = f" for {short(entry.project)}" if entry.scope == "local" else ""
    say(printable(f"  {entry.name}{project}: {gateway}{off}"))
    say(printable(f"    {entry.reach}: {each.where or '(nothing)'}"))
    if entry.problem:
        say(printable(f"    cannot work: {entry.problem}"))
    if entry.env_file:
        say(printable(f"    variables from {entry.env_file}"))
    for secret in each.secrets:
        say(printable(f"    SECRET in the file: {secret.shown}"))
    for twin in each.twins:
        say(printable(f"    same server: {twin.client.title}, {short(twin.file)} ({twin.name})"))


def _show_troubles(inventory: Inventory) -> None:
    for warning in inventory.warnings:
        say(printable(f"warning: {short(warning)}"))
    for problem in inventory.problems:
        say(printable(f"NOT READ: {short(problem)}"))


def _show_summary(seen: tuple[Seen, ...], root: Path | None) -> None:
    counted = summary(seen)
    if not seen:
        say("No MCP server was found in the files of known clients.")
        return
    say(
        f"{count(counted['servers'], 'server')} in {count(counted['files'], 'file')}: "
        f"{counted['bypassing']} bypass the gateway; {count(counted['secrets'], 'secret')} in the "
        f"open; {count(counted['twice'], 'server')} in several places."
    )
    if counted["bypassing"]:
        under = f" --root {root}" if root is not None else ""
        next_step(f"exeat adopt CLIENT|SERVER… --dry-run{under}")

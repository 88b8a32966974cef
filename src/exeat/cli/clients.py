"""What ``discover``, ``adopt`` and ``connect`` share: options, and how findings are shown (REG-5)."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from exeat.app.home import home_path
from exeat.app.inventory.address import addresses, base_url
from exeat.app.inventory.files import read
from exeat.app.inventory.look import Inventory, look, this_machine
from exeat.app.inventory.records import Undone
from exeat.app.settings import load_settings
from exeat.cli.desk import printable, say
from exeat.core.errors import ExeatError, Invalid
from exeat.governance.inventory.clients import CLIENTS, Client, client_named
from exeat.governance.inventory.moves import Stay
from exeat.governance.inventory.survey import Gateways, Seen, survey

ClientOption = Annotated[
    list[str] | None,
    typer.Option("--client", help=f"Only this client: {', '.join(CLIENTS)}.  Repeatable."),
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", help="Look at all projects in this folder (else: the present one)."),
]
GatewayOption = Annotated[
    str | None, typer.Option("--gateway", help="The gateway's address (else: of this home).")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would change, only.")]
EntriesOption = Annotated[
    bool,
    typer.Option(
        "--entries", help="With --undo: in files that changed since, put back only the servers."
    ),
]
_INDENT: Final = "    "


def gateway_of(home: Path | None, given: str | None) -> str:
    """Where clients of this machine reach the gateway.  Raises Invalid."""
    if given is not None:
        if not given.startswith(("http://", "https://")) or any(c.isspace() for c in given):
            raise Invalid(f"{given!r} is not an address.", remedy="Write https://host/mcp.")
        return given.rstrip("/")
    return base_url(load_settings(home_path(home)))


def found_here(
    clients: list[str] | None, root: Path | None, gateways: Gateways
) -> tuple[Inventory, tuple[Seen, ...]]:
    chosen: list[Client] = [client_named(each) for each in clients or CLIENTS]
    where = (root or Path.cwd()).absolute()
    if not where.is_dir():
        raise Invalid(f"{where} is not a folder.", remedy="Name a folder with --root.")
    inventory = look(this_machine(), where, chosen, whole_tree=root is not None)
    return inventory, survey(inventory.entries, gateways)


def gateways_known(home: Path | None, given: str | None) -> Gateways:
    """The gateway of this home under all its addresses, and the one that is named.  None is known if
    there is no home that can be read: then everything bypasses it."""
    named = (gateway_of(home, given),) if given is not None else ()
    try:
        return Gateways((*named, *addresses(load_settings(home_path(home)))))
    except ExeatError:
        return Gateways(named)


def short(path: str) -> str:
    """With ``~`` for the user's folder."""
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def show_stays(stays: Iterable[Stay]) -> None:
    for stay in stays:
        entry = stay.seen.entry
        name = f"{entry.client.id}/{entry.name}"
        say(printable(f"stays: {name} in {short(entry.file)}: {stay.why}."))
        if stay.remedy:
            say(printable(f"{_INDENT}{stay.remedy}"))


def show_difference(diff: str) -> None:
    for line in diff.split("\n"):
        say("\t".join(printable(part) for part in line.split("\t")))


def show_restored(done: Undone) -> None:
    before = {each.path: each.before for each in done.record.files}
    for path in done.restored:
        now = read(Path(path))
        whole = (now.digest if now is not None else "") == before[path]
        how = "byte for byte" if whole else "the servers only; other changes stay"
        say(printable(f"Put back, {how}: {short(path)}"))


def confirm(question: str, *, yes: bool) -> None:
    """Raises Invalid if nobody can be asked, and Exit if the answer is no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Invalid("Nobody can be asked here. Nothing was changed.", remedy="Add --yes.")
    if not typer.confirm(question, default=False):
        say("Nothing was changed.")
        raise typer.Exit(1)

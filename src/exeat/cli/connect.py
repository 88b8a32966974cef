"""``exeat connect``: a client's entry for the gateway (REG-5)."""

import os
from pathlib import Path
from typing import Annotated

import typer

from exeat.app.home import home_path
from exeat.app.inventory.address import bridge_command, server_url
from exeat.app.inventory.connect import (
    ENTRY,
    Connection,
    make_connection,
    next_steps,
    place_of,
)
from exeat.app.inventory.look import this_machine
from exeat.app.inventory.records import ID_RANDOM_BYTES, carried_out, undo, undo_entries
from exeat.cli.clients import (
    DryRunOption,
    EntriesOption,
    GatewayOption,
    YesOption,
    confirm,
    gateway_of,
    gateways_known,
    short,
    show_difference,
    show_restored,
)
from exeat.cli.desk import (
    HomeOption,
    doing,
    next_step,
    open_desk,
    open_home,
    printable,
    say,
)
from exeat.core.errors import ExeatError, Invalid
from exeat.governance.inventory.clients import CLAUDE_DESKTOP, CLIENTS, Client, Scope, client_named
from exeat.identity.authorization.service.clients import Clients
from exeat.registry.model.names import server_name, show_time

REGISTER_MIN = 15


def connect(  # noqa: PLR0913 - one per option
    client: Annotated[str, typer.Argument(help=f"One of: {', '.join(CLIENTS)}.")],
    scope: Annotated[str, typer.Option(help="user, or project: the present folder.")] = "user",
    server: Annotated[
        str, typer.Option(help="Only this server (else all servers of the agent).")
    ] = "",
    name: Annotated[str, typer.Option(help="The entry's name in the client.")] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(
            help="For a client that knows only stdio: the file with the agent's key (else you sign in)."
        ),
    ] = None,
    undo_last: Annotated[
        bool, typer.Option("--undo", help="Put back what the last `connect` of it changed.")
    ] = False,
    register: Annotated[
        int,
        typer.Option(
            "--register-minutes",
            help="Let clients register themselves for so long, so that this one can sign in; 0: not.",
        ),
    ] = REGISTER_MIN,
    entries: EntriesOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    gateway: GatewayOption = None,
    home: HomeOption = None,
) -> None:
    """Write the gateway into a client's configuration.  No secret is written: the client signs in."""
    chosen = client_named(client)
    where = home_path(home)
    if undo_last:
        back = undo_entries if entries else undo
        show_restored(back(where, None, "connect", chosen.id))
        return
    made, kind = _connection(chosen, scope, server, name, key_file, gateway, home)
    if made.change is None:
        say(printable(f"{chosen.title} is connected already: {short(str(made.file))}."))
        return
    show_difference(made.diff)
    if dry_run:
        say("Nothing was changed (--dry-run).")
        return
    open_home(where)  # originals are kept in it, so it must be one
    confirm(f"Change {short(str(made.file))}?", yes=yes)
    with carried_out(where, "connect", [made.change], [], os.urandom(ID_RANDOM_BYTES)):
        pass
    say(printable(f"{chosen.title} is connected: {short(str(made.file))}."))
    if register and not (chosen is CLAUDE_DESKTOP and key_file) and gateway is None:
        _let_register(home, chosen.title, register)
    for step in next_steps(chosen, kind, made.name, has_key_file=key_file is not None):
        next_step(step)


def _let_register(home: Path | None, title: str, minutes: int) -> None:
    """Most clients of today register themselves (RFC 7591) before their user signs in."""
    desk = open_desk(home)
    try:
        opened = Clients(desk.state.authorization, os.urandom).open_window(
            minutes, doing(desk, f"exeat connect: {title} signs in")
        )
    except ExeatError as error:
        next_step(f"an admin runs `exeat client open` before {title} signs in ({error})")
        return
    say(
        f"Clients may register themselves until {show_time(opened.until)}; each still needs your"
        " consent.  `exeat client open --minutes 0` ends that."
    )


def _connection(
    client: Client,
    scope: str,
    server: str,
    name: str,
    key_file: Path | None,
    gateway: str | None,
    home: Path | None,
) -> tuple[Connection, Scope]:
    if scope not in (Scope.USER, Scope.PROJECT):
        raise Invalid(f"{scope!r} is no scope.", remedy="Write --scope user or --scope project.")
    if server:
        server_name(server)
    base = gateway_of(home, gateway)
    kind = Scope(scope)
    place = place_of(client, kind, this_machine(), Path.cwd())
    entry = name or (f"{ENTRY}-{server}" if server else ENTRY)
    made = make_connection(
        client,
        place,
        entry,
        server_url(base, server),
        lambda url: bridge_command(url, key_file),
        gateways_known(home, gateway),
    )
    return made, kind

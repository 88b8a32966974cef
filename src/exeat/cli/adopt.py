"""``exeat adopt``: servers of clients move behind the gateway, and back (REG-5)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from exeat.app.inventory.address import bridge_command, server_url
from exeat.app.inventory.adopt import Plan, carry_out, forget_servers, make_plan
from exeat.app.inventory.records import (
    FOLDER,
    ID_RANDOM_BYTES,
    Undone,
    forget,
    records,
    undo,
    undo_entries,
)
from exeat.app.settings import load_settings
from exeat.app.vault import HomeVault, open_vault
from exeat.cli.clients import (
    DryRunOption,
    EntriesOption,
    GatewayOption,
    RootOption,
    YesOption,
    confirm,
    count,
    found_here,
    gateway_of,
    gateways_known,
    short,
    show_difference,
    show_restored,
    show_stays,
)
from exeat.cli.desk import (
    NO_REASON,
    AsOption,
    Desk,
    HomeOption,
    ReasonOption,
    next_step,
    open_desk,
    printable,
    say,
)
from exeat.core.errors import Invalid, NotFound
from exeat.governance.inventory.clients import CLAUDE_DESKTOP
from exeat.governance.inventory.survey import Seen, named


def adopt(  # noqa: PLR0913 - one per option
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLIENT|SERVER…", help="As `exeat discover` names them; CLIENT/SERVER for one."
        ),
    ] = None,
    root: RootOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    undo_last: Annotated[
        bool, typer.Option("--undo", help="Put back what an adoption changed: the last, or by id.")
    ] = False,
    entries: EntriesOption = False,
    forget_last: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Delete the originals of an adoption: the last, or by id.  No undo then.",
        ),
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(help="For clients that know only stdio: the file with the agent's key."),
    ] = None,
    gateway: GatewayOption = None,
    reason: ReasonOption = NO_REASON,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Register servers here and let their clients reach them through the gateway.

    Shows what changes first, keeps the files as they were, and can put them back.
    """
    desk = open_desk(home, as_)
    if undo_last:
        _undo(desk, what or [], reason, undo_entries if entries else undo)
        return
    if forget_last:
        gone = forget(desk.home, _one_id(desk, what or []), "adopt")
        say(f"The originals of {gone.id} are deleted; it can no longer be undone.")
        return
    base = gateway_of(home, gateway)
    inventory, seen = found_here(None, root, gateways_known(home, gateway))
    plan = make_plan(
        inventory,
        _chosen(seen, what or []),
        desk.registry,
        str(Path.home()),
        lambda server: server_url(base, server),
        lambda url: bridge_command(url, key_file),
    )
    for problem in inventory.problems:
        say(printable(f"NOT READ: {short(problem)}"))
    show_stays(plan.moves.stays)
    if not plan.changes:
        raise Invalid("Nothing can be adopted.", remedy="The lines above say why.")
    _show(plan)
    if key_file is None and any(c.client == CLAUDE_DESKTOP.id for c in plan.changes):
        say(
            "Claude Desktop's bridge will ask you to sign in (`exeat client open` first), unless you"
            " add --key-file FILE."
        )
    if dry_run:
        say("Nothing was changed (--dry-run).")
        return
    act = desk.act(reason if reason != NO_REASON else "exeat adopt")
    confirm("Change these files and register these servers?", yes=yes)
    record = carry_out(plan, desk.home, _vault(desk), act, os.urandom(ID_RANDOM_BYTES))
    _told(plan, record.id, desk)


def _chosen(seen: tuple[Seen, ...], words: list[str]) -> list[Seen]:
    if not words:
        raise Invalid(
            "Nothing is named.", remedy="Name clients or servers; `exeat discover` lists them."
        )
    for word in words:
        if not any(True for _ in named(seen, [word])):
            raise NotFound(
                f"{word!r} was not found.", remedy="`exeat discover` lists clients and servers."
            )
    return list(named(seen, words))


def _show(plan: Plan) -> None:
    for move in plan.moves.moves:
        entry = move.seen.entry
        how = "new" if move.new else "registered already"
        say(printable(f"{entry.client.id}/{entry.name} becomes server {move.server} ({how})"))
        for note in move.notes:
            say(printable(f"    note: {note}"))
    for diff in plan.diffs:
        show_difference(diff)
    _show_needs(plan)


def _show_needs(plan: Plan) -> None:
    given = [(m.server, each) for m in plan.new_servers for each in m.secrets]
    sealed = [f"{each.name} of {server}: {each.holds}" for server, each in given if each.value]
    asked = [
        f"exeat secret set {each.name} --server {server}   ({each.holds})"
        for server, each in given
        if not each.value
    ]
    variables = {v.name: f"{v.name}: {v.holds}" for m in plan.moves.moves for v in m.variables}
    for head, lines in (
        ("Secrets that go into the vault:", sealed),
        ("Secrets that are not in the files; set them then:", asked),
        ("Variables that the gateway's environment needs then:", list(variables.values())),
    ):
        if lines:
            say(head)
        for line in lines:
            say(printable(f"    {line}"))


def _vault(desk: Desk) -> HomeVault:
    return open_vault(desk.home, load_settings(desk.home), desk.state)


def _told(plan: Plan, record: str, desk: Desk) -> None:
    new = [move.server for move in plan.new_servers]
    files = count(len(plan.changes), "file")
    say(f"Changed {files}; registered: {', '.join(new) or 'nothing new'}.")
    say(
        f"The files as they were are in {short(str(desk.home / FOLDER / record))} (only you can read "
        "them; they hold the secrets that stood in them: give those servers new ones in the end)."
    )
    next_step(f"exeat adopt --undo {record}   (puts everything back)")
    next_step(f"exeat adopt --forget {record}   (once all is well: deletes the files as they were)")
    for server in new[:1]:
        next_step(f"exeat server observe {server}, exeat tool pin, and name it in an agent's scope")


def _undo(desk: Desk, words: list[str], reason: str, back: Callable[..., Undone]) -> None:
    wanted = _one_id(desk, words)
    act = desk.act(reason if reason != NO_REASON else "exeat adopt --undo")
    done = back(desk.home, wanted, "adopt")
    show_restored(done)
    gone, staying = forget_servers(done.record, _vault(desk), act)
    if gone:
        say(f"No longer registered: {', '.join(gone)}.")
    for line in staying:
        say(printable(f"Still registered: {line}"))


def _one_id(desk: Desk, words: list[str]) -> str | None:
    """None: the last.  Raises Invalid."""
    if len(words) > 1:
        raise Invalid("One change at a time.", remedy="Give one id.")
    wanted = words[0] if words else None
    if wanted is not None and any(
        r.id == wanted and r.kind == "connect" for r in records(desk.home)
    ):
        raise Invalid(f"{wanted} is a connection.", remedy="exeat connect CLIENT --undo")
    return wanted

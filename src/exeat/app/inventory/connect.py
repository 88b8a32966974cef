"""``exeat connect``: a client's entry for the gateway.  It holds no secret: the client signs in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exeat.app.inventory.adopt import shown
from exeat.app.inventory.files import Found
from exeat.app.inventory.look import Inventory, ReadFile, open_config, outside
from exeat.app.inventory.records import Change
from exeat.core.errors import Conflict, Invalid
from exeat.governance.inventory.clients import (
    CLAUDE_CODE,
    CLAUDE_DESKTOP,
    VSCODE,
    Client,
    Machine,
    Place,
    Scope,
    project_places,
    read_document,
    user_places,
)
from exeat.governance.inventory.entries import Entry, entries
from exeat.governance.inventory.moves import BridgeTo, connected
from exeat.governance.inventory.survey import Gateways, target_url
from exeat.governance.inventory.text import Malformed, lookup

ENTRY: Final = "exeat"


@dataclass(frozen=True, slots=True)
class Connection:
    """``change`` None: the file says so already."""

    file: Path
    name: str
    change: Change | None
    diff: str


def place_of(client: Client, scope: Scope, machine: Machine, root: Path) -> Place:
    """The file in which a new server is written.  Raises Invalid if the client has none."""
    listed = user_places(machine) if scope is Scope.USER else project_places(machine, str(root))
    for place in listed:
        if place.client is client:
            return place
    raise Invalid(
        f"{client.title} has no servers of a project.", remedy="Leave out --scope project."
    )


def make_connection(
    client: Client, place: Place, name: str, url: str, bridge: BridgeTo, gateways: Gateways
) -> Connection:
    """Changes nothing.  Raises Invalid (a file that cannot be read or changed), Conflict (another
    server has the name)."""
    path = Path(place.path)
    try:
        file = open_config(place, path)
        file = file or ReadFile(
            place, path, Found(path, exists=False), "", read_document(client, "")
        )
        _check(client, file)
        listed = list(entries(place, str(path), file.document))
        present = _present(listed, client, name, gateways)
        text = connected(client, file.document.text, name, url, bridge, present)
    except Malformed as error:
        raise Invalid(
            f"{path}:{error.line}:{error.column}: {error.what}. Nothing was changed.",
            remedy="Correct the file, and run the command again.",
        ) from None
    same = (
        present is not None
        and lookup(read_document(client, text).value, present.path) == present.raw
    )
    if same:
        return Connection(path, name, None, "")
    inventory = Inventory([file], listed)
    data = (file.mark + text).encode()
    change = Change(client.id, file.found, data, ((*client.holders[0], name),))
    return Connection(path, name, change, shown(inventory, file, text))


def _check(client: Client, file: ReadFile) -> None:
    if outside(file):
        raise Invalid(f"{file.link} is a link that leads out of the project; it is left alone.")
    for note in file.document.notes:
        if not client.comments and note.what != "a key that stands twice":
            raise Invalid(
                f"{file.link}:{note.line}:{note.column}: {note.what}, which {client.title} does not "
                "read. Nothing was changed.",
                remedy="Correct the file, and run the command again.",
            )


def _present(listed: list[Entry], client: Client, name: str, gateways: Gateways) -> Entry | None:
    for entry in listed:
        if entry.name == name and entry.path == (*client.holders[0], name):
            if gateways.leads_to(target_url(entry)) is None:
                raise Conflict(
                    f"{entry.file} has a server {name!r} already, and it is not this gateway.",
                    remedy=f"Choose another name with --name, or `exeat adopt {client.id}/{name}`.",
                )
            return entry
    return None


def next_steps(client: Client, scope: Scope, name: str, *, has_key_file: bool) -> list[str]:
    """What the person does now.  ``has_key_file``: the client is a bridge's, with a key."""
    steps = []
    if scope is Scope.PROJECT and client in (CLAUDE_CODE, VSCODE):
        steps.append(f"{client.title} asks once whether to trust the project's servers")
    steps.append(client.restart.replace("NAME", name))
    if client is CLAUDE_DESKTOP:
        if not has_key_file:
            steps.append(
                "sign in on the page that opens in your browser then; or sign in before, with"
                " `exeat bridge --sign-in URL`, or give the agent's key with --key-file FILE (the"
                " file's name is written, not the key)"
            )
    else:
        steps.append(
            f"if {client.title} cannot sign in later because it has to register itself first: "
            "`exeat client open` lets it, for five minutes"
        )
    return steps

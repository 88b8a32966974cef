"""``exeat discover``: every configuration file of a known client, read without changing anything."""

import os
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exeat.app.inventory import files
from exeat.app.inventory.files import Found
from exeat.core.errors import ExeatError
from exeat.governance.inventory.clients import (
    Client,
    Machine,
    Place,
    Scope,
    managed_places,
    project_places,
    read_document,
    user_places,
)
from exeat.governance.inventory.entries import Entry, entries
from exeat.governance.inventory.text import Document, Malformed, decode


@dataclass(frozen=True, slots=True)
class ReadFile:
    """``mark``: the byte order mark, or nothing.  ``link``: the name under which the client finds it."""

    place: Place
    link: Path
    found: Found
    mark: str
    document: Document


@dataclass(slots=True)
class Inventory:
    """``problems``: files that could not be read, by place.  ``warnings``: what their client may read
    differently."""

    read: list[ReadFile] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def file_of(self, entry: Entry) -> ReadFile:
        return next(each for each in self.read if str(each.link) == entry.file)


def this_machine() -> Machine:
    return Machine(sys.platform, str(Path.home()), os.environ)


def look(
    machine: Machine, root: Path, clients: Collection[Client], *, whole_tree: bool
) -> Inventory:
    """``root``: the project whose files count too; with ``whole_tree`` also those under it."""
    inventory = Inventory()
    for place in _places(machine, root, whole_tree=whole_tree):
        if place.client in clients:
            for path in files.expand(place.path):
                _read(place, path, inventory)
    return inventory


def _places(machine: Machine, root: Path, *, whole_tree: bool) -> Iterator[Place]:
    yield from user_places(machine)
    yield from managed_places(machine)
    users = {place.path for place in user_places(machine)}
    for folder in files.folders(root) if whole_tree else (root,):
        for place in project_places(machine, str(folder)):
            if place.path not in users:  # the user's own folder is no project
                yield place


def _read(place: Place, path: Path, inventory: Inventory) -> None:
    try:
        file = open_config(place, path)
    except ExeatError as error:
        inventory.problems.append(str(error))
        return
    except Malformed as error:
        inventory.problems.append(f"{path}:{error.line}:{error.column}: {error.what}")
        return
    if file is None:
        return
    found = list(entries(place, str(path), file.document))
    if not found:
        return
    inventory.read.append(file)
    inventory.entries += found
    inventory.warnings += _warnings(place.client, path, file.document.notes)


def open_config(place: Place, path: Path) -> ReadFile | None:
    """None if it is not there.  Raises Invalid, Malformed."""
    found = files.read(path)
    if found is None:
        return None
    mark, text = decode(found.data)
    return ReadFile(place, path, found, mark, read_document(place.client, text))


def _warnings(client: Client, path: Path, notes: Iterable[Malformed]) -> Iterator[str]:
    told = set()
    for note in notes:
        twice = note.what == "a key that stands twice"
        if note.what not in told and (twice or not client.comments):
            told.add(note.what)
            reads = "the last one counts" if twice else f"{client.title} may refuse the file"
            yield f"{path}:{note.line}:{note.column}: {note.what}; {reads}"


def outside(file: ReadFile) -> bool:
    """Whether a link in a project leads out of it: such a file is read, never changed."""
    if file.place.scope is not Scope.PROJECT:
        return False
    return not file.found.path.is_relative_to(Path(file.place.project).resolve())

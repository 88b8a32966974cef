"""``exeat adopt``: registry and clients' files change together, or neither does."""

import os
import posixpath
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exeat.app.inventory import files
from exeat.app.inventory.look import Inventory, ReadFile, outside
from exeat.app.inventory.records import Change, Record, carried_out
from exeat.app.vault import HomeVault
from exeat.core.errors import Conflict, ExeatError, NotFound
from exeat.core.ids import PersonId, ServerId
from exeat.core.secret import TENANT, SecretId
from exeat.governance.inventory.adoption import Around, CannotAdopt
from exeat.governance.inventory.clients import read_document
from exeat.governance.inventory.hardcoded import secrets_of
from exeat.governance.inventory.masking import difference, masked
from exeat.governance.inventory.moves import (
    BridgeTo,
    Move,
    Moves,
    Stay,
    UrlOf,
    plan_moves,
    rewritten,
)
from exeat.governance.inventory.survey import Seen
from exeat.governance.inventory.text import CannotEdit, Malformed
from exeat.governance.secrets import set_secret_in
from exeat.registry.model.act import Act
from exeat.registry.service import Registry
from exeat.registry.store import RegistryChange, RegistryRead

_ASSIGNED: Final = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Plan:
    """``diffs``: what changes in each file, without secrets."""

    moves: Moves
    changes: tuple[Change, ...]
    diffs: tuple[str, ...]

    @property
    def new_servers(self) -> list[Move]:
        return [move for move in self.moves.moves if move.new]


def make_plan(
    inventory: Inventory,
    chosen: Iterable[Seen],
    registry: Registry,
    user_home: str,
    url_of: UrlOf,
    bridge: BridgeTo,
) -> Plan:
    """Changes nothing.  A file that cannot be changed keeps its servers; the reason is told."""
    with registry.view() as now:
        registered = {server.id: server.spec for server in now.servers()}
    usable, stays = [], []
    for seen in chosen:
        file = inventory.file_of(seen.entry)
        first = next(each for each in inventory.read if each.found.path == file.found.path)
        if outside(file):
            stays.append(Stay(seen, "its file is a link that leads out of the project", ""))
        elif first is not file:
            stays.append(Stay(seen, f"its file is a link to the same file as {first.link}", ""))
        else:
            usable.append(seen)
    while True:
        moves = plan_moves(usable, registered, Around(user_home, names_in))
        changes, diffs, failed = [], [], list[Seen]()
        for file in inventory.read:
            of_file = [m for m in moves.moves if m.seen.entry.file == str(file.link)]
            if not of_file:
                continue
            try:
                change, diff = _change(inventory, file, of_file, url_of, bridge)
            except (CannotEdit, Malformed) as error:
                failed += [m.seen for m in of_file]
                remedy = getattr(error, "remedy", "")
                stays += [Stay(m.seen, str(error).rstrip("."), remedy) for m in of_file]
                continue
            changes.append(change)
            diffs.append(diff)
        if not failed:
            moves.stays = [*stays, *moves.stays]
            return Plan(moves, tuple(changes), tuple(diffs))
        usable = [seen for seen in usable if seen not in failed]


def _change(
    inventory: Inventory, file: ReadFile, moves: list[Move], url_of: UrlOf, bridge: BridgeTo
) -> tuple[Change, str]:
    text = rewritten(file.place.client, file.document.text, moves, url_of, bridge)
    data = (file.mark + text).encode()
    paths = tuple(move.seen.entry.path for move in moves)
    return Change(file.place.client.id, file.found, data, paths), shown(inventory, file, text)


def shown(inventory: Inventory, file: ReadFile, text: str) -> str:
    """The difference between the file and its new text, without secrets."""
    known = {s.value for each in inventory.entries for s in secrets_of(each)}
    after = masked(read_document(file.place.client, text), known)
    return difference(masked(file.document, known), after, str(file.link))


def carry_out(plan: Plan, home: Path, vault: HomeVault, act: Act, random: bytes) -> Record:
    """Servers, their secrets and the files change together.  Raises Conflict, Invalid, VaultFailed;
    then nothing has changed."""
    servers = [move.server for move in plan.new_servers]
    with (
        carried_out(home, "adopt", plan.changes, servers, random) as record,
        vault.store.change() as tx,  # commits first: if it cannot, the files are put back
    ):
        registry = Registry(_Joined(tx.registry), os.urandom)
        for move in plan.new_servers:
            registry.add_server(move.spec, PersonId(act.actor), 0, (), act)
            for each in move.secrets:
                if each.value:
                    id = SecretId(TENANT, "", move.server, each.name)
                    set_secret_in(vault, tx, id, each.value.encode(), act)
    return record


@dataclass(frozen=True, slots=True)
class _Joined:
    """A registry whose changes are part of a transaction that is open."""

    tx: RegistryChange

    def read(self) -> AbstractContextManager[RegistryRead]:
        return nullcontext(self.tx)

    def change(self) -> AbstractContextManager[RegistryChange]:
        return nullcontext(self.tx)


def forget_servers(record: Record, vault: HomeVault, act: Act) -> tuple[list[str], list[str]]:
    """After an undo: takes away the servers that came with it, with their secrets.  Returns those
    gone, and those that stay because something relies on them."""
    gone, staying = [], []
    for name in record.servers:
        try:
            with vault.store.change() as tx:
                if tx.registry.server(ServerId(name)).revision != 1:
                    raise Conflict(f"Server {name} was changed since.")
                Registry(_Joined(tx.registry), os.urandom).remove_server(ServerId(name), act)
                for each in tx.secrets():
                    if each.id.upstream == name and not each.id.own:
                        vault.remove_in(tx, each.id, act)
            gone.append(name)
        except NotFound:
            continue
        except ExeatError as error:
            staying.append(f"{name}: {error}")
    return gone, staying


def names_in(path: str) -> tuple[str, ...]:
    """The variables that an environment file sets; its values are not kept.  Raises CannotAdopt."""
    try:
        found = files.read(Path(path))
    except ExeatError as error:
        raise CannotAdopt(f"its envFile cannot be read: {error}") from None
    if found is None:
        raise CannotAdopt(f"its envFile {posixpath.basename(path)} is not there")
    return tuple(dict.fromkeys(_ASSIGNED.findall(found.data.decode("utf-8", "replace"))))

"""Which servers move behind the gateway, under which ids, and what their clients' files say then."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec
from exeat.core.ids import ServerId
from exeat.governance.inventory.adoption import Adopted, Around, Variable, adopted
from exeat.governance.inventory.clients import TRANSPORT_FIELDS, Client, connection, read_document
from exeat.governance.inventory.entries import Entry
from exeat.governance.inventory.survey import Seen
from exeat.registry.model.server import check_spec

ID_MAX_CHARS: Final = 31
UrlOf = Callable[[str], str]
"""Server id (or "" for all) → the gateway's address of it."""
BridgeTo = Callable[[str], tuple[str, ...]]
"""Address → the command that connects a stdio client to it."""


@dataclass(frozen=True, slots=True)
class Move:
    """``new``: the server is not registered yet, and no earlier move registers it."""

    seen: Seen
    server: ServerId
    spec: ServerSpec
    variables: tuple[Variable, ...]
    new: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stay:
    seen: Seen
    why: str
    remedy: str


@dataclass(slots=True)
class Moves:
    moves: list[Move] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)


def plan_moves(
    chosen: Iterable[Seen], registered: Mapping[ServerId, ServerSpec], around: Around
) -> Moves:
    """Entries that are the same server share one registration.  What cannot move says why."""
    plan = Moves()
    specs, held = dict(registered), _held(registered)
    for seen in chosen:
        if not seen.bypasses:
            plan.stays.append(Stay(seen, "it goes through the gateway already", ""))
            continue
        try:
            move = _move(seen, specs, held, around)
        except Invalid as error:
            plan.stays.append(Stay(seen, str(error).rstrip("."), error.remedy))
            continue
        specs[move.server] = move.spec
        for variable in move.variables:
            held.setdefault(variable.name, variable.value)
        plan.moves.append(move)
    return plan


def _move(
    seen: Seen, specs: Mapping[ServerId, ServerSpec], held: Mapping[str, str], around: Around
) -> Move:
    wanted = server_id(seen.entry.name)
    found = adopted(seen.entry, wanted, around)
    for name, spec in specs.items():
        if _same(spec, adopted(seen.entry, name, around).spec):
            found = adopted(seen.entry, name, around)
            return Move(
                seen, name, spec, found.variables, new=False, notes=tuple(_notes(found, held))
            )
    clash = [v.name for v in found.variables if held.get(v.name) and held[v.name] != v.value]
    if clash:
        raise Invalid(
            f"another server needs another value of {clash[0]}",
            remedy="Adopt one of the two; give the other its secret by a variable of another name.",
        )
    server = _free(wanted, specs)
    found = found if server == wanted else adopted(seen.entry, server, around)
    check_spec(found.spec)
    _check_text(found.spec)
    notes = tuple(
        f"{v.name} goes to another server, too: both get one value"
        for v in found.variables
        if v.name in held
    )
    return Move(seen, server, found.spec, found.variables, new=True, notes=notes)


def _notes(found: Adopted, held: Mapping[str, str]) -> Iterable[str]:
    for variable in found.variables:
        if variable.value and held.get(variable.name) not in (None, "", variable.value):
            yield f"it had another value of {variable.name}; from now on there is one for all"


def _held(registered: Mapping[ServerId, ServerSpec]) -> dict[str, str]:
    """Variables that registered servers use: their values are not known here."""
    return {
        name: "" for s in registered.values() for name in (*s.env_from, *s.headers_from.values())
    }


def _same(one: ServerSpec, other: ServerSpec) -> bool:
    """``run_as`` and ``shared`` are the gateway's own concern."""
    return replace(one, run_as="", shared=False) == replace(other, run_as="", shared=False)


def _check_text(spec: ServerSpec) -> None:
    for text in (spec.url, spec.cwd, *spec.command, *spec.env.values()):
        if any(ord(c) < 32 or 0xD800 <= ord(c) <= 0xDFFF for c in text):
            raise Invalid("its command holds control characters", remedy="Correct the file.")


def server_id(name: str) -> ServerId:
    """A server's id made of a name in a client's file."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return ServerId(plain[:ID_MAX_CHARS].rstrip("-") or "server")


def _free(wanted: ServerId, taken: Mapping[ServerId, ServerSpec]) -> ServerId:
    number, server = 1, wanted
    while server in taken:
        number += 1
        tail = f"-{number}"
        server = ServerId(wanted[: ID_MAX_CHARS - len(tail)] + tail)
    return server


def rewritten(
    client: Client, text: str, moves: Iterable[Move], url_of: UrlOf, bridge: BridgeTo
) -> str:
    """The file once its servers have moved.  Raises CannotEdit, Malformed."""
    for move in moves:
        url = url_of(move.server)
        new = connection(client, url, bridge(url))
        text = read_document(client, text).swapped(move.seen.entry.path, new, TRANSPORT_FIELDS)
    return text


def connected(
    client: Client, text: str, name: str, url: str, bridge: BridgeTo, present: Entry | None
) -> str:
    """The file with a connection to the gateway under this name.  Raises CannotEdit, Malformed."""
    new = connection(client, url, bridge(url))
    document = read_document(client, text)
    if present is not None:
        return document.swapped(present.path, new, TRANSPORT_FIELDS)
    return document.added(client.holders[0], name, new)

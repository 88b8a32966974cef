"""Which servers move behind the gateway, under which ids, and what their clients' files say then."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec
from exeat.core.ids import ServerId
from exeat.governance.inventory.adoption import Around, Given, Variable, adopted
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
    """``new``: the server is not registered yet, and no earlier move registers it; then ``secrets`` are
    those that its registration needs."""

    seen: Seen
    server: ServerId
    spec: ServerSpec
    variables: tuple[Variable, ...]
    secrets: tuple[Given, ...]
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
    plan, known = Moves(), _Known(dict(registered))
    for seen in chosen:
        if not seen.bypasses:
            plan.stays.append(Stay(seen, "it goes through the gateway already", ""))
            continue
        try:
            plan.moves.append(_move(seen, known, around))
        except Invalid as error:
            plan.stays.append(Stay(seen, str(error).rstrip("."), error.remedy))
    return plan


@dataclass(slots=True)
class _Known:
    """``variables``: those that servers take from the gateway's environment, and what they hold, as far
    as it is known.  ``secrets``: (server, name) → value."""

    specs: dict[ServerId, ServerSpec]
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[tuple[ServerId, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for spec in self.specs.values():
            names = (*spec.env_from, *spec.headers_from.values())
            self.variables.update(dict.fromkeys(names, ""))


def _move(seen: Seen, known: _Known, around: Around) -> Move:
    wanted = server_id(seen.entry.name)
    found = adopted(seen.entry, wanted, around)
    for name, spec in known.specs.items():
        if _same(spec, replace(found.spec, id=name)):
            notes = tuple(
                f"it had another value of {each.name}; from now on there is one for all"
                for each in found.secrets
                if known.secrets.get((name, each.name), each.value) != each.value
            )
            return Move(seen, name, spec, found.variables, (), new=False, notes=notes)
    for variable in found.variables:
        if known.variables.get(variable.name, "") not in ("", variable.holds):
            raise Invalid(
                f"another server needs another value of {variable.name}",
                remedy="Write the value into its file; adopting puts it into the vault.",
            )
    server = _free(wanted, known.specs)
    spec = replace(found.spec, id=server)
    check_spec(spec)
    _check_text(spec)
    told = [
        *_sign_in(seen.entry, spec),
        *(
            f"{variable.name} goes to another server, too: both get one value"
            for variable in found.variables
            if variable.name in known.variables
        ),
    ]
    known.specs[server] = spec
    for variable in found.variables:
        known.variables.setdefault(variable.name, variable.holds)
    for each in found.secrets:
        known.secrets[server, each.name] = each.value
    return Move(seen, server, spec, found.variables, found.secrets, new=True, notes=tuple(told))


def _sign_in(entry: Entry, spec: ServerSpec) -> Iterator[str]:
    """An HTTP server without a header may be one to which people sign in (ID-9)."""
    if spec.url and not (spec.headers_from or spec.headers_secret):
        own = (
            f"its own sign-in ({', '.join(entry.sign_in)}) is not carried over"
            if entry.sign_in
            else "no credential stands in its entry"
        )
        yield f"{own}; if people sign in: exeat server change {spec.id} --auth authorization-code"


def _same(one: ServerSpec, other: ServerSpec) -> bool:
    """In what a client's file says; the rest (isolation, sign-in, permits) is the gateway's concern."""
    fields = (
        "url",
        "command",
        "cwd",
        "env",
        "env_from",
        "env_secret",
        "headers_from",
        "headers_secret",
    )
    return all(getattr(one, name) == getattr(other, name) for name in fields)


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

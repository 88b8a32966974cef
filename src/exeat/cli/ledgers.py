"""Which ledgers a command is about: those of the home in use, of a folder, or one file."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import database_url
from exeat.core.errors import Invalid, LedgerUnavailable, NotFound
from exeat.evidence.reader import EvidenceReader, enrolled
from exeat.evidence.store import StoreFailed
from exeat.storage.places import LedgerPlace, file_place, places

Where = Annotated[
    Path | None,
    typer.Argument(help="A ledger file, or a folder like a home; else the home in use."),
]
InstanceOption = Annotated[
    str | None, typer.Option("--instance", help="Of several logs, that of this gateway or worker.")
]


@dataclass(frozen=True)
class Meant:
    """A home, and the database that its state and logs are in, if one is set."""

    home: Path
    database: str | None


def meant(where: Path | None, home: Path | None) -> Meant:
    """The home in use with its database; or the folder ``where`` with the files in it alone.

    A folder that somebody gave may name a database in its ``exeat.toml``: to go there, or to set the
    database of the home in use against the folder's files, is not what checking it means.
    """
    from exeat.app.home import home_path

    used = home_path(home)
    if where is None or where.expanduser().resolve() == used.resolve():
        return Meant(used, database_url(used))
    return Meant(home_path(where), None)


def ledgers(
    where: Path | None, home: Path | None, instance: str | None = None
) -> list[LedgerPlace]:
    """The ledgers that are meant.  Raises NotFound, LedgerUnavailable."""
    if where is not None and where.is_file():
        return [file_place(where)]
    place = meant(where, home)
    try:
        found = places(place.home, place.database)
    except StoreFailed as error:
        raise LedgerUnavailable(
            f"The ledger cannot be read: {error}.", remedy="Look at the database, then ask again."
        ) from None
    if not found:
        raise NotFound(f"There is no ledger at {place.home}.", remedy=_remedy(place))
    if instance is None:
        return found
    named = [each for each in found if each.name == instance]
    if not named:
        raise NotFound(
            f"There is no ledger of {instance} at {place.home}.",
            remedy=f"There are: {', '.join(each.name for each in found)}.",
        )
    return named


def _remedy(place: Meant) -> str:
    if place.database is None and (place.home / "exeat.toml").is_file():
        return (
            "Only files are read of a folder that is named so. If it is a home of yours and its "
            f"ledger is in a database: --home {place.home}."
        )
    return "A ledger is begun by `exeat up`; or name a ledger file."


def one_ledger(where: Path | None, home: Path | None, instance: str | None = None) -> LedgerPlace:
    """Raises NotFound, Invalid, LedgerUnavailable."""
    found = ledgers(where, home, instance)
    if len(found) > 1:
        names = ", ".join(place.name for place in found)
        raise Invalid(
            f"There are several ledgers: {names}.", remedy="Name one of them with --instance."
        )
    return found[0]


def ledger_of(decision: str, where: Path | None, home: Path | None) -> LedgerPlace:
    """The ledger that a decision's id names.  Raises NotFound, Invalid."""
    found = ledgers(where, home)
    named = [place for place in found if place.name == decision.rpartition("-")[0]]
    if len(found) > 1 and len(named) != 1:
        names = ", ".join(place.name for place in found)
        raise Invalid(
            f"There are several ledgers ({names}), and {decision!r} does not say which.",
            remedy="Write it as in `exeat evidence audit`, for example "
            f"{found[0].name}-{decision.rpartition('-')[2]}.",
        )
    return named[0] if named else found[0]


@contextmanager
def open_reader(
    place: LedgerPlace, *, values: bool, exact: bool = False
) -> Iterator[EvidenceReader]:
    """``values``: open sealed values with the master key of the home that the ledger belongs to;
    ``exact``: with the digits of their numbers."""
    from exeat.evidence.keys import load_master

    master = None
    if values:
        key = place.home / "keys" / "master.key" if place.home is not None else Path("master.key")
        if not key.is_file():
            raise NotFound(
                f"The values in {place.shown} cannot be opened: its home's master key is not here.",
                remedy="Leave out --values.",
            )
        master = load_master(key)
    with closing(place.reader()) as source:
        yield EvidenceReader(source, enrolled(source)[0], master, exact=exact)

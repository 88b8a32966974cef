"""What every noun of the command line shares: the home, who acts, and how things are shown."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from exeat.cli.ending import AT_END
from exeat.core.errors import NotFound
from exeat.core.ids import PersonId
from exeat.identity.authorization.model.doing import Doing
from exeat.registry.model.act import Act
from exeat.registry.service import Registry
from exeat.storage.state import State, open_state

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="exeat's home (else EXEAT_HOME, ~/.exeat).")
]
AsOption = Annotated[
    str | None, typer.Option("--as", help="Who acts; else the person of `exeat init`.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it stands in the evidence.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
NO_REASON = "no reason given"


@dataclass(frozen=True)
class Desk:
    """An opened home and the person who works at it: "" if not known, which is enough to look."""

    home: Path
    state: State
    registry: Registry
    actor: PersonId

    def act(self, reason: str = NO_REASON) -> Act:
        """Raises NotFound if it is not known who acts."""
        if not self.actor:
            raise NotFound("It is not known who acts.", remedy="Add `--as PERSON`.")
        return Act(self.actor, f"cli:{os.geteuid()}", reason, time.time_ns())


def doing(desk: Desk, reason: str) -> Doing:
    """The same for the verbs of sign-in and of the authorization server."""
    act = desk.act(reason)
    return Doing(act.actor, act.channel, act.at, act.reason)


def issuer(desk: Desk) -> str:
    """The embedded authorization server's, as the settings of this home say."""
    from exeat.app.settings import load_settings

    return load_settings(desk.home).issuer


def database_url(home: Path) -> str | None:
    """The same database as the gateway's: the environment, else ``exeat.toml``."""
    given = {name.upper(): value for name, value in os.environ.items()}  # as the settings read it
    named = given.get("EXEAT_DATABASE_URL")
    if named is not None or not (home / "exeat.toml").is_file():
        return named
    from exeat.app.settings import load_settings

    return load_settings(home).database_url


def open_home(where: Path) -> State:
    """The state in ``where``, or in the database that it names; closed when the command ends.

    Raises NotFound if there is none.
    """
    url = database_url(where)
    if not (where / "state.db").exists() and url is None:
        raise NotFound(f"There is no exeat home at {where}.", remedy="Run `exeat init` first.")
    state = open_state(where, url)
    AT_END.callback(state.close)
    return state


def open_desk(home: Path | None, actor: str | None = None) -> Desk:
    """Raises NotFound if there is no home."""
    from exeat.app.home import home_path

    where = home_path(home)
    state = open_home(where)
    if actor is None:
        with suppress(OSError):
            actor = (where / "operator").read_text(encoding="ascii").strip()
    return Desk(where, state, Registry(state.registry, os.urandom), PersonId(actor or ""))


def printable(text: object) -> str:
    """Text that a server wrote, safe for a terminal: nothing in it acts, nothing in it hides."""
    return "".join(
        c if c.isascii() and c.isprintable() else c.encode("unicode_escape").decode("ascii")
        for c in str(text)
    )


def say(text: str) -> None:
    typer.echo(text)


def next_step(text: str) -> None:
    """What a newcomer does now."""
    typer.echo(f"next: {text}", err=True)


def hint_untrusted(desk: Desk, issuer: str) -> None:
    """A binding is of no use while the gateway takes no token of its issuer."""
    from exeat.app.settings import load_settings

    settings = load_settings(desk.home)
    if issuer not in (settings.issuer, *(each.url for each in settings.issuers)):
        next_step(f"name {issuer}, to the letter, under [[issuers]] in {desk.home / 'exeat.toml'}")


def show_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Plain columns: readable in a terminal, a log and a pipe."""
    lines = [tuple(heads), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    for line in lines:
        typer.echo(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )

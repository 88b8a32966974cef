"""``exeat init``: a home and its first person."""

import os
import time
from contextlib import closing
from typing import Annotated

import typer

from exeat.cli.desk import HomeOption, database_url, next_step, say


def init(
    me: Annotated[
        str, typer.Option("--me", help="Your id here: lower case, no e-mail.")
    ] = "operator",
    home: HomeOption = None,
) -> None:
    """Create exeat's home and register yourself as its first person."""
    from exeat.app.home import home_path
    from exeat.core.errors import Conflict
    from exeat.core.ids import PersonId
    from exeat.registry.model.act import Act
    from exeat.registry.model.names import slug
    from exeat.registry.service import Registry
    from exeat.storage.state import open_state

    name = slug("a person", me)
    where = home_path(home)
    if (where / "operator").exists():
        raise Conflict(f"There is a home at {where} already.", remedy="Use it, or set EXEAT_HOME.")
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    where.chmod(0o700)  # it may have been there, with exeat.toml in it
    with closing(open_state(where, database_url(where))) as state:
        act = Act(PersonId(name), f"cli:{os.geteuid()}", "exeat init", time.time_ns())
        Registry(state.registry, os.urandom).found(name, act)
    (where / "operator").write_text(name + "\n", encoding="ascii")
    say(f"Home: {where}\nYou are {name}, its admin.")
    next_step("exeat person add NAME   (every agent needs an owner and a deputy)")

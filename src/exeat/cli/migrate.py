"""``exeat migrate``: bring the state to this version, before gateways of this version start."""

import os
import time
from contextlib import closing
from typing import Annotated

import typer

from exeat.cli.desk import HomeOption, database_url, say


def migrate(
    me: Annotated[
        str | None, typer.Option("--me", help="Register this first person if there is nobody.")
    ] = None,
    to: Annotated[
        int | None,
        typer.Option(
            "--to", help="This version of the tables, also an older one; else the latest."
        ),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Create or upgrade the tables; safe to repeat.  For rollouts with PostgreSQL.

    Before an older exeat is started again: stop all gateways, then --to its version.  No record is ever
    dropped: tables that hold evidence stay.
    """
    from exeat.app.home import home_path
    from exeat.core.errors import Invalid
    from exeat.core.ids import PersonId
    from exeat.registry.model.act import Act
    from exeat.registry.model.names import slug
    from exeat.registry.service import Registry
    from exeat.storage.state import move_schema, open_state

    where = home_path(home)
    if to is not None:
        if me is not None:
            raise Invalid("--me registers people in the latest tables.", remedy="Leave out --to.")
        before, after = move_schema(where, database_url(where), to)
        say(f"The state had schema {before}, and has {after}.")
        return
    with closing(open_state(where, database_url(where))) as state:
        say(f"The state has schema {state.schema()[0]}.")
        with state.registry.read() as read:
            somebody = bool(read.people())
        if me is not None and not somebody:
            name = slug("a person", me)
            act = Act(PersonId(name), f"cli:{os.geteuid()}", "exeat migrate", time.time_ns())
            Registry(state.registry, os.urandom).found(name, act)
            say(f"{name} is its first person, and admin.")

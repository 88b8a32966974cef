"""The state of registry and policy, opened: what the gateway reads and the control plane writes."""

from pathlib import Path

import sqlalchemy as sa

from exeat.core.facts import Snapshot
from exeat.storage.engine import (
    changing,
    postgres_engine,
    reading,
    sqlite_engine,
    sqlite_reader,
)
from exeat.storage.outbox import Outbox
from exeat.storage.policy import Policies
from exeat.storage.registry import SqlRegistry
from exeat.storage.schema import MIGRATIONS, migrate, state
from exeat.storage.snapshot import EMPTY, load


class State:
    """Safe to share between threads.  Every method may wait for the database: call it in a thread.

    Every method raises StateUnavailable if the database cannot be reached.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last = EMPTY
        self.registry = SqlRegistry(engine)
        self.policies = Policies(engine)
        self.outbox = Outbox(engine)

    def epoch(self) -> int:
        """Grows with every change of registry or policy.  One row by primary key."""
        with reading(self._engine) as connection:
            return int(connection.execute(_EPOCH).scalar_one())

    def snapshot(self) -> Snapshot:
        """One consistent moment.  The same object while the epoch stands; else only what changed
        is loaded, and what did not change is shared with the snapshot before."""
        with reading(self._engine) as connection:
            loaded = load(connection, self._last)
        self._last = loaded
        return loaded

    def schema(self) -> tuple[int, int]:
        """The version of its tables (0: there are none), and the one that this exeat writes."""
        with reading(self._engine) as connection:
            if not sa.inspect(connection).has_table(state.name):
                return 0, len(MIGRATIONS)
            found = connection.execute(sa.select(state.c.schema_version)).scalar_one()
        return int(found), len(MIGRATIONS)

    def close(self) -> None:
        self._engine.dispose()


_EPOCH = sa.select(state.c.epoch)


def open_state(home: Path, url: str | None = None) -> State:
    """SQLite in ``home/state.db``, or the PostgreSQL database at ``url``; brought up to date.

    Raises StateUnavailable if it cannot be opened, or was written by a newer exeat.
    """
    engine = sqlite_engine(home) if url is None else postgres_engine(url)
    try:
        with changing(engine) as tx:
            migrate(tx)
    except BaseException:
        engine.dispose()
        raise
    return State(engine)


def look_at_state(home: Path, url: str | None = None) -> State:
    """The same without bringing it up to date: for looking only.  Nothing is made or changed."""
    return State(sqlite_reader(home) if url is None else postgres_engine(url))

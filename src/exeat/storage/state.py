"""The state of registry and policy, opened: what the gateway reads and the control plane writes."""

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from exeat.core.errors import StateUnavailable
from exeat.core.facts import Snapshot
from exeat.storage.approvals import SqlApprovals
from exeat.storage.authorization import SqlAuthorization
from exeat.storage.budgets import SqlBudgets
from exeat.storage.engine import (
    changing,
    postgres_engine,
    reading,
    sqlite_engine,
    sqlite_reader,
)
from exeat.storage.kills import KillEffects
from exeat.storage.leases import Leases
from exeat.storage.migrations import LATEST, migrate, version
from exeat.storage.outbox import Outbox
from exeat.storage.policy import Policies
from exeat.storage.registry import SqlRegistry
from exeat.storage.roots import Roots
from exeat.storage.schema import state
from exeat.storage.sign_in import SqlSignIn
from exeat.storage.snapshot import EMPTY, load
from exeat.storage.vault import SqlVault


class State:
    """Safe to share between threads.  Every method may wait for the database: call it in a thread.

    Every method raises StateUnavailable if the database cannot be reached.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._last = EMPTY
        self.registry = SqlRegistry(engine)
        self.authorization = SqlAuthorization(engine)
        self.sign_in = SqlSignIn(engine)
        self.policies = Policies(engine)
        self.outbox = Outbox(engine)
        self.leases = Leases(engine)
        self.roots = Roots(engine)
        self.kill_effects = KillEffects(engine)
        self.budgets = SqlBudgets(engine)
        self.vault = SqlVault(engine, self.registry)
        self.approvals = SqlApprovals(engine)

    def epoch(self) -> int:
        """Grows with every change of registry or policy.  One row by primary key, of the primary
        database: a standby that lags must not confirm anything (APP-10)."""
        with reading(self._engine) as connection:
            if self._engine.dialect.name != "postgresql":
                return int(connection.execute(_EPOCH).scalar_one())
            epoch, standby = connection.execute(_EPOCH_AND_STANDBY).one()
        if standby:
            raise StateUnavailable(
                "The database is a standby, which may lag behind.",
                remedy="Name the primary, or add target_session_attrs=read-write to database_url.",
            )
        return int(epoch)

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
            return version(connection), LATEST

    def close(self) -> None:
        self._engine.dispose()


_EPOCH: Final = sa.select(state.c.epoch)
_EPOCH_AND_STANDBY: Final = sa.select(state.c.epoch, sa.func.pg_is_in_recovery())


def open_state(home: Path, url: str | None = None) -> State:
    """SQLite in ``home/state.db``, or the PostgreSQL database at ``url``; brought up to date.

    Raises StateUnavailable if it cannot be opened, or was written by a newer exeat.
    """
    engine = _engine(home, url)
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


def _engine(home: Path, url: str | None) -> sa.Engine:
    return sqlite_engine(home) if url is None else postgres_engine(url)


def move_schema(home: Path, url: str | None, wanted: int | None) -> tuple[int, int]:
    """Forward or back to a version of the tables; None: only look.  Returns the one before and the
    one after.  Raises StateUnavailable, Invalid."""
    engine = _engine(home, url)
    try:
        with changing(engine) as tx:
            before = version(tx)
            if wanted is not None:
                migrate(tx, wanted)
            return before, version(tx)
    finally:
        engine.dispose()

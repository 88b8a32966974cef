"""Work that one gateway does for all: who may do it now, by a row with an end (no election needed).

A lease only saves double work.  What it guards is safe if two did it: events enter the ledger at
least once, and a root that does not follow the last one is refused by its number.
"""

import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from exeat.storage.engine import changing
from exeat.storage.schema import leases

_CLOCK: Final = sa.extract("epoch", sa.func.clock_timestamp())


class Leases:
    """``owner``: this process, by a name that no other has."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._clock = engine, clock

    def hold(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease, or keep it.  False: another has it.  Raises StateUnavailable."""
        with changing(self._engine) as tx:
            _make(tx, name)
            row = leases.c.name == name
            found = tx.execute(sa.select(leases).where(row).with_for_update()).one()
            now = self._now(tx)  # after the wait for the row
            values = {"owner": owner, "until": now + seconds}
            if found.owner != owner and found.until > now:
                return False
            tx.execute(leases.update().where(row).values(values))
            return True

    def give_up(self, name: str, owner: str) -> None:
        with changing(self._engine) as tx:
            tx.execute(leases.delete().where((leases.c.name == name) & (leases.c.owner == owner)))

    def _now(self, tx: sa.Connection) -> float:
        """The database's clock; with SQLite all are on one machine."""
        if tx.dialect.name == "postgresql":
            return float(tx.execute(sa.select(_CLOCK)).scalar_one())
        return self._clock()


def _make(tx: sa.Connection, name: str) -> None:
    """The lease's row, if it is the first time that anybody wants it."""
    values = {"name": name, "owner": "", "until": 0.0}
    if tx.dialect.name == "postgresql":
        tx.execute(postgresql.insert(leases).values(values).on_conflict_do_nothing())
    else:
        tx.execute(sqlite.insert(leases).values(values).on_conflict_do_nothing())

"""When kills took effect, gateway by gateway (APP-9)."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from exeat.storage.engine import changing, reading
from exeat.storage.schema_kills import kill_effects, kills


@dataclass(frozen=True, slots=True)
class KillEffect:
    """``at``: nanoseconds, by the gateway's clock, when nothing of what was killed was permitted or under
    way there any more.  ``cancelled``: calls that were."""

    kill: str
    instance: str
    at: int
    cancelled: int


class KillEffects:
    """What lies behind ``State.kill_effects``."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def took(self, instance: str, at: int, cancelled: Mapping[str, int]) -> dict[str, int]:
        """``cancelled``: by kill.  Kept once per gateway.  Returns when each was ordered."""
        rows = [
            {"kill": kill, "instance": instance, "at": at, "cancelled": count}
            for kill, count in sorted(cancelled.items())
        ]
        of_these = kills.c.id.in_(sorted(cancelled))
        with changing(self._engine) as tx:
            insert = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
            tx.execute(insert(kill_effects).on_conflict_do_nothing(), rows)
            ordered = tx.execute(sa.select(kills.c.id, kills.c.at).where(of_these))
            return {row.id: int(row.at) for row in ordered}

    def all(self) -> tuple[KillEffect, ...]:
        query = sa.select(kill_effects).order_by(kill_effects.c.kill, kill_effects.c.instance)
        with reading(self._engine) as connection:
            return tuple(
                KillEffect(row.kill, row.instance, row.at, row.cancelled)
                for row in connection.execute(query)
            )

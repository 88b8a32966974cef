"""Control-plane events waiting for their place in the ledger (REG-3).

``put`` runs in the transaction of the change: both are there, or neither.  The ledger's writer
takes events in order, makes them durable, then acknowledges: at least once, so it must expect to
see an event again after a crash, under the same number.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.registry.model.canonical import canonical
from exeat.storage.engine import changing, reading
from exeat.storage.schema import outbox


@dataclass(frozen=True, slots=True)
class Waiting:
    """``number`` grows in the order in which the changes were committed; it is never reused."""

    number: int
    event: Event


def put(tx: sa.Connection, event: Event) -> None:
    body = {
        "kind": event.kind,
        "subject": event.subject,
        "actor": event.actor,
        "channel": event.channel,
        "at": event.at,
        "reason": event.reason,
        "before": event.before,
        "after": event.after,
    }
    tx.execute(outbox.insert().values(body=canonical(body)))


class Outbox:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def take(self, limit: int) -> tuple[Waiting, ...]:
        """The oldest events, at most ``limit``.  They stay until acknowledged."""
        query = sa.select(outbox).order_by(outbox.c.n).limit(limit)
        with reading(self._engine) as connection:
            return tuple(Waiting(row.n, _event(row.body)) for row in connection.execute(query))

    def acknowledge(self, numbers: Iterable[int]) -> None:
        """They are durable in the ledger.  Unknown numbers are ignored, so twice is harmless."""
        if gone := list(numbers):
            with changing(self._engine) as tx:
                tx.execute(outbox.delete().where(outbox.c.n.in_(gone)))


def _event(body: str) -> Event:
    e = json.loads(body)
    return Event(
        e["kind"],
        e["subject"],
        PersonId(e["actor"]),
        e["channel"],
        e["at"],
        e["reason"],
        e["before"],
        e["after"],
    )

"""What time does: nobody answered, nobody called again, arguments are forgotten (APP-2; ADR 0040)."""

from dataclasses import replace
from typing import Final

from exeat.approvals.model.bounds import DAY_NS
from exeat.approvals.model.hold import HoldState
from exeat.approvals.service.claims import asked_kind, told
from exeat.approvals.store import ApprovalsStore

BATCH: Final = 200
SHOWN_FOR_NS: Final = 30 * DAY_NS
"""So long after the decision people may still see what was decided."""
KEPT_FOR_NS: Final = 400 * DAY_NS


class Upkeep:
    def __init__(self, store: ApprovalsStore) -> None:
        self._store = store

    def expire(self, now: int) -> int:
        """How many ended: all that were overdue.  Any number of gateways may call it at once."""
        ended = 0
        while True:
            with self._store.read() as read:
                if not read.overdue(now, 1):
                    return ended
            with self._store.change() as tx:
                for hold in tx.overdue(now, BATCH):
                    decided = hold.decided_at or now
                    over = replace(hold, state=HoldState.EXPIRED, decided_at=decided)
                    event = told(asked_kind("expired", hold), over, now)
                    ended += tx.move(over, hold.state, event)

    def forget(self, now: int) -> int:
        """Of how many the arguments were forgotten."""
        with self._store.change() as tx:
            return tx.forget(now - SHOWN_FOR_NS, now - KEPT_FOR_NS)

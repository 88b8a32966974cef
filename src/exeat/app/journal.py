"""Events on their way into the ledger: the outbox of the control plane, and what upstreams do."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from exeat.app.lock import Turn
from exeat.core.errors import ExeatError, LedgerUnavailable
from exeat.core.event import Event
from exeat.core.ids import ServerId
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import Receipt
from exeat.registry.model.act import EXEAT
from exeat.storage.outbox import Waiting
from exeat.storage.state import State

_log = structlog.get_logger("exeat.journal")
OUTBOX_POLL_S: Final = 0.5
OUTBOX_BATCH: Final = 200


class Journal:
    """At least once: an event leaves the outbox only after it is durable in the ledger.  ``turn``: of
    the gateways of one home, one at a time takes from it, so that none enters what another does."""

    def __init__(
        self, state: State, ledger: Ledger, loop: asyncio.AbstractEventLoop, turn: Turn
    ) -> None:
        self._state, self._ledger, self._loop, self._turn = state, ledger, loop, turn
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-journal")
        self._pump: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._pump = self._loop.create_task(self._run())

    def upstream(self, kind: str, server: ServerId, details: Mapping[str, Any]) -> None:
        """GW-1: probes, handshakes and starts, recorded as events."""
        event = Event(
            kind, f"server:{server}", EXEAT, "gateway", time.time_ns(), kind, None, dict(details)
        )
        self._ledger.record_event(event, _told)

    async def _run(self) -> None:
        while True:
            try:
                more = await self._drain()
            except ExeatError as error:
                _log.warning("control events wait", why=str(error))
                more = False
            if not more:
                await asyncio.sleep(OUTBOX_POLL_S)

    async def _drain(self) -> bool:
        if not self._turn.take():
            return False
        try:
            return await self._drained()
        finally:
            self._turn.release()

    async def _drained(self) -> bool:
        waiting = await self._loop.run_in_executor(
            self._thread, self._state.outbox.take, OUTBOX_BATCH
        )
        if not waiting:
            return False
        durable = await asyncio.gather(*(self._enter(each) for each in waiting))
        done = [number for number in durable if number is not None]
        await self._loop.run_in_executor(self._thread, self._state.outbox.acknowledge, done)
        return len(done) == OUTBOX_BATCH

    def _enter(self, waiting: Waiting) -> "asyncio.Future[int | None]":
        future: asyncio.Future[int | None] = self._loop.create_future()

        def done(receipt: Receipt | LedgerUnavailable) -> None:
            if not future.done():
                future.set_result(waiting.number if isinstance(receipt, Receipt) else None)

        self._ledger.record_event(waiting.event, done)
        return future

    async def close(self) -> None:
        """Enter what still waits, then stop."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        try:
            while await self._drain():
                pass
        except ExeatError as error:
            _log.warning("control events wait for the next start", why=str(error))
        self._turn.close()
        self._thread.shutdown(wait=True)


def _told(receipt: Receipt | LedgerUnavailable) -> None:
    if not isinstance(receipt, Receipt):
        _log.warning("an event could not be recorded", why=str(receipt))

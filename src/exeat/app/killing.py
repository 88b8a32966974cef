"""A kill takes effect in this process, and how long that took is kept (APP-9)."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from exeat.app.live import View
from exeat.core.errors import ExeatError, LedgerUnavailable
from exeat.core.event import Event
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import Receipt
from exeat.gateway.front import Front
from exeat.gateway.killing import end_killed
from exeat.registry.model.act import EXEAT
from exeat.storage.kills import KillEffects

_log = structlog.get_logger("exeat.killing")


class Killing:
    """``first``: the state with which the gateway starts; its kills were never not in effect here."""

    def __init__(
        self, front: Front, effects: KillEffects, ledger: Ledger, instance: str, first: View
    ) -> None:
        self._front, self._effects, self._ledger = front, effects, ledger
        self._instance = instance
        self._known = frozenset(first.snapshot.kills.of.values())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-killing")
        self._writing: set[asyncio.Task[None]] = set()

    def changed(self, view: View) -> None:
        """``view`` is in force: nothing new is permitted.  What is under way ends before this returns."""
        kills = frozenset(view.snapshot.kills.of.values())
        new, self._known = kills - self._known, kills
        if not new:
            return
        ended = end_killed(self._front)
        at = time.time_ns()
        cancelled = {kill: ended.get(kill, 0) for kill in sorted(new)}
        task = self._front.loop.create_task(self._keep(at, cancelled))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _keep(self, at: int, cancelled: Mapping[str, int]) -> None:
        ordered: Mapping[str, int] = {}
        try:
            ordered = await self._front.loop.run_in_executor(
                self._thread, self._effects.took, self._instance, at, cancelled
            )
        except ExeatError as error:
            _log.warning("when a kill took effect is only in the record", why=str(error))
        for kill, count in cancelled.items():
            after = {"after_ms": (at - ordered[kill]) // 1_000_000} if kill in ordered else {}
            effect = {"instance": self._instance, "cancelled": count, **after}
            _log.warning("a kill is in effect", kill=kill, **effect)
            event = Event(
                "kill.effective",
                f"kill:{kill}",
                EXEAT,
                "gateway",
                at,
                "kill.effective",
                None,
                effect,
            )
            self._ledger.record_event(event, _told)

    async def close(self) -> None:
        await asyncio.gather(*self._writing, return_exceptions=True)
        self._thread.shutdown(wait=True)


def _told(receipt: Receipt | LedgerUnavailable) -> None:
    if not isinstance(receipt, Receipt):
        _log.warning("an event could not be recorded", why=str(receipt))

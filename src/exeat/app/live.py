"""The state in force: polled, compiled in a thread, swapped whole behind one reference.

A policy or registry that cannot be read leaves the running version in place until its age limit;
then everything is denied (``state_stale``), naming the cause.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from exeat.core.errors import ExeatError
from exeat.core.facts import Snapshot
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp
from exeat.storage.state import State

_log = structlog.get_logger("exeat.state")


_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def running() -> float:
    """Seconds that only grow, also while the machine sleeps.  Not the loop's clock, which stands
    still while one callback runs."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds.  It looks every ``poll_s``; after a hint at once, but no more often than every
    ``hinted_s``, since anybody with a role in the database can send hints.  What was confirmed longer
    than ``age_max_s`` ago is not fresh."""

    poll_s: float
    age_max_s: float
    hinted_s: float = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One consistent state and the PDP compiled from it."""

    snapshot: Snapshot
    pdp: Pdp


def load_view(state: State, previous: View | None) -> View:
    """Blocks.  Raises StateUnavailable."""
    snapshot = state.snapshot()
    if previous is not None and snapshot.epoch == previous.snapshot.epoch:
        return previous
    pdp = compile_bundle(
        snapshot.policy,
        snapshot.tools,
        snapshot.servers,
        agents=snapshot.agents,
        people=snapshot.people,
        previous=previous.pdp if previous is not None else None,
        kills=snapshot.kills,
    )
    return View(snapshot, pdp)


class Live:
    """``begun``: when the reading of ``first`` was begun, by ``clock``.  ``on_change`` runs on the loop
    after a swap, with the new view."""

    def __init__(
        self,
        state: State,
        first: View,
        *,
        pace: Pace,
        begun: float,
        loop: asyncio.AbstractEventLoop,
        on_change: Callable[[View], None],
        clock: Callable[[], float] = running,
    ) -> None:
        self.view = first
        self._state = state
        self._pace = pace
        self._loop, self._clock = loop, clock
        self._on_change = on_change
        self._confirmed = begun
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-state")
        self.problem = ""
        self._poller: asyncio.Task[None] | None = None
        self._hint, self._asked = asyncio.Event(), asyncio.Event()

    @property
    def fresh(self) -> bool:
        """APP-10: the database itself said, to a poll begun less than ``pace.age_max_s`` ago, that the
        view in force is its latest."""
        return self._clock() - self._confirmed < self._pace.age_max_s

    async def start(self) -> None:
        """Returns once the database was asked for the first time."""
        self._poller = self._loop.create_task(self._poll())
        await self._asked.wait()

    def hint(self) -> None:
        """Something may have changed: look at once."""
        self._hint.set()

    async def _poll(self) -> None:
        while True:
            self._hint.clear()  # a hint that comes while we look makes us look again
            begun = self._clock()
            try:
                await self._look()
                self._confirmed = begun
                self.problem = ""
            except ExeatError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001 - the running view stays until its age limit
                self._failed(f"{type(error).__name__}: {error}")
            self._asked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    self._pace.poll_s
                ):  # wait_for could swallow our cancelling
                    await self._hint.wait()
                    await asyncio.sleep(begun + self._pace.hinted_s - self._clock())

    async def _look(self) -> None:
        epoch = await self._loop.run_in_executor(self._thread, self._state.epoch)
        if epoch == self.view.snapshot.epoch:
            return
        view = await self._loop.run_in_executor(self._thread, load_view, self._state, self.view)
        if view is not self.view:
            self.view = view
            for finding in view.pdp.findings:
                _log.warning("policy finding", finding=str(finding))
            self._on_change(view)

    def _failed(self, problem: str) -> None:
        known, self.problem = self.problem, problem
        if problem != known:
            _log.error("state of registry and policy cannot be read", problem=problem)

    async def close(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        self._thread.shutdown(wait=True)

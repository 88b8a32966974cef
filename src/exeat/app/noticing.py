"""What time does to held calls, and who is told of new ones: by one gateway for all (APP-2, APP-5).

No call waits for it.  What cannot be posted now is tried again, ever later, until the hold has ended.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import structlog

from exeat.adapters.approval_notices import WEBHOOK, Poster
from exeat.approvals.model.hold import SECOND_NS, HoldState
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.approvals import Approvals
from exeat.approvals.store import Notice
from exeat.core.errors import ExeatError
from exeat.storage.leases import Leases

_log = structlog.get_logger("exeat.approvals")
LEASE: Final = "approvals"
LOOK_EVERY_S: Final = 1.0
HINTED_S: Final = 0.1
"""No more often than that, however often it is woken."""
LEASE_S: Final = 60.0
AGAIN_FIRST_NS: Final = 5 * SECOND_NS
AGAIN_MAX_NS: Final = 600 * SECOND_NS
FORGET_EVERY_NS: Final = 3600 * SECOND_NS
AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Sources:
    """``secret``: the webhook's; ``standing``: of now.  Both block."""

    secret: Callable[[], bytes]
    standing: Callable[[], Standing]
    clock: Callable[[], int]


class Noticing:
    """``poster`` None: nobody is told."""

    def __init__(
        self, approvals: Approvals, leases: Leases, poster: Poster | None, sources: Sources
    ) -> None:
        self._approvals, self._leases, self._poster = approvals, leases, poster
        self._sources = sources
        self._owner = f"approvals {os.getpid()} {uuid4().hex}"
        self._forget_at = 0
        self._problem = ""
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """On the loop: somebody may have been asked; look at once."""
        self._woken.set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._woken.clear()  # what comes while we look makes us look again
            problem = ""
            try:
                await self.look()
            except ExeatError as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - the next look tries again; no call waits for it
                problem = type(error).__name__
            if problem and problem != self._problem:
                _log.warning("held calls are not looked after", why=problem)
            self._problem = problem
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await asyncio.sleep(HINTED_S)
                    await self._woken.wait()

    async def look(self) -> None:
        """Once: expire, tell, forget.  Raises ExeatError."""
        notices = await asyncio.to_thread(self._look)
        if self._poster is not None and notices:
            await asyncio.gather(*(self._tell(self._poster, each) for each in notices))

    def _look(self) -> tuple[Notice, ...]:
        """What is to be posted, if this gateway may."""
        now, store = self._sources.clock(), self._approvals.store
        with store.read() as read:
            due = read.notices(now, AT_ONCE) if self._poster is not None else ()
            overdue = read.overdue(now, 1)
        forgets = now >= self._forget_at
        if not (due or overdue or forgets):
            return ()
        if not self._leases.hold(LEASE, self._owner, LEASE_S):
            self._forget_at = now + FORGET_EVERY_NS if forgets else self._forget_at
            return ()
        if overdue:
            self._approvals.upkeep.expire(now)
        if forgets:
            self._approvals.upkeep.forget(now)
            self._forget_at = now + FORGET_EVERY_NS
        return due

    async def _tell(self, poster: Poster, notice: Notice) -> None:
        now = self._sources.clock()
        hold, done = notice.hold, notice.done
        again_at = 0
        if hold.state is HoldState.PENDING and now < hold.expires_at:
            call, secret = await asyncio.to_thread(self._call, notice, poster)
            done = await poster.post(call, done, secret, now // SECOND_NS)
            if poster.targets.names - done:
                wait = min(AGAIN_FIRST_NS * 2 ** min(notice.tries, 20), AGAIN_MAX_NS)
                again_at = self._sources.clock() + wait
        await asyncio.to_thread(self._posted, hold.id, done, again_at)

    def _call(self, notice: Notice, poster: Poster) -> tuple[dict[str, object], bytes | None]:
        call = self._approvals.presented(notice.hold, self._sources.standing())
        if WEBHOOK not in poster.targets.names - notice.done:
            return call, None
        try:
            return call, self._sources.secret()
        except ExeatError as error:
            _log.warning("the secret of the approval webhook cannot be read", why=str(error))
            return call, None

    def _posted(self, hold: str, done: frozenset[str], again_at: int) -> None:
        with self._approvals.store.change() as tx:
            tx.posted(hold, done, again_at)

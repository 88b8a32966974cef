"""The periodic root over all logs: written by one gateway for all of them (EVD-1)."""

import asyncio
import os
import time
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from exeat.core.errors import ExeatError
from exeat.evidence.note import Signer
from exeat.evidence.roots import heads_of, joined, sign_root
from exeat.storage.publish import publish
from exeat.storage.state import State

_log = structlog.get_logger("exeat.roots")
LEASE: Final = "roots"


class Rooting:
    """No decision waits for it: a root that cannot be written now is written later, and its lack is
    logged."""

    def __init__(self, state: State, signer: Signer, home: Path, every_s: float) -> None:
        self._state, self._signer, self._home, self._every_s = state, signer, home, every_s
        self._owner = f"{signer.verifier.name} {os.getpid()} {uuid4().hex}"
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run(loop))

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await loop.run_in_executor(None, self.write)
            except (ExeatError, OSError) as error:
                _log.warning("the root over all logs waits", why=str(error))

    def write(self) -> bool:
        """Sign a root if this gateway may, and some log has grown.  Blocks."""
        if not self._state.leases.hold(LEASE, self._owner, self._every_s * 3):
            return False
        last = self._state.roots.last()
        before = () if last is None else last.heads
        now = heads_of(self._state.roots.checkpoints(self._home))
        heads = joined(before, now)
        present = {head.origin for head in now}
        for head in before:
            if head.origin not in present:
                _log.error("a whole log is gone", log=head.origin, entries=head.size)
        if heads == before:
            return False
        root = sign_root(last, heads, time.time_ns(), self._signer)
        self._state.roots.keep(root)
        publish(self._home / "ledger" / "roots", root.note)
        return True

    async def close(self, loop: asyncio.AbstractEventLoop, *, write: bool) -> None:
        """``write``: a last root, now that our log has ended; not where the database is out of reach."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not write:
            return
        try:
            await loop.run_in_executor(None, self.write)
            await loop.run_in_executor(None, self._state.leases.give_up, LEASE, self._owner)
        except (ExeatError, OSError) as error:
            _log.warning("the last root is left to another gateway", why=str(error))

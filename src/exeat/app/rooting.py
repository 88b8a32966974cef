"""The periodic root over all logs: written by one gateway for all of them (EVD-1)."""

import asyncio
import os
import time
from contextlib import closing
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from exeat.core.errors import Conflict, ExeatError, Invalid
from exeat.evidence.note import Checkpoint, Signer, open_checkpoint
from exeat.evidence.reader import enrolled
from exeat.evidence.roots import PUBLISHED, SignedRoot, joined, number_of, sign_root
from exeat.evidence.store import LedgerBroken, StoreFailed
from exeat.storage.places import places
from exeat.storage.publish import publish
from exeat.storage.state import State

_log = structlog.get_logger("exeat.roots")
LEASE: Final = "roots"


class Rooting:
    """No decision waits for it: a root that cannot be written now is written later, and its lack is
    logged."""

    def __init__(
        self, state: State, signer: Signer, home: Path, url: str | None, every_s: float
    ) -> None:
        self._state, self._signer, self._home, self._every_s = state, signer, home, every_s
        self._url = url
        self._owner = f"{signer.verifier.name} {os.getpid()} {uuid4().hex}"
        self._task: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run(loop))

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await loop.run_in_executor(None, self.write)
            except (ExeatError, StoreFailed, OSError) as error:
                _log.warning("the root over all logs waits", why=str(error))

    def write(self) -> bool:
        """Sign a root if this gateway may, and some log has grown.  Blocks."""
        if not self._state.leases.hold(LEASE, self._owner, self._every_s * 3):
            return False
        last = self._state.roots.last()
        self._go_on_from(last)
        before = () if last is None else last.heads
        now = self._heads()
        heads = joined(before, now)
        present = {head.origin for head in now}
        for head in before:
            if head.origin not in present:
                _log.error("a whole log is gone", log=head.origin, entries=head.size)
        if heads == before:
            return False
        root = sign_root(last, heads, time.time_ns(), self._signer)
        self._state.roots.keep(root)
        publish(self._published, root.note)
        return True

    @property
    def _published(self) -> Path:
        return self._home / "ledger" / PUBLISHED

    def _go_on_from(self, last: SignedRoot | None) -> None:
        """A new root on fewer than there were would bless their loss.  Raises Conflict."""
        if not self._published.is_file():
            return
        known, number = self._published.read_bytes(), 0 if last is None else last.number
        if number_of(known) > number or (
            last and number_of(known) == number and known != last.note
        ):
            raise Conflict(
                f"The root {number_of(known)} that was signed here is not in the database any more.",
                remedy="Run `exeat evidence verify`; what it names was removed.",
            )

    def _heads(self) -> list[Checkpoint]:
        """The last checkpoint of each log that its own key signed; others are logged."""
        heads = []
        for place in places(self._home, self._url):
            try:
                with closing(place.reader()) as reader:
                    _, key = enrolled(reader)
                    found = reader.last_checkpoint()
                if found is not None and key is not None:
                    heads.append(open_checkpoint(found[1], key))
            except (Invalid, StoreFailed, LedgerBroken) as error:
                _log.error("a log is under no new root", log=place.shown, why=str(error))
        return heads

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
        except (ExeatError, StoreFailed, OSError) as error:
            _log.warning("the last root is left to another gateway", why=str(error))

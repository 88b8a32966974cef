"""The one thread that owns the store: batches in, durable rows out (EVD-3).

One batch is in flight; the next gathers on the loop meanwhile.  After a failure the thread closes
the store and opens it again with back-off until it can be read and checked.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from exeat.evidence.merkle import Frontier
from exeat.evidence.model import OutcomeFacts, Receipt
from exeat.evidence.note import Checkpoint, Signer
from exeat.evidence.recovery import Recovered, recover
from exeat.evidence.sealed import Sealer
from exeat.evidence.store import (
    LedgerBroken,
    LedgerStore,
    OpenState,
    Row,
    StoreFailed,
    SubjectKey,
    pack_leaves,
)

RETRY_FIRST_S: Final = 0.05
RETRY_MAX_S: Final = 5.0
FREE_CHECK_BYTES: Final = 4 * 1024 * 1024
Done = Callable[[Any], None]


@dataclass(slots=True)
class Batch:
    """What gathers on the loop until the committer takes it.

    ``waiting`` and ``outcome_waits``: position, time, callback.  ``permits``: index, subject.
    ``outcomes``: kept so that none is lost with a failed batch.  ``epoch``: of the store's opening.
    """

    first: int
    epoch: int = 0
    leaves: list[bytes] = field(default_factory=list)
    values: list[tuple[str, int, bytes]] = field(default_factory=list)
    waiting: list[tuple[int, int, Done]] = field(default_factory=list)
    permits: list[tuple[int, str]] = field(default_factory=list)
    outcomes: list[tuple[OutcomeFacts, str, Done | None]] = field(default_factory=list)
    outcome_waits: list[tuple[int, int, Done]] = field(default_factory=list)
    size_bytes: int = 0
    denials: int = 0
    open_state: OpenState | None = None
    checkpoint: bool = False
    hashes: list[bytes] = field(default_factory=list)
    ready: "Ready | None" = None

    def receipts(self) -> list[tuple[Done, Receipt]]:
        first, hashes = self.first, self.hashes
        return [
            (done, Receipt(first + n, hashes[n], at))
            for waits in (self.waiting, self.outcome_waits)
            for n, at, done in waits
        ]


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch as the store takes it, and the tree that it leads to."""

    row: Row
    keys: list[SubjectKey]
    frontier: Frontier


class Answers(Protocol):
    """How the committer speaks to the loop; each is called in the committer's thread."""

    def committed(self, batch: Batch, free_bytes: int) -> None: ...

    def failed(self, batch: Batch | None, cause: str) -> None:
        """The store refused; a batch that was not yet told committed is lost, or perhaps not."""
        ...

    def reopened(self, recovered: Recovered, free_bytes: int) -> None: ...


class Committer:
    """Owns store, frontier and sealing once ``start`` was called; ``open`` before that."""

    def __init__(self, store: LedgerStore, signer: Signer, sealer: Sealer) -> None:
        self._store, self._signer, self._sealer = store, signer, sealer
        self._frontier = Frontier()
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._since_free_check = 0
        self._free = 0
        self._epoch = 0
        self.durability = ""

    def open(self) -> Recovered:
        """Open the store and check its tail.  Raises LedgerBroken, StoreFailed."""
        self._sealer.forget()
        self._store.open()
        try:
            recovered = recover(self._store, self._signer.verifier)
            self._free, self.durability = self._store.free_bytes(), self._store.durability()
        except (LedgerBroken, StoreFailed):
            self._store.close()
            raise
        self._frontier = recovered.frontier.copy()
        self._since_free_check = 0
        return recovered

    @property
    def free_bytes(self) -> int:
        return self._free

    def start(self, answers: Answers) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(answers,), name="ledger", daemon=True
        )
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        self._work.put(batch)

    def stop(self) -> None:
        """Finish what was submitted, close the store, end the thread."""
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()
        self._store.close()

    def _run(self, answers: Answers) -> None:
        while (batch := self._work.get()) is not None:
            if batch.epoch != self._epoch:  # handed over while the store was failing
                continue
            told = False
            try:
                self.commit(batch)
                answers.committed(batch, self._free)
                told = True
                if batch.checkpoint:
                    self._sign()
            except Exception as error:  # noqa: BLE001 - outermost edge of the thread: it denies
                answers.failed(None if told else batch, cause_of(error))
                if not self._reopen(answers):
                    return

    def _reopen(self, answers: Answers) -> bool:
        """Try again until the store can be trusted.  False: told to stop meanwhile."""
        delay = RETRY_FIRST_S
        while True:
            self._store.close()
            try:
                if self._work.get(timeout=delay) is None:
                    return False
            except Empty:
                pass
            delay = min(delay * 2, RETRY_MAX_S)
            try:
                recovered = self.open()
            except Exception as error:  # noqa: BLE001 - as above: the ledger stays unavailable
                answers.failed(None, cause_of(error))
                continue
            self._epoch += 1
            answers.reopened(recovered, self._free)
            return True

    def prepare(self, batch: Batch) -> None:
        """Hash, seal and pack on the loop, where nobody contends for the interpreter; the thread then
        only waits for the disk.  Called while no batch is in flight.  A batch with a subject whose
        key must be looked up, or with trouble, is left to the thread."""
        if self._sealer.knows(batch.values):
            with contextlib.suppress(Exception):
                batch.ready = self._ready(batch)

    def _ready(self, batch: Batch) -> Ready:
        leaves, frontier = batch.leaves, self._frontier.copy()
        append = frontier.append
        batch.hashes = hashes = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
        for hashed in hashes:
            append(hashed)
        sealed, made = self._sealer.seal(batch.first, batch.values, self._store.key_of)
        row = Row(batch.first, len(leaves), pack_leaves(leaves), sealed, frontier.pack())
        return Ready(row, made, frontier)

    def commit(self, batch: Batch) -> None:
        """Store.  ``batch.hashes`` is filled; durable once it returns."""
        ready = batch.ready or self._ready(batch)
        self._store.append(ready.row, ready.keys, batch.open_state)
        self._frontier = ready.frontier
        self._since_free_check += batch.size_bytes
        if batch.checkpoint or self._since_free_check > FREE_CHECK_BYTES:
            self._free, self._since_free_check = self._store.free_bytes(), 0

    def _sign(self) -> None:
        """tlog-checkpoint: only what is durable is ever signed."""
        frontier = self._frontier
        checkpoint = Checkpoint(self._signer.verifier.name, frontier.size, frontier.root())
        self._store.keep_checkpoint(frontier.size, self._signer.sign(checkpoint.text()))


def cause_of(error: Exception) -> str:
    """Plain words, without values."""
    if isinstance(error, (StoreFailed, LedgerBroken)):
        return str(error)
    return f"the ledger failed ({type(error).__name__})"

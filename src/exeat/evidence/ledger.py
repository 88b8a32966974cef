"""The ledger as the gateway's loop sees it (EVD-3, EVD-9, GW-1).

Called from one event loop's thread.  An entry gets its index at once and its receipt once it is
durable; callbacks, no task per call.  Whatever cannot be made durable is refused with the cause.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from exeat.core.decision import Decision, Verdict
from exeat.core.errors import ExeatError, LedgerUnavailable
from exeat.core.event import Event
from exeat.core.request import AccessRequest
from exeat.evidence.committer import Batch, Committer, Done, cause_of
from exeat.evidence.entries import EntryWriter
from exeat.evidence.model import DecisionContext, Instance, OutcomeFacts, Receipt
from exeat.evidence.noise import Noise
from exeat.evidence.note import Signer
from exeat.evidence.quota import LedgerLimits, Room, room
from exeat.evidence.recovery import OpenDecision, Recovered, pack_open, subject_of
from exeat.evidence.sealed import Sealer
from exeat.evidence.store import LedgerStore, OpenState, StoreFailed

REFUSED: Final = -1
"""The index of what was not entered."""
UNSETTLED_MAX: Final = 100_000
OUTCOME_GATHER_S: Final = 0.005
"""An outcome that nobody waits for shares the next decision's commit, but waits no longer than this."""
GATHER_TURNS_MAX: Final = 8
GATHER_MAX: Final = 32
"""A decision waits for others only while each turn of the loop brings more, and no longer than this."""
Recorded = Callable[[Receipt | LedgerUnavailable], None]
_RETRY: Final = "Nothing was done. It retries by itself; free disk space or repair the cause."


class Ledger:
    """One per gateway instance.  ``clock``: nanoseconds since the epoch; ``random``: n bytes from
    the system's source."""

    def __init__(
        self,
        instance: Instance,
        store: LedgerStore,
        signer: Signer,
        master: bytes,
        *,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
        limits: LedgerLimits | None = None,
    ) -> None:
        self._instance, self._signer, self._clock = instance, signer, clock
        self._limits = limits or LedgerLimits()
        self._writer = EntryWriter(instance, random)
        self._committer = Committer(store, signer, Sealer(signer.verifier.name, master, random))
        self._noise = Noise(self._limits)
        self._open: dict[int, OpenDecision] = {}
        self._unsettled: deque[tuple[OutcomeFacts, str, Done | None]] = deque()
        self._next = self._at = self._beat = self._idle = self._epoch = 0
        self._gathering = Batch(0)
        self._flying: Batch | None = None
        self._scheduled = self._started = self._closing = False
        self._seen = self._passes = 0
        self._gather: asyncio.TimerHandle | None = None
        self._fault: LedgerUnavailable | None = LedgerUnavailable("the ledger is not open")
        self._room = Room.ENOUGH
        self._drained: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    # -- life

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check the tail, then enrol and open.  Raises LedgerBroken (its remedy says what to do) or
        LedgerUnavailable; blocks for the length of the check."""
        try:
            recovered = self._committer.open()
        except StoreFailed as error:
            raise LedgerUnavailable(
                f"the ledger cannot be opened: {error}", remedy="Repair the cause and start again."
            ) from error
        self._loop = loop
        self._resume(recovered, self._committer.free_bytes)
        self._noise.since = max(self._at, self._clock())
        self._introduce(recovered)
        self._committer.start(self)
        self._started = True
        self._beat_later()

    def _introduce(self, recovered: Recovered) -> None:
        who = {"build": self._instance.build, "config": self._instance.config}
        if recovered.frontier.size == 0:
            self.record_log("enrolled", {**who, "key": str(self._signer.verifier)})
        self._gathering.checkpoint = True
        crashed = not recovered.closed
        self.record_log(
            "opened",
            {
                **who,
                "clock_trusted": self.clock_trusted(self._clock()),
                "key": str(self._signer.verifier),
                "settings": {**self._instance.settings, "durability": self._committer.durability},
            },
        )
        if crashed:
            self.record_log(
                "recovered", {"size": recovered.frontier.size, "unknown": len(recovered.open)}
            )
        for entry in list(recovered.open.values()):
            self._open[entry.index] = entry
            receipt = Receipt(entry.index, entry.leaf_hash, 0)
            self.record_outcome(OutcomeFacts(receipt, "unknown", cause="crash"))

    async def close(self) -> None:
        """Write what waits, close the log, sign the last checkpoint, end the thread."""
        if not self._started or self._closing:
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._fault is None:
            self._write_counts()
            self.record_log("closed", {"open": len(self._open)})
        self._closing = True
        if self._fault is None:
            self._gathering.checkpoint = True
            self._drained = self._loop.create_future()
            self._flush()
            await self._drained
        self._fault = LedgerUnavailable("the ledger is closed")
        await self._loop.run_in_executor(None, self._committer.stop)

    # -- what callers record

    def record_decision(
        self, request: AccessRequest, decision: Decision, context: DecisionContext, done: Recorded
    ) -> int:
        """Enter a decision; ``done`` is called on the loop with its receipt once it is durable, or
        with LedgerUnavailable: then nothing may happen, and the index was never one.

        Returns the index, or REFUSED where the entry was refused at once."""
        permit = decision.verdict is Verdict.PERMIT
        refusal = self._refusal(permit)
        if refusal is not None:
            return self._refuse(refusal, done)
        index, at = self._next, self._stamp()
        try:
            leaf, record = self._writer.decision((index, at), request, decision, context)
        except Exception as error:  # noqa: BLE001 - on the decision path: it denies
            return self._refuse(_unwritable(error), done)
        user = request.caller.user
        subject = f"agent:{request.caller.agent.id}" if user is None else f"person:{user.id}"
        batch = self._gathering
        if permit:
            batch.permits.append((index, subject))
        else:
            batch.denials += 1
        self._enter(leaf, record, subject)
        self._soon()
        batch.waiting.append((len(batch.leaves) - 1, at, done))
        return index

    def record_outcome(self, facts: OutcomeFacts, done: Recorded | None = None) -> None:
        """Enter what became of a permitted decision, once.  It is kept through a failure of the
        store, and entered after it; a second outcome of one decision is only counted."""
        entry = self._open.pop(facts.decision.index, None)
        if entry is None:
            self.count("outcome.duplicate", None)
            return
        self._settle(facts, entry.subject, done)

    def _settle(self, facts: OutcomeFacts, subject: str, done: Done | None) -> None:
        if self._fault is not None:
            self._put_off(facts, subject, done)
            return
        at = self._stamp()
        try:
            leaf, record = self._writer.outcome(self._next, at, facts)
        except Exception as error:  # noqa: BLE001 - an outcome that cannot be written is said so
            if done is not None:
                self._loop.call_soon(done, _unwritable(error))
            self.count("outcome.unwritable", None)
            return
        batch = self._gathering
        batch.outcomes.append((facts, subject, done))
        self._enter(leaf, record, subject)
        if done is None:
            self._later()
        else:
            self._soon()
        if done is not None:
            batch.outcome_waits.append((len(batch.leaves) - 1, at, done))

    def record_event(self, event: Event, done: Recorded) -> int:
        """Enter a change of the control plane (REG-3).  The outbox keeps what fails."""
        if self._fault is not None:
            return self._refuse(self._fault, done)
        index, at = self._next, self._stamp()
        try:
            leaf, record = self._writer.event(index, at, event)
        except Exception as error:  # noqa: BLE001 - told to the caller, who keeps the event
            return self._refuse(_unwritable(error), done)
        self._enter(leaf, record, subject_of(event.actor, ""))
        self._soon()
        self._gathering.waiting.append((len(self._gathering.leaves) - 1, at, done))
        return index

    def record_log(self, what: str, facts: Mapping[str, Any], done: Recorded | None = None) -> None:
        """Enter a fact about this instance, e.g. ``isolation`` of an upstream (GW-12)."""
        if self._fault is not None:
            if done is not None:
                self._refuse(self._fault, done)
            return
        at = self._stamp()
        leaf, record = self._writer.log(self._next, at, what, facts)
        self._enter(leaf, record, "")
        self._soon()
        if done is not None:
            self._gathering.waiting.append((len(self._gathering.leaves) - 1, at, done))

    def count(self, kind: str, sample: Mapping[str, str] | None) -> None:
        """EVD-9: noise (unauthenticated, malformed) is counted and sampled, entered with a beat."""
        self._noise.count(kind, sample)

    # -- what callers ask

    def decision_id(self, index: int) -> str:
        """``<instance>-<index>``; only an index with a receipt names a decision."""
        return f"{self._instance.name}-{index}"

    def clock_trusted(self, now: int) -> bool:
        """EVD-9: False while time runs behind the persisted high-water mark."""
        return now >= self._at - self._limits.clock_backwards_max_ns

    @property
    def durability(self) -> str:
        """What "durable" means in the store: ``local``, ``replicated`` or ``no fsync`` (EVD-9)."""
        return self._committer.durability

    @property
    def fault(self) -> LedgerUnavailable | None:
        """Why nothing can be entered now, or None."""
        return self._fault

    @property
    def waiting(self) -> int:
        """Entries that are not durable yet."""
        return len(self._gathering.leaves) + (len(self._flying.leaves) if self._flying else 0)

    # -- gathering and flushing

    def _stamp(self) -> int:
        now = self._clock()
        if now > self._at:
            self._at = now
        return self._at

    def _refusal(self, permit: bool) -> LedgerUnavailable | None:
        """Fault, quotas of waiting entries and of disk space, in this order."""
        if self._fault is not None:
            return self._fault
        batch, limits = self._gathering, self._limits
        count = len(batch.leaves)
        mine = len(batch.permits) if permit else batch.denials
        if (
            count >= limits.waiting_max
            or mine >= limits.waiting_share_max
            or batch.size_bytes >= limits.waiting_bytes_max
        ):
            return LedgerUnavailable("too many entries wait for the disk", remedy=_RETRY)
        if self._room is Room.ENOUGH:
            return None
        if not permit:
            self.count("decision.denied", None)
            return LedgerUnavailable("disk space is scarce: this denial was counted, not entered")
        if self._room is Room.RESERVED:
            return LedgerUnavailable(
                "disk space is nearly used up and what is left is reserved", remedy=_RETRY
            )
        return None

    def _refuse(self, error: LedgerUnavailable, done: Recorded) -> int:
        self._loop.call_soon(done, error)
        return REFUSED

    def _enter(self, leaf: bytes, record: bytes, subject: str) -> None:
        batch = self._gathering
        batch.leaves.append(leaf)
        batch.size_bytes += len(leaf) + len(record)
        if record:
            batch.values.append((subject, self._next, record))
        self._next += 1

    def _soon(self) -> None:
        """Somebody waits: commit as soon as this turn of the loop has brought what it brings."""
        if not self._scheduled and self._flying is None:
            self._scheduled = True
            self._seen = self._passes = 0
            self._loop.call_soon(self._when_quiet)

    def _when_quiet(self) -> None:
        """Commit once a turn of the loop brought no further decision: one flush of the disk serves
        all that arrived together, and under load a commit costs less per call."""
        waiting = len(self._gathering.waiting)
        self._passes += 1
        if self._seen < waiting < GATHER_MAX and self._passes < GATHER_TURNS_MAX:
            self._seen = waiting
            self._loop.call_soon(self._when_quiet)
        else:
            self._flush()

    def _later(self) -> None:
        """Nobody waits: ride with the next decision, or go alone after OUTCOME_GATHER_S."""
        if not self._scheduled and self._flying is None and self._gather is None:
            self._gather = self._loop.call_later(OUTCOME_GATHER_S, self._flush)

    def _flush(self) -> None:
        """Hand the batch over, once all that this turn of the loop brought is in it."""
        self._scheduled = False
        if self._gather is not None:
            self._gather.cancel()
            self._gather = None
        batch = self._gathering
        if self._flying is not None or self._fault is not None:
            return
        if batch.leaves:
            self._flying, self._gathering = batch, Batch(self._next, self._epoch)
            if batch.checkpoint:
                self._mark_open(batch)
            self._committer.prepare(batch)
            self._committer.submit(batch)
        elif self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- answers of the committer, first in its thread, then on the loop

    def committed(self, batch: Batch, free_bytes: int) -> None:
        self._post(self._on_committed, batch, free_bytes)

    def failed(self, batch: Batch | None, cause: str) -> None:
        self._post(self._on_failed, cause)

    def reopened(self, recovered: Recovered, free_bytes: int) -> None:
        self._post(self._on_reopened, recovered, free_bytes)

    def _post(self, callback: Callable[..., None], *values: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *values)
        except RuntimeError:  # the loop is gone, so nobody waits any more
            self._started = False

    def _on_committed(self, batch: Batch, free_bytes: int) -> None:
        self._flying = None
        self._room = room(self._room, free_bytes, self._limits)
        first, hashes = batch.first, batch.hashes
        for index, subject in batch.permits:
            self._open[index] = OpenDecision(index, hashes[index - first], subject)
        if self._gathering.checkpoint or self._drained is not None:
            self._flush()
        elif self._gathering.waiting:
            self._soon()
        elif self._gathering.leaves:
            self._later()
        for done, receipt in batch.receipts():
            self._call(done, receipt)

    def _call(self, done: Done, answer: Receipt | LedgerUnavailable) -> None:
        try:
            done(answer)
        except Exception as error:  # noqa: BLE001 - one caller's fault must not cost the others theirs
            self._loop.call_exception_handler(
                {"message": "a ledger callback failed", "exception": error}
            )

    def _on_failed(self, cause: str) -> None:
        """Every entry that is not durable fails; outcomes are kept for later."""
        self._fault = LedgerUnavailable(f"the ledger cannot be written: {cause}", remedy=_RETRY)
        lost = [batch for batch in (self._flying, self._gathering) if batch is not None]
        self._flying, self._gathering = None, Batch(self._next, self._epoch)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        for batch in lost:
            for facts, subject, done in batch.outcomes:
                self._put_off(facts, subject, done)
            for _, _, waiting in batch.waiting:
                self._call(waiting, self._fault)

    def _put_off(self, facts: OutcomeFacts, subject: str, done: Done | None) -> None:
        if len(self._unsettled) < UNSETTLED_MAX:
            self._unsettled.append((facts, subject, done))
        elif done is not None and self._fault is not None:
            self._loop.call_soon(done, self._fault)

    def _on_reopened(self, recovered: Recovered, free_bytes: int) -> None:
        """Go on from the durable state.  A decision that became durable although its commit failed
        was refused to its caller: its outcome is ``failed``."""
        if self._closing:
            return
        known = self._open
        self._epoch += 1
        self._resume(recovered, free_bytes)
        size = recovered.frontier.size
        self.record_log("recovered", {"size": size, "unknown": 0})
        unsettled, self._unsettled = self._unsettled, deque()
        for facts, subject, done in unsettled:
            if recovered.open.pop(facts.decision.index, None) is not None:
                self._settle(facts, subject, done)
            elif done is not None:
                self._call(done, facts.decision)
        for index, entry in recovered.open.items():
            self._open[index] = entry
            if index not in known:
                receipt = Receipt(index, entry.leaf_hash, 0)
                self.record_outcome(OutcomeFacts(receipt, "failed", cause="ledger_failed"))

    def _resume(self, recovered: Recovered, free_bytes: int) -> None:
        self._open = {}
        self._next = recovered.frontier.size
        self._at = max(self._at, recovered.at)
        self._gathering, self._flying = Batch(self._next, self._epoch), None
        self._fault = None
        self._room = room(self._room, free_bytes, self._limits)

    # -- heartbeat

    def _beat_later(self) -> None:
        self._timer = self._loop.call_later(self._limits.heartbeat_s, self._on_beat)

    def _on_beat(self) -> None:
        self._beat_later()
        if self._fault is not None or self._gathering.checkpoint:
            return
        self._idle += 1
        if (
            self._next == self._beat
            and not self._noise
            and self._idle < self._limits.idle_heartbeats
        ):
            return
        self.heartbeat()

    def heartbeat(self) -> None:
        """Enter counts and a heartbeat; a checkpoint is signed when they are durable."""
        if self._fault is not None:
            return
        self._write_counts()
        leaf, record = self._writer.heartbeat(self._next, self._stamp(), len(self._open))
        self._enter(leaf, record, "")
        self._soon()
        self._gathering.checkpoint = True
        self._idle, self._beat = 0, self._next

    def _mark_open(self, batch: Batch) -> None:
        """Decisions that are open as of the entries before the batch (bounds the scan at start)."""
        packed = pack_open([entry for entry in self._open.values() if entry.index < batch.first])
        batch.open_state = OpenState(batch.first, packed)

    def _write_counts(self) -> None:
        taken = self._noise.take()
        if taken is None:
            return
        counts, samples = taken
        at = self._stamp()
        leaf, record = self._writer.counts((self._next, at), self._noise.since, counts, samples)
        self._noise.since = at
        self._enter(leaf, record, "gateway")
        self._soon()


def _unwritable(error: Exception) -> LedgerUnavailable:
    remedy = error.remedy if isinstance(error, ExeatError) else ""
    text = str(error) if isinstance(error, ExeatError) else cause_of(error)
    return LedgerUnavailable(f"the decision cannot be entered: {text}", remedy=remedy)

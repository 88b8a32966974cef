"""Claiming: a call that policy would hold asks whether people have said yes (APP-2, APP-11, APP-12)."""

import base64
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from exeat.approvals.model.grant import scope
from exeat.approvals.model.hold import EXEAT, GATEWAY, SECOND_NS, Hold, HoldState, committed
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.approvals.rules.fitting import fits
from exeat.approvals.service.sealing import open_extent, seal_held
from exeat.approvals.store import ApprovalsChange, ApprovalsRead, ApprovalsStore, Seals
from exeat.core.controls import APPROVED_BY, CONFIRMED_BY_USER
from exeat.core.event import Event
from exeat.core.grant import Claim, Declined, Granted, Held, Pending
from exeat.core.ids import PersonId

PENDING_MAX: Final = 20
HOUR_NS: Final = 3600 * SECOND_NS
HOLDS_PER_HOUR: Final = 60
DENIAL_STANDS_NS: Final = HOUR_NS
ASKED_MAX: Final = 50
NAMED_MAX: Final = 5
ID_BYTES: Final = 10
COUNT_EVERY_NS: Final = SECOND_NS
COUNTED_MAX: Final = 1000
SALT_BYTES: Final = 16
Draw = Callable[[int], bytes]
"""That many random bytes."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How much one agent may ask of people (APP-12)."""

    pending: int = PENDING_MAX
    per_hour: int = HOLDS_PER_HOUR


class Attempts:
    """Calls of holds that wait, until they are written: within a second of the last time they are only
    counted.  So the count of a hold is of at least so many calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, tuple[int, int]] = {}

    def count(self, hold: str, now: int) -> bool:
        """One more.  False: it is to be written now, and is not counted here."""
        with self._lock:
            written_at, uncounted = self._of.get(hold, (0, 0))
            if now - written_at >= COUNT_EVERY_NS:
                return False
            self._of[hold] = (written_at, uncounted + 1)
            return True

    def take(self, hold: str, now: int) -> int:
        """Those that are to be written, this one among them."""
        with self._lock:
            if len(self._of) >= COUNTED_MAX:
                self._of.clear()
            _, uncounted = self._of.get(hold, (0, 0))
            self._of[hold] = (now, 0)
            return uncounted + 1


class Claims:
    def __init__(self, store: ApprovalsStore, seals: Seals, draw: Draw, caps: Caps) -> None:
        self._store, self._seals, self._draw, self._caps = store, seals, draw, caps
        self._attempts = Attempts()

    def claim(self, held: Held, standing: Standing, now: int) -> Claim:
        """In one transaction, the first that applies:

        1. an approval or grant is consumed, durably once this returns
        2. somebody is being asked about this very call already
        3. somebody denied it not long ago
        4. the agent asks too much
        5. nobody could approve
        6. somebody is asked

        Raises StateUnavailable, VaultFailed.
        """
        with self._store.read() as read:
            if found := self._known(read, held, now):
                return found
        self._seals.ready()
        with self._store.change() as tx:
            return (
                self._approved(tx, held, standing, now)
                or self._granted(tx, held, standing, now)
                or self._pending(tx, held, now)
                or self._denied(tx, held, now)
                or self._capped(tx, held, now)
                or self._ask(tx, held, standing, now)
            )

    # ---- 1

    def _approved(
        self, tx: ApprovalsChange, held: Held, standing: Standing, now: int
    ) -> Granted | None:
        for hold in tx.holds_of(held.binding.digest):
            if hold.state is not HoldState.APPROVED or now >= hold.use_by:
                continue
            given = authority.still(hold.approvals, hold.binding, standing)
            if authority.suffices(hold.alternatives, given, standing) is None:
                lapsed = replace(hold, state=HoldState.LAPSED)
                tx.move(lapsed, hold.state, told(asked_kind("lapsed", lapsed), lapsed, now))
                continue
            found = authority.suffices(held.alternatives, given, standing)
            if found is None or not set(held.binding.labels) <= set(hold.binding.labels):
                continue
            used = replace(hold, state=HoldState.USED)
            if tx.move(used, hold.state, told(kind("used", found), used, now)):
                return Granted(found, (hold.id,))
        return None

    def _granted(
        self, tx: ApprovalsChange, held: Held, standing: Standing, now: int
    ) -> Granted | None:
        labels = set(held.binding.labels)
        for grant in tx.grants_of(scope(held.binding), now):
            same_run = grant.any_run or grant.binding.run == held.binding.run
            if not same_run or not labels <= set(grant.binding.labels):
                continue
            if frozenset(grant.controls) not in map(frozenset, held.alternatives):
                continue
            hold = tx.hold(grant.hold)
            if hold is None:
                continue
            agreed = tuple(a for a in hold.approvals if a.bounds == grant.bounds)
            given = authority.still(agreed, hold.binding, standing)
            if authority.suffices((tuple(sorted(grant.controls)),), given, standing) is None:
                continue
            extent = open_extent(self._seals, grant)
            if held.beside != extent.beside:
                continue
            if not fits(held.leaving, extent.held, extent.bounds):
                continue
            if taken := tx.take(grant.id, now):
                before, after = {"left": grant.left}, taken.as_json()
                tx.tell(Event("grant.used", grant.subject, EXEAT, GATEWAY, now, "", before, after))
                return Granted(grant.controls, (grant.id,))
        return None

    # ---- 2 and 3

    def _pending(self, tx: ApprovalsChange, held: Held, now: int) -> Pending | None:
        labels = set(held.binding.labels)
        for hold in tx.holds_of(held.binding.digest):
            waits = hold.state is HoldState.PENDING and now < hold.expires_at
            if waits and labels <= set(hold.binding.labels):
                tx.attempted(hold.id, self._attempts.take(hold.id, now))
                return _waiting(hold)
        return None

    def _denied(self, read: ApprovalsRead, held: Held, now: int) -> Declined | None:
        for hold in read.holds_of(held.binding.digest):
            if hold.state is HoldState.DENIED and now < hold.decided_at + DENIAL_STANDS_NS:
                said = (
                    "A person who was asked said no, and that stands for an hour."
                    " Ask the agent's owner."
                )
                return Declined(hold.id, "denied", said)
        return None

    def _known(self, read: ApprovalsRead, held: Held, now: int) -> Pending | Declined | None:
        """2 and 3 without waiting for other writers: who repeats a call that waits, or was denied, slows
        nobody."""
        known = read.holds_of(held.binding.digest)
        if not known or read.grants_of(scope(held.binding), now):
            return None
        if all(hold.state is HoldState.DENIED for hold in known):
            return self._denied(read, held, now)
        if any(hold.state is HoldState.APPROVED for hold in known):
            return None
        labels = set(held.binding.labels)
        for hold in known:
            waits = hold.state is HoldState.PENDING and now < hold.expires_at
            if waits and labels <= set(hold.binding.labels):
                return _waiting(hold) if self._attempts.count(hold.id, now) else None
        return None

    # ---- 4, 5 and 6

    def _capped(self, read: ApprovalsRead, held: Held, now: int) -> Declined | None:
        load = read.load(held.binding.agent, now, now - HOUR_NS)
        if load.pending >= self._caps.pending:
            said = f"{load.pending} calls of this agent wait for people. Call again once some are answered."
            return Declined("", "capped", said)
        if load.asked_since >= self._caps.per_hour:
            said = (
                f"This agent had {load.asked_since} calls held within the hour. Call again later."
            )
            return Declined("", "capped", said)
        return None

    def _ask(self, tx: ApprovalsChange, held: Held, standing: Standing, now: int) -> Claim:
        able = authority.able(held.alternatives, held.binding, standing)
        if not able:
            return Declined(
                "",
                "nobody",
                "Nobody who could approve this call is there to ask. Tell the agent's owner.",
            )
        hold_id, salt = new_id("h", self._draw), self._draw(SALT_BYTES).hex()
        hold = Hold(
            hold_id,
            held.binding,
            held.alternatives,
            held.why,
            held.effect,
            held.sink,
            seal_held(self._seals, hold_id, held, salt),
            tuple(sorted(able))[:ASKED_MAX],
            now,
            authority.deadline(held.alternatives, now, standing),
            committed(salt, held.binding.digest),
        )
        tx.add_hold(hold, told(asked_kind("requested", hold), hold, now))
        return _waiting(hold)


def new_id(kind: str, draw: Draw) -> str:
    return f"{kind}-{base64.b32encode(draw(ID_BYTES)).decode('ascii').lower().rstrip('=')}"


def asked_kind(verb: str, hold: Hold) -> str:
    return kind(verb, authority.controls(hold.alternatives))


def told(
    kind: str,
    hold: Hold,
    now: int,
    actor: PersonId = EXEAT,
    channel: str = GATEWAY,
    reason: str = "",
) -> Event:
    return Event(kind, hold.subject, actor, channel, now, reason, None, hold.as_json())


def kind(verb: str, controls: Iterable[str]) -> str:
    """What the user confirms is never called an approval (APP-3)."""
    confirms = set(controls) == {CONFIRMED_BY_USER}
    return f"confirmation.{verb}" if confirms else f"approval.{verb}"


def _waiting(hold: Hold) -> Pending:
    """Names only while they are few: a sentence is made of them."""
    few = len(hold.asked) <= NAMED_MAX
    roles = (c.removeprefix(APPROVED_BY) for c in authority.controls(hold.alternatives))
    return Pending(hold.id, hold.expires_at, hold.asked if few else tuple(roles))

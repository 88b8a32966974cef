"""Approvals, whole: what the gateway, the CLI, the console and webhooks call.

Every method may wait for the database: call it in a thread.  Every one raises StateUnavailable.
"""

from collections.abc import Collection, Mapping
from typing import Any

from exeat.approvals.model.bounds import Bounds
from exeat.approvals.model.figures import Figures
from exeat.approvals.model.hold import Answer, Hold, HoldState, Shown
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules.counting import figures
from exeat.approvals.rules.presenting import presented
from exeat.approvals.service.answers import Answers, Message, Outcome, Said
from exeat.approvals.service.claims import Caps, Claims, Draw
from exeat.approvals.service.grants import Grants
from exeat.approvals.service.sealing import open_bounds, open_hold
from exeat.approvals.service.upkeep import Upkeep
from exeat.approvals.store import ApprovalsStore, Seals
from exeat.core.errors import NotFound, VaultFailed
from exeat.core.grant import Claim, Held

GONE = "gone"


class Approvals:
    """Safe to share between threads, and between gateways that share a database."""

    def __init__(
        self,
        store: ApprovalsStore,
        seals: Seals,
        draw: Draw,
        caps: Caps = Caps(),  # noqa: B008
    ) -> None:
        self.store = store
        self._seals = seals
        self._claims = Claims(store, seals, draw, caps)
        self._answers = Answers(store, seals, draw)
        self.grants = Grants(store, seals)
        self.upkeep = Upkeep(store)

    def claim(self, held: Held, standing: Standing, now: int) -> Claim:
        """``service.claims``: consumed, asked, or declined."""
        return self._claims.claim(held, standing, now)

    def answer(self, hold: str, said: Said, standing: Standing, now: int) -> Outcome:
        """``service.answers``."""
        return self._answers.answer(hold, said, standing, now)

    def answer_once(
        self, message: Message, hold: str, said: Said, standing: Standing, now: int
    ) -> Outcome:
        """The same for a signed message, which is taken once (APP-5)."""
        return self._answers.answer_once(message, hold, said, standing, now)

    def states(self, holds: Collection[str]) -> Mapping[str, str]:
        """``pending`` … of each; ``gone`` if there is no such hold.  One cheap read for all that wait."""
        with self.store.read() as read:
            found = read.states(holds)
        return {each: found[each].value if each in found else GONE for each in holds}

    def waiting(self, now: int) -> tuple[Hold, ...]:
        """Pending ones, the next to expire first."""
        with self.store.read() as read:
            found = read.holds((HoldState.PENDING,))
        return tuple(each for each in found if now < each.expires_at)

    def all(self) -> tuple[Hold, ...]:
        """In any state, by expiry."""
        with self.store.read() as read:
            return read.holds(tuple(HoldState))

    def hold(self, hold: str) -> Hold:
        """Raises NotFound."""
        with self.store.read() as read:
            found = read.hold(hold)
        if found is None:
            raise NotFound(f"There is no held call {hold[:40]!r}.", remedy="exeat approvals list")
        return found

    def presented(self, hold: Hold, standing: Standing) -> dict[str, Any]:
        """All that people are shown (``rules.presenting``); arguments None if they were forgotten or
        cannot be opened."""
        try:
            shown = self.shown(hold)
        except (NotFound, VaultFailed):
            shown = None
        return presented(hold, shown, standing)

    def shown(self, hold: Hold) -> Shown:
        """Its arguments.  Raises NotFound once they were forgotten, VaultFailed."""
        self._seals.ready()
        return open_hold(self._seals, hold)

    def proposed(self, hold: Hold, answer: Answer) -> Bounds | None:
        """The bounds of the grant that this approval proposes; None: this one call only, or forgotten."""
        self._seals.ready()
        return open_bounds(self._seals, hold, answer)

    def figures(self, since: int) -> Figures:
        """Of holds that were asked since (APP-7)."""
        with self.store.read() as read:
            return figures(read.asked_since(since))

"""People, an agent and held calls, for tests of approvals on a real database."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exeat.approvals.model.bounds import Bounds
from exeat.approvals.model.exact import exact
from exeat.approvals.model.hold import SECOND_NS, Word
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.answers import Outcome, Said
from exeat.approvals.service.approvals import Approvals
from exeat.approvals.service.claims import Caps
from exeat.core.controls import OWNER, OWNER_ROLE, ApproverRole, Channel
from exeat.core.errors import VaultFailed
from exeat.core.facts import AgentFacts, Lifecycle, PersonFacts, ScopeFacts
from exeat.core.grant import Binding, Claim, Held
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.storage.state import State

NOW = 1_800_000_000 * 10**9
MINUTE, HOUR = 60 * SECOND_NS, 3600 * SECOND_NS
ADA, BOB, EVE, DAN, UMA = map(PersonId, ("ada", "bob", "eve", "dan", "uma"))
"""ada owns the agent, bob is her deputy, eve and dan are in finance, uma is the user."""
BOT = AgentId("bot")
PAY = ActionId("bank/pay")
CALL: Mapping[str, Any] = {
    "to": "DE02 1203 0000 0000 2020 51",
    "amount": Decimal("99.50"),
    "note": "",
}
BY_OWNER, BY_FINANCE = "approved_by_owner", "approved_by_finance"
FINANCE = ApproverRole("finance", roles=frozenset({"finance"}), quorum=2, within_s=8 * 3600)
NONCES = itertools.count(1)


def standing(**changes: Any) -> Standing:
    found = Standing(
        {OWNER: OWNER_ROLE, "finance": FINANCE},
        {
            **{p: PersonFacts(p, True) for p in (ADA, BOB, UMA)},
            **{p: PersonFacts(p, True, frozenset({"finance"})) for p in (EVE, DAN)},
        },
        {BOT: agent()},
    )
    return replace(found, **changes)


def without(person: PersonId, before: Standing | None = None) -> Standing:
    """Their authority ended: they left."""
    before = before or standing()
    gone = replace(before.people[person], live=False)
    return replace(before, people={**before.people, person: gone})


def agent(**changes: Any) -> AgentFacts:
    scope = ScopeFacts(Digest("d"), "d", "event", frozenset(), frozenset())
    facts = AgentFacts(BOT, 1, Lifecycle.ACTIVE, ADA, True, BOB, True, ADA, NOW * 2, scope)
    return replace(facts, **changes)


def held(
    arguments: Mapping[str, Any] = CALL,
    alternatives: tuple[tuple[str, ...], ...] = ((BY_OWNER,),),
    at: int = NOW,
    narrowed: Mapping[str, Any] | None = None,
    **binding: Any,
) -> Held:
    leaving = arguments if narrowed is None else narrowed
    bound = Binding(
        BOT, UMA, "run-1", ServerId("bank"), "tools/call", PAY, "pin-1",
        sha256(exact(leaving).encode()).hexdigest(), "slice-1", "ada@d", (),
    )  # fmt: skip
    return Held(
        replace(bound, **binding), alternatives, arguments, narrowed, ("pay-with-approval",),
        "pay", "external", at,
    )  # fmt: skip


class Seals:
    """AES-256-GCM under a key of the test."""

    def __init__(self, key: bytes = b"k" * 32) -> None:
        self._cipher = AESGCM(key)

    def ready(self) -> None:
        pass

    def seal(self, place: str, value: bytes) -> bytes:
        nonce = next(NONCES).to_bytes(12, "big")
        return nonce + self._cipher.encrypt(nonce, value, place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:12], sealed[12:], place.encode())
        except Exception:
            raise VaultFailed("it does not open") from None


def drawing() -> Callable[[int], bytes]:
    """Across all that a test opens, so that two gateways draw apart."""
    return lambda size: next(NONCES).to_bytes(size, "big")


class World:
    """Approvals over one state, as one gateway has them."""

    def __init__(self, state: State, caps: Caps | None = None) -> None:
        self.state = state
        self.approvals = Approvals(state.approvals, Seals(), drawing(), caps or Caps())

    def claim(self, call: Held | None = None, of: Standing | None = None, now: int = NOW) -> Claim:
        return self.approvals.claim(call or held(at=now), of or standing(), now)

    def asked(self, call: Held | None = None, of: Standing | None = None, now: int = NOW) -> str:
        """The id of the hold."""
        found = self.claim(call, of, now)
        return str(getattr(found, "hold", found))

    def say(
        self,
        hold: str,
        person: PersonId,
        word: Word = Word.APPROVE,
        *,
        channel: Channel = Channel.CLI,
        bounds: Bounds | None = None,
        of: Standing | None = None,
        now: int = NOW,
    ) -> Outcome:
        said = Said(person, channel, word, "", bounds)
        return self.approvals.answer(hold, said, of or standing(), now)

    def events(self) -> list[str]:
        return [each.event.kind for each in self.state.outbox.take(1000)]

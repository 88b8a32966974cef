"""People who are asked, and budgets, of the gateway's small worlds: both are told what to say."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from worlds import Seen, World, definition

from exeat.core.controls import Charge, Order
from exeat.core.errors import ExeatError, StateUnavailable
from exeat.core.grant import Claim, Declined, Granted, Held, Pending
from exeat.core.request import AccessRequest
from exeat.gateway.gate import Gate
from exeat.gateway.ports import NoRoom, Reserved
from exeat.gateway.settings import GatewaySettings

GIVES = frozenset({"approved_by_owner"})
HELD = """
@id("held") permit(principal, action == Action::"up/pay", resource) when
  { context.session.controls.contains(Control::"approved_by_owner") };
"""
NARROW = """
@id("small") @narrow("limit") permit(principal, action == Action::"up/find", resource) when
  { context.input has limit && context.input.limit <= 5 };
"""
NARROW_HELD = """
@id("small") @narrow("limit") permit(principal, action == Action::"up/find", resource) when
  { context.input has limit && context.input.limit <= 5 &&
    context.session.controls.contains(Control::"approved_by_owner") };
"""
REDACTED = """
@id("clean") permit(principal, action == Action::"up/find", resource) when
  { context.session.controls.contains(Control::"redacted_pii") };
"""
ASKING = """
@id("asks") permit(principal, action in [Action::"elicitation/create", Action::"sampling/createMessage",
  Action::"roots/list"], resource);
"""
CHARGED = '@id("find") permit(principal, action == Action::"up/find", resource);'
BUDGET = 'budgets: [{id: finds, actions: [up/find, up/pay], counts: calls, limit: "3", window: 1h}]'
TOOLS = [
    definition("pay", {"amount": {"type": "integer"}}),
    definition("find", {"limit": {"type": "integer"}, "query": {"type": "string"}}),
]
PROFILES = {"find": {"profile_confirmed": True, "monotone": {"limit": Order.LESS}}}
URLS = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}


class People:
    """``gateway.ports.Approvals``.  Every claim is answered on the loop's next turn, or when it is let."""

    def __init__(self) -> None:
        self.asked: dict[str, Held] = {}
        """By hold; one per binding, and a new one when the last was used."""
        self.words: dict[str, str] = {}
        self.claims: list[Held] = []
        self.used: list[str] = []
        self.failure: ExeatError | None = None
        self.kept_back: list[Callable[[], None]] | None = None
        self.looks = 0
        self.blind = False
        """States cannot be read."""

    @property
    def last(self) -> str:
        return list(self.asked)[-1]

    def say(self, word: str, hold: str = "") -> str:
        hold = hold or self.last
        self.words[hold] = word
        return hold

    def _claim(self, held: Held) -> Claim | ExeatError:
        if self.failure is not None:
            return self.failure
        for hold, known in self.asked.items():
            if known.binding.digest != held.binding.digest:
                continue
            word = self.words[hold]
            if word == "approved":
                self.words[hold] = "used"
                self.used.append(hold)
                return Granted(GIVES, (hold,))
            if word == "pending":
                return Pending(hold, held.at + 10**12, ("ada",))
            if word in ("denied", "nobody", "capped"):
                return Declined(hold, word, "no")
        hold = f"h{len(self.asked) + 1}"
        self.asked[hold], self.words[hold] = held, "pending"
        return Pending(hold, held.at + 10**12, ("ada",))

    def claim(
        self, held: Held, request: AccessRequest, then: Callable[[Claim | ExeatError], None]
    ) -> None:
        self.claims.append(held)

        def told() -> None:
            then(self._claim(held))

        if self.kept_back is not None:
            self.kept_back.append(told)
        else:
            asyncio.get_running_loop().call_soon(told)

    def let(self) -> None:
        kept, self.kept_back = self.kept_back or [], None
        for each in kept:
            each()

    def states(self, holds: tuple[str, ...], then: Callable[[Mapping[str, str]], None]) -> None:
        self.looks += 1
        found = {} if self.blind else {each: self.words[each] for each in holds}
        asyncio.get_running_loop().call_soon(then, found)


class Purse:
    """``gateway.ports.Budgets``."""

    def __init__(self, room: int = 3) -> None:
        self.room = room
        self.said: list[tuple[str, ...]] = []
        """What became of each reservation."""
        self.made = 0
        self.failure: ExeatError | None = None

    def reserve(
        self,
        charges: tuple[Charge, ...],
        request: AccessRequest,
        then: Callable[[Reserved | NoRoom | ExeatError], None],
    ) -> None:
        answer: Reserved | NoRoom | ExeatError
        if self.failure is not None:
            answer = self.failure
        elif self.made >= self.room:
            answer = NoRoom(charges[0].budget, "all used")
        else:
            self.made += 1
            answer = Reserved(f"r{self.made}")
        asyncio.get_running_loop().call_soon(then, answer)

    def settle(self, reserved: str, rows: int, size: int) -> None:
        self.said.append(("settled", reserved))

    def release(self, reserved: str) -> None:
        self.said.append(("released", reserved))

    def keep(self, reserved: str) -> None:
        self.said.append(("kept", reserved))


@dataclass
class Holding(World):
    """A world with people and budgets."""

    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))
    policy: str = HELD
    profiles: dict[str, dict[str, Any]] = field(default_factory=lambda: dict(PROFILES))
    wait: float = 30.0
    url: str = ""
    people: People = field(default_factory=People)
    purse: Purse = field(default_factory=Purse)

    def __post_init__(self) -> None:
        self.gate = Gate(self.people, self.purse)
        self.settings = GatewaySettings(hold_wait_s=self.wait, holds_url=self.url)

    async def __aenter__(self) -> "Holding":
        await super().__aenter__()
        if not self.legacy:  # it is modern only
            self.upstream.own["initialize"] = _refuses
        return self

    def pay(self, amount: int = 5, meta: Mapping[str, Any] | None = None, **more: Any) -> bytes:
        params = {"name": "pay", "arguments": {"amount": amount}, "_meta": meta or {}, **more}
        return self.modern("tools/call", params)

    def old_pay(self, session: str, id: Any = 1, meta: Any = None) -> bytes:
        params = {"name": "pay", "arguments": {"amount": 5}}
        if meta is not None:
            params["_meta"] = meta
        return self.old("tools/call", params, session, id=id)

    def changed(self, policy: str | None = None, **agent: Any) -> None:
        """State changes, and everybody is told."""
        if policy is not None:
            self.policy = policy
        self.state.view = self.view(**agent)


async def _refuses(seen: Seen) -> None:
    seen.error(-32022)


def reason(answer: Any) -> str:
    """Of a denial."""
    if "error" in answer.json:
        return str(answer.error.get("data", {}).get("reason", answer.error["message"]))
    last = answer.json["result"]
    return str(last.get("_meta", {}).get("exeat/denied", {}).get("reason", ""))


def verdicts(world: World) -> list[str]:
    return [str(decision.verdict) for _, decision in world.ledger.decisions]


BROKEN = StateUnavailable("The database is gone.")

"""A small world around the real ledger: facts, a store that can be made to fail, a clock that obeys."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.errors import LedgerUnavailable
from exeat.core.facts import (
    AgentFacts,
    Effect,
    Lifecycle,
    PersonFacts,
    PinState,
    PolicyVersionFacts,
    ScopeFacts,
    ServerFacts,
    Sink,
    ToolFacts,
)  # fmt: skip
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import DecisionContext, Instance, OutcomeFacts, Receipt
from exeat.evidence.note import Signer
from exeat.evidence.quota import LedgerLimits
from exeat.evidence.store import LedgerStore, OpenState, Row, StoreFailed, SubjectKey
from exeat.storage.ledger import SqliteLedgerStore

ADA, GIT = PersonId("ada"), ServerId("git")
AGENT = AgentFacts(
    AgentId("invoice-bot"), 3, Lifecycle.ACTIVE, ADA, True, PersonId("bob"), True, PersonId("eve"),
    1_900_000_000_000_000_000,
    ScopeFacts(Digest("5" * 64), "5" * 64, "ev-7", frozenset({GIT}), frozenset({Effect.READ})),
)  # fmt: skip
SERVER = ServerFacts(GIT, 2, True, ADA, 1)
TOOL = ToolFacts(
    GIT, "git_log", ActionId("git/git_log"), "a" * 64, PinState.PINNED, {"name": "git_log"},
    Effect.READ, Sink.PRIVATE, True, True,
)  # fmt: skip
POLICY = PolicyVersionFacts(Digest("b" * 64), 4, ADA, PersonId("bob"), "first", {})
REQUEST = AccessRequest(
    Caller(AGENT, PersonFacts(ADA, True), "k1"), "tools/call", TOOL.action, SERVER, "git_log", TOOL,
    "a" * 64, {"repo": "/srv/books", "max_count": 10}, 1_790_000_000_000_000_000,
)  # fmt: skip
PERMIT = Decision(
    Verdict.PERMIT, Reason.PERMITTED, ("p1", "p2"), POLICY.digest, "c" * 64
)  # fmt: skip
DENY = Decision(
    Verdict.DENY, Reason.FORBIDDEN, ("f1",), POLICY.digest, "c" * 64, "ask ada", "amount 900 > 100"
)
CONTEXT = DecisionContext(run="run-1", trace="0af7651916cd43dd8448eb211c80319c", policy=POLICY)
UNREGISTERED = replace(REQUEST, tool=None, target="secret_tool_of_eve")
MASTER = b"m" * 32
SEED = b"s" * 32
ORIGIN = "exeat.example/gw-1"


@dataclass
class Clock:
    now: int = 1_790_000_000_000_000_000
    step: int = 1000

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@dataclass
class FailingStore(SqliteLedgerStore):
    """``trouble``: what the disk says; before the commit, or after it (``persisted``)."""

    path: Path
    trouble: str = ""
    persisted: bool = False
    on_checkpoint: str = ""
    free: int | None = None
    sizes: list[int] = field(default_factory=list)
    hold: Any = None

    def __post_init__(self) -> None:
        super().__init__(self.path)

    def open(self) -> None:
        if self.trouble:
            raise StoreFailed(self.trouble)
        super().open()

    def append(self, row: Row, keys: Sequence[SubjectKey], open_state: OpenState | None) -> None:
        if self.hold is not None:
            self.hold.wait()
        if self.trouble and not self.persisted:
            raise StoreFailed(self.trouble)
        super().append(row, keys, open_state)
        self.sizes.append(row.count)
        if self.trouble:
            raise StoreFailed(self.trouble)

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        if self.on_checkpoint:
            trouble, self.on_checkpoint = self.on_checkpoint, ""
            raise StoreFailed(trouble)
        super().keep_checkpoint(size, note)

    def free_bytes(self) -> int:
        return super().free_bytes() if self.free is None else self.free


class World:
    """A ledger on the running loop.  ``answers`` of decisions come back as values."""

    def __init__(
        self,
        path: Path,
        limits: LedgerLimits | None = None,
        store: LedgerStore | None = None,
        origin: str = ORIGIN,
        seed: bytes = SEED,
    ) -> None:
        self.path, self.clock = path, Clock()
        self.signer = Signer(origin, seed)
        self.store: Any = FailingStore(path) if store is None else store
        instance = Instance(
            "gw-1", origin, self.signer.verifier.id.hex(), "0.1.0", "d" * 64, 5000, {"workers": 1}
        )
        self.ledger = Ledger(
            instance, self.store, self.signer, MASTER, clock=self.clock, random=os.urandom,
            limits=limits or LedgerLimits(heartbeat_s=3600),
        )  # fmt: skip

    def start(self) -> "World":
        self.ledger.start(asyncio.get_running_loop())
        return self

    def ask(
        self, request: AccessRequest = REQUEST, decision: Decision = PERMIT
    ) -> tuple[int, "asyncio.Future[Receipt | LedgerUnavailable]"]:
        future = asyncio.get_running_loop().create_future()
        return self.ledger.record_decision(request, decision, CONTEXT, future.set_result), future

    async def decide(
        self, request: AccessRequest = REQUEST, decision: Decision = PERMIT
    ) -> Receipt | LedgerUnavailable:
        return await self.ask(request, decision)[1]

    async def settle(self, receipt: Any, status: Any = "ok") -> Receipt | LedgerUnavailable:
        future = asyncio.get_running_loop().create_future()
        facts = OutcomeFacts(receipt, status, 1_500_000, b"r" * 32, ("internal",), "", 120)
        self.ledger.record_outcome(facts, future.set_result)
        return await future

    async def healed(self) -> None:
        while self.ledger.fault is not None:
            await asyncio.sleep(0.005)

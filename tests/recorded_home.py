"""A home with servers, tools, an agent, and decisions in its ledger that the real PDP made."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from homes import Home
from ledger_world import CONTEXT, MASTER
from ledger_world import World as LedgerWorld

from exeat.core.decision import Decision
from exeat.core.facts import Effect, Sink
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.evidence.model import DecisionContext, OutcomeFacts
from exeat.evidence.store import LedgerStore
from exeat.policy.bundle import compile_bundle

TEXT = {"type": "string"}
DEFINITIONS: Mapping[str, Sequence[tuple[str, Effect, dict[str, Any], list[str]]]] = {
    "fs": [
        ("read", Effect.READ, {"path": TEXT, "limit": {"type": "integer"}}, ["path"]),
        ("write", Effect.WRITE, {"path": TEXT, "content": TEXT}, ["path", "content"]),
    ],
    "bank": [
        (
            "transfer",
            Effect.PAY,
            {
                "amount": {"type": "number"},
                "to": {**TEXT, "format": "email"},
                "currency": {"enum": ["EUR", "USD", "GBP"]},
                "memo": TEXT,
            },
            ["amount", "to", "currency"],
        ),
        ("balance", Effect.READ, {}, []),
    ],
}
ALL = '@id("all") permit(principal, action, resource);'
Call = tuple[str, Mapping[str, Any]]


class RecordedHome(Home):
    def __init__(self, path: Path, policy: str = ALL, database_url: str | None = None) -> None:
        super().__init__(path, database_url)
        for server, tools in DEFINITIONS.items():
            self.server(server, command=["never-started"])
            self.pin_all(
                ServerId(server),
                [
                    {
                        "name": name,
                        "inputSchema": {
                            "type": "object",
                            "properties": properties,
                            "required": required,
                        },
                    }
                    for name, _, properties, required in tools
                ],
            )
            for name, effect, _, _ in tools:
                self.profile(server, name, effect, sink=Sink.INTERNAL, reversible=False)
        self.agent("bot", DEFINITIONS)
        self.policy(policy)
        keys = path / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "master.key").write_text(MASTER.hex())
        (keys / "master.key").chmod(0o600)
        (path / "operator").write_text("ada")

    def request(self, call: Call, agent: str = "bot", user: str | None = None) -> AccessRequest:
        known = self.state.snapshot()
        action = ActionId(call[0])
        tool = known.tools[action]
        person = None if user is None else known.people[PersonId(user)]
        return AccessRequest(
            Caller(known.agents[AgentId(agent)], person, "k1"), "tools/call", action,
            known.servers[tool.server], tool.name, tool, tool.pin, dict(call[1]), time.time_ns(),
        )  # fmt: skip

    def record(
        self,
        calls: Iterable[Call | AccessRequest],
        *,
        status: Any = "ok",
        instance: str = "gw1",
        as_if: Decision | None = None,
        context: DecisionContext = CONTEXT,
        store: LedgerStore | None = None,
    ) -> list[str]:
        """Decide them under the policy in force (or record them ``as_if``), in the home's file or in
        ``store``.  Returns their ids."""
        known = self.state.snapshot()
        pdp = compile_bundle(
            known.policy, known.tools, known.servers, agents=known.agents, people=known.people
        )
        requests = [
            call if isinstance(call, AccessRequest) else self.request(call) for call in calls
        ]
        decisions = [
            pdp.decide(each) if as_if is None else replace(as_if, arguments=b"")
            for each in requests
        ]
        path = self.path / "ledger" / f"{instance}.db"
        path.parent.mkdir(exist_ok=True)
        context = replace(context, policy=known.policy)

        async def write() -> list[str]:
            world = LedgerWorld(path, store=store, origin=f"exeat/{instance}")
            world.clock.now = time.time_ns()
            world.start()
            loop, asked = asyncio.get_running_loop(), []
            for request, decision in zip(requests, decisions, strict=True):
                future = loop.create_future()
                world.ledger.record_decision(request, decision, context, future.set_result)
                asked.append(future)
            receipts = await asyncio.gather(*asked)
            done = []
            for receipt, decision in zip(receipts, decisions, strict=True):
                if decision.permitted and status:
                    future = loop.create_future()
                    facts = OutcomeFacts(receipt, status, 1, b"r" * 32)
                    world.ledger.record_outcome(facts, future.set_result)
                    done.append(future)
            await asyncio.gather(*done)
            await world.ledger.close()
            return [f"{instance}-{receipt.index}" for receipt in receipts]

        return asyncio.run(write())

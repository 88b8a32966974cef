"""Part 2: what one decision costs, at 10 … 10,000 policies, with and without the memo."""

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

from policies import AGENT, policies
from upstream import tool, tool_names

from exeat.core.decision import Verdict
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
    tool_action,
)
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp

TOOLS: Final = tool_names(40)
CALLED: Final = TOOLS[:5]
NOW: Final = 1_790_000_000 * 10**9
ADA: Final = PersonId("ada")
PEOPLE: Final = {ADA: PersonFacts(ADA, True)}
SERVERS: Final = {
    ServerId(name): ServerFacts(ServerId(name), 1, True, ADA, 50) for name in ("bank", "shop")
}
REPEATS: Final = 5


def _agent(name: str, group: str) -> AgentFacts:
    scope = ScopeFacts(Digest("d"), "d", "e", frozenset(SERVERS), frozenset(Effect), frozenset())
    return AgentFacts(
        id=AgentId(name), revision=1, lifecycle=Lifecycle.ACTIVE, owner=ADA, owner_live=True,
        deputy=ADA, deputy_live=True, sponsor=ADA, ends_at=NOW * 2, scope=scope,
        groups=frozenset({group}), environment="",
    )  # fmt: skip


def _tools() -> dict[ActionId, ToolFacts]:
    return {
        tool_action(server, name): ToolFacts(
            server=ServerId(server), name=name, action=tool_action(server, name), pin="p",
            state=PinState.PINNED, definition=tool(name), effect=Effect.PAY, sink=Sink.INTERNAL,
            reversible=False, profile_confirmed=True,
        )
        for server in ("bank", "shop")
        for name in TOOLS
    }  # fmt: skip


def _pdp(count: int) -> tuple[Pdp, dict[ActionId, ToolFacts], float]:
    facts = _tools()
    version = PolicyVersionFacts(
        Digest(f"{count:064x}"), 1, ADA, ADA, "bench", {"bench.cedar": policies(count, TOOLS)}
    )
    began = time.perf_counter()
    pdp = compile_bundle(version, facts, SERVERS, people=PEOPLE)
    return pdp, facts, time.perf_counter() - began


def _requests(facts: dict[ActionId, ToolFacts], server: str, count: int) -> list[AccessRequest]:
    caller = Caller(_agent(AGENT, "g0"), None, "key")
    made = []
    for number in range(count):
        name = CALLED[number % len(CALLED)]
        action = tool_action(server, name)
        arguments = {"to": f"account-{number}", "amount": number % 90 + 1, "note": f"n{number:09d}"}
        made.append(
            AccessRequest(
                caller,
                "tools/call",
                action,
                SERVERS[ServerId(server)],
                name,
                facts[action],
                "p",
                arguments,
                NOW + number,
            )
        )
    return made


def _per_call_us(decide: Callable[[AccessRequest], Any], requests: list[AccessRequest]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for request in requests:
            decide(request)
        times.append((time.perf_counter() - began) / len(requests) * 1e6)
    return statistics.median(times)


def decisions(counts: tuple[int, ...], calls: int) -> list[dict[str, Any]]:
    """One line per size and kind of policy.  Raises if a verdict is not the expected permit."""
    lines: list[dict[str, Any]] = []
    for count in counts:
        pdp, facts, compiled_s = _pdp(count)
        for kind, server in (("free", "shop"), ("args", "bank")):
            requests = _requests(facts, server, calls)
            for request in requests[: len(CALLED)]:
                found = pdp.decide(request)
                if found.verdict is not Verdict.PERMIT:
                    raise SystemExit(f"{count} policies, {kind}: {found}")
            line = {"policies": count, "kind": kind, "compile_s": round(compiled_s, 3)}
            for memo in (True, False):
                pdp.memo_enabled = memo
                name = "memo_us" if memo else "engine_us"
                line[name] = round(_per_call_us(pdp.decide, requests), 2)
            pdp.memo_enabled = True
            lines.append(line)
            print(f"  decision {line}", flush=True)
    return lines

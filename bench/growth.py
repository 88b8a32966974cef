"""A decision under 10,000 policies against one under 100, in the same run, round by round (issue 5).

``dense``: all policies speak of the same 40 tools, so more of them can match one call.  ``spread``: the
tools grow with the policies, as they do where more teams come.  CPU time; the median of the rounds' ratios.
"""

import statistics
import time
from typing import Any, Final

from decision import AGENT, NOW, PEOPLE, REPEATS, SERVERS, _agent
from policies import policies
from upstream import tool, tool_names

from exeat.core.facts import Effect, PinState, PolicyVersionFacts, Sink, ToolFacts, tool_action
from exeat.core.ids import ActionId, Digest, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp

FEW: Final = 100
DENSE_TOOLS: Final = 40
CALLED: Final = 5
Made = tuple[Pdp, dict[ActionId, ToolFacts], list[str]]


def growth(many: int, calls: int) -> list[dict[str, Any]]:
    """One line per set and kind of call.  ``ratio``: of the CPU time per decision."""
    lines = []
    for shape in ("dense", "spread"):
        sides = [_made(count, _tools(shape, count)) for count in (FEW, many)]
        for kind in ("no arguments", "arguments seen before", "arguments new"):
            found = [_rounds(made, kind, calls) for made in sides]
            ratios = [large / small for small, large in zip(*found, strict=True)]
            line = {
                "tools": shape,
                "policies_read": kind,
                f"us_at_{FEW}": round(statistics.median(found[0]), 2),
                f"us_at_{many}": round(statistics.median(found[1]), 2),
                "ratio": round(statistics.median(ratios), 2),
            }
            lines.append(line)
            print(f"  growth {line}", flush=True)
    return lines


def _tools(shape: str, count: int) -> list[str]:
    return tool_names(DENSE_TOOLS if shape == "dense" else count * DENSE_TOOLS // FEW)


def _made(count: int, names: list[str]) -> Made:
    facts = {
        tool_action(server, name): ToolFacts(
            server=ServerId(server), name=name, action=tool_action(server, name), pin="p",
            state=PinState.PINNED, definition=tool(name), effect=Effect.PAY, sink=Sink.INTERNAL,
            reversible=False, profile_confirmed=True,
        )
        for server in ("bank", "shop")
        for name in names
    }  # fmt: skip
    ada = PersonId("ada")
    files = {"bench.cedar": policies(count, names)}
    version = PolicyVersionFacts(Digest(f"{count:064x}"), 1, ada, ada, "bench", files)
    return compile_bundle(version, facts, SERVERS, people=PEOPLE), facts, names


def _rounds(made: Made, kind: str, calls: int) -> list[float]:
    pdp, facts, names = made
    caller = Caller(_agent(AGENT, "g0"), None, "key")
    server = "shop" if kind == "no arguments" else "bank"
    fresh = kind == "arguments new"
    times = []
    for round_ in range(REPEATS + 1):
        requests = [
            _request(caller, facts, server, names[n % CALLED], n + (calls * round_ if fresh else 0))
            for n in range(calls)
        ]
        began = time.process_time()
        for request in requests:
            if not pdp.decide(request).permitted:
                raise SystemExit(f"{kind}: {pdp.decide(request)}")
        times.append((time.process_time() - began) / calls * 1e6)
    return times[1:]  # the first round fills what is remembered


def _request(
    caller: Caller, facts: dict[ActionId, ToolFacts], server: str, name: str, number: int
) -> AccessRequest:
    action = tool_action(server, name)
    arguments = {"to": f"account-{number}", "amount": number % 90 + 1, "note": f"n{number:09d}"}
    return AccessRequest(
        caller, "tools/call", action, SERVERS[ServerId(server)], name, facts[action], "p",
        arguments, NOW + number,
    )  # fmt: skip

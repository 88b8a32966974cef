"""`make bench`: what exeat costs, as ratios.  Writes out/bench/results.json, results.md, call.svg.

    make bench                         everything; two hours, one of them the soak
    make bench BENCH_ARGS=--quick      short rounds, fewer connection counts, a minute of soak
    make bench BENCH_ARGS="--part call --part decision"
    make bench BENCH_ARGS=--smoke      a few seconds: does everything start, is every answer right?

The gateway runs alone on one core; load generator and upstream share another.  Rounds of all targets
are interleaved and the medians are reported.  CPU per call is the gateway's own, and is what survives
a noisy machine; absolute values hold for this machine, ratios travel.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import targets
import uvloop
from budgets import budgets
from decision import decisions
from evidence import evidence
from growth import growth
from load import LEGACY, MODERN, Plan, Tally, drive, open_session
from report import write_report
from revocation import revocation
from scale import scale
from size import sizes
from soak import soak
from targets import Missing, Target
from token_cost import tokens
from upstream import TOOLS_DEFAULT, tool_names

OUT: Final = Path(__file__).resolve().parents[1] / "out" / "bench"
CONNECTIONS: Final = (1, 16, 32, 128)
WARM_S: Final = 0.5
PATHS: Final = {"json": "/json", "sse": "/stream"}
PARTS: Final = (
    "call",
    "decision",
    "growth",
    "profile",
    "evidence",
    "size",
    "scale",
    "revocation",
    "token",
    "budgets",
    "soak",
)
LONG: Final[dict[str, Any]] = {
    "evidence_s": 10.0,
    "token_s": 3.0,
    "budgets_s": 5.0,
    "size_s": 8.0,
    "soak_min": 60.0,
    "changes": 1_000,
    "scale": {
        "agents": (10, 1_000, 10_000),
        "tools": (10, 100, 1_000),
        "decisions": (1_000, 1_000_000),
        "seconds": 4.0,
    },
}
QUICK: Final[dict[str, Any]] = {
    "evidence_s": 3.0,
    "token_s": 1.5,
    "budgets_s": 2.0,
    "size_s": 3.0,
    "soak_min": 1.0,
    "changes": 50,
    "scale": {
        "agents": (10, 1_000),
        "tools": (10, 1_000),
        "decisions": (1_000, 200_000),
        "seconds": 2.0,
    },
}
SMOKE: Final[dict[str, Any]] = {
    "evidence_s": 0.3,
    "token_s": 0.3,
    "budgets_s": 0.2,
    "size_s": 0.4,
    "soak_min": 0.05,
    "changes": 5,
    "scale": {"agents": (10,), "tools": (10,), "decisions": (1_000,), "seconds": 0.3},
}
ALL: Final = "direct,nginx,exeat,fastmcp,mcp-proxy"


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table.  ``kind``: free, or (exeat only) policies that read arguments: args
    where their values come again and again, fresh where no call had them before."""

    target: str
    era: str
    upstream: str
    kind: str
    connections: int


@dataclass(frozen=True, slots=True)
class Round:
    rate: float
    p50_us: float
    p99_us: float
    cpu_us: float
    wrong: int
    example: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How long and how much."""

    connections: tuple[int, ...]
    rounds: int
    seconds: float


async def measure(target: Target, plan: Plan, connections: int, seconds: float) -> Round:
    await drive(plan, connections, min(WARM_S, seconds))
    before = targets.cpu_seconds(target.pid) if target.pid else 0.0
    tally: Tally = await drive(plan, connections, seconds)
    spent = targets.cpu_seconds(target.pid) - before if target.pid else 0.0
    calls = max(len(tally.latencies), 1)
    return Round(
        rate=tally.rate,
        p50_us=tally.quantile(0.50) * 1e6,
        p99_us=tally.quantile(0.99) * 1e6,
        cpu_us=spent / calls * 1e6,
        wrong=tally.wrong,
        example=tally.example,
    )


def cases(target: Target, upstream: str, shape: Shape) -> list[Case]:
    eras = target.eras or (MODERN, LEGACY)
    kinds = ("free", "args", "fresh") if target.args_path else ("free",)
    return [
        Case(target.name, era, upstream, kind, connections)
        for era in eras
        for kind in kinds
        for connections in shape.connections
    ]


async def measure_all(
    started: list[Target], upstream: str, shape: Shape
) -> dict[Case, list[Round]]:
    """Interleaved: every case once per round."""
    plans: dict[tuple[str, str, str], Plan] = {}
    todo = [(target, case) for target in started for case in cases(target, upstream, shape)]
    for target, case in todo:
        key = (target.name, case.era, case.kind)
        if key not in plans:
            plan = target.plan(case.era, tool_names(TOOLS_DEFAULT), case.kind)
            session = await open_session(plan) if case.era == LEGACY else ""
            plans[key] = replace(plan, session=session)
    found: dict[Case, list[Round]] = {case: [] for _, case in todo}
    for number in range(shape.rounds):
        for target, case in todo:
            plan = plans[target.name, case.era, case.kind]
            found[case].append(await measure(target, plan, case.connections, shape.seconds))
            say(f"round {number + 1}/{shape.rounds} {case.upstream}", case, found[case][-1])
    return found


def say(prefix: str, case: Case, one: Round) -> None:
    print(
        f"  {prefix} {case.target:9} {case.era} {case.kind:5} c={case.connections:<3}"
        f" {one.rate:9.0f}/s p50 {one.p50_us:7.0f} µs p99 {one.p99_us:8.0f} µs"
        f" cpu {one.cpu_us:7.1f} µs{f'  WRONG {one.wrong}: {one.example[:300]}' if one.wrong else ''}",
        flush=True,
    )


def median(case: Case, rounds: list[Round]) -> dict[str, Any]:
    middle = {
        name: round(statistics.median(getattr(each, name) for each in rounds), 2)
        for name in ("rate", "p50_us", "p99_us", "cpu_us")
    }
    return {
        **asdict(case),
        **middle,
        "rounds": len(rounds),
        "wrong": sum(each.wrong for each in rounds),
    }


def call_part(names: list[str], shape: Shape) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Part 1.  Returns the lines, and why a target is missing."""
    core, rest = cores()
    os.sched_setaffinity(0, {rest})
    lines: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    starters = {
        "nginx": targets.nginx,
        "fastmcp": targets.fastmcp,
        "mcp-proxy": targets.mcp_proxy,
        "exeat": targets.exeat,
    }
    for upstream in PATHS:
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(targets.upstream(rest, TOOLS_DEFAULT, OUT))
            started = [Target("direct", port, PATHS[upstream])] if "direct" in names else []
            for name in names:
                if name in starters:
                    try:
                        started.append(
                            stack.enter_context(starters[name](port, PATHS[upstream], core, OUT))
                        )
                    except Missing as why:
                        missing[name] = str(why)
                        print(f"  {name} is left out: {why}")
            found = uvloop.run(measure_all(started, upstream, shape))
            lines += [median(case, rounds) for case, rounds in found.items()]
    return lines, missing


def cores() -> tuple[int, int]:
    """The gateway's core, and the one for load and upstream."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def measure_parts(
    results: dict[str, Any], parts: list[str], names: list[str], asked: argparse.Namespace
) -> None:
    """Each part that was asked for, into ``results``."""
    shape, counts, long = shape_of(asked)
    core, rest = cores()
    both = {core, rest}
    if "call" in parts:
        results["call"], results["missing"] = call_part(names, shape)
    if "decision" in parts:
        results["decision"] = decisions(counts, 200 if asked.smoke else 3_000)
    minutes = asked.soak_minutes or long["soak_min"]
    others: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "growth": lambda: growth(200 if asked.smoke else 10_000, 200 if asked.smoke else 3_000),
        "profile": lambda: run_profile(OUT),
        "evidence": lambda: evidence(OUT, long["evidence_s"]),
        "size": lambda: sizes(core, rest, OUT, long["size_s"]),
        "scale": lambda: scale(core, rest, OUT, long["scale"]),
        "revocation": lambda: revocation(rest, OUT, (1, 2, 4), long["changes"]),
        "token": lambda: tokens(core, rest, OUT, long["token_s"]),
        "budgets": lambda: budgets(OUT, long["budgets_s"]),
        "soak": lambda: soak(core, rest, OUT, minutes * 60),
    }
    for name, run in others.items():
        if name in parts:
            os.sched_setaffinity(0, both)
            results[name] = run()


def shape_of(asked: argparse.Namespace) -> tuple[Shape, tuple[int, ...], dict[str, Any]]:
    """How long and how much: of calls, of policies, of the other parts."""
    if asked.smoke:
        return Shape((1, 32), 1, 0.4), (10, 100), SMOKE
    counts = (10, 100, 1_000, 10_000)
    if asked.quick:
        return Shape((1, 32, 128), 3, 1.5), counts, QUICK
    return Shape(CONNECTIONS, 3, 2.0), counts, LONG


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--targets", default=ALL)
    parser.add_argument("--part", choices=PARTS, action="append", help="repeatable; all if absent")
    parser.add_argument("--soak-minutes", type=float, help="60 in the long form, 1 with --quick")
    asked = parser.parse_args()
    names = asked.targets.split(",")
    parts = asked.part or list(PARTS)
    if asked.smoke and asked.targets == ALL:
        names = [name for name in names if name not in targets.PEERS]
    OUT.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "at": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
        "machine": {
            "cores": os.cpu_count(),
            "cpu": cpu_name(),
            "python": platform.python_version(),
        },
        "shape": asdict(shape_of(asked)[0]),
        "flush_us": flush_us(),
    }
    measure_parts(results, parts, names, asked)
    (OUT / "results.json").write_text(json.dumps(results, indent=1))
    print("\n" + write_report(results, OUT))
    measured = [*results.get("call", []), *results.get("size", []), *results.get("soak", [])]
    wrong = sum(line["wrong"] for line in measured)
    if wrong:
        print(f"{wrong} answers were wrong: these figures mean nothing.", file=sys.stderr)
    return 1 if wrong or "exeat" in results.get("missing", {}) else 0


def run_profile(out: Path) -> list[dict[str, Any]]:
    """In a process of its own, since it patches the gateway's classes."""
    script = Path(__file__).with_name("profile_call.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    print(done.stdout, end="")
    found: list[dict[str, Any]] = json.loads((out / "profile.json").read_text())
    return found


def flush_us() -> float:
    """Median time of the disk's own flush (a 4 KiB append and fdatasync): the floor of a durable call."""
    times, path = [], OUT / "flush.tmp"
    with path.open("wb", buffering=0) as file:
        for _ in range(200):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - began) * 1e6)
    path.unlink()
    return round(statistics.median(times), 1)


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())

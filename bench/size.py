"""Part 4: large results: throughput and CPU against nginx, and memory while many are under way."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import targets
import uvloop
from load import MODERN, drive
from targets import Target
from upstream import TOOLS_DEFAULT, tool_names

SIZES: Final = (1_000, 100_000, 10_000_000)
CONNECTIONS: Final = 8


def _peak_kib(pid: int) -> int:
    """Largest resident memory of the process so far."""
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


async def _measure(target: Target, size: int, seconds: float) -> dict[str, Any]:
    plan = replace(target.plan(MODERN, tool_names(TOOLS_DEFAULT)), text_bytes=size)
    await drive(plan, CONNECTIONS, seconds / 4)
    (Path("/proc") / str(target.pid) / "clear_refs").write_text("5")  # begin the peak anew
    idle, before = targets.memory_kib(target.pid), targets.cpu_seconds(target.pid)
    tally = await drive(plan, CONNECTIONS, seconds)
    spent = targets.cpu_seconds(target.pid) - before
    calls = max(len(tally.latencies), 1)
    return {
        "target": target.name,
        "bytes": size,
        "mb_per_s": round(tally.rate * size / 1e6, 1),
        "cpu_us": round(spent / calls * 1e6, 1),
        "p50_us": round(tally.quantile(0.5) * 1e6),
        "memory_kib_per_call": round(max(0, _peak_kib(target.pid) - idle) / CONNECTIONS),
        "wrong": tally.wrong,
    }


def sizes(core: int, rest: int, out: Path, seconds: float) -> list[dict[str, Any]]:
    """One line per target and size."""
    lines: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(targets.upstream(rest, TOOLS_DEFAULT, out))
        both = [
            stack.enter_context(start(port, "/json", core, out))
            for start in (targets.nginx, targets.exeat)
        ]
        os.sched_setaffinity(0, {rest})
        for size in SIZES:
            for target in both:
                lines.append(uvloop.run(_measure(target, size, seconds)))
                print(f"  size {lines[-1]}", flush=True)
    return lines

"""Part 6: the same load for a long time: memory, descriptors and latency must stay flat."""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import targets
import uvloop
from load import LEGACY, MODERN, drive, open_session
from targets import Target
from upstream import TOOLS_DEFAULT, tool_names

CONNECTIONS: Final = 16
WINDOWS: Final = 12


def _descriptors(pid: int) -> int:
    return len(list((Path("/proc") / str(pid) / "fd").iterdir()))


async def _windows(target: Target, seconds: float) -> list[dict[str, Any]]:
    """Both eras and both kinds of policy in turn; connections are opened anew in each window."""
    from dataclasses import replace

    lines: list[dict[str, Any]] = []
    for number in range(WINDOWS):
        era = LEGACY if number % 2 else MODERN
        plan = target.plan(era, tool_names(TOOLS_DEFAULT), "fresh" if number % 4 > 1 else "free")
        if era == LEGACY:
            plan = replace(plan, session=await open_session(plan))
        tally = await drive(plan, CONNECTIONS, seconds / WINDOWS)
        lines.append(
            {
                "minute": round((number + 1) * seconds / WINDOWS / 60, 2),
                "calls": len(tally.latencies),
                "p50_us": round(tally.quantile(0.5) * 1e6),
                "p99_us": round(tally.quantile(0.99) * 1e6),
                "memory_mib": round(targets.memory_kib(target.pid) / 1024, 1),
                "descriptors": _descriptors(target.pid),
                "wrong": tally.wrong,
            }
        )
        print(f"  soak {lines[-1]}", flush=True)
    return lines


def soak(core: int, rest: int, out: Path, seconds: float) -> list[dict[str, Any]]:
    """One line per window."""
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(targets.upstream(rest, TOOLS_DEFAULT, out))
        target = stack.enter_context(targets.exeat(port, "/json", core, out))
        os.sched_setaffinity(0, {rest})
        return uvloop.run(_windows(target, seconds))

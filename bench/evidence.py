"""Part 3: the record alone: entries a second, what durability adds, bytes, and how fast it is verified.

A real ledger on the disk of this folder; 1, 16 and 64 callers, each waiting for its entry to be durable.
"""

import asyncio
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Final

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from ledger_world import CONTEXT, PERMIT, REQUEST, World

from exeat.evidence.model import OutcomeFacts, Receipt
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader

CALLERS: Final = (1, 16, 64)


async def _caller(world: World, until: float, waits: list[float]) -> None:
    loop, ledger = asyncio.get_running_loop(), world.ledger
    while (began := time.perf_counter()) < until:
        durable: asyncio.Future[Any] = loop.create_future()
        ledger.record_decision(REQUEST, PERMIT, CONTEXT, durable.set_result)
        receipt = await durable
        if not isinstance(receipt, Receipt):
            raise SystemExit(f"the ledger refused: {receipt}")
        waits.append(time.perf_counter() - began)
        ledger.record_outcome(OutcomeFacts(receipt, "ok", 1_500_000, b"r" * 32, bytes=120))


async def _append(path: Path, callers: int, seconds: float) -> tuple[list[float], float]:
    world = World(path)
    world.clock.step = 0
    world.start()
    waits: list[float] = []
    began = time.perf_counter()
    await asyncio.gather(*(_caller(world, began + seconds, waits) for _ in range(callers)))
    spent = time.perf_counter() - began
    await world.ledger.close()
    return waits, spent


def _verified(path: Path) -> tuple[int, float]:
    began = time.process_time()
    report = verify(SqliteLedgerReader(path))
    if not report.sound:
        raise SystemExit(f"the ledger does not verify: {report.problems}")
    return report.entries, time.process_time() - began


def evidence(out: Path, seconds: float) -> list[dict[str, Any]]:
    """One line per number of callers.  An entry is a decision or an outcome."""
    lines: list[dict[str, Any]] = []
    for callers in CALLERS:
        folder = out / "evidence"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        path = folder / "l.db"
        waits, spent = uvloop.run(_append(path, callers, seconds))
        entries, verify_s = _verified(path)
        size = sum(os.path.getsize(file) for file in folder.iterdir())
        line = {
            "store": "sqlite",
            "callers": callers,
            "entries_per_s": round(entries / spent),
            "p50_us": round(statistics.median(waits) * 1e6, 1),
            "bytes_per_call": round(size / max(len(waits), 1)),
            "verify_per_s": round(entries / verify_s),
        }
        print(f"  evidence {line}", flush=True)
        lines.append(line)
        shutil.rmtree(folder, ignore_errors=True)
    return lines

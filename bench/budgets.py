"""Part *budgets*: what reserving costs, durably, on files and on PostgreSQL (its disk's flush on).

Callers in threads, as in the gateway; each call takes from two budgets.  *one share*: all callers from the
very same, the worst case.
"""

import itertools
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from faulting.database import Postgres, binaries

from exeat.core.controls import Charge
from exeat.storage.state import State, open_state

CALLERS: Final = (1, 4, 16)
LIMIT: Final = 10**15
DAY_S: Final = 86_400


def _caller(state: State, key: str, names: Any, until: float, waits: list[float]) -> None:
    while (began := time.perf_counter()) < until:
        charges = [
            Charge("calls", key, 1, LIMIT, DAY_S),
            Charge("sums", "tool:bank/pay" if key == "agent:0" else key, 10_000, LIMIT, DAY_S),
        ]
        if state.budgets.reserve(charges, next(names), "bench/-") is not None:
            raise AssertionError("the limit is far away")
        waits.append(time.perf_counter() - began)


def _line(
    where: str, state: State, names: Any, callers: int, seconds: float, shared: bool
) -> dict[str, Any]:
    waits: list[float] = []
    until = time.perf_counter() + seconds
    threads = [
        threading.Thread(
            target=_caller,
            args=(state, "agent:0" if shared else f"agent:{n + 1}", names, until, waits),
        )
        for n in range(callers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits.sort()
    return {
        "state": where,
        "callers": callers,
        "shares": "one" if shared else "each its own",
        "per_s": round(len(waits) / seconds),
        "p50_ms": round(statistics.median(waits) * 1e3, 2),
        "p99_ms": round(waits[min(len(waits) - 1, int(len(waits) * 0.99))] * 1e3, 2),
    }


def budgets(out: Path, seconds: float) -> list[dict[str, Any]]:
    folder = out / "budgets"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found, lines = binaries(), []
    server = Postgres(found, fsync=True) if found is not None else None
    places = {"files": None} | ({"PostgreSQL": server.another()} if server is not None else {})
    for where, url in places.items():
        state = open_state(folder / where, url)
        names = (f"{where}-{n}" for n in itertools.count())
        guarded = _Guarded(names)
        for shared, callers in itertools.product((False, True), CALLERS):
            lines.append(_line(where, state, guarded, callers, seconds, shared))
            print(f"  budgets {lines[-1]}", flush=True)
        state.close()
    if server is not None:
        server.close()
    shutil.rmtree(folder, ignore_errors=True)
    return lines


class _Guarded:
    """Names for several threads: a generator may not be entered twice."""

    def __init__(self, names: Any) -> None:
        self._names, self._lock = names, threading.Lock()

    def __next__(self) -> str:
        with self._lock:
            return str(next(self._names))

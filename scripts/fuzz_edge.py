"""`python scripts/fuzz_edge.py [--minutes 120] [--seed N]`: mutated HTTP against the edge and the pool.

Each execution gives one input to one check of tests/fuzz/oracle.py.  Execution n of a seed is
always the same; what fails is kept in out/fuzz and repeated with --replay FILE.
"""

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fuzz.mutate import mutated, seeds
from fuzz.oracle import CHECKS

ROOT = Path(__file__).resolve().parent.parent
FINDINGS_MAX = 50


class Run:
    """One seed's executions, counted; findings of the same place are kept once."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.executions = 0
        self.findings: dict[str, Path] = {}
        self.pools = seeds()

    def one(self) -> None:
        dice = random.Random(f"{self.seed}:{self.executions}")  # noqa: S311  not a secret
        name = dice.choice(list(CHECKS))
        data = mutated(self.pools[name], dice)
        self.executions += 1
        try:
            CHECKS[name](data)
        except Exception as failure:  # noqa: BLE001  any exception is a finding
            self._keep(name, data, failure)
        if self.executions % 50 == 0:
            self._grow(name, data)

    def _grow(self, name: str, data: bytes) -> None:
        """A few mutations become seeds themselves, so that changes pile up; bounded."""
        pool = self.pools[name]
        if len(pool) < 2000:
            pool.append(data)
        else:
            pool[self.executions // 50 % 1000 + 1000] = data

    def _keep(self, name: str, data: bytes, failure: Exception) -> None:
        last = traceback.extract_tb(failure.__traceback__)[-1]
        where = f"{name} {type(failure).__name__} {failure} {last.filename}:{last.lineno}"
        if where in self.findings or len(self.findings) >= FINDINGS_MAX:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}-{self.seed}-{self.executions - 1}.bin"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(failure)))
        self.findings[where] = path
        print(f"FOUND {where}\n  kept in {path}", flush=True)


def replay(path: Path) -> int:
    CHECKS[path.name.partition("-")[0]](path.read_bytes())
    print("nothing found")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--executions", type=int, default=sys.maxsize)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "fuzz")
    parser.add_argument("--replay", type=Path)
    given = parser.parse_args()
    if given.replay:
        return replay(given.replay)
    run = Run(given.seed, given.out)
    print(f"seed {given.seed}", flush=True)
    until, told = time.monotonic() + given.minutes * 60, time.monotonic()
    while time.monotonic() < until and run.executions < given.executions:
        run.one()
        if time.monotonic() - told > 60:
            told = time.monotonic()
            print(f"{run.executions} executions, {len(run.findings)} findings", flush=True)
    print(f"{run.executions} executions of seed {run.seed}, {len(run.findings)} findings")
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(main())

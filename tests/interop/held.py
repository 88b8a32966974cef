"""Stock clients whose calls wait for people (APP-4): kept open until somebody has approved on the command line,
with progress for those that ask for it; or told to come again, and let through then.  Part of `make interop`.

    held.py [--write] [CLIENT...]

The tool promises structured output, and each client has read that promise before it calls.  ``--write`` writes
the table of docs/reference/interoperability.md; without it, another table there is a failure.
"""

import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from clients import Client, Driven, Failed, Kind, Said, Target, Told, kinds
from gateways import Gateway, running
from install import NotInstalled, install
from offices import DEADLINE_S, Office
from table import HELD, differs, write

KEPT_OPEN, PROGRESS = "kept open", "with progress"
AGAIN, LATER = "told to come again", "told after a wait"
STEPS: Final = (KEPT_OPEN, PROGRESS, AGAIN, LATER)
REFUSAL: Final = re.compile(r"(ToolError: )?Held by exeat: .+")
"""What the server's answer says, and nothing before it that a protocol error would have; FastMCP raises every
answer that is an error as its ToolError."""
WAITS: Final = "waiting for the agent's owner"
CANNOT: Final = {("inspector", PROGRESS): "asks for none"}
"""What a client cannot do, and why."""
Found = dict[str, dict[str, str]]
"""Client → step → what went wrong, or empty."""


class Visit:
    """One client at the office.  Each payment is another amount, so that none is taken for another."""

    def __init__(self, office: Office, client: Client, target: Target, amount: int) -> None:
        self.office, self.client, self.target, self.amount = office, client, target, amount
        self.payment = {"amount": amount, "to": "bob"}
        self.approved = ""

    def approve(self, after: threading.Event) -> None:
        """What a person does meanwhile, once the client has heard what it shall hear."""
        hold = self.office.asked()
        if after.wait(DEADLINE_S):
            self.office.approve(hold)
            self.approved = hold

    def paid(self, said: Said) -> None:
        """The client has its answer, and the server did it once."""
        done = [each for each in self.office.carried_out() if each["amount"] == self.amount]
        if said.error or said.text != f"paid {float(self.amount)} to bob" or len(done) != 1:
            raise Failed(f"{said}, carried out {len(done)} times")

    def kept_open(self) -> None:
        now = threading.Event()
        now.set()
        self.paid(self._meanwhile(now, self._pay))

    def with_progress(self) -> None:
        heard, told = threading.Event(), list[str]()

        def tell(message: str) -> None:
            told.append(message)
            heard.set()

        self.paid(self._meanwhile(heard, lambda: self._pay(tell)))
        if not told or WAITS not in told[0]:
            raise Failed(f"it was told {told}")

    def told_to_come_again(self) -> None:
        said = self._pay()
        if not said.error or REFUSAL.match(said.text) is None:
            raise Failed(f"{said}")
        now = threading.Event()
        now.set()
        self.approve(now)
        if self.approved not in said.text:
            raise Failed(f"{said} does not name {self.approved}")
        self.paid(self._pay())

    def _pay(self, told: Told | None = None) -> Said:
        arguments: dict[str, Any] = dict(self.payment)
        if told is None:
            return self.client.call(self.target, "pay", arguments)
        assert isinstance(self.client, Driven)
        return self.client.call_told(self.target, "pay", arguments, told)

    def _meanwhile(self, after: threading.Event, pay: Callable[[], Said]) -> Said:
        with ThreadPoolExecutor(1) as threads:
            approving = threads.submit(self.approve, after)
            try:
                said = pay()
            finally:
                after.set()
                approving.result()
        return said


ACTS: Final = {
    KEPT_OPEN: Visit.kept_open,
    PROGRESS: Visit.with_progress,
    AGAIN: Visit.told_to_come_again,
    LATER: Visit.told_to_come_again,
}
WAIT_S: Final = {"60": (KEPT_OPEN, PROGRESS), "0": (AGAIN,), "6": (LATER,)}
"""``hold_wait_s`` → what is tried under it.  After 5 s an answer has begun, so that 6 s end within one."""


def promises(office: Office, gateway: Gateway) -> None:
    """Raises Failed unless the tool that is held promises structured output."""
    wire = office.wire(gateway)
    with closing(wire.http):
        listed = wire.ask("tools/list")["result"]["tools"]
    if not any(tool["name"] == "pay" and "outputSchema" in tool for tool in listed):
        raise Failed(f"pay promises no structured output: {listed}")


def visit(
    kind: Kind, client: Client, office: Office, gateway: Gateway, step: str, amount: int
) -> str:
    """What went wrong, or empty."""
    if (kind.name, step) in CANNOT:
        return ""
    target = Target(step, gateway.endpoint("c"), office.key)
    try:
        client.open(target)
        try:
            client.tools(target)  # those that check structured output know what was promised
            ACTS[step](Visit(office, client, target, amount))
        finally:
            client.close(target)
    except (Failed, AssertionError) as failed:
        for hold in office.waiting():  # the next client's is the only one that waits
            office.exeat("approvals", "deny", hold, "--as", "ada", "--reason", "given up")
        return str(failed) or type(failed).__name__
    return ""


def play(chosen: list[Kind], started: Callable[[Kind], Client], office: Office) -> Found:
    found: Found = {kind.name: {} for kind in chosen}
    clients = {kind: started(kind) for kind in chosen}
    amounts = iter(range(500, 10_000))
    for seconds, steps in WAIT_S.items():
        with running(Gateway(office.home.path, hold_wait_s=seconds)) as gateway:
            promises(office, gateway)
            for kind, client in clients.items():
                for step in steps:
                    why = visit(kind, client, office, gateway, step, next(amounts))
                    found[kind.name][step] = why
                    done = CANNOT.get((kind.name, step), "yes")
                    print(f"{kind.name}, {step}: {why or done}", flush=True)
    return found


def render(labels: dict[str, str], found: Found) -> str:
    rows = [["client", *STEPS], ["---"] * (len(STEPS) + 1)]
    for name, label in labels.items():
        cells = (
            "**no**" if found[name][step] else CANNOT.get((name, step), "yes") for step in STEPS
        )
        rows.append([label, *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{HELD[0]}\n{table}\n{HELD[1]}"


def main(words: list[str]) -> int:
    only = [word for word in words if not word.startswith("-")]
    try:
        peers = install()
    except NotInstalled as failed:
        print(f"skipped: what it needs could not be installed: {failed}")
        return int(os.environ.get("EXEAT_NO_SKIPS") == "1")
    chosen = [kind for kind in kinds(peers) if not only or kind.name in only]
    with tempfile.TemporaryDirectory(prefix="exeat-held-") as folder, ExitStack() as stack:
        office = stack.enter_context(closing(Office(Path(folder))))

        def started(kind: Kind) -> Client:
            return stack.enter_context(kind.started(peers, Path(folder) / f"{kind.name}.log"))

        found = play(chosen, started, office)
    results = [why for each in found.values() for why in each.values()]
    failed_ = sum(map(bool, results))
    print(f"held calls of clients: {len(results) - failed_} passed, {failed_} failed")
    if only:
        return min(failed_, 1)
    page = render({kind.name: kind.label for kind in chosen}, found)
    if "--write" in words:
        write(page, *HELD)
    elif differs(page):
        print("docs/reference/interoperability.md says something else; --write")
        return 1
    return min(failed_, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

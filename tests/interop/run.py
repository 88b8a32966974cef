"""`make interop`: every client with every server, through one real gateway that is ended and started
again under them, once with SIGTERM and once with SIGKILL (GW-4, GW-5, GW-6).

    run.py [--write] [CLIENT...]

Each pair lists the tools, calls one, is shown a denial, and works on after each restart.  ``--write``
writes the table of docs/reference/interoperability.md; without it, another table there is a failure.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import research
from clients import Client, Driven, Failed, Kind, Target, kinds
from gateways import Gateway, decisions, verified
from homes import Home
from install import ROOT, NotInstalled, Peers, install
from pairs import DENIAL, KILL, TERM, Pair
from table import PAGE, differs, render, write
from upstreams import AGENT, Upstream, upstreams

from exeat.core.errors import ExeatError

STRANGER: Final = "stranger"
TASKS_AT: Final = "everything-http"


def make_home(
    folder: Path, servers: list[Upstream]
) -> tuple[Path, dict[str, str], dict[str, list[str]]]:
    """All servers pinned and permitted to both agents, except for what ``when`` forbids."""
    home = Home(folder / "gateway" / "home")  # servers create nothing on the way to it
    pinned = {}
    for each in servers:
        extra = research.ALLOWED if each.name == TASKS_AT else ()
        server = home.server(
            each.name, url=each.url, command=each.command, env=each.env, extra=extra
        )
        pinned[each.name] = home.pin_all(server)
    keys = {name: home.agent(name, pinned) for name in (AGENT, STRANGER)}
    permit = '@id("all") permit(principal, action, resource);'
    home.policy("\n".join([permit, *(each.forbid for each in servers)]))
    home.state.close()
    return home.path, keys, pinned


def every(clients: dict[Kind, Client], pairs: list[Pair], step: Callable[[Pair], None]) -> None:
    """One step of all pairs; the clients side by side, each with one server after the other."""

    def one(kind: Kind) -> None:
        for pair in pairs:
            if pair.client is kind:
                step(pair)

    with ThreadPoolExecutor(len(clients)) as threads:
        list(threads.map(one, clients))


def play(peers: Peers, folder: Path, only: list[str]) -> list[Pair]:
    with ExitStack() as stack:
        servers = stack.enter_context(upstreams(peers, folder))
        home, keys, pinned = make_home(folder, servers)
        gateway = Gateway(home)
        stack.callback(lambda: gateway.stop())
        clients = {
            kind: stack.enter_context(kind.started(peers, folder / f"{kind.name}.log"))
            for kind in kinds(peers)
            if not only or kind.name in only
        }
        pairs = [
            Pair(kind, each, Target(each.name, gateway.endpoint(each.name), keys[AGENT]))
            for kind in clients
            for each in servers
        ]
        url = gateway.endpoint(TASKS_AT)
        tasks = [Target(f"tasks-{name}", url, keys[name]) for name in (AGENT, STRANGER)]
        for client in [c for kind, c in clients.items() if kind.name == "ts1"]:
            if isinstance(client, Driven):
                research.check(client, *tasks)
        every(clients, pairs, lambda p: p.first(clients[p.client], pinned[p.upstream.name]))
        for step, end in ((TERM, Gateway.stop), (KILL, Gateway.kill)):
            end(gateway)
            if "Traceback" in gateway.output:
                raise SystemExit(gateway.output)
            gateway = Gateway(home, port=gateway.port)

            def again(pair: Pair, step: str = step) -> None:
                pair.again(clients[pair.client], step)

            every(clients, pairs, again)
    check_record(home, pairs)
    return pairs


def check_record(home: Path, pairs: list[Pair]) -> None:
    """Each denial that a client was shown is on record as one, in a ledger that verifies."""
    leaves = {f"gw1-{leaf.index}": leaf for leaf, _, _ in decisions(home)}
    for pair in pairs:
        if not pair.decision:
            continue
        leaf = leaves[pair.decision]
        action = f"{pair.upstream.name}/{pair.upstream.tool}"
        if (leaf.verdict, leaf.reason, leaf.action.id) != ("deny", "forbidden", action):
            pair.failures[DENIAL] = f"{pair.decision} is {leaf}"
    if not verified(home).sound:
        raise SystemExit("the ledger does not verify")


def main(words: list[str]) -> int:
    if "--help" in words:
        print(__doc__)
        return 0
    started = time.monotonic()
    only = [word for word in words if not word.startswith("-")]
    try:
        peers = install()
    except NotInstalled as failed:
        print(f"skipped: what it needs could not be installed: {failed}")
        return int(os.environ.get("EXEAT_NO_SKIPS") == "1")
    folder = Path(tempfile.mkdtemp(prefix="exeat-interop-"))
    try:
        pairs = play(peers, folder, only)
    except (ExeatError, Failed) as failed_at:
        print(f"the run ended before its table: {failed_at}")
        print("0 passed, 1 failed")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for pair in pairs:
        for step, said in pair.failures.items():
            print(f"{pair.client.name} x {pair.upstream.name}: {step}: {said[:600]}")
        if "--verbose" in words:
            for step, said in pair.lost.items():
                print(
                    f"{pair.client.name} x {pair.upstream.name}: {step}: reconnects: {said[:600]}"
                )
    failed = sum(bool(pair.failures) for pair in pairs)
    other = not only and published_differs(pairs, anew="--write" in words)
    print(f"pairs of client and server, in {time.monotonic() - started:.0f} s:")
    print(f"{len(pairs) - failed} passed, {failed} failed")
    return 1 if failed or other else 0


def published_differs(pairs: list[Pair], *, anew: bool) -> bool:
    """``anew``: the page gets the table of this run."""
    made = render(pairs)
    if anew:
        write(made)
    elif differs(made):
        print(f"{PAGE.relative_to(ROOT)} says something else; make interop INTEROP_ARGS=--write")
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

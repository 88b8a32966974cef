"""The suite's scenarios for clients: the reference client alone, then with the gateway as its way there.

Each scenario has its own server, authorization server and, through exeat, its own whole gateway.  Few run
at a time, so that none is late for want of a processor.  ``python client_suite.py [REVISION [SCENARIO …]]``.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from suite import REVISIONS, Suite, build, failures_of

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
AT_A_TIME: Final = 2
SCENARIO_MS: Final = 60_000
EXTENSIONS: Final = frozenset(
    {
        "auth/client-credentials-basic",
        "auth/client-credentials-jwt",
        "auth/enterprise-managed-authorization",
    }
)
"""Not scored, and served all the same.  (DPoP and workload identity fail with the reference client too.)"""


KNOWN: Final = {
    "elicitation-sep1034-client-defaults": "the server asks outside of any call: refused (GW-7)",
    "http-custom-headers": "null where the tool's own schema wants a boolean: denied before it leaves",
    "request-metadata": "the client calls a tool that the server does not list: denied; all checks pass",
}
"""What a gateway that decides cannot let pass, and why."""


def scenarios(suite: Suite, revision: str) -> frozenset[str]:
    return suite.scored(revision, "client") | EXTENSIONS


def run_scenario(
    suite: Suite, script: Path, revision: str, scenario: str, out: Path
) -> tuple[str, list[str]]:
    """The checks that failed; empty: it passed."""
    folder = out / scenario.replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [
        str(suite.node), str(suite.entry), "client", "--command",
        f"{sys.executable} -W ignore {script}", "--scenario", scenario, "--spec-version", revision,
        "--force", "--timeout", str(SCENARIO_MS), "-o", str(folder),
    ]  # fmt: skip
    environ = {**os.environ, "REFERENCE_CLIENT": str(suite.client)}
    with (folder / "log.txt").open("wb") as log:
        done = subprocess.run(
            command, env=environ, stdout=log, stderr=log, timeout=180, check=False
        )
    found = failures_of(folder)
    if not found:
        return scenario, ["did not run"]
    failed = [check for checks in found.values() for check in checks]
    return scenario, failed or ([f"exit {done.returncode}"] if done.returncode else [])


def run_clients(
    suite: Suite, script: Path, revision: str, wanted: Iterable[str], out: Path
) -> dict[str, list[str]]:
    """Scenario → the checks that failed."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        jobs = [
            pool.submit(run_scenario, suite, script, revision, scenario, out)
            for scenario in sorted(wanted)
        ]
        return dict(job.result() for job in jobs)


def compare(suite: Suite, revision: str, wanted: Iterable[str], out: Path) -> int:
    """Print what is lost on the way through exeat; returns how many scenarios."""
    wanted = list(wanted)
    direct = run_clients(suite, suite.client, revision, wanted, out / "direct" / revision)
    through = run_clients(
        suite, HERE / "proxied_client.py", revision, wanted, out / "gateway" / revision
    )
    good = [name for name in wanted if not direct[name]]
    kept = [name for name in wanted if not through[name]]
    auth = sum(name.startswith("auth/") for name in kept)
    print(
        f"{revision} client: direct {len(good)}/{len(wanted)}, through exeat {len(kept)}/{len(wanted)},"
        f" {auth} of them about authorization"
    )
    lost = [name for name in good if through[name] and name not in KNOWN]
    for name in sorted(lost):
        print(f"  lost: {name}: {'; '.join(through[name])}")
    for name in sorted(set(KNOWN) & set(good) - set(kept)):
        print(f"  not served: {name}: {KNOWN[name]}")
    return len(lost)


def main() -> int:
    suite = build(ROOT / ".tools" / "conformance")
    revisions = sys.argv[1:2] or REVISIONS
    lost = 0
    for revision in revisions:
        wanted = sys.argv[2:] or scenarios(suite, revision)
        lost += compare(suite, revision, wanted, ROOT / "out" / "conformance-client")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

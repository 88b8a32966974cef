"""`make conformance`: the official suite against the reference server, directly and through exeat.

Every scenario that passes directly must pass through the gateway, with authentication on (GW-3).
"""

import shutil
import sys
import tempfile
from pathlib import Path

from gateway import gateway
from suite import REVISIONS, Score, Suite, build, reference_server, run

ROOT = Path(__file__).resolve().parents[2]


def scores(suite: Suite, out: Path) -> dict[str, tuple[Score, Score]]:
    """Revision → (direct, through the gateway)."""
    home = Path(tempfile.mkdtemp(prefix="exeat-conformance-"))
    try:
        with reference_server(suite) as url, gateway(home / "home", url) as entrance:
            return {
                revision: (
                    run(suite, url, revision, out / "direct" / revision),
                    run(suite, entrance.url, revision, out / "gateway" / revision, entrance.bearer),
                )
                for revision in REVISIONS
            }
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> int:
    suite = build(ROOT / ".tools" / "conformance")
    lost = 0
    for revision, (direct, through) in scores(suite, ROOT / "out" / "conformance").items():
        total = len(direct.scored)
        print(
            f"{revision}: direct {len(direct.passed)}/{total}, through exeat {len(through.passed)}/{total}"
        )
        for name in sorted(direct.passed - through.passed):
            lost += 1
            print(f"  lost: {name}: {'; '.join(through.failures.get(name, ['did not run']))}")
        if not direct.passed:
            lost += 1
            print("  the suite did not run")
    print(f"{lost} scenarios lost" if lost else "nothing is lost on the way through exeat")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python scripts/kills.py [N]`: kill a gateway under load N times (500) and compare with the record."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from killing import kill_many


def main() -> int:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_many(Path(folder), kills)
    print(f"kills                        {tally.kills}")
    print(f"calls carried out            {tally.executed}")
    print(f"durable permits              {tally.permits}")
    print(f"outcomes said to be unknown  {tally.unknown}")
    print(f"carried out without record   {len(tally.unrecorded)}")
    print(f"record verifies              {'yes' if tally.sound else 'NO'}")
    return 0 if tally.sound and not tally.unrecorded else 1


if __name__ == "__main__":
    sys.exit(main())

"""Starts gateways by forking a process that has everything imported: a start costs no imports.

Each line on stdin names a home; the gateway's own process is a child, whose pid and first line are
printed.  An empty line reaps the last one.
"""

import os
import sys
from pathlib import Path

import exeat.app.observe
import exeat.app.serve
import exeat.cli.up


def main() -> None:
    child = 0
    for line in sys.stdin:
        if child:
            os.waitpid(child, 0)
            child = 0
        if not line.strip():
            print("reaped", flush=True)
            continue
        child = os.fork()
        if child == 0:
            print(os.getpid(), flush=True)
            exeat.cli.up.up(home=Path(line.strip()), host=None, port=0, verbose=False)
            os._exit(0)


if __name__ == "__main__":
    main()

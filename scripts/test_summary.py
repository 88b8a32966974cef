"""Prints what pytest counted, from its JUnit file, as one plain line: ``N passed, N failed``."""

import sys
from xml.etree import ElementTree


def main(path: str) -> int:
    suites = list(ElementTree.parse(path).getroot().iter("testsuite"))  # noqa: S314  our own file
    total = {
        name: sum(int(suite.attrib[name]) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    print(f"{passed} passed, {failed} failed, {total['skipped']} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Splits Cedar files into statements, so that each policy keeps its file, line and column.

Cedar's own parser gives no positions.  Its grammar lets a ``;`` stand only at the end of a policy,
in a string or in a comment, so one regular expression finds the ends.
"""

import re
from collections.abc import Iterator
from typing import Final

from exeat.policy.model import Finding, Statement

_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|;|\s+|[^;"\s/]+|.', re.DOTALL)


def split(file: str, text: str) -> Iterator[Statement | Finding]:
    """Every statement of ``text`` in order; a Finding for what follows the last ``;``."""
    start = -1
    lines = _Lines(text)
    for match in _TOKEN.finditer(text):
        part = match.group()
        if part == ";" and start >= 0:
            line, column = lines.of(start)
            yield Statement(file, line, column, text[start : match.end()])
            start = -1
        elif start < 0 and not part.isspace() and not part.startswith("//"):
            start = match.start()
    if start >= 0:
        line, column = lines.of(start)
        problem = "The policy that begins here has no end."
        yield Finding(file, line, column, "", problem, "End it with ';' (and close its strings).")


class _Lines:
    """Line and column of growing offsets, in one pass over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1

    def of(self, offset: int) -> tuple[int, int]:
        self._line += self._text.count("\n", self._at, offset)
        self._at = offset
        return self._line, offset - (self._text.rfind("\n", 0, offset) + 1) + 1


def locate(statement: Statement, word: str) -> tuple[int, int]:
    """Line and column of the first ``word`` in a statement; the statement's own if it has none."""
    found = re.search(rf"(?<![\w]){re.escape(word)}(?![\w])", statement.text) if word else None
    if found is None:
        return statement.line, statement.column
    before = statement.text[: found.start()]
    rows = before.count("\n")
    if rows == 0:
        return statement.line, statement.column + found.start()
    return statement.line + rows, found.start() - before.rfind("\n")

"""Splits Cedar files into statements, so that each policy keeps its file, line and column.

Cedar's own parser gives no positions.  Its grammar lets a ``;`` stand only at the end of a policy,
in a string or in a comment, so one regular expression finds the ends.
"""

import re
from collections.abc import Iterator
from typing import Final

from exeat.policy.model import Finding, Statement

_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|;|\s+|[^;"\s/]+|.', re.DOTALL)

DEPTH_MAX: Final = 800
"""Far above Cedar's own 100 levels, and below what its parser's stack bears: beyond that it would not
refuse the text but end the process.  Brackets cost it three times as much as a chain of operators."""
_BRACKET_COST: Final = 3
_DEEPENING: Final = re.compile(
    r'//[^\n]*|"(?:[^"\\]|\\.)*"|[(\[{]|[)\]}]|[,;.]|&&|\|\||[-+*]|[<>=!]+|\b(?:if|has|like|in|is|when|unless)\b',
    re.DOTALL,
)


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


def too_deep(text: str) -> bool:
    """Whether a policy nests, or chains operators, deeper than its parser may be asked to follow."""
    if len(text) * _BRACKET_COST <= DEPTH_MAX:
        return False
    around: list[tuple[int, int, int]] = []
    base = operators = dots = 0  # outside of these brackets; within them; of the last path
    for match in _DEEPENING.finditer(text):
        part = match.group()
        if part in "([{":
            around.append((base, operators, dots))
            base, operators, dots = base + operators + dots + _BRACKET_COST, 0, 0
        elif part in ")]}":
            base, operators, dots = around.pop() if around else (0, 0, 0)
        elif part == ".":
            dots += 1
        elif part in ",;":
            operators = dots = 0
        elif part[0] not in '/"':
            operators, dots = operators + 1, 0
        if base + operators + dots > DEPTH_MAX:
            return True
    return False


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

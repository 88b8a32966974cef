"""A text as it looks, beside the text as it is, so that a value cannot hide in how it is written.

Folded are: characters without width (removed, as are combining marks), other forms of letters, digits,
spaces and dashes (full width, mathematical, Arabic-Indic … become the plain ones), and escapes of one
character (``%40``, ``&#64;``, ``\\u0040``).  ``Folded.back`` gives the place in the text as it is.
"""

import re
import unicodedata
from bisect import bisect_right
from typing import Final

_ESCAPE: Final = re.compile(
    r"\\u[0-9A-Fa-f]{4}|%[2-7][0-9A-Fa-f]|&#(?:0{0,8}[0-9]{2,3}|[xX]0{0,8}[2-7][0-9A-Fa-f]);|&commat;|&amp;"
)
_MARKS: Final = ("%", "\\u", "&")
_HIDDEN: Final = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Shown as nothing, though no format character."""
_GONE: Final = frozenset({"Cf", "Mn", "Me", "Cc"})
SEPARATOR: Final = "\0"
"""Between texts that are read in one go: nothing reaches across it."""
_KEPT: Final = frozenset("\t\n\r" + SEPARATOR)
_PLAIN: Final = re.compile(r"[^\t\n\r\0 -~]")


def _fold(char: str) -> str:
    if char in _KEPT:
        return char
    kind = unicodedata.category(char)
    if kind in _GONE or char in _HIDDEN:
        return ""
    if kind == "Nd":
        return str(unicodedata.digit(char))
    if kind == "Zs":
        return " "
    if kind == "Pd" or char == "\u2212":
        return "-"
    plain = unicodedata.normalize("NFKD", char)
    if plain == char:
        return char
    return "".join(each for each in plain if unicodedata.category(each) not in _GONE)


class _Table(dict[int, str]):
    """For ``str.translate``; learns each character once.  At most as many as there are characters."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _fold(chr(code))
        return plain


_TABLE: Final = _Table({code: chr(code) for code in range(32, 127)})


class Folded:
    """``text`` is what detectors read beside the original."""

    __slots__ = ("_ends", "_ours", "_theirs", "text")

    def __init__(self, text: str, ours: list[int], theirs: list[int], ends: list[int]) -> None:
        self.text = text
        self._ours, self._theirs, self._ends = ours, theirs, ends

    def back(self, start: int, end: int) -> tuple[int, int]:
        """A span of the folded text, as the span of the original that looks so."""
        first = bisect_right(self._ours, start) - 1
        last = bisect_right(self._ours, end - 1) - 1
        return self._place(first, start)[0], self._place(last, end - 1)[1]

    def _place(self, part: int, at: int) -> tuple[int, int]:
        begin, stop = self._theirs[part], self._ends[part]
        ahead = self._ours[part + 1] - self._ours[part] if part + 1 < len(self._ours) else 0
        if part + 1 == len(self._ours) or ahead == stop - begin:  # a part that is the same in both
            place = begin + at - self._ours[part]
            return place, place + 1
        return begin, stop


def folded(text: str) -> Folded | None:
    """None if the text looks as it is."""
    plain = _PLAIN.search(text) is None
    escapes = any(mark in text for mark in _MARKS)
    if plain and not (escapes and _ESCAPE.search(text)):
        return None
    odd = {char for char in set(text) if _TABLE[ord(char)] != char} if not plain else set()
    if not odd and not (escapes and _ESCAPE.search(text)):
        return None
    lengths = {char for char in odd if len(_TABLE[ord(char)]) != 1}
    if not lengths and not escapes:
        return Folded(text.translate(_TABLE), [0], [0], [len(text)])
    return _parts(text, lengths, escapes)


def _parts(text: str, odd: set[str], escapes: bool) -> Folded:
    """Parts that are of one length in both, and between them what is not."""
    shapes = [f"[{''.join(re.escape(char) for char in sorted(odd))}]"] if odd else []
    if escapes:
        shapes.append(_ESCAPE.pattern)
    pieces: list[str] = []
    ours, theirs, ends = [], [], []
    at = size = 0
    for match in re.finditer("|".join(shapes), text):
        start, stop = match.span()
        if start > at:
            ours.append(size)
            theirs.append(at)
            ends.append(start)
            pieces.append(text[at:start].translate(_TABLE))
            size += start - at
        plain = _read(match.group())
        if plain:
            ours.append(size)
            theirs.append(start)
            ends.append(stop)
            pieces.append(plain)
            size += len(plain)
        at = stop
    ours.append(size)
    theirs.append(at)
    ends.append(len(text))
    pieces.append(text[at:].translate(_TABLE))
    return Folded("".join(pieces), ours, theirs, ends)


def _read(found: str) -> str:
    """What one character, or one escape of a character, looks like."""
    if len(found) == 1:
        return _TABLE[ord(found)]
    if found == "&commat;":
        return "@"
    if found == "&amp;":
        return "&"
    if found.startswith("&#"):
        digits = found[2:-1]
        code = int(digits[1:], 16) if digits[0] in "xX" else int(digits)
        return _TABLE[code] if 32 <= code < 127 else "?"
    code = int(found[2:] if found[0] == "\\" else found[1:], 16)
    return "?" if 0xD800 <= code < 0xE000 else _TABLE[code]

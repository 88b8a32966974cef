"""Cards, accounts, e-mail addresses and telephone numbers in text."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from exeat.gateway.redaction.checks import (
    IBAN_LENGTHS,
    card,
    country_code,
    iban,
)
from exeat.gateway.redaction.spans import Match, Span, marked

CARD_RUN: Final = r"[0-9](?:[ ._/\-]{0,3}[0-9]){12,}"
_GROUP: Final = re.compile(r"[0-9]+")


def plain(char: str) -> bool:
    """A letter or digit that a number or name may go on with.  Not those of scripts that write words
    without spaces between."""
    return char.isascii() and char.isalnum()


_S: Final = r"[ ._/\-]{1,3}"
_LAYOUTS: Final = tuple(
    re.compile(_S.join(rf"\d{{{size}}}" for size in sizes) + r"(?!\d)")
    for sizes in ((4, 4, 4, 4), (4, 4, 4, 4, 3), (4, 6, 5), (4, 6, 4), (4, 4, 4, 1), (4, 4, 5))
)
_WHOLE: Final = re.compile(r"(?<!\d)(?:\d{13,19}(?!\d)|(?=\d{4}[^\d]))")
_EVEN: Final = re.compile(
    rf"\d({_S})\d(?:\1\d){{11,17}}|\d\d({_S})\d\d(?:\2\d\d){{4,7}}(?:\2\d)?"
    rf"|\d{{3}}({_S})\d{{3}}(?:\3\d{{3}}){{2,4}}(?:\3\d{{1,2}})?"
)


def cards(text: str, match: Match) -> Iterator[Span]:
    """Whole groups of digits only, as cards are written: a longer number is no card."""
    begin, stop = match.span()
    done = begin
    for found in _WHOLE.finditer(text, begin, stop):
        start, end = found.span()
        if start < done:
            continue
        if end > start:
            if card(text[start:end]) and not _fraction(text, start, end):
                done = end
                yield start, end
            continue
        for layout in _LAYOUTS:
            written = layout.match(text, start, stop)
            if written and card("".join(_GROUP.findall(written.group()))):
                done = written.end()
                yield start, done
                break
    if done == begin and stop - begin < 80 and _EVEN.fullmatch(text, begin, stop):
        digits = "".join(_GROUP.findall(text, begin, stop))
        if card(digits):
            yield begin, stop


def _fraction(text: str, start: int, end: int) -> bool:
    """``0.4539148803436467`` has sixteen digits, too."""
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    return (before[-1:] == "." and before[:1].isdigit()) or (
        after[:1] == "." and after[1:].isdigit()
    )


IBAN_START: Final = r"(?:\b|_|(?i:iban))[A-Za-z]{2}[0-9]{2}[ .\-]{0,2}[0-9A-Za-z]"
_IBAN_CHARS: Final = re.compile(r"[0-9A-Za-z](?:[ .\-]{0,2}[0-9A-Za-z]){14,33}")


def _ahead(text: str, start: int) -> int:
    """Of what a match takes in before the account number."""
    if text[start] == "_":
        return 1
    return 4 if text[start : start + 4].upper() == "IBAN" else 0


def ibans(text: str, match: Match) -> Iterator[Span]:
    start = match.start() + _ahead(text, match.start())
    wanted = IBAN_LENGTHS.get(text[start : start + 2].upper())
    before = text[max(start - 4, 0) : start]
    if wanted is None or (plain(before[-1:]) and before.upper() != "IBAN"):
        return
    found = _IBAN_CHARS.match(text, start)
    if found is None:
        return
    taken: list[str] = []
    for at in range(start, found.end()):
        if text[at].isalnum():
            taken.append(text[at])
            if len(taken) == wanted:
                if not plain(text[at + 1 : at + 2]) and iban("".join(taken)):
                    yield start, at + 1
                return


EMAIL: Final = r"@|[\[({<]\s?(?i:at)\s?[\])}>]"
"""Only the middle: from there the text is read both ways, which is faster than to try every letter."""
_LOCAL_MAX, _DOMAIN_MAX = 128, 254
_LOCAL: Final = re.compile(r"(?:[\w.%+\-']+|(?<=\")[^\"\\\n\0]{1,64}(?=\"))\Z")
_DOMAIN: Final = re.compile(
    r"\s?(?:(?:[^\W_](?:[\w\-]{0,61}[^\W_])?(?:\.|\s?[\[({<]\s?dot\s?[\])}>]\s?)){1,8}"
    r"(?:xn--[a-z0-9\-]{2,59}|[a-z]{2,24}(?![a-z0-9])|[^\W\d_]{2,24})|\[[0-9a-f.:]{3,45}\])",
    re.I,
)
PLACEHOLDER_DOMAIN: Final = "redacted.invalid"
"""Of what stands for an address where a schema wants one (RFC 2606: never a real domain)."""
_FILE: Final = re.compile(
    r"\.(?:png|jpe?g|gif|svg|webp|avif|css|js|mjs|jsx|tsx?|json|html?|ya?ml|xml|txt|pdf|lock)\Z",
    re.I,
)


def emails(text: str, match: Match) -> Iterator[Span]:
    at, after = match.span()
    spelt = after - at > 1  # [at]
    found = _DOMAIN.match(text, after, after + _DOMAIN_MAX)
    if found is None or _FILE.search(found.group()):
        return
    end = found.end()
    before = text[max(at - _LOCAL_MAX, 0) : at]
    bare = before.rstrip(" ")
    if not spelt and (bare != before) is not found.group()[:1].isspace():
        return  # "by bob @example.com": a name and a handle
    if len(before) - len(bare) > 1 or found.group().endswith(PLACEHOLDER_DOMAIN):
        return
    if bare.endswith('"'):
        opening = bare.rfind('"', 0, -1)
        if 0 <= opening < len(bare) - 2 and "\n" not in bare[opening:]:
            yield at - len(before) + opening, end
        return
    local = _LOCAL.search(bare)
    if local is None:
        return
    start = at - len(before) + local.start()
    start += len(local.group()) - len(local.group().lstrip(".%+-'"))
    if start >= at - len(before) + len(bare):
        return
    if text[start:at] == "git" and text[end : end + 1] == ":":
        return  # git@host:path
    yield start, end


PHONE_INTERNATIONAL: Final = r"(?:\+[ ]?\(?|\b00[ \-]?)[1-9](?:[ \x{a0}().\-/]{0,3}[0-9]){6,}"
PHONE_NATIONAL: Final = (
    r"(?:\(|\b)0[1-9](?:[ ().\-/]{0,2}[0-9]){6,12}"
    r"|(?:\b1[ .\-]{1,2})?(?:\([2-9][0-9]{2}\)[ .\-]{0,2}|\b[2-9][0-9]{2}[ .\-]{1,2})"
    r"[2-9][0-9]{2}[ .\-]{1,2}[0-9]{4}"
    r"|\([1-9][0-9]\)[ ]?9?[ ]?[0-9]{4}[\- ][0-9]{4}"
    r"|\b8[ \-]?\(?[3-9][0-9]{2}\)?[ \-][0-9]{3}[ \-][0-9]{2}[ \-]?[0-9]{2}"
    r"|\b1[3-9][0-9][ \-][0-9]{4}[ \-][0-9]{4}"
)
PHONE_NAMED: Final = (
    r"(?i)\b(?:tel(?:ephone|efono|efon|\.)?|phone|mobile|mobil|mob|cell|fax|whatsapp|handy|sms|msisdn)"
    r"(?:[ _\-]?(?:number|no|nr|num))?[\"'\]]{0,2}[.:=# ]{1,4}[\"']?"
    r"(\+?\(?[0-9](?:[ ().\-/]{0,2}[0-9]){6,14})"
)
_EXTENSION: Final = re.compile(r"\s?(?:x|ext\.?|extension)\s?\d{1,6}\b", re.I)
_DATE: Final = re.compile(
    r"\d{1,2}([./-])\d{1,2}\1(?:\d{4}|\d{2})(?!\d|\1\d)|(?:19|20)\d\d([./ -]?)[01]\d\2[0-3]\d(?!\d)"
)
_CLOCK: Final = re.compile(r"[01]?\d:\d\d|2[0-3]:\d\d")
_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?![.\d])")
_PHONE_NAME: Final = re.compile(
    r"(?:^|[_\-. ]|[a-z])(?:(?:tele)?phone|mobile|cell|fax|msisdn|whatsapp)(?:[_\- ]?(?:number|no|nr))?$"
    r"|^tel$",
    re.I,
)

_PHONE_CHARS: Final = re.compile(r"[+\d ().\-/]+(?:x|ext\.?)?[\d ]*", re.I)


def international(text: str, match: Match) -> Iterator[Span]:
    start, end = match.span()
    before = text[start - 1] if start else ""
    if plain(before) or before == "_":
        return
    plus = text[start] == "+"
    if not plus and text[max(start - 2, 0) : start - 1].isdigit() and before == " ":
        return  # 0044 in the middle of a longer number
    groups = [found.span() for found in _GROUP.finditer(text, start, end)]
    zeros = 0 if plus else 2
    first = text[groups[0][0] + zeros : groups[0][1]] or text[groups[1][0] : groups[1][1]]
    if not country_code(first + "0000"):
        return
    taken, last = _taken(text, groups, 15 + zeros, 11 + zeros if first[0] == "1" else 15 + zeros)
    digits, parts = sum(e - s for s, e in taken) - zeros, len(taken)
    if digits < (8 if parts > 1 else 9) or (not plus and parts == 1 and digits < 11):
        return
    if parts == 2 and text[taken[0][1] : taken[1][0]] == "." and digits < 10:
        return  # a number with a fraction
    yield start, _with_extension(text, last)


def _taken(text: str, groups: list[Span], most: int, enough: int) -> tuple[list[Span], int]:
    """As many groups as can be one number."""
    taken: list[Span] = []
    size = 0
    for start, end in groups:
        gap = text[taken[-1][1] : start] if taken else ""
        if taken and (size >= enough or "  " in gap or (gap == " " and _is_time(text, start))):
            break
        if taken and len(taken) == 1 and size >= 10:
            break
        if size + end - start > most:
            break
        taken.append((start, end))
        size += end - start
    return taken, taken[-1][1] if taken else 0


def _is_time(text: str, start: int) -> bool:
    return bool(_DATE.match(text, start) or _CLOCK.match(text, start))


def _with_extension(text: str, end: int) -> int:
    found = _EXTENSION.match(text, end)
    return found.end() if found else end


def national(text: str, match: Match) -> Iterator[Span]:
    start, end = match.span()
    if _part_of_more(text, start, end):
        return
    groups = [found.span() for found in _GROUP.finditer(text, start, end)]
    bare = text[groups[0][0] : end]
    if _DATE.match(bare) or _ADDRESS.match(bare):
        return
    if _in_row(text, start, end, first=text[groups[0][0]] == "0"):
        return
    if text[groups[0][0]] != "0":
        yield start, _with_extension(text, end)
        return
    taken, last = _taken(text, groups, 12, 11)
    digits = sum(e - s for s, e in taken)
    shown = text[start:last]
    sizes = [e - s for s, e in taken]
    if len(taken) < 2 or digits < 9 or (min(sizes) < 2 and "(" not in shown) or max(sizes) > 8:
        return
    yield start, _with_extension(text, last)


def _part_of_more(text: str, start: int, end: int) -> bool:
    """Of an identifier, a longer number, a time."""
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    if before[-1:].isalnum() or before[-1:] == "_" or (plain(after[:1]) and after[:1] not in "xe"):
        return True
    if before[-1:] in ("-", "/", ".", ":", ",", "+") and before[:1].isalnum() and len(before) == 2:
        return True
    return after[:1] in ("-", "/", ".", ":", ",", "_") and after[1:].isdigit()


def _in_row(text: str, start: int, end: int, *, first: bool) -> bool:
    """One of several numbers apart by spaces, as in a table.  ``first``: it may have others behind it."""
    if any(mark in text[start:end] for mark in "().-"):
        return False
    before, after = text[max(start - 2, 0) : start], text[end : end + 2]
    behind = after[:1] == " " and after[1:].isdigit() and not first
    return behind or (before[-1:] == " " and before[:1].isdigit())


def phone_named(text: str, match: Match) -> Iterator[Span]:
    if marked(text, match.start()):
        return
    start, end = match.span(1)
    bare = text[start:end]
    if _DATE.match(bare) or _ADDRESS.match(bare) or text[end : end + 1].isalpha():
        return
    yield start, _with_extension(text, end)


@lru_cache(maxsize=4096)
def names_phone(name: str) -> bool:
    return _PHONE_NAME.search(name) is not None


def phone_value(value: str) -> bool:
    """Under such a name."""
    digits = sum(each.isdigit() for each in value)
    return (
        6 <= digits <= 15 and _PHONE_CHARS.fullmatch(value) is not None and not _DATE.match(value)
    )

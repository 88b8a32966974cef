"""Finds what the named detectors look for, in many texts at once (POL-9; google-re2, so in linear time).

One ``re2.Set`` over all texts says which rules could match at all; only those are run.  Each text is read
as it is and as it looks (``fold``).  What is found in both is one place.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

from exeat.gateway.redaction import personal_rules as personal
from exeat.gateway.redaction import secret_rules as secrets
from exeat.gateway.redaction.fold import SEPARATOR, folded
from exeat.gateway.redaction.spans import MARK, Match, Span

CARD, IBAN, EMAIL, PHONE = "card", "iban", "email", "phone"
SECRET: Final = secrets.SECRET
DETECTORS: Final = (SECRET, CARD, IBAN, EMAIL, PHONE)
"""Where two overlap, the first names the place."""
FIELD: Final = "field"
STEPS_MAX: Final = 50_000
"""Matches that one result may cost: what looks like values on every line is withheld, not searched
for seconds."""
_MEMORY_BYTES: Final = 64 * 1024 * 1024


class Unsearchable(Exception):
    """It cannot be said what stands in it, so it must not pass; the message says why, no value."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``hint``: a cheaper pattern that matches wherever ``pattern`` does, or the same."""

    detector: str
    pattern: str
    spans: Callable[[str, Match], Iterator[Span]]
    hint: str = ""


RULES: Final = (
    Rule(SECRET, secrets.PEM, secrets.known, r"BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"),
    Rule(SECRET, secrets.SHAPES, secrets.known),
    Rule(SECRET, secrets.LOOSE_SK, secrets.loose, r"\bsk-"),
    Rule(SECRET, secrets.HEADER, secrets.header, r"(?i)authorization|bearer|dpop|basic|cookie"),
    Rule(SECRET, secrets.ADDRESS, secrets.address, r"://[^\s/\"'<>]{1,256}@"),
    Rule(
        SECRET,
        secrets.NAMED,
        secrets.named,
        r"(?i)pass(?:w|phrase|code)|pwd|secret|token|key|credential|jwt|connection",
    ),
    Rule(SECRET, secrets.OPTION, secrets.named, r"--[0-9A-Za-z]"),
    Rule(SECRET, secrets.ELEMENT, secrets.element, r"</"),
    Rule(CARD, personal.CARD_RUN, personal.cards),
    Rule(IBAN, personal.IBAN_START, personal.ibans),
    Rule(EMAIL, personal.EMAIL, personal.emails),
    Rule(
        PHONE,
        personal.PHONE_INTERNATIONAL,
        personal.international,
        r"(?:\+|00)[ ]?[(\-]?[1-9][ ().\-/0-9]{6}",
    ),
    Rule(PHONE, personal.PHONE_NATIONAL, personal.national, r"[0-9][ ().\-/][ ().\-/0-9]{4}"),
    Rule(
        PHONE,
        personal.PHONE_NAMED,
        personal.phone_named,
        r"(?i)\b(?:tel|phone|mob|cell|fax|whatsapp|handy|sms|msisdn)",
    ),
)


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """``what``: the detector that names it, or FIELD."""

    start: int
    end: int
    what: str


class Finder:
    """For one set of detectors.  Safe to share."""

    def __init__(self, names: Collection[str]) -> None:
        unknown = sorted(set(names) - set(DETECTORS))
        if unknown:
            raise Unsearchable(f"the detector {unknown[0][:40]!r} is not known to this gateway")
        self.names = frozenset(names)
        self._rules = tuple(rule for rule in RULES if rule.detector in self.names)
        options = _options()
        self._compiled: list[Any] = [re2.compile(rule.pattern, options) for rule in self._rules]
        self._hints: Any = re2.Set.SearchSet(options)
        for rule in self._rules:
            self._hints.Add(f"(?:{rule.hint or rule.pattern})")
        self._always = self._hints.Add(r"\A")
        self._hints.Compile()

    def search(self, texts: Sequence[str], steps: int = STEPS_MAX) -> list[list[Found]]:
        """What stands in each text, in order, none overlapping.  Raises Unsearchable."""
        if not self._rules or not texts:
            return [[] for _ in texts]
        clean = [
            text if SEPARATOR not in text else text.replace(SEPARATOR, "\u200b") for text in texts
        ]
        joined = SEPARATOR.join(clean)
        spans = self._spans(joined, steps)
        look = folded(joined)
        if look is not None:
            steps -= len(spans)
            spans += [
                Found(*look.back(each.start, each.end), each.what)
                for each in self._spans(look.text, steps)
            ]
        return _divided(clean, _united(joined, spans)) if spans else [[] for _ in texts]

    def find(self, text: str) -> list[Found]:
        return self.search((text,))[0]

    def _spans(self, text: str, steps: int) -> list[Found]:
        encoded = text.encode("utf-8")
        likely = self._hints.Match(encoded) or ()
        if self._always not in likely:  # re2 says nothing when it runs out of memory
            likely = range(len(self._rules))
        found: list[Found] = []
        for index in sorted(likely):
            if index == self._always:
                continue
            rule = self._rules[index]
            for match in self._compiled[index].finditer(text):
                steps -= 1
                if steps < 0:
                    raise Unsearchable("too much in it looks like what is to be redacted")
                for start, end in rule.spans(text, match):
                    if end > start:
                        found.append(Found(start, end, rule.detector))
        return found


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY_BYTES
    options.log_errors = False
    return options


def _united(text: str, spans: list[Found]) -> list[Found]:
    """Overlapping places as one.  A piece of an escape before it goes, too (``\\nuser@…``)."""
    rank = {name: place for place, name in enumerate((FIELD, *DETECTORS))}
    united: list[Found] = []
    for each in sorted(spans):
        start = each.start
        before = text[max(start - 64, 0) : start]
        if before.endswith("\\") and (len(before) - len(before.rstrip("\\"))) % 2:
            start -= 1
        last = united[-1] if united else None
        if last is not None and start < last.end:
            what = min(last.what, each.what, key=rank.__getitem__)
            united[-1] = Found(last.start, max(last.end, each.end), what)
        else:
            united.append(Found(start, each.end, each.what))
    return united


def _divided(texts: Sequence[str], spans: list[Found]) -> list[list[Found]]:
    divided: list[list[Found]] = []
    at = begin = 0
    for text in texts:
        stop = begin + len(text)
        mine: list[Found] = []
        while at < len(spans) and spans[at].start < stop:
            each = spans[at]
            mine.append(Found(each.start - begin, min(each.end, stop) - begin, each.what))
            at += 1
        divided.append(mine)
        begin = stop + 1
    return divided


@lru_cache(maxsize=64)
def finder(names: frozenset[str]) -> Finder:
    return Finder(names)


def mark(what: str) -> str:
    """What stands in the place of a value."""
    return f"{MARK}{what}]"

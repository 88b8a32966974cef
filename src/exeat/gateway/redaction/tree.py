"""A tree of JSON with every value that a detector finds replaced, wherever it stands."""

import base64
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import re2

from exeat.gateway.redaction import personal_rules as personal
from exeat.gateway.redaction import secret_rules as secrets
from exeat.gateway.redaction.checks import card
from exeat.gateway.redaction.detectors import (
    CARD,
    FIELD,
    PHONE,
    SECRET,
    Finder,
    Found,
    Unsearchable,
    mark,
)
from exeat.gateway.redaction.texts import Coded, Embedded, Opaque, Pieces, dumps, whole_number

ROUNDS_MAX: Final = 4
NEEDLES_MAX: Final = 5_000
NEEDLE_MIN_CHARS: Final = 5


class Cleaner:
    """Learn all trees, search once, then clean each.  ``found``: detector → the different values."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self._new: dict[str, str] = {}
        self._what: dict[str, list[tuple[str, str]]] = {}
        self._needles: set[str] = set()
        self.found: dict[str, set[str]] = {}
        self.changes = 0

    # ---- learning

    def learn(self, value: Any) -> None:
        """Every string of an expanded tree."""
        stack = [value]
        while stack:
            node = stack.pop()
            kind = type(node)
            if kind is str:
                self._new.setdefault(node, node)
            elif kind is dict:
                for key in node:
                    self._new.setdefault(key, key)
                stack.extend(node.values())
            elif kind is list:
                stack.extend(node)
            elif kind is Embedded:
                stack.append(node.tree)
            elif kind is Pieces:
                stack.extend(node.parts)
            elif kind is Coded:
                stack += [node.inner, node.text]  # digits of a card can be base64 of something
            elif kind is Opaque:
                stack.append(node.kind)

    def needle(self, value: Any) -> None:
        """A value that was hidden in one place; it is hidden in texts, too."""
        for text in _scalars(value):
            if len(text) >= NEEDLE_MIN_CHARS:
                self._needles.add(text)
        if len(self._needles) > NEEDLES_MAX:
            raise Unsearchable("it has too many values in fields that are to be redacted")

    def search(self) -> None:
        """Until nothing is found in what stands in the place of what was found."""
        waiting = list(self._new)
        self._hide_needles(waiting)
        for _ in range(ROUNDS_MAX):
            texts = [self._new[text] for text in waiting]
            again: list[str] = []
            for text, now, found in zip(waiting, texts, self._finder.search(texts), strict=True):
                if found:
                    self._new[text] = self._replaced(text, now, found)
                    again.append(text)
            waiting = again
            if not waiting:
                return
        for text in waiting:
            self._new[text] = mark(self._what[text][-1][0])

    def _replaced(self, text: str, now: str, found: Sequence[Found]) -> str:
        pieces: list[str] = []
        at = 0
        what = self._what.setdefault(text, [])
        for each in found:
            pieces.append(now[at : each.start])
            new = mark(each.what)
            if now[at : each.start].rstrip().endswith('":') and now[each.start].isdigit():
                new = f'"{new}"'  # a bare number in a piece of JSON
            pieces.append(new)
            what.append((each.what, now[each.start : each.end]))
            at = each.end
        pieces.append(now[at:])
        return "".join(pieces)

    def _hide_needles(self, texts: list[str]) -> None:
        if not self._needles:
            return
        options = re2.Options()
        options.max_mem = 64 * 1024 * 1024
        options.log_errors = False
        longest = sorted(self._needles, key=len, reverse=True)
        try:
            pattern = re2.compile("|".join(re2.escape(each) for each in longest), options)
        except re2.error:
            raise Unsearchable("its fields that are to be redacted are too large") from None
        for text in texts:
            found = [
                Found(match.start(), match.end(), FIELD)
                for match in pattern.finditer(text)
                if not _inside_word(text, *match.span())
            ]
            if found:
                self._new[text] = self._replaced(text, text, found)

    # ---- cleaning

    def clean(self, value: Any, name: str = "", *, protocol: bool = False) -> Any:
        """``name``: of the member that holds it.  ``protocol``: a number must stay a number."""
        kind = type(value)
        if kind is str:
            return self._string(value, name)
        if kind is dict:
            return self._object(value, protocol=protocol)
        if kind is list:
            return [self.clean(each, name, protocol=protocol) for each in value]
        if kind is bool or value is None:
            return value
        if kind in (int, Decimal, float, msgspec.Raw):
            return self._number(value, name, protocol=protocol)
        return self._holding(value, name)

    def _holding(self, value: Any, name: str) -> str:
        if type(value) is Opaque:
            self.count("data", value.kind)
            return f"[withheld:{self._string(value.kind, '')}]"
        if type(value) is Pieces:
            return "".join(self.clean(each) for each in value.parts)
        before = self.changes
        if type(value) is Coded:
            plain = self._string(value.text, name)
            if plain != value.text:
                return plain
            inner = self.clean(value.inner, name)
            if self.changes == before:
                return value.text
            return value.head + base64.b64encode(inner.encode()).decode()
        named = self._by_name(name, value.text) if type(value.tree) not in (dict, list) else ""
        if named:
            return named
        tree = self.clean(value.tree, name)
        if value.again:
            self.changes += 1  # so that what holds it is written anew as well
        if self.changes == before:
            return str(value.text)
        return dumps(tree, value.text)

    def _string(self, text: str, name: str) -> str:
        named = self._by_name(name, text) if name else ""
        if named:
            return named
        new = self._new[text]
        if new is not text and new != text:
            for what, value in self._what.get(text, ()):
                self.count(what, value)
        return new

    def _by_name(self, name: str, text: str) -> str:
        if not name:
            return ""
        if SECRET in self._finder.names:
            kind = secrets.names_secret(name)
            if kind and secrets.secret_value(kind, text, quoted=True):
                self.count(SECRET, text)
                return mark(SECRET)
        if (
            PHONE in self._finder.names
            and personal.names_phone(name)
            and personal.phone_value(text)
        ):
            self.count(PHONE, text)
            return mark(PHONE)
        return ""

    def _object(self, value: dict[str, Any], *, protocol: bool) -> dict[str, Any]:
        new: dict[str, Any] = {}
        for key, each in value.items():
            name = self._string(key, "")
            count = 1
            while name in new or (name != key and name in value):
                count += 1
                name = f"{self._new[key]}:{count}"
            new[name] = self.clean(each, key, protocol=protocol and key != "_meta")
        return new

    def _number(self, value: Any, name: str, *, protocol: bool) -> Any:
        literal = bytes(value).decode() if type(value) is msgspec.Raw else str(value)
        if len(literal) < 4:
            return value
        digits = whole_number(literal) if len(literal) >= 6 else ""
        names = self._finder.names
        what = ""
        if CARD in names and len(digits) >= 13 and card(digits):
            what = CARD
        elif name and PHONE in names and 7 <= len(digits) <= 15 and personal.names_phone(name):
            what = PHONE
        elif name and SECRET in names and secrets.strong(secrets.names_secret(name)):
            what = SECRET
        elif literal in self._needles:
            what = FIELD
        if not what:
            return value
        self.count(what, literal)
        return 0 if protocol else mark(what)

    def count(self, what: str, value: str) -> None:
        self.changes += 1
        self.found.setdefault(what, set()).add(value)


def shown(value: Any) -> str:
    """The same for the same value in another form, so that it is counted once."""
    kind = type(value)
    if kind is str or kind in (Embedded, Coded):
        return value if kind is str else str(value.text)
    return bytes(value).decode() if kind is msgspec.Raw else str(value)


def _scalars(value: Any) -> list[str]:
    kind = type(value)
    if kind is str:
        return [value]
    if kind is bool or value is None:
        return []
    if kind is dict:
        return [text for each in value.values() for text in _scalars(each)]
    if kind is list:
        return [text for each in value for text in _scalars(each)]
    return [] if kind in (Pieces, Opaque) else [shown(value)]


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return (before.isalnum() and text[start].isalnum()) or (
        after.isalnum() and text[end - 1].isalnum()
    )

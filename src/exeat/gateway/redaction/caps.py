"""The most rows and bytes of a result that pass.  JSON stays JSON, and characters stay whole."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from exeat.gateway.redaction.detectors import Finder
from exeat.gateway.redaction.texts import dumps, loads, looked
from exeat.gateway.wire import encode

CUT: Final = "[withheld: too large]"
FRAGMENTS_MAX: Final = 2_000
"""So many places in a text are tried for being lists of JSON; beyond, its lines alone count."""
_OPENS: Final = re.compile(r"[\[{]")
_DECODER: Final = json.JSONDecoder(strict=False)


class TooLarge(Exception):
    """It cannot be made small enough."""


# ---- rows


def cap_rows(tree: Any, most: int) -> tuple[Any, int, int]:
    """The first elements of arrays that no other array holds, all of them together; the tree, how many
    were kept, how many cut."""
    if type(tree) is list:
        return tree[:most], min(len(tree), most), max(len(tree) - most, 0)
    if type(tree) is dict:
        kept = cut = 0
        new: dict[str, Any] = {}
        for key, value in tree.items():
            new[key], used, less = cap_rows(value, most - kept)
            kept, cut = kept + used, cut + less
        return new, kept, cut
    return tree, 0, 0


def cap_text_rows(text: str, most: int) -> tuple[str, int, int]:
    """JSON by its arrays, anything else by its lines, and by the arrays that stand in them."""
    found = loads(text) if text.lstrip()[:1] in ("{", "[") else None
    if found is not None:
        tree, kept, cut = cap_rows(found[0], most)
        return (dumps(tree, text) if cut else text), kept, cut
    out: list[str] = []
    kept = cut = 0
    for part, tree in _fragments(text):
        if tree is not None:
            tree, used, less = cap_rows(tree, most - kept)
            if kept < most:
                out.append(dumps(tree, part) if less else part)
        elif out and not part.strip():  # the end of the line that a list stands in
            used, less = 0, 0
            out.append(part)
        else:
            lines = part.splitlines(keepends=True)
            used = min(len(lines), most - kept)
            less = len(lines) - used
            out.append("".join(lines[:used]))
        kept, cut = kept + used, cut + less
    return "".join(out), kept, cut


def _fragments(text: str) -> Iterator[tuple[str, Any]]:
    """The text in pieces: lists of JSON in the middle of it with what they hold, and None with the rest."""
    at, tries, budget = 0, FRAGMENTS_MAX, 4 * len(text)
    for match in _OPENS.finditer(text):
        start = match.start()
        if start < at:
            continue
        tries -= 1
        if tries < 0 or budget < 0:
            break
        try:
            tree, stop = _DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            budget -= looked(error, start)
            continue
        except (ValueError, RecursionError):
            continue
        budget -= stop - start
        if cap_rows(tree, 2**31)[1] > 1:
            if start > at:
                yield text[at:start], None
            yield text[start:stop], loads(text[start:stop])[0]  # type: ignore[index]
            at = stop
    if at < len(text):
        yield text[at:], None


def cap_blocks(result: dict[str, Any], most: int) -> tuple[int, int]:
    """Of ``content``, ``contents``, ``messages`` and ``completion``: all of a list count together,
    since servers write a list as one text or as a text for each row.  In place; how many were kept of the
    longest, and how many cut."""
    longest = cut = 0
    for name in ("content", "contents", "messages"):
        blocks = result.get(name)
        if type(blocks) is list:
            result[name], kept, less = _blocks(blocks, most)
            longest, cut = max(longest, kept), cut + less
    completion = result.get("completion")
    if type(completion) is dict and type(completion.get("values")) is list:
        values = completion["values"]
        completion["values"] = values[:most]
        longest, cut = max(longest, min(len(values), most)), cut + max(len(values) - most, 0)
    return longest, cut


def _blocks(blocks: list[Any], most: int) -> tuple[list[Any], int, int]:
    kept: list[Any] = []
    left, cut = most, 0
    for block in blocks:
        if left <= 0:
            cut += _rows(block)
            continue
        used = 1
        for holder in holders(block):
            holder["text"], lines, less = cap_text_rows(holder["text"], left)
            used, cut = max(used, lines), cut + less
        left -= used
        kept.append(block)
    return kept, most - max(left, 0), cut


def _rows(block: Any) -> int:
    rows = 1
    for holder in holders(block):
        rows = max(rows, cap_text_rows(holder["text"], 2**31)[1])
    return rows


def holders(block: Any) -> Iterator[dict[str, Any]]:
    """What in a block, a content or a message holds ``text``."""
    if type(block) is not dict:
        return
    if type(block.get("text")) is str:
        yield block
    for name in ("resource", "content"):
        inner = block.get(name)
        for each in inner if type(inner) is list else [inner]:
            yield from holders(each)


# ---- bytes


@dataclass(slots=True)
class _Part:
    """One thing that can be made smaller, and where it stands."""

    holder: Any
    key: Any
    size: int

    @property
    def value(self) -> Any:
        return self.holder[self.key]


def cap_bytes(
    result: dict[str, Any], most: int, finder: Finder, fits: Callable[[Any], bool]
) -> int:
    """In place; how many bytes were cut.  Raises TooLarge.  ``fits``: of structured content."""
    before = len(encode(result))
    if before <= most:
        return 0
    parts = list(_parts(result))
    free = most - (before - sum(part.size for part in parts))
    if free < 0:
        raise TooLarge
    for part, share in _shares(parts, free):
        if part.size > share:
            _shrink(part, share, finder, fits)
    after = len(encode(result))
    if after > most:
        raise TooLarge
    return before - after


def _parts(result: dict[str, Any]) -> Iterator[_Part]:
    for name in ("content", "contents", "messages"):
        blocks = result.get(name)
        for index, block in enumerate(blocks if type(blocks) is list else ()):
            texts = list(holders(block))
            for holder in texts:
                yield _Part(holder, "text", len(encode(holder["text"])))
            if not texts and blocks is not None:
                yield _Part(blocks, index, len(encode(block)))
    completion = result.get("completion")
    if type(completion) is dict and "values" in completion:
        yield _Part(completion, "values", len(encode(completion["values"])))
    if "structuredContent" in result:
        yield _Part(result, "structuredContent", len(encode(result["structuredContent"])))


def _shares(parts: list[_Part], free: int) -> Iterator[tuple[_Part, int]]:
    """The small ones whole; the others alike."""
    left = len(parts)
    for part in sorted(parts, key=lambda each: each.size):
        share = min(part.size, free // left)
        free, left = free - share, left - 1
        yield part, share


def _shrink(part: _Part, share: int, finder: Finder, fits: Callable[[Any], bool]) -> None:
    value = part.value
    if part.key == "text":
        part.holder["text"] = _small_text(value, share, finder)
    elif part.key == "structuredContent":
        part.holder[part.key] = _small_tree(
            value, lambda tree: len(encode(tree)) <= share and fits(tree), finder
        )
    elif part.key == "values":
        part.holder[part.key] = _small_tree(value, lambda tree: len(encode(tree)) <= share, finder)
    elif len(encode({"type": "text", "text": CUT})) <= share and "type" in value:
        part.holder[part.key] = {"type": "text", "text": CUT}
    else:
        raise TooLarge


def _small_text(text: str, share: int, finder: Finder) -> str:
    found = loads(text)
    if found is None:
        return _cut(text, share, finder)
    if type(found[0]) is str:
        return _none(share)
    try:
        tree = _small_tree(found[0], lambda tree: len(encode(dumps(tree, text))) <= share, finder)
    except TooLarge:
        return _none(share)
    return dumps(tree, text)


def _none(share: int) -> str:
    """Of a text that is JSON; a JSON string itself."""
    for text in (f'"{CUT}"', '""'):
        if len(encode(text)) <= share:
            return text
    raise TooLarge


def _cut(text: str, share: int, finder: Finder) -> str:
    """The longest beginning that fits, in whole characters; nothing in it is found that was not before."""
    if share < 2:
        raise TooLarge
    low = _most(0, min(len(text), share), lambda size: len(encode(text[:size])) <= share)
    kept = text[:low]
    while found := finder.find(kept):
        kept = kept[: found[0].start]
    return kept


def _small_tree(tree: Any, fits: Callable[[Any], bool], finder: Finder) -> Any:
    """Fewer rows; if no row is left and it is too large still, shorter strings."""
    longest = cap_rows(tree, 2**31)[1]
    rows = _most(-1, longest, lambda most: most >= 0 and fits(cap_rows(tree, most)[0]))
    if rows > 0 or (rows == 0 and longest == 0):
        return cap_rows(tree, rows)[0]
    for few in (cap_rows(tree, 1)[0], cap_rows(tree, 0)[0]):
        size = max(_lengths(few), default=0)
        chars = _most(-1, size, lambda most, few=few: most >= 0 and fits(_short(few, most)))  # type: ignore[misc]
        if chars >= 0:
            for _ in range(8):
                new = _short(few, chars)
                if not any(finder.search([each for each in _strings(new) if each])):
                    return new
                chars //= 2
    if rows == 0:
        return cap_rows(tree, 0)[0]
    raise TooLarge


def _most(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The largest that fits, from low (which is not tried) to high, by halving."""
    if high > low and fits(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low


def _strings(tree: Any) -> Iterator[str]:
    if type(tree) is str:
        yield tree
    elif type(tree) is dict:
        for value in tree.values():
            yield from _strings(value)
    elif type(tree) is list:
        for value in tree:
            yield from _strings(value)


def _lengths(tree: Any) -> Iterator[int]:
    return (len(each) for each in _strings(tree))


def _short(tree: Any, most: int) -> Any:
    """Every string cut; one that is JSON is dropped instead."""
    if type(tree) is str:
        if len(tree) <= most:
            return tree
        return "" if tree[:1] in ("{", "[") and loads(tree) is not None else tree[:most]
    if type(tree) is dict:
        return {key: _short(value, most) for key, value in tree.items()}
    if type(tree) is list:
        return [_short(value, most) for value in tree]
    return tree

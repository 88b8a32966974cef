"""What a string holds besides itself: JSON, JSON between lines, base64, data addresses.

JSON in a text stays JSON when something in it is redacted, so it is read as a tree (leniently: what any
reader might take for JSON is read here, too) and written again in the style it had.
"""

import base64
import binascii
import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from exeat.gateway.redaction.detectors import Unsearchable
from exeat.gateway.wire import encode

DEPTH_MAX: Final = 6
"""JSON in a string of JSON in a string …"""
_JSON_STARTS: Final = frozenset('{["')
_NUMBER_STARTS: Final = frozenset("-0123456789")
_SCALAR: Final = r"(?:-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity)\s*[,\]]"
_LINE_OF_JSON: Final = re.compile(
    rf"^[ \t]*(?=\{{\s*[\"}}]|\[\s*(?:[\"\[\]{{]|{_SCALAR}))", re.MULTILINE
)
"""Only what can go on as JSON: a log has a bracket on every line, and each try costs."""
TRIES_MAX: Final = 3_000
"""So many places in a text may begin like JSON and be none (to say where costs as much as what is before)."""
_DATA: Final = re.compile(
    r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]+)*);base64,([A-Za-z0-9+/_-]+=*)"
)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{16,}={0,2}|[A-Za-z0-9_-]{16,}={0,2}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NUMBER: Final = re.compile(r"-?\d{1,40}\Z")
_TEXT_TYPES: Final = re.compile(
    r"text/.*|.*(?:json|xml|yaml|csv|javascript|typescript|html|x-sh|sql|toml|x-www-form-urlencoded|plain).*",
    re.I,
)


@dataclass(slots=True)
class Embedded:
    """A string that is JSON.  ``again``: it is written anew whatever happens (it had a member twice)."""

    text: str
    tree: Any
    again: bool = False


@dataclass(slots=True)
class Pieces:
    """A string of several parts, each one of the things here."""

    parts: list[Any]


@dataclass(slots=True)
class Coded:
    """Base64 of a text, behind ``head``."""

    text: str
    inner: Any
    head: str = ""


@dataclass(slots=True)
class Opaque:
    """What cannot be searched."""

    kind: str


@dataclass(slots=True)
class _Twice:
    found: bool = field(default=False)

    def pairs(self, members: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(members)
        self.found = self.found or len(value) != len(members)
        return value


def _integer(literal: str) -> Any:
    return int(literal) if len(literal) < 19 else msgspec.Raw(literal.encode())


def _literal(literal: str) -> Any:
    return msgspec.Raw(literal.encode())


def _decoder(twice: _Twice) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=twice.pairs,
        parse_int=_integer,
        parse_float=_literal,
        parse_constant=_literal,
        strict=False,
    )


def loads(text: str) -> tuple[Any, bool] | None:
    """The tree, and whether a member stood there twice; None if it is no JSON."""
    twice = _Twice()
    try:
        return _decoder(twice).decode(text), twice.found
    except ValueError:
        return None
    except RecursionError:
        raise Unsearchable("it is nested too deeply") from None


def looked(error: json.JSONDecodeError, start: int) -> int:
    """How far the decoder read before it gave up: for the end of a string, to the end of all."""
    end = len(error.doc) if error.msg.startswith("Unterminated") else error.pos
    return end - start


def dumps(tree: Any, like: str) -> str:
    """Written as ``like`` is: indented, with spaces, or tight; escaped if it was."""
    raw = encode(tree)
    bare = like.strip()
    lines = re.search(r"\n([ \t]*)", bare)
    if lines or '": ' in bare or ", " in bare:
        indent = (len(lines[1].replace("\t", "  ")) or 2) if lines else 0
        with contextlib.suppress(msgspec.MsgspecError):  # NaN and the like
            raw = msgspec.json.format(raw, indent=indent)
    text = raw.decode("utf-8")
    if like.isascii() and not text.isascii():
        text = re.sub(r"[^\x00-\x7f]", _escaped, text)
    return text


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def expand(value: Any, depth: int = 0, *, protocol: bool = False) -> Any:
    """The tree with every string that holds something replaced by what it holds.  ``protocol``: its
    members ``text`` are whole texts, in which a bare number is JSON, too."""
    kind = type(value)
    if kind is str:
        return read(value, depth)
    if kind is dict:
        if any(not key.isascii() and _SURROGATE.search(key) for key in value):
            value = {_sound(key): each for key, each in value.items()}
        return {
            key: read(each, depth, number=True)
            if protocol and key == "text" and type(each) is str
            else expand(each, depth, protocol=protocol)
            for key, each in value.items()
        }
    if kind is list:
        return [expand(each, depth, protocol=protocol) for each in value]
    return value


def _sound(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def read(text: str, depth: int = 0, *, number: bool = False) -> Any:
    """Raises Unsearchable."""
    if not text.isascii() and _SURROGATE.search(text):
        text = _sound(text)
    if len(text) < 6:
        return text
    if depth > DEPTH_MAX:
        raise Unsearchable("it is nested too deeply")
    first = text.lstrip()[:1]
    if first in _JSON_STARTS or (number and first in _NUMBER_STARTS):
        found = loads(text)
        if found is not None:
            again = found[1]
            return Embedded(text, expand(found[0], depth + 1), again)
    if _BASE64.fullmatch(text):
        inner = decoded(text)
        if inner is not None:
            return Coded(text, read(inner, depth + 1))
    if "{" in text or "[" in text:
        parts = _lines(text, depth)
        if len(parts) > 1:
            return Pieces(parts)
    return _addresses(text, depth)


def decoded(text: str) -> str | None:
    """The text that is coded so; None if there is none."""
    tight = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(tight + "=" * (-len(tight) % 4), validate=True)
        inner = raw.decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    return inner if all(each.isprintable() or each in "\t\r\n" for each in inner) else None


def _lines(text: str, depth: int) -> list[Any]:
    """JSON that begins and ends with a line, such as in a log or between fences; the rest is text."""
    parts: list[Any] = []
    at, budget, tries = 0, 4 * len(text) + 10_000, TRIES_MAX
    for match in _LINE_OF_JSON.finditer(text):
        start = match.end()
        if start < at:
            continue
        twice = _Twice()
        try:
            tree, stop = _decoder(twice).raw_decode(text, start)
        except json.JSONDecodeError as error:
            budget, tries = budget - looked(error, start), tries - 1
            if budget < 0 or tries < 0:
                raise Unsearchable("too much in it begins like JSON") from None
            continue
        except RecursionError:
            raise Unsearchable("it is nested too deeply") from None
        line_end = text.find("\n", stop)
        rest = text[stop : line_end if line_end >= 0 else len(text)]
        if rest.strip():
            budget -= stop - start
            if budget < 0:
                raise Unsearchable("too much in it begins like JSON")
            continue
        if start > at:
            parts.append(_addresses(text[at:start], depth))
        parts.append(Embedded(text[start:stop], expand(tree, depth + 1), twice.found))
        at = stop
    if at < len(text):
        parts.append(_addresses(text[at:], depth))
    return parts


def _addresses(text: str, depth: int) -> Any:
    """``data:image/png;base64,…`` in a text."""
    if "data:" not in text or ";base64," not in text:
        return text
    parts: list[Any] = []
    at = 0
    for match in _DATA.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        kind = match[1] or "text/plain"
        inner = decoded(match[3]) if text_like(kind) else None
        head = text[match.start() : match.start(3)]
        if inner is None:
            parts.append(Opaque(kind))
        else:
            parts.append(Coded(match[0], read(inner, depth + 1), head))
        at = match.end()
    if at < len(text):
        parts.append(text[at:])
    return parts[0] if len(parts) == 1 else Pieces(parts)


def text_like(kind: str) -> bool:
    """Whether what has this media type is read as text."""
    bare = kind.partition(";")[0].strip()
    return _TEXT_TYPES.fullmatch(bare) is not None or bare == "image/svg+xml"


def whole_number(literal: str) -> str:
    """The digits of a JSON number without a fraction, however it is written; empty if it has one."""
    if _NUMBER.match(literal):
        return literal.lstrip("-")
    mantissa, _, exponent = literal.lower().partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    shift = (
        int(exponent) if re.fullmatch(r"[+-]?\d{1,3}", exponent) else 0 if not exponent else -999
    )
    digits = (whole + fraction).lstrip("0") if shift >= len(fraction) else ""
    if digits or shift < 0 or shift > 40:
        return digits + "0" * (shift - len(fraction)) if 0 <= shift <= 40 else ""
    kept, cut = fraction[:shift], fraction[shift:]
    return whole + kept if not cut.strip("0") else ""

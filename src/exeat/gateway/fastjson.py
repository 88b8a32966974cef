"""The strict parse at a fraction of its price, for the bodies that agents really send.

msgspec decodes; then it is *shown* that nothing was lost, or the strict parser decides.

1. Most clients write JSON without white space.  If the decoded value, written again, gives the very
   same bytes, the bytes are its one compact form: no duplicate name (it would have been lost), no
   other spelling of a string or number.
2. Otherwise members are counted.  Every member of an object costs one colon outside of strings, so
   the text has at least as many colons as members; a duplicate name would have been counted but not
   decoded.  Hence: as many colons as decoded members means no duplicate, at any depth.  Where strings
   hold colons, the same is shown with ``":``, provided that no quote is followed by white space.

Fractions, and digits enough for an integer beyond 64 bits, go the strict way.  A property test holds
this to ``strictjson.parse`` (GW-2, POL-4).
"""

from typing import Any, Final, NoReturn

import msgspec

from exeat.core.limits import JSON_DEPTH_MAX
from exeat.core.strictjson import parse as strict_parse


class _Fraction(Exception):
    """A number with a fraction or an exponent: its digits are kept by the strict parser only."""


def _fraction(_: str) -> NoReturn:
    raise _Fraction


_decode: Final = msgspec.json.Decoder(float_hook=_fraction).decode
_encode: Final = msgspec.json.Encoder().encode
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_MANY_DIGITS: Final = b"0" * 19
"""Shorter integers fit into 64 bits."""
_AS_ZERO: Final = bytes.maketrans(b"0123456789", b"0000000000")


def parse(raw: bytes) -> Any:
    """As ``strictjson.parse``.  Raises MalformedJson."""
    if raw.count(b"{") + raw.count(b"[") > JSON_DEPTH_MAX:
        return strict_parse(raw)
    try:
        value = _decode(raw)
        if _encode(value) == raw and _MANY_DIGITS not in raw.translate(_AS_ZERO):
            return value
    except (msgspec.MsgspecError, UnicodeDecodeError, _Fraction):
        return strict_parse(raw)
    if not raw.isascii() or b"\\" in raw:
        return strict_parse(raw)
    members = _members(value)
    if members == raw.count(b":") or (members == raw.count(b'":') and not _loose(raw)):
        return value
    return strict_parse(raw)


def _loose(raw: bytes) -> bool:
    """A quote followed by white space: a member name might end there."""
    return b'" ' in raw or b'"\n' in raw or b'"\r' in raw or b'"\t' in raw


def _members(value: Any) -> int | None:
    """The number of object members at any depth; None if a value needs the strict parser."""
    kind = type(value)
    if kind is dict:
        count = len(value)
        for each in value.values():
            if type(each) is str:
                continue
            inner = _members(each)
            if inner is None:
                return None
            count += inner
        return count
    if kind is list:
        count = 0
        for each in value:
            inner = _members(each)
            if inner is None:
                return None
            count += inner
        return count
    if kind is int:
        return 0 if _INT_MIN <= value <= _INT_MAX else None
    return 0

"""The strict parse at a third of its price, for the bodies that agents really send.

msgspec decodes; then it is *shown* that nothing was lost, or the strict parser decides.  Every member
of an object costs one colon outside of strings, so the text has at least as many colons as members;
a duplicate name would have been counted but not decoded.  Hence: as many colons as decoded members
means no duplicate, at any depth.  Where strings hold colons, the same is shown with ``":``, provided
that no quote is followed by white space.  Escapes, bytes beyond ASCII, and values other than strings,
64-bit integers, booleans, null, arrays and objects go the strict way.  A property test holds this to
``strictjson.parse`` (GW-2, POL-4).
"""

from typing import Any, Final

import msgspec

from exeat.core.limits import JSON_DEPTH_MAX
from exeat.core.strictjson import parse as strict_parse

_decode: Final = msgspec.json.Decoder().decode
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1


def parse(raw: bytes) -> Any:
    """As ``strictjson.parse``.  Raises MalformedJson."""
    if not raw.isascii() or b"\\" in raw or raw.count(b"{") + raw.count(b"[") > JSON_DEPTH_MAX:
        return strict_parse(raw)
    try:
        value = _decode(raw)
    except msgspec.MsgspecError:
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
    return None if kind is float else 0

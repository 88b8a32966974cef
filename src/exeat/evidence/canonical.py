"""Canonical bytes and commitments (RFC 8785; EVD-7).

Leaves: msgspec on sorted ASCII fields.  Committed values (arguments) keep every digit of their
numbers (POL-4), so they are not RFC 8785 but ours: UTF-8 JSON, members sorted by code point, no
white space, numbers as they were decided.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final

import msgspec
import rfc8785

from exeat.core.errors import Invalid
from exeat.evidence.model import LEAVES, Leaf

ARGUMENTS: Final = b"exeat/v1/arguments\x00"
TARGET: Final = b"exeat/v1/target\x00"
DETAIL: Final = b"exeat/v1/detail\x00"
RESULT: Final = b"exeat/v1/result\x00"
REASON: Final = b"exeat/v1/reason\x00"
BEFORE: Final = b"exeat/v1/before\x00"
AFTER: Final = b"exeat/v1/after\x00"
SAMPLES: Final = b"exeat/v1/samples\x00"
WIRE: Final = b"exeat/v1/wire\x00"
DOMAINS: Final = (ARGUMENTS, TARGET, DETAIL, RESULT, REASON, BEFORE, AFTER, SAMPLES, WIRE)
SALT_BYTES: Final = 32
_INT_MAX: Final = 2**53 - 1

encode_leaf: Final[Callable[[Any], bytes]] = msgspec.json.Encoder().encode
encode_value: Final[Callable[[Any], bytes]] = msgspec.json.Encoder(
    order="sorted", decimal_format="number"
).encode


class _Kind(msgspec.Struct):
    kind: str


_kind: Final = msgspec.json.Decoder(_Kind).decode
_DECODERS: Final = {kind: msgspec.json.Decoder(leaf).decode for kind, leaf in LEAVES.items()}
_FREE_FORM: Final = frozenset({"event", "log", "counts"})


def commit(domain: bytes, salt: bytes, value: bytes) -> str:
    """EVD-7: binds to ``value`` without showing it; in hexadecimal."""
    return sha256(b"%b%b%b" % (domain, salt, value)).hexdigest()


def free_form(value: Any) -> Any:
    """A JSON value of the control plane in RFC 8785 form; integers beyond 2**53 and
    fractions become strings."""
    return msgspec.Raw(rfc8785.dumps(_narrow(value)))


def _narrow(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -_INT_MAX <= value <= _INT_MAX else str(value)
    if isinstance(value, (str, float, Decimal)):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _narrow(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_narrow(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_narrow(item) for item in value)
    raise Invalid(f"a {type(value).__name__} cannot stand in an entry of the ledger")


def decode_leaf(raw: bytes) -> Leaf:
    """Read one entry.  Raises Invalid unless it is a known one in its one canonical form."""
    try:
        kind = _kind(raw).kind
        leaf = _DECODERS[kind](raw)
        again = rfc8785.dumps(msgspec.json.decode(raw)) if kind in _FREE_FORM else encode_leaf(leaf)
    except KeyError:
        raise Invalid("the entry is of a kind that this version of exeat does not know") from None
    except (msgspec.MsgspecError, rfc8785.CanonicalizationError, UnicodeError, RecursionError):
        raise Invalid("the bytes are not an entry of the ledger") from None
    if again != raw:
        raise Invalid("the entry is not in canonical form (RFC 8785)")
    return leaf

"""Signed messages by the Standard Webhooks specification (standardwebhooks.com), out and in (APP-5).  Pure.

Signed is ``id.timestamp.body`` with HMAC-SHA-256; the header may carry several signatures, while a secret is
being changed.  A signature authenticates the system that sent the message.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from exeat.core.errors import Invalid, Unauthenticated

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
TOLERANCE_S: Final = 300
PREFIX: Final = b"whsec_"
SECRET_MIN_BYTES: Final = 24
SECRET_MAX_BYTES: Final = 64
SIGNATURES_MAX: Final = 10
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._:-]{0,199}")
_SECONDS: Final = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True, slots=True)
class Received:
    """``at``: seconds since the epoch, as the sender says and signed."""

    id: str
    at: int


def read_secret(text: bytes) -> bytes:
    """``whsec_`` and base64 of 24 to 64 bytes.  Raises Invalid, and says nothing of the value."""
    problem = Invalid(
        "The secret of the approval webhook is not whsec_ and base64 of 24 to 64 bytes.",
        remedy="Make one: echo whsec_$(openssl rand -base64 32)",
    )
    if not text.startswith(PREFIX):
        raise problem
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX).strip(), validate=True)
    except (binascii.Error, ValueError):
        raise problem from None
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_MAX_BYTES:
        raise problem
    return secret


def signed(secret: bytes, id: str, at_s: int, body: bytes) -> Mapping[str, str]:
    """The three headers."""
    return {ID: id, TIMESTAMP: str(at_s), SIGNATURE: f"v1,{_mac(secret, id, str(at_s), body)}"}


def verified(secret: bytes, headers: Mapping[str, list[str]], body: bytes, now_s: int) -> Received:
    """``headers``: every value of each, by lower-case name.  Raises Unauthenticated, in the same words
    whatever is wrong but the time."""
    id, at, signatures = (_one(headers, name) for name in (ID, TIMESTAMP, SIGNATURE))
    if not _ID.fullmatch(id) or not _SECONDS.fullmatch(at):
        raise _refused()
    wanted = _mac(secret, id, at, body)
    good = False
    for each in signatures.split(" ")[:SIGNATURES_MAX]:
        version, _, value = each.partition(",")
        good |= version == "v1" and hmac.compare_digest(value.encode(), wanted.encode())
    if not good:
        raise _refused()
    if abs(now_s - int(at)) > TOLERANCE_S:
        raise Unauthenticated(
            f"The message's time is more than {TOLERANCE_S} seconds from now.",
            remedy="Sign it anew when you send it, and keep the sender's clock right.",
        )
    return Received(id, int(at))


def _mac(secret: bytes, id: str, at: str, body: bytes) -> str:
    content = b"%b.%b.%b" % (id.encode(), at.encode(), body)
    return base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode("ascii")


def _one(headers: Mapping[str, list[str]], name: str) -> str:
    found = headers.get(name, [])
    if len(found) != 1:
        raise _refused()
    return found[0]


def _refused() -> Unauthenticated:
    return Unauthenticated(
        "The message is not signed as it must be.",
        remedy="Send webhook-id, webhook-timestamp and webhook-signature once each "
        "(standardwebhooks.com), over the body as it is sent.",
    )

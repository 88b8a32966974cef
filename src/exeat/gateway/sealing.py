"""MRTR's ``requestState``, sealed (2026-07-28, SEP-2322; mcp.md).

The client carries the upstream's state between rounds and could edit or replay it.  What it is given
is AES-256-GCM under a key of ours, bound as additional data to principal, server, method, target
and arguments, and it expires.  Whatever else comes back is refused.
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exeat.core.limits import REQUEST_STATE_LIFE_S
from exeat.gateway.wire import encode

_SORTED: Final = msgspec.json.Encoder(order="sorted", decimal_format="number")
_NONCE_BYTES: Final = 12
_PREFIX: Final = "exs1."
_TIME_BYTES: Final = 8


class StateSealer:
    """``key``: 32 bytes.  ``random``: n → n random bytes.  Times are nanoseconds since the epoch."""

    def __init__(self, key: bytes, random: Callable[[int], bytes]) -> None:
        self._aead = AESGCM(key)
        self._random = random

    def seal(self, state: str, binding: bytes, now: int) -> str:
        expires = now + REQUEST_STATE_LIFE_S * 1_000_000_000
        nonce = self._random(_NONCE_BYTES)
        plain = expires.to_bytes(_TIME_BYTES, "big") + state.encode()
        sealed = nonce + self._aead.encrypt(nonce, plain, binding)
        return _PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii")

    def unseal(self, token: str, binding: bytes, now: int) -> str | None:
        """The upstream's own state, or None: not ours, for another call, edited or expired."""
        if not token.startswith(_PREFIX) or not token.isascii():
            return None
        try:
            sealed = base64.urlsafe_b64decode(token[len(_PREFIX) :])
            if _PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii") != token:
                return None  # the decoder skips what it does not know: only one spelling is ours
            plain = self._aead.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], binding)
        except (InvalidTag, binascii.Error, ValueError):
            return None
        if int.from_bytes(plain[:_TIME_BYTES], "big") < now:
            return None
        return plain[_TIME_BYTES:].decode()


def binding(
    principal: str, server: str, method: str, target: str, params: Mapping[str, Any]
) -> bytes:
    """What a sealed state belongs to.  ``params``: the request's, without the retry's own members."""
    core = {
        key: value
        for key, value in params.items()
        if key not in ("requestState", "inputResponses", "_meta")
    }
    digest = hashlib.sha256(_SORTED.encode(core)).hexdigest()
    return encode([principal, server, method, target, digest])

"""PKCE with S256 (RFC 7636); the method ``plain`` does not exist here."""

import base64
import re
from hashlib import sha256
from hmac import compare_digest
from typing import Final

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")


def challenge_is_sound(challenge: str) -> bool:
    return _CHALLENGE.fullmatch(challenge) is not None


def verifier_matches(challenge: str, verifier: str) -> bool:
    """RFC 7636 4.6."""
    if _VERIFIER.fullmatch(verifier) is None:
        return False
    made = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=")
    return compare_digest(made, challenge.encode("utf-8", "replace"))

"""Links to a consent page: sealed, so that they say nothing, cannot be made up, and end (ID-9).

They are no credential: the page asks who the browser's person is, and serves only the one meant.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

LIFE_S: Final = 900
_HEADER: Final = {"alg": "dir", "enc": "A256GCM"}
_LENGTH_MAX: Final = 8192


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be consented to.  ``whose``: agent/person.  ``metadata``: where the server's challenge
    said that its metadata stands, or empty."""

    server: str
    whose: str
    scopes: tuple[str, ...]
    metadata: str

    @property
    def person(self) -> str:
        return self.whose.partition("/")[2]


class ConsentLinks:
    """``key``: 32 bytes that all gateways of one home share.  ``clock``: nanoseconds since the epoch."""

    def __init__(self, key: bytes, clock: Callable[[], int]) -> None:
        derived = HKDF(hashes.SHA256(), 32, None, b"exeat upstream consent link 1").derive(key)
        self._key = OctKey.import_key(derived)
        self._clock = clock

    def seal(self, wish: Wish) -> str:
        expires = self._clock() // 1_000_000_000 + LIFE_S
        plain = json.dumps([wish.server, wish.whose, list(wish.scopes), wish.metadata, expires])
        return jwe.encrypt_compact(dict(_HEADER), plain.encode(), self._key)

    def open(self, link: str) -> Wish | None:
        """None: not ours, edited or expired."""
        if len(link) > _LENGTH_MAX:
            return None
        try:
            opened = jwe.decrypt_compact(link, self._key, algorithms=["dir", "A256GCM"])
            value: list[Any] = json.loads(opened.plaintext or b"")
        except (JoseError, ValueError):
            return None
        server, whose, scopes, metadata, expires = value
        if self._clock() // 1_000_000_000 >= expires:
            return None
        return Wish(server, whose, tuple(scopes), metadata)

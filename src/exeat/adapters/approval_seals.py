"""Seals held calls under a key that the vault keeps (ADR 0040).

The vault wraps that key as it wraps every secret, shares it between gateways, and rotates what wraps it.
AES-256-GCM; additional data is where the sealed value lies, so that no row opens in another's place.
"""

import threading
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exeat.core.errors import NotFound, VaultFailed
from exeat.core.secret import TENANT, SecretId
from exeat.identity.vault.service import Vault
from exeat.identity.vault.store import By, VaultChange

KEY: Final = SecretId(TENANT, "", "", "approvals:key")
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_BOUND: Final = b"exeat/approvals/1/"


class VaultSeals:
    """Seals.  ``by``: who makes the key, once, and when."""

    def __init__(
        self, vault: Vault[VaultChange], draw: Callable[[int], bytes], by: Callable[[], By]
    ) -> None:
        self._vault, self._draw, self._by = vault, draw, by
        self._cipher: AESGCM | None = None
        self._lock = threading.Lock()

    def ready(self) -> None:
        with self._lock:
            if self._cipher is None:
                self._cipher = AESGCM(self._key())

    def seal(self, place: str, value: bytes) -> bytes:
        nonce = self._draw(NONCE_BYTES)
        return nonce + self._known().encrypt(nonce, value, _BOUND + place.encode())

    def open(self, place: str, sealed: bytes) -> bytes:
        try:
            nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
            return self._known().decrypt(nonce, body, _BOUND + place.encode())
        except (InvalidTag, ValueError):
            raise VaultFailed(
                f"The arguments of {place} do not open: the row was altered, or the key is another.",
                remedy="Deny it; when the agent calls again, it is asked again.",
            ) from None

    def _known(self) -> AESGCM:
        if self._cipher is None:
            raise VaultFailed("The key of approvals was not read.", remedy="Try again.")
        return self._cipher

    def _key(self) -> bytes:
        try:
            return self._vault.get(KEY)
        except NotFound:
            with self._vault.store.change() as tx:
                if tx.secret(KEY) is None:
                    self._vault.put_in(tx, KEY, self._draw(KEY_BYTES), self._by())
            return self._vault.get(KEY)

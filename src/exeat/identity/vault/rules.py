"""Envelope encryption (ID-10), pure given its random bytes.

AES-256-GCM twice: the value under a data key that is new for each secret and version, the data key
under a key-encryption key.  Both are bound to tenant, agent, upstream, name and version as additional
data (NIST SP 800-38D), each behind its length, so that a row that is copied or renamed does not open.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exeat.core.errors import VaultFailed
from exeat.core.secret import SecretId
from exeat.identity.vault.model import KEY_BYTES, Sealed, VaultKey

NONCE_BYTES: Final = 12
_VALUE: Final = b"exeat/vault/1/value"
_DATA_KEY: Final = b"exeat/vault/1/data-key"

Draw = Callable[[int], bytes]
"""That many random bytes."""


def seal(id: SecretId, version: int, value: bytes, key: VaultKey, draw: Draw) -> Sealed:
    data_key = draw(KEY_BYTES)
    return Sealed(
        key.id,
        _encrypt(key.secret, data_key, _bound(_DATA_KEY, id, version), draw),
        _encrypt(data_key, value, _bound(_VALUE, id, version), draw),
    )


def unseal(id: SecretId, version: int, sealed: Sealed, key: VaultKey) -> bytes:
    """Raises VaultFailed if anything of it was altered, copied or renamed."""
    data_key = _unwrap(id, version, sealed, key)
    return _decrypt(data_key, sealed.body, _bound(_VALUE, id, version), id)


def rewrap(
    id: SecretId, version: int, sealed: Sealed, old: VaultKey, new: VaultKey, draw: Draw
) -> Sealed:
    """The same data key under another key; the value's ciphertext stays as it is."""
    data_key = _unwrap(id, version, sealed, old)
    wrapped = _encrypt(new.secret, data_key, _bound(_DATA_KEY, id, version), draw)
    return replace(sealed, key=new.id, wrapped=wrapped)


def _unwrap(id: SecretId, version: int, sealed: Sealed, key: VaultKey) -> bytes:
    return _decrypt(key.secret, sealed.wrapped, _bound(_DATA_KEY, id, version), id)


def _bound(what: bytes, id: SecretId, version: int) -> bytes:
    parts = (id.tenant, id.agent, id.upstream, id.name, str(version))
    encoded = (part.encode() for part in parts)
    return what + b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def _encrypt(key: bytes, value: bytes, bound: bytes, draw: Draw) -> bytes:
    nonce = draw(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, value, bound)


def _decrypt(key: bytes, sealed: bytes, bound: bytes, id: SecretId) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise VaultFailed(
            f"Secret {id.name} does not open: its row was altered or belongs to another place.",
            remedy=f"Set it again: exeat secret set {id.shown}",
        ) from None

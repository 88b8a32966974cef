"""Sealed values: salts and values under a key per data subject (EVD-7).

A record of values: ``tag | salt (32) | length (uint32) | value`` per value, the tag being the
number of its domain.  A segment: ``key id (uint64) | nonce (12) | length (uint32) | AES-256-GCM``
over ``index (uint64) | length (uint32) | record`` of every entry of one subject in one batch; its
associated data are the log's origin and the batch's first index.  Erasing a subject's key erases
its values; the leaves keep their commitments.
"""

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from exeat.evidence.canonical import DOMAINS, SALT_BYTES
from exeat.evidence.store import LedgerBroken, SubjectKey

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
CACHED_KEYS_MAX: Final = 4096
TAGS: Final[Mapping[bytes, bytes]] = {domain: bytes([n]) for n, domain in enumerate(DOMAINS)}
_U32: Final = struct.Struct(">I")
_ENTRY: Final = struct.Struct(">QI")
_SEGMENT: Final = struct.Struct(f">Q{NONCE_BYTES}sI")
pack_u32: Final = _U32.pack


def value_record(values: Iterable[tuple[bytes, bytes, bytes]]) -> bytes:
    """``(domain, salt, value)`` → one record."""
    return b"".join(
        [b"%b%b%b%b" % (TAGS[domain], salt, pack_u32(len(v)), v) for domain, salt, v in values]
    )


def read_record(record: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    """One record → domain → (salt, value)."""
    values, at = {}, 0
    while at < len(record):
        domain, start = DOMAINS[record[at]], at + 1 + SALT_BYTES
        (length,) = _U32.unpack_from(record, start)
        at = start + _U32.size + length
        values[domain] = (record[start - SALT_BYTES : start], record[start + _U32.size : at])
    return values


def associated(origin: str, first: int) -> bytes:
    return b"exeat/v1/sealed\x00%b\x00%d" % (origin.encode(), first)


def wrap_key(master: bytes, subject: str, key: bytes, nonce: bytes) -> bytes:
    return nonce + AESGCM(master).encrypt(nonce, key, subject.encode())


def unwrap_key(master: bytes, wrapped: SubjectKey) -> bytes:
    """Raises LedgerBroken if the master key is another one."""
    blob = wrapped.wrapped
    try:
        return AESGCM(master).decrypt(
            blob[:NONCE_BYTES], blob[NONCE_BYTES:], wrapped.subject.encode()
        )
    except InvalidTag:
        raise LedgerBroken(
            "the master key does not open this ledger's values",
            remedy="Restore keys/master.key that belongs to this home.",
        ) from None


class Sealer:
    """Seals batches.  The loop uses it while no batch is in flight, the committer's thread otherwise."""

    def __init__(self, origin: str, master: bytes, random: Callable[[int], bytes]) -> None:
        self._origin, self._master, self._random = origin, master, random
        self._known: dict[str, tuple[int, AESGCM]] = {}

    def forget(self) -> None:
        """After a failed commit: keys that were made for it may not exist."""
        self._known.clear()

    def knows(self, values: Sequence[tuple[str, int, bytes]]) -> bool:
        """Whether sealing these needs no look-up of a key."""
        known = self._known
        return all(subject in known for subject in {value[0] for value in values})

    def seal(
        self,
        first: int,
        values: Sequence[tuple[str, int, bytes]],
        key_of: Callable[[str], SubjectKey | None],
    ) -> tuple[bytes, list[SubjectKey]]:
        """``(subject, index, record)`` of one batch → its sealed blob, and the keys made for it."""
        subjects: dict[str, list[bytes]] = {}
        for subject, index, record in values:
            parts = subjects.get(subject)
            if parts is None:
                parts = subjects[subject] = []
            parts += (_ENTRY.pack(index, len(record)), record)
        made: list[SubjectKey] = []
        sealed: list[bytes] = []
        bound = associated(self._origin, first)
        nonces = self._random(NONCE_BYTES * len(subjects))
        for n, (subject, parts) in enumerate(subjects.items()):
            key_id, cipher = self._known.get(subject) or self._key(subject, key_of, made)
            nonce = nonces[n * NONCE_BYTES : (n + 1) * NONCE_BYTES]
            text = cipher.encrypt(nonce, b"".join(parts), bound)
            sealed += (_SEGMENT.pack(key_id, nonce, len(text)), text)
        return b"".join(sealed), made

    def _key(
        self, subject: str, key_of: Callable[[str], SubjectKey | None], made: list[SubjectKey]
    ) -> tuple[int, AESGCM]:
        kept = key_of(subject)
        if kept is not None:
            key = unwrap_key(self._master, kept)
        else:
            key = self._random(KEY_BYTES)
            wrapped = wrap_key(self._master, subject, key, self._random(NONCE_BYTES))
            kept = SubjectKey(int.from_bytes(self._random(8)) >> 1, subject, wrapped)
            made.append(kept)
        if len(self._known) >= CACHED_KEYS_MAX:
            self._known.clear()
        self._known[subject] = found = (kept.id, AESGCM(key))
        return found


def open_sealed(
    sealed: bytes, bound: bytes, key: Callable[[int], bytes | None]
) -> dict[int, dict[bytes, tuple[bytes, bytes]]]:
    """Index → domain → (salt, value), for every subject whose key remains.  Raises LedgerBroken."""
    found: dict[int, dict[bytes, tuple[bytes, bytes]]] = {}
    at = 0
    try:
        while at < len(sealed):
            key_id, nonce, length = _SEGMENT.unpack_from(sealed, at)
            at += _SEGMENT.size + length
            secret = key(key_id)
            if secret is not None:
                plain = AESGCM(secret).decrypt(nonce, sealed[at - length : at], bound)
                _read_entries(plain, found)
    except (InvalidTag, struct.error, IndexError):
        raise LedgerBroken("sealed values of the ledger were altered") from None
    return found


def _read_entries(plain: bytes, found: dict[int, dict[bytes, tuple[bytes, bytes]]]) -> None:
    at = 0
    while at < len(plain):
        index, length = _ENTRY.unpack_from(plain, at)
        at += _ENTRY.size + length
        found[index] = read_record(plain[at - length : at])

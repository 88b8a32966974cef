"""Where the ledger is kept, and what "durable" means there."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from exeat.core.errors import LedgerUnavailable

KEEP_AND_COMPARE: Final = (
    "Nothing was changed. Keep the file, run `exeat evidence verify` on it, and start with a "
    "restored copy or a new instance name."
)
_LENGTH: Final = struct.Struct(">H")


class LedgerBroken(LedgerUnavailable):
    """The file contradicts itself or a checkpoint: cut, torn or altered.  A person must look."""

    code = "ledger_broken"

    def __init__(self, message: str, *, remedy: str = KEEP_AND_COMPARE) -> None:
        super().__init__(message, remedy=remedy)


class StoreFailed(Exception):
    """The store could not: disk full, read-only, I/O error, locked.  The text names the cause."""


@dataclass(frozen=True, slots=True)
class Row:
    """One committed batch.  ``leaves``: each leaf behind its uint16 length, as in a tlog entry
    bundle.  ``frontier``: of the tree that ends with this row."""

    first: int
    count: int
    leaves: bytes
    sealed: bytes
    frontier: bytes

    @property
    def end(self) -> int:
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """``wrapped`` is empty once the subject's values were erased."""

    id: int
    subject: str
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class OpenState:
    """Decisions before entry ``size`` that still waited for their outcome, packed."""

    size: int
    packed: bytes


def pack_leaves(leaves: Sequence[bytes]) -> bytes:
    pack = _LENGTH.pack
    return b"".join([part for leaf in leaves for part in (pack(len(leaf)), leaf)])


def unpack_leaves(packed: bytes) -> list[bytes]:
    """Raises LedgerBroken if the lengths do not add up."""
    leaves, at, end = [], 0, len(packed)
    while at < end:
        if at + 2 > end:
            raise LedgerBroken("a row of the ledger is torn")
        start = at + 2
        at = start + (packed[at] << 8 | packed[at + 1])
        leaves.append(packed[start:at])
    if at != end:
        raise LedgerBroken("a row of the ledger is torn")
    return leaves


class LedgerReader(Protocol):
    """Reading, also while a gateway writes, also from a copy."""

    def rows(self, index: int = 0) -> Iterator[Row]:
        """The row that holds entry ``index`` and all later ones, in order."""
        ...

    def row_before(self, index: int) -> Row | None:
        """The last row that ends at or before ``index``."""
        ...

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        """Tree size and signed note, ascending."""
        ...

    def subject_key(self, key_id: int) -> SubjectKey | None: ...

    def close(self) -> None:
        """Never raises."""
        ...


class Recoverable(Protocol):
    """What recovery reads (see ``recovery.recover``)."""

    def rows(self, index: int = 0) -> Iterator[Row]: ...
    def row_before(self, index: int) -> Row | None: ...
    def last_checkpoint(self) -> tuple[int, bytes] | None: ...
    def published(self) -> bytes | None: ...
    def open_state(self) -> OpenState | None: ...


class StoredLedger(LedgerReader, Recoverable, Protocol):
    """All of a ledger that lies somewhere, for those who examine it."""

    def subject_keys(self) -> Iterator[SubjectKey]: ...


class LedgerStore(LedgerReader, Protocol):
    """One writer.  Every method raises StoreFailed for what the disk or database refuses; after
    that the caller closes and opens again, and trusts only what it then reads."""

    def open(self) -> None:
        """Take the one writer's place.  Raises LedgerBroken, StoreFailed."""
        ...

    def append(self, row: Row, keys: Sequence[SubjectKey], open_state: OpenState | None) -> None:
        """Row, new keys and state together: **durable once it returns**, or not there at all, or,
        if it raises, either."""
        ...

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        """Keep a signed checkpoint and publish it beside the ledger; durable once it returns."""
        ...

    def last_checkpoint(self) -> tuple[int, bytes] | None: ...

    def published(self) -> bytes | None:
        """The checkpoint that was last published beside the ledger."""
        ...

    def open_state(self) -> OpenState | None: ...

    def key_of(self, subject: str) -> SubjectKey | None:
        """The subject's key that is in use."""
        ...

    def free_bytes(self) -> int:
        """Room left for the ledger."""
        ...

    def durability(self) -> str:
        """EVD-9: what "durable" means here: ``local``, ``replicated`` or ``no fsync``."""
        ...

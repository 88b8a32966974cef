"""The tail of a ledger: batches that are durable already and not yet in its SQLite file (EVD-3).

A file of fixed size, written full of zeros once, so that one ``pwrite`` and one ``fdatasync`` make a
batch durable; SQLite's own commit costs twice that, whatever its size.  Batches are moved into SQLite
together.  Records follow each other from the start of the file: header, leaves, sealed values,
frontier.  After a move the next record overwrites the first, so what follows the last record is old:
it is known by its indexes, which only grow.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from zlib import crc32

from exeat.evidence.store import LedgerBroken, Row, StoreFailed

TAIL_BYTES: Final = 1024 * 1024
_ID_BYTES: Final = 32
_MAGIC: Final = b"exeat tail 1\n\0\0\0"
_START: Final = len(_MAGIC) + _ID_BYTES
_MARK: Final = b"\x89EXR"
_HEADER: Final = struct.Struct(">4sQIIIH")
_CRC: Final = struct.Struct(">I")
_HEAD: Final = _HEADER.size + _CRC.size


class Tail:
    """Of one writer.  Raises OSError for what the disk refuses."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._at = _START
        found = os.fstat(descriptor)
        self._size = found.st_size
        self._file = (found.st_dev, found.st_ino)

    @classmethod
    def create(cls, path: Path, name: str) -> "Tail":
        """A new one in place of what is there.  ``name``: 32 ASCII characters that bind it to its
        ledger; durable once it returns."""
        new = path.with_name(path.name + ".new")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(descriptor, _MAGIC + name.encode("ascii"), 0)
            _write(descriptor, bytes(TAIL_BYTES - _START), _START)
            os.fsync(descriptor)
            new.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    @classmethod
    def open(cls, path: Path) -> "Tail":
        return cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def fits(self, row: Row) -> bool:
        """Whether the row has room behind the last one."""
        return self._at + _length(row) <= self._size

    def append(self, row: Row) -> None:
        """Durable once it returns."""
        parts = (row.leaves, row.sealed, row.frontier)
        head = _HEADER.pack(_MARK, row.first, row.count, *map(len, parts))
        crc = crc32(head)
        for part in parts:
            crc = crc32(part, crc)
        length = _length(row)
        if os.pwritev(self._descriptor, (head, _CRC.pack(crc), *parts), self._at) != length:
            raise StoreFailed(f"{self.path.name} took only a part of the batch")
        os.fdatasync(self._descriptor)
        self._at += length

    def rewind(self) -> None:
        """Everything was moved: the next record is the first again."""
        self._at = _START

    def same_file(self) -> bool:
        """False once the file was removed or replaced: it would take batches and keep none."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def close(self) -> None:
        os.close(self._descriptor)


def read_tail(path: Path, name: str, start: int) -> Iterator[Row]:
    """The batches from entry ``start`` on.  A last record that is torn was never acknowledged and is
    left out.  Raises LedgerBroken if the file belongs to another ledger, or a whole record lies
    behind what cannot be read; OSError."""
    data = path.read_bytes()
    if data[:_START] != _MAGIC + name.encode("ascii"):
        raise LedgerBroken(f"{path.name} does not belong to this ledger")
    at, wanted = _START, start
    while (row := _record(data, at)) is not None and row.first <= wanted:
        at += _length(row)
        if row.first == wanted:
            wanted = row.end
            yield row
        elif row.end > wanted:
            break
    while (at := data.find(_MARK, at)) >= 0:
        row = _record(data, at)
        if row is not None and row.first >= wanted:
            raise LedgerBroken(f"{path.name} was damaged: entry {wanted} cannot be read")
        at += 1


def _length(row: Row) -> int:
    return _HEAD + len(row.leaves) + len(row.sealed) + len(row.frontier)


def _record(data: bytes, at: int) -> Row | None:
    """The record there, if it is whole."""
    if at + _HEAD > len(data):
        return None
    mark, first, count, leaves, sealed, frontier = _HEADER.unpack_from(data, at)
    begin = at + _HEAD
    end = begin + leaves + sealed + frontier
    if mark != _MARK or end > len(data):
        return None
    (crc,) = _CRC.unpack_from(data, at + _HEADER.size)
    if crc32(data[begin:end], crc32(data[at : at + _HEADER.size])) != crc:
        return None
    middle = begin + leaves
    return Row(
        first, count, data[begin:middle], data[middle : end - frontier], data[end - frontier : end]
    )


def _write(descriptor: int, data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(descriptor, data, at)
        data, at = data[done:], at + done

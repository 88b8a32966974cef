"""Whole copies of a state and of a ledger, made while a gateway goes on writing both."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from exeat.core.errors import StateUnavailable
from exeat.evidence.store import OpenState, Row, StoredLedger
from exeat.storage.engine import DATABASE_NAME, SQLITE_BUSY_MAX_MS
from exeat.storage.ledger import (
    INSERT_ROW,
    LEDGER_SCHEMA,
    SCHEMA_VERSION,
    SqliteLedgerReader,
    translated,
)


class LedgerMoment:
    """A ledger as of now, while its writer goes on: checkpoints and open decisions are read first,
    so every entry that they speak of is among the rows, which only grow."""

    def __init__(self, reader: StoredLedger) -> None:
        self._open_state = reader.open_state()
        self._last, self._published = reader.last_checkpoint(), reader.published()
        self._reader = reader

    def rows(self, index: int = 0) -> Iterator[Row]:
        return self._reader.rows(index)

    def row_before(self, index: int) -> Row | None:
        return self._reader.row_before(index)

    def open_state(self) -> OpenState | None:
        return self._open_state

    def last_checkpoint(self) -> tuple[int, bytes] | None:
        return self._last

    def published(self) -> bytes | None:
        return self._published


@dataclass(frozen=True, slots=True)
class LedgerCopy:
    """``entries`` in it; the last ``checkpoint`` that was signed over a part of them."""

    entries: int
    checkpoint: bytes | None


def copy_state(home: Path, target: Path) -> None:
    """``home/state.db`` at one moment, by SQLite's own backup.  Raises StateUnavailable."""
    source = (home / DATABASE_NAME).absolute().as_uri() + "?mode=ro"
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            closing(sqlite3.connect(source, uri=True, timeout=SQLITE_BUSY_MAX_MS / 1000)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
            (sound,) = new.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        raise StateUnavailable(
            f"The state cannot be copied: {error}.", remedy="Run `exeat doctor`."
        ) from None
    if sound != "ok":
        raise StateUnavailable("The state is damaged.", remedy="Restore an earlier backup.")


def copy_ledger(source: Path, target: Path) -> LedgerCopy:
    """Every entry that was durable when it began, sealed values, keys of subjects, checkpoints, open
    decisions; also what is still in the tail.  Raises LedgerBroken, StoreFailed.

    The order matters while a writer goes on: open decisions and checkpoints first (what they speak
    of is then among the rows), keys of subjects last (every row that is copied has its key).
    """
    with translated(), closing(SqliteLedgerReader(source)) as reader:
        moment = LedgerMoment(reader)
        notes = list(reader.checkpoints())
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(target, isolation_level=None)) as db:
            db.executescript(f"BEGIN; {LEDGER_SCHEMA}")
            size = 0
            for row in reader.rows():
                size = row.end
                values = (row.first, row.count, row.leaves, row.sealed, row.frontier)
                db.execute(INSERT_ROW, values)
            db.executemany("INSERT INTO checkpoints VALUES (?, ?)", notes)
            keys = ((key.id, key.subject, key.wrapped) for key in reader.subject_keys())
            db.executemany("INSERT INTO subject_keys VALUES (?, ?, ?)", keys)
            state = moment.open_state()
            if state is not None:
                db.execute("INSERT INTO open_state VALUES (1, ?, ?)", (state.size, state.packed))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
    return LedgerCopy(size, notes[-1][1] if notes else None)

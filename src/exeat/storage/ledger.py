"""The ledger in one SQLite file: WAL, synchronous=FULL, one writer (EVD-3).

One row per batch.  Batches become durable in ``<file>.tail`` first (see ``tail``) and are moved into
SQLite together: with every heartbeat, when the tail is full, and at the end.  ``<file>.lock`` keeps a
second writer out, ``<file>.checkpoint`` shows the last signed checkpoint.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from exeat.evidence.store import (
    LedgerBroken,
    LedgerReader,
    OpenState,
    Row,
    StoreFailed,
    SubjectKey,
)
from exeat.storage.tail import Tail, read_tail

SCHEMA_VERSION: Final = 1
BUSY_TIME_MAX_S: Final = 2.0
CHECKPOINT_AFTER_MOVES: Final = 8
WAL_CHECKPOINT_PAGES: Final = 64_000
"""SQLite copies its log back inside of a commit only if the thread that does it beside has fallen
behind by 250 MiB."""
WAL_KEPT_BYTES: Final = 64 * 1024 * 1024
LEDGER_SCHEMA: Final = """
CREATE TABLE batches (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, leaves BLOB NOT NULL,
    sealed BLOB NOT NULL, frontier BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT;
CREATE TABLE subject_keys (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, wrapped BLOB NOT NULL)
    STRICT;
CREATE INDEX subject_keys_by_subject ON subject_keys (subject);
CREATE TABLE open_state (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL,
    packed BLOB NOT NULL) STRICT;
"""
_TAIL: Final = """CREATE TABLE IF NOT EXISTS tail (one INTEGER PRIMARY KEY CHECK (one = 1),
    name TEXT NOT NULL) STRICT"""
"""Holds a row while there is a tail; its name is written in the file."""
INSERT_ROW: Final = "INSERT INTO batches VALUES (?, ?, ?, ?, ?)"
_ROW: Final = "SELECT first, count, leaves, sealed, frontier FROM batches"
_TAIL_GONE: Final = "{0}.tail is gone, and with it entries that were durable"
_MALFORMED: Final = "the file is not a whole ledger: it was cut or damaged"


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as the store's: damage is LedgerBroken, refusal is StoreFailed."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _damaged(error):
            raise LedgerBroken(_MALFORMED) from error
        raise StoreFailed(str(error)) from error
    except (sqlite3.Error, OSError) as error:
        raise StoreFailed(getattr(error, "strerror", None) or str(error)) from error


class SqliteLedgerReader:
    """Reads a ledger or an exported copy; never writes.  Raises LedgerBroken, StoreFailed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise StoreFailed(f"there is no ledger at {path}")
        alone = not path.with_name(path.name + "-wal").exists()
        with translated():
            mode = "mode=ro&immutable=1" if alone else "mode=ro"
            uri = f"{path.resolve().as_uri()}?{mode}"
            self._db = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._db.execute("PRAGMA trusted_schema = OFF")
            self._db.execute("PRAGMA cell_size_check = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            raise LedgerBroken(f"{path.name} is not a ledger that this version of exeat can read")

    def close(self) -> None:
        self._db.close()

    def rows(self, index: int = 0) -> Iterator[Row]:
        """Also what is still in the tail; a writer may move it while we read."""
        wanted = index
        while True:
            for row in self._stored(wanted):
                yield row
                wanted = row.end
            for row in self._in_tail():
                if row.end > wanted and row.first <= wanted:
                    yield row
                    wanted = row.end
            if self._stored_size() <= wanted:
                return

    def _stored(self, index: int) -> Iterator[Row]:
        before = self._db.execute("SELECT max(first) FROM batches WHERE first <= ?", (index,))
        with translated():
            start = before.fetchone()[0] or 0
            for values in self._db.execute(f"{_ROW} WHERE first >= ? ORDER BY first", (start,)):
                row = _row(values)
                if row.end > index:
                    yield row

    def _in_tail(self) -> list[Row]:
        """Batches that are not in the file yet."""
        with translated():
            while name := self._tail_name():
                stored = self._stored_size()
                try:
                    return list(read_tail(self._beside(".tail"), name, stored))
                except FileNotFoundError:
                    if self._tail_name() == name:  # else: closed in the meantime
                        raise LedgerBroken(_TAIL_GONE.format(self.path.name)) from None
                except LedgerBroken:
                    if self._stored_size() == stored:  # else: moved, and the tail begun anew
                        raise
            return []

    def _stored_size(self) -> int:
        """Where the last row in the file ends."""
        with translated():
            found = self._db.execute(
                "SELECT first + count FROM batches ORDER BY first DESC LIMIT 1"
            ).fetchone()
        return 0 if found is None else int(found[0] or 0)

    def _tail_name(self) -> str:
        if not self._has("tail"):
            return ""
        found = self._db.execute("SELECT name FROM tail").fetchone()
        return "" if found is None else str(found[0])

    def row_before(self, index: int) -> Row | None:
        with translated():
            values = self._db.execute(
                f"{_ROW} WHERE first + count <= ? AND first < ? ORDER BY first DESC LIMIT 1",
                (index, index),
            ).fetchone()
        found = None if values is None else _row(values)
        for row in self._in_tail():
            if row.end <= index:
                found = row
        return found

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        with translated():
            for size, note in self._db.execute("SELECT size, note FROM checkpoints ORDER BY size"):
                yield int(size), bytes(note)

    def subject_key(self, key_id: int) -> SubjectKey | None:
        if not self._has("subject_keys"):
            return None
        with translated():
            found = self._db.execute(
                "SELECT id, subject, wrapped FROM subject_keys WHERE id = ?", (key_id,)
            ).fetchone()
        return None if found is None else SubjectKey(*found)

    def last_checkpoint(self) -> tuple[int, bytes] | None:
        with translated():
            found = self._db.execute(
                "SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1"
            ).fetchone()
        return None if found is None else (found[0], found[1])

    def published(self) -> bytes | None:
        with translated():
            beside = self._beside(".checkpoint")
            return beside.read_bytes() if beside.exists() else None

    def open_state(self) -> OpenState | None:
        with translated():
            found = self._db.execute("SELECT size, packed FROM open_state").fetchone()
        return None if found is None else OpenState(found[0], found[1])

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def subject_keys(self) -> Iterator[SubjectKey]:
        if self._has("subject_keys"):
            with translated():
                for found in self._db.execute("SELECT id, subject, wrapped FROM subject_keys"):
                    yield SubjectKey(*found)

    def _has(self, table: str) -> bool:
        with translated():
            found = self._db.execute(
                "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)
            ).fetchone()
        return found is not None


def _row(values: tuple[Any, ...]) -> Row:
    first, count, leaves, sealed, frontier = values
    if not (isinstance(first, int) and isinstance(count, int) and first >= 0 and count > 0):
        raise LedgerBroken(_MALFORMED)
    return Row(first, count, bytes(leaves), bytes(sealed), bytes(frontier))


class SqliteLedgerStore(SqliteLedgerReader):
    """The one writer.  Used by one thread at a time; methods are those of LedgerStore."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection
        self._opened = False
        self._lock = -1
        self._file = (0, 0)
        self._tail: Tail | None = None
        self._unmoved: list[Row] = []
        self._beside_thread: ThreadPoolExecutor | None = None
        self._copying: Future[None] | None = None
        self._moves = 0

    def open(self) -> None:
        with translated():
            if self._file != (0, 0):
                self._must_be_the_same()  # never a second ledger in place of one under way
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            try:
                self._connect()
            except BaseException:
                self.close()
                raise

    def _take_lock(self) -> None:
        descriptor = os.open(self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StoreFailed(
                f"another process writes {self.path.name}: one ledger has one writer"
            ) from None
        self._lock = descriptor

    def _connect(self) -> None:
        if not self.path.exists():
            if self._beside(".checkpoint").exists():
                raise LedgerBroken(f"{self.path.name} is gone, but a checkpoint of it remains")
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = self._db = sqlite3.connect(
            self.path, timeout=BUSY_TIME_MAX_S, isolation_level=None, check_same_thread=False
        )
        self._opened = True
        self._file = self._identity()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cell_size_check = ON")
        db.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(
                f"BEGIN; {LEDGER_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise LedgerBroken(f"{self.path.name} has the unknown format {version}")
        self._open_tail()

    def _open_tail(self) -> None:
        """Move what the last writer left, then begin anew in the same file."""
        self._db.execute(_TAIL)
        name, path = self._tail_name(), self._beside(".tail")
        if name:
            self._unmoved = self._in_tail()
            self._commit((), None)
            self._tail = Tail.open(path)
            return
        name = uuid4().hex
        self._tail = Tail.create(path, name)
        self._db.execute("INSERT OR REPLACE INTO tail VALUES (1, ?)", (name,))

    def _must_be_the_same(self) -> None:
        """A file that was removed goes on taking entries, and keeps none of them."""
        if self._tail is not None and not self._tail.same_file():
            raise LedgerBroken(_TAIL_GONE.format(self.path.name))
        if self._identity() != self._file:
            raise StoreFailed(f"{self.path.name} was replaced while it was written")

    def _identity(self) -> tuple[int, int]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino

    def append(self, row: Row, keys: Sequence[SubjectKey], open_state: OpenState | None) -> None:
        with translated():
            self._must_be_the_same()
            tail = self._tail
            if tail is not None and not keys and open_state is None and tail.fits(row):
                tail.append(row)
                self._unmoved.append(row)
            else:
                self._unmoved.append(row)
                self._commit(keys, open_state)

    def _commit(self, keys: Sequence[SubjectKey], open_state: OpenState | None) -> None:
        """Everything that is not in SQLite yet, in one transaction; then the tail is empty."""
        execute = self._db.execute
        try:
            execute("BEGIN IMMEDIATE")
            for key in keys:
                execute(
                    "INSERT INTO subject_keys VALUES (?, ?, ?)", (key.id, key.subject, key.wrapped)
                )
            if open_state is not None:
                execute(
                    "INSERT OR REPLACE INTO open_state VALUES (1, ?, ?)",
                    (open_state.size, open_state.packed),
                )
            self._db.executemany(
                INSERT_ROW,
                [(r.first, r.count, r.leaves, r.sealed, r.frontier) for r in self._unmoved],
            )
            execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise
        self._unmoved.clear()
        if self._tail is not None:
            self._tail.rewind()
        self._moves += 1
        if self._moves >= CHECKPOINT_AFTER_MOVES:
            self._copy_back()

    def _copy_back(self) -> None:
        """Let SQLite copy its log into the file on a thread of its own: commits do not wait for it."""
        if self._copying is not None and not self._copying.done():
            return
        if self._beside_thread is None:
            self._beside_thread = ThreadPoolExecutor(1, "ledger-copy")
        self._moves = 0
        self._copying = self._beside_thread.submit(_checkpoint, self.path)

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        with translated():
            self._db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (size, note))
            new = self._beside(".checkpoint.new")
            with new.open("wb") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._beside(".checkpoint"))

    def key_of(self, subject: str) -> SubjectKey | None:
        with translated():
            found = self._db.execute(
                "SELECT id, subject, wrapped FROM subject_keys "
                "WHERE subject = ? AND length(wrapped) > 0 ORDER BY rowid DESC LIMIT 1",
                (subject,),
            ).fetchone()
        return None if found is None else SubjectKey(*found)

    def free_bytes(self) -> int:
        with translated():
            disk = os.statvfs(self.path.parent)
            return disk.f_bavail * disk.f_frsize

    def durability(self) -> str:
        return "local"

    def close(self) -> None:
        if self._opened:
            self._opened = False
            if self._beside_thread is not None:
                self._beside_thread.shutdown(wait=True)
                self._beside_thread = None
            with contextlib.suppress(sqlite3.Error, OSError):
                self._end_tail()
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _end_tail(self) -> None:
        """Move what is left; a ledger that was closed well is one file.  If that fails, the tail
        stays, and the next to open the ledger moves it."""
        tail, self._tail = self._tail, None
        left, self._unmoved = self._unmoved, []
        if tail is None:
            return
        tail.close()
        if not tail.same_file() or self._identity() != self._file:
            return
        with contextlib.suppress(LedgerBroken):
            self._unmoved = self._in_tail()
        if len(self._unmoved) < len(left):
            return
        self._commit((), None)
        self._db.execute("DELETE FROM tail")
        tail.path.unlink()


def _checkpoint(path: Path) -> None:
    """PASSIVE: it waits for nobody and holds nobody up.  What fails here fails in a commit, too."""
    with contextlib.suppress(sqlite3.Error):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            db.close()


def export_ledger(source: Path | LedgerReader, target: Path) -> int:
    """A self-contained copy without sealed values and keys.  Returns the number of entries."""
    if target.exists():
        raise StoreFailed(f"{target} exists already")
    reader = SqliteLedgerReader(source) if isinstance(source, Path) else source
    size = 0
    with translated():
        db = sqlite3.connect(target, isolation_level=None)
        try:
            db.executescript(f"BEGIN; {LEDGER_SCHEMA}")
            db.execute("DROP TABLE subject_keys")
            db.execute("DROP TABLE open_state")
            for row in reader.rows():
                size = row.end
                db.execute(
                    "INSERT INTO batches VALUES (?, ?, ?, x'', ?)",
                    (row.first, row.count, row.leaves, row.frontier),
                )
            for at, note in reader.checkpoints():
                if at <= size:
                    db.execute("INSERT INTO checkpoints VALUES (?, ?)", (at, note))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
            db.execute("VACUUM")
        finally:
            db.close()
            reader.close()
    return size

"""The ledger in PostgreSQL: one log per gateway instance, many logs in one database (EVD-1, EVD-3).

A batch is a row, durable once its INSERT has returned.  Two things keep a log from forking.  *Fencing*:
opening raises the log's epoch, and every INSERT asks for it, so a writer that was taken for dead
appends no more.  *Density*: the first entry's number is the key, so of two writers one fails.  After
any failure the caller opens again and trusts only what it then reads.

Nothing may hang: the connection, each statement at the server, and each answer at the client have
their limits, since a network that is silent tells nobody that it is.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exeat.evidence.store import LedgerBroken, OpenState, Row, StoreFailed, SubjectKey
from exeat.storage.engine import POSTGRES_PATIENCE, libpq_address
from exeat.storage.patience import WATCH, PatientConnection
from exeat.storage.publish import publish

ANSWER_MAX_S: Final = 3.0
_SESSION: Final = (
    f"-c statement_timeout={int(ANSWER_MAX_S * 1000)} -c lock_timeout=2000"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
    " -c tcp_user_timeout=10000"
)
"""The server's own patience, too: the log of a gateway whose machine has vanished is free again after
some ten seconds, not after the system's two hours."""
PAGE_ROWS: Final = 200
ROOM_BYTES: Final = 2**40
"""Room at the server is its operator's matter; a full disk there fails the commit."""
_APPEND: Final = """INSERT INTO ledger_batches (origin, first, count, leaves, sealed, frontier)
    SELECT %s, %s, %s, %b, %b, %b
    WHERE EXISTS (SELECT 1 FROM ledger_writers WHERE origin = %s AND epoch = %s)"""
_END_HOLDER: Final = """SELECT pg_terminate_backend(pid, 2000) FROM pg_locks
    WHERE pid = %s AND locktype = 'advisory' AND granted AND objsubid = 1
    AND (classid::bigint << 32) | objid::bigint = %s
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
"""Only who holds the log's lock: a number in a table may be another session's by now."""
_ROW: Final = "SELECT first, count, leaves, sealed, frontier FROM ledger_batches WHERE origin = %s"


def plain(error: Exception) -> str:
    """PostgreSQL's errors without SQL, values or addresses."""
    if isinstance(error, psycopg.errors.UniqueViolation):
        return "another gateway wrote to this log"
    if isinstance(error, psycopg.errors.DiskFull):
        return "the database's disk is full"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "the database is read-only (a standby?)"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "the database refuses this user"
    if isinstance(error, psycopg.OperationalError):
        return "the database cannot be reached"
    if isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None:
        return "the database address is not one of PostgreSQL"
    return f"the database failed ({type(error).__name__})"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OSError) as error:
        raise StoreFailed(plain(error)) from error


def connect(url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """``url`` as the state takes it: what it says of ``options`` or patience stands beside ours, so
    that state and record lie in the same place.  Raises psycopg.Error."""
    given = conninfo_to_dict(libpq_address(url))
    ours = {**POSTGRES_PATIENCE, "tcp_user_timeout": int(ANSWER_MAX_S * 1000)}
    options = f"{_SESSION} {given.pop('options', None) or ''}".rstrip()
    return PatientConnection.connect(
        make_conninfo("", **{**ours, **given, "options": options}), autocommit=True
    )


class PostgresLedgerReader:
    """Reads one log, also while a gateway writes it.  Raises LedgerBroken, StoreFailed."""

    def __init__(self, url: str, origin: str, checkpoint: Path | None = None) -> None:
        self._url, self.origin, self._checkpoint = url, origin, checkpoint
        self._db: psycopg.Connection[tuple[Any, ...]] | None = None

    def _query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with _translated():
            if self._db is None or self._db.closed:
                self._db = connect(self._url)
            return self._db.execute(text, values, binary=True).fetchall()

    def rows(self, index: int = 0) -> Iterator[Row]:
        found = self._query(
            "SELECT max(first) FROM ledger_batches WHERE origin = %s AND first <= %s",
            self.origin, index,
        )  # fmt: skip
        start = found[0][0] or 0
        while page := self._query(
            f"{_ROW} AND first >= %s ORDER BY first LIMIT {PAGE_ROWS}", self.origin, start
        ):
            for values in page:
                row = Row(*values)
                if row.end > index:
                    yield row
                start = row.end

    def row_before(self, index: int) -> Row | None:
        found = self._query(
            f"{_ROW} AND first + count <= %s AND first < %s ORDER BY first DESC LIMIT 1",
            self.origin, index, index,
        )  # fmt: skip
        return Row(*found[0]) if found else None

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        yield from self._query(
            "SELECT size, note FROM ledger_checkpoints WHERE origin = %s ORDER BY size", self.origin
        )

    def subject_key(self, key_id: int) -> SubjectKey | None:
        found = self._query(
            "SELECT id, subject, wrapped FROM ledger_keys WHERE origin = %s AND id = %s",
            self.origin, key_id,
        )  # fmt: skip
        return SubjectKey(*found[0]) if found else None

    def last_checkpoint(self) -> tuple[int, bytes] | None:
        found = self._query(
            "SELECT size, note FROM ledger_checkpoints WHERE origin = %s ORDER BY size DESC LIMIT 1",
            self.origin,
        )
        return (found[0][0], found[0][1]) if found else None

    def open_state(self) -> OpenState | None:
        found = self._query(
            "SELECT size, packed FROM ledger_open_state WHERE origin = %s", self.origin
        )
        return OpenState(*found[0]) if found else None

    def subject_keys(self) -> Iterator[SubjectKey]:
        for found in self._query(
            "SELECT id, subject, wrapped FROM ledger_keys WHERE origin = %s ORDER BY n", self.origin
        ):
            yield SubjectKey(*found)

    def published(self) -> bytes | None:
        path = self._checkpoint
        with _translated():
            return path.read_bytes() if path is not None and path.exists() else None

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(psycopg.Error):
                self._db.close()
            self._db = None


class PostgresLedgerStore(PostgresLedgerReader):
    """The one writer of a log.  Used by one thread at a time; methods are those of LedgerStore.

    ``holder``: who we are, in words, for whoever finds the log taken."""

    def __init__(self, url: str, origin: str, holder: str, checkpoint: Path | None = None) -> None:
        super().__init__(url, origin, checkpoint)
        self._holder, self._token = holder, uuid4().hex
        self._epoch = 0
        digest = sha256(b"exeat ledger " + origin.encode()).digest()
        self._lock_key = int.from_bytes(digest[:8], signed=True)

    def open(self) -> None:
        with _translated():
            db = connect(self._url)
            with contextlib.ExitStack() as stack:
                stack.callback(db.close)
                with WATCH.over(db, ANSWER_MAX_S):
                    self._must_be_durable(db)
                    self._take(db)
                stack.pop_all()
            self._db = db

    def _must_be_durable(self, db: "psycopg.Connection[Any]") -> None:
        (setting,) = db.execute("SHOW synchronous_commit").fetchone() or ("",)
        if setting == "off":
            raise StoreFailed(
                "the database has synchronous_commit = off, so a commit would not be durable; switch it"
                " on for this user or database"
            )

    def durability(self) -> str:
        """EVD-9: what "durable" means here, in a word: ``no fsync``, ``local`` or ``replicated``."""
        values = dict(
            self._query(
                "SELECT name, setting FROM pg_settings"
                " WHERE name IN ('fsync', 'synchronous_standby_names', 'synchronous_commit')"
            )
        )
        if values.get("fsync") != "on":
            return "no fsync"
        waits = values.get("synchronous_commit") in ("on", "remote_write", "remote_apply")
        return "replicated" if values.get("synchronous_standby_names") and waits else "local"

    def _take(self, db: "psycopg.Connection[Any]") -> None:
        """The session's lock keeps a second writer out while we live; the epoch fences the dead."""
        if not self._locked(db):
            holder = db.execute(
                "SELECT holder, token, backend FROM ledger_writers WHERE origin = %s",
                (self.origin,),
            ).fetchone()
            if holder is not None and holder[1] == self._token:
                # our own last session, which the server does not know to be over
                db.execute(_END_HOLDER, (holder[2], self._lock_key))
            try:  # the server may still be ending a session that its client has closed
                db.execute("SELECT pg_advisory_lock(%s)", (self._lock_key,))
            except psycopg.errors.LockNotAvailable:
                who = holder[0] if holder is not None else "unknown"
                raise StoreFailed(f"another gateway writes this log: {who}") from None
        (self._epoch,) = db.execute(
            "INSERT INTO ledger_writers VALUES (%s, 1, %s, %s, pg_backend_pid())"
            " ON CONFLICT (origin) DO UPDATE SET epoch = ledger_writers.epoch + 1,"
            " holder = excluded.holder, token = excluded.token, backend = excluded.backend"
            " RETURNING epoch",
            (self.origin, self._holder, self._token),
        ).fetchone() or (0,)

    def _locked(self, db: "psycopg.Connection[Any]") -> bool:
        found = db.execute("SELECT pg_try_advisory_lock(%s)", (self._lock_key,)).fetchone()
        return found is not None and bool(found[0])

    @contextlib.contextmanager
    def _connection(self) -> Iterator["psycopg.Connection[tuple[Any, ...]]"]:
        """The session that holds the log; never a new one in its place."""
        db = self._db
        if db is None or db.closed:
            raise StoreFailed("the database cannot be reached")
        with _translated(), WATCH.over(db, ANSWER_MAX_S):
            yield db

    def _query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection() as db:
            return db.execute(text, values, binary=True).fetchall()

    def append(self, row: Row, keys: Sequence[SubjectKey], open_state: OpenState | None) -> None:
        with self._connection() as db:
            if not keys and open_state is None:
                self._insert(db, row)
                return
            with db.transaction():
                for key in keys:
                    db.execute(
                        "INSERT INTO ledger_keys (origin, id, subject, wrapped) VALUES (%s, %s, %s, %b)",
                        (self.origin, key.id, key.subject, key.wrapped),
                    )
                if open_state is not None:
                    db.execute(
                        "INSERT INTO ledger_open_state VALUES (%s, %s, %b) ON CONFLICT (origin)"
                        " DO UPDATE SET size = excluded.size, packed = excluded.packed",
                        (self.origin, open_state.size, open_state.packed),
                    )
                self._insert(db, row)

    def _insert(self, db: "psycopg.Connection[Any]", row: Row) -> None:
        values = (self.origin, row.first, row.count, row.leaves, row.sealed, row.frontier)
        done = db.execute(_APPEND, (*values, self.origin, self._epoch))
        if done.rowcount != 1:
            raise StoreFailed("another gateway took this log over")

    def keep_checkpoint(self, size: int, note: bytes) -> None:
        with self._connection() as db:
            db.execute(
                "INSERT INTO ledger_checkpoints VALUES (%s, %s, %b) ON CONFLICT (origin, size)"
                " DO UPDATE SET note = excluded.note",
                (self.origin, size, note),
            )
        path = self._checkpoint
        if path is None:
            return
        with _translated():
            publish(path, note)

    def key_of(self, subject: str) -> SubjectKey | None:
        found = self._query(
            "SELECT id, subject, wrapped FROM ledger_keys WHERE origin = %s AND subject = %s"
            " AND length(wrapped) > 0 ORDER BY n DESC LIMIT 1",
            self.origin, subject,
        )  # fmt: skip
        return SubjectKey(*found[0]) if found else None

    def free_bytes(self) -> int:
        return ROOM_BYTES


def commit_times(url: str, times: int) -> list[float]:
    """Seconds that durable commits take.  Each writes a message into the server's log of changes that
    nobody reads, and no table.  Raises StoreFailed."""
    took = []
    with _translated(), connect(url) as db:
        for _ in range(times):
            began = time.perf_counter()
            db.execute("SELECT pg_logical_emit_message(true, 'exeat', 'doctor')")
            took.append(time.perf_counter() - began)
    return took


def origins(url: str) -> list[str]:
    """The logs in a database.  Raises StoreFailed."""
    with _translated(), connect(url) as db:
        there = db.execute("SELECT to_regclass('ledger_writers')").fetchone()
        if there is None or there[0] is None:
            return []
        return [row[0] for row in db.execute("SELECT origin FROM ledger_writers ORDER BY origin")]


__all__ = [
    "LedgerBroken",
    "PostgresLedgerReader",
    "PostgresLedgerStore",
    "commit_times",
    "origins",
    "plain",
]

"""Connections: one engine for SQLite or PostgreSQL, and its two kinds of transaction.

A *change* locks out other writers from its first moment (SQLite BEGIN IMMEDIATE, PostgreSQL a row
lock on ``state``), so what it reads stays true until it commits.  A *read* sees one consistent
moment (SQLite WAL, PostgreSQL REPEATABLE READ) and waits for nobody.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from exeat.core.errors import ExeatError, StateUnavailable

SQLITE_BUSY_MAX_MS: Final = 5000
POSTGRES_PATIENCE: Final = {
    "connect_timeout": 2,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
}
"""A server that vanished without a word is noticed within seconds, not in the system's two hours."""
DATABASE_NAME: Final = "state.db"


def sqlite_engine(home: Path) -> sa.Engine:
    """``home/state.db``, 0600 in a directory of 0700: nobody else may read who may do what."""
    path = home / DATABASE_NAME
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise StateUnavailable(
            f"The state in {home} cannot be opened: {error.strerror}.",
            remedy="Give --home a directory that you may write, or set EXEAT_HOME.",
        ) from None
    existing = {"mode": "rw", "uri": "true"}  # never an empty database in place of a lost one
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=path.absolute().as_uri(), query=existing)
    )

    def opened(dbapi: Any, record: Any) -> None:
        record.info["file"] = _identity(path)
        dbapi.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            f"busy_timeout = {SQLITE_BUSY_MAX_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",  # a commit that returned survives a power cut
            "foreign_keys = ON",
            "trusted_schema = OFF",
        ):
            dbapi.execute(f"PRAGMA {pragma}")

    def taken(_dbapi: Any, record: Any, _proxy: Any) -> None:
        """A file that was removed or replaced would be read for ever as it last was: open anew."""
        if record.info["file"] != _identity(path):
            raise sa.exc.DisconnectionError("the file was replaced")

    def begun(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("exeat_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "connect", opened)
    sa.event.listen(engine, "checkout", taken)
    sa.event.listen(engine, "begin", begun)
    return engine


def sqlite_reader(home: Path) -> sa.Engine:
    """``home/state.db`` as it is: nothing is made, changed or migrated; no file beside it either, while
    nobody has it open."""
    path = home / DATABASE_NAME
    query = {"mode": "ro", "uri": "true"}
    if not path.with_name(path.name + "-wal").exists():
        query["immutable"] = "1"
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=path.absolute().as_uri(), query=query),
        poolclass=sa.pool.NullPool,
    )

    def opened(dbapi: Any, _record: Any) -> None:
        dbapi.isolation_level = None
        dbapi.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_MAX_MS}")
        dbapi.execute("PRAGMA trusted_schema = OFF")

    def begun(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    sa.event.listen(engine, "connect", opened)
    sa.event.listen(engine, "begin", begun)
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands there; None if none can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def libpq_address(url: str) -> str:
    """SQLAlchemy's spelling, ``postgresql+driver://…``, as PostgreSQL's own library reads it."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{mark}{rest}" if mark else url


def postgres_engine(url: str) -> sa.Engine:
    """``postgresql://…`` through psycopg 3."""
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise ValueError(parsed.get_backend_name())
        engine = sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={**POSTGRES_PATIENCE, **parsed.query},
        )
    except ModuleNotFoundError:
        raise StateUnavailable(
            "The PostgreSQL driver is not installed.", remedy="Install `exeat[postgres]`."
        ) from None
    except (ValueError, sa.exc.ArgumentError):
        raise StateUnavailable(
            "The database address is not one of PostgreSQL.",
            remedy="Write it as postgresql://user@host/database.",
        ) from None
    sa.event.listen(engine, "do_connect", _patient)
    return engine


def _patient(_dialect: Any, _record: Any, args: Any, options: Any) -> Any:
    """Every wait of the pool's connections ends, its own ping included."""
    from exeat.storage.patience import PatientConnection

    return PatientConnection.connect(*args, **options)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One consistent moment."""
    with plain_errors(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection = connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            yield connection


@contextmanager
def changing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Commits at the end of the block; an exception leaves nothing."""
    with plain_errors(), engine.connect() as connection:
        connection = connection.execution_options(exeat_writes=True)
        with connection.begin():
            yield connection


@contextmanager
def plain_errors() -> Iterator[None]:
    """Database errors never leave with their SQL, which may hold values."""
    try:
        yield
    except ExeatError:
        raise
    except sa.exc.SQLAlchemyError as error:
        raise StateUnavailable(
            f"The state cannot be read or written ({type(error).__name__}).",
            remedy="Check that the database runs, has room, and is not held by another process.",
        ) from None

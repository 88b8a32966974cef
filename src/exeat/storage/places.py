"""Where the ledgers of a deployment lie: files in a home, or logs in its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exeat.core.errors import StateUnavailable
from exeat.evidence.store import StoredLedger
from exeat.storage.ledger import SqliteLedgerReader


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """``name``: of the instance whose log it is.  ``home``: whose keys open its values."""

    name: str
    home: Path | None
    path: Path | None = None
    url: str = ""
    origin: str = ""

    def reader(self) -> StoredLedger:
        """Raises StoreFailed, LedgerBroken."""
        if self.path is not None:
            return SqliteLedgerReader(self.path)
        with _driver():
            from exeat.storage.ledger_postgres import PostgresLedgerReader
        beside = checkpoint_path(self.home, self.name) if self.home is not None else None
        return PostgresLedgerReader(self.url, self.origin, beside)

    @property
    def shown(self) -> str:
        return self.path.name if self.path is not None else self.origin

    def published(self) -> tuple[bytes, ...]:
        """The checkpoint that lies beside."""
        if self.path is not None:
            beside = self.path.with_name(self.path.name + ".checkpoint")
        elif self.home is not None:
            beside = checkpoint_path(self.home, self.name)
        else:
            return ()
        return (beside.read_bytes(),) if beside.is_file() else ()


def checkpoint_path(home: Path, instance: str) -> Path:
    """Of a log in the database: a gateway keeps the last checkpoint that it signed in its home, too."""
    return home / "ledger" / f"{instance}.checkpoint"


def commit_times(url: str, times: int) -> list[float]:
    """Seconds that durable commits in the database take.  Raises StoreFailed, StateUnavailable."""
    with _driver():
        from exeat.storage.ledger_postgres import commit_times as measured
    return measured(url, times)


@contextmanager
def _driver() -> Iterator[None]:
    """The driver is an extra, and only imported where a database is set."""
    try:
        yield
    except ModuleNotFoundError:
        raise StateUnavailable(
            "The PostgreSQL driver is not installed.", remedy="Install `exeat[postgres]`."
        ) from None


def file_place(path: Path) -> LedgerPlace:
    return LedgerPlace(path.stem, path.parent.parent, path)


def places(home: Path, url: str | None) -> list[LedgerPlace]:
    """Every log of a home.  Raises StoreFailed, StateUnavailable if the database cannot be
    read."""
    found = [file_place(path) for path in sorted((home / "ledger").glob("*.db"))]
    if url is not None:
        with _driver():
            from exeat.storage.ledger_postgres import origins
        found += [
            LedgerPlace(origin.rpartition("/")[2], home, url=url, origin=origin)
            for origin in origins(url)
        ]
    return found

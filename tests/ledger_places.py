"""Where one log is kept, in a home or in a database: opened as often as a test likes."""

from pathlib import Path
from typing import Any

from ledger_world import ORIGIN, SEED, World

from exeat.evidence.store import LedgerReader, LedgerStore
from exeat.storage.ledger import SqliteLedgerReader, SqliteLedgerStore
from exeat.storage.state import open_state


class Place:
    """``url``: of a PostgreSQL database; None keeps the logs in files of ``folder``."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder, self.url = folder, url
        self._made: list[Any] = []
        if url is not None:
            open_state(folder, url).close()  # makes the tables

    def _file(self, origin: str) -> Path:
        return self.folder / "ledger" / f"{origin.rpartition('/')[2]}.db"

    def store(self, origin: str = ORIGIN) -> LedgerStore:
        made: LedgerStore
        if self.url is None:
            made = SqliteLedgerStore(self._file(origin))
        else:
            from exeat.storage.ledger_postgres import PostgresLedgerStore

            beside = self._file(origin).with_suffix(".checkpoint")
            made = PostgresLedgerStore(self.url, origin, "gw-1 here", beside)
        self._made.append(made)
        return made

    def reader(self, origin: str = ORIGIN) -> LedgerReader:
        if self.url is None:
            made: LedgerReader = SqliteLedgerReader(self._file(origin))
        else:
            from exeat.storage.ledger_postgres import PostgresLedgerReader

            made = PostgresLedgerReader(self.url, origin)
        self._made.append(made)
        return made

    def world(self, origin: str = ORIGIN, seed: bytes = SEED) -> World:
        """A ledger on a store of this place."""
        return World(Path(), store=self.store(origin), origin=origin, seed=seed)

    def end_sessions(self) -> None:
        """At the server, as an administrator or a failover would."""
        import psycopg

        assert self.url is not None
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    def close(self) -> None:
        for made in self._made:
            made.close()

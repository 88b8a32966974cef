"""A hint that registry or policy changed: LISTEN/NOTIFY of PostgreSQL.

Only a hint: it comes in the moment of the commit and makes a gateway look at once.  A lost one costs
nothing but the time to the next poll, and no decision rests on it.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exeat.storage.engine import POSTGRES_PATIENCE, libpq_address
from exeat.storage.registry import CHANGED

_WAIT_S: Final = 0.5
_RETRY_S: Final = 1.0


class Hints:
    """``heard`` is called in a thread of its own."""

    def __init__(self, url: str, heard: Callable[[], None]) -> None:
        self._url, self._heard = url, heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="exeat-hints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_WAIT_S * 4)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(psycopg.Error, OSError):
                self._listen()
            self._stopping.wait(_RETRY_S)

    def _listen(self) -> None:
        given = conninfo_to_dict(libpq_address(self._url))
        address = make_conninfo("", **{**POSTGRES_PATIENCE, **given})
        with contextlib.closing(psycopg.connect(address, autocommit=True)) as db:
            db.execute(f"LISTEN {CHANGED}")
            self._heard()  # what was told while nobody listened
            while not self._stopping.is_set():
                for _ in db.notifies(timeout=_WAIT_S, stop_after=1):
                    self._heard()

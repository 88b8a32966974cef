"""An end to waiting for a database that went silent.

libpq waits for an answer for ever; keepalives do not help where something on the way still answers for
the network and nothing for the database (a wedged proxy, a server that is stopped).  So each wait has a
deadline of ours, and a connection that misses it is cut: its statement's fate is unknown.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg

STATE_ANSWER_MAX_S: Final = 5.0
"""For registry, policy, and readers of the record; APP-10 denies long before."""
_FOREVER: Final = float("inf")


class Watch:
    """Cuts connections whose answer is overdue, in one thread."""

    def __init__(self) -> None:
        self._held: dict[object, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._earlier = threading.Event()
        self._asleep_until = 0.0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, connection: "psycopg.Connection[Any]", seconds: float) -> Iterator[None]:
        """The block must end in so many seconds; else the connection breaks, and the block with it."""
        mine, deadline = object(), time.monotonic() + seconds
        with self._lock:
            self._held[mine] = (deadline, connection.fileno())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="db-watch", daemon=True)
                self._thread.start()
            if deadline < self._asleep_until:
                self._earlier.set()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(mine, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._cut_overdue()
                first = min((deadline for deadline, _ in self._held.values()), default=_FOREVER)
                self._asleep_until = first
                self._earlier.clear()
            self._earlier.wait(None if first == _FOREVER else max(0.0, first - time.monotonic()))

    def _cut_overdue(self) -> None:
        now = time.monotonic()
        for key, (deadline, descriptor) in list(self._held.items()):
            if deadline <= now:
                del self._held[key]
                with (
                    contextlib.suppress(OSError),
                    socket.socket(fileno=os.dup(descriptor)) as end,
                ):
                    end.shutdown(socket.SHUT_RDWR)


WATCH: Final = Watch()


class PatientConnection(psycopg.Connection[Any]):
    """Each answer within STATE_ANSWER_MAX_S, or psycopg.OperationalError and a broken connection."""

    def wait(self, *args: Any, **options: Any) -> Any:
        with WATCH.over(self, STATE_ANSWER_MAX_S):
            return super().wait(*args, **options)

"""Permits that were used: each once, remembered until nobody could use it again."""

import heapq
import threading
from typing import Final

SEEN_MAX: Final = 100_000


class Seen:
    """In this process; safe to share between threads.  ``capacity`` bounds its memory: when it is full of
    permits that still live, further ones are refused rather than forgotten."""

    def __init__(self, capacity: int = SEEN_MAX) -> None:
        self._capacity = capacity
        self._ids: set[str] = set()
        self._ends: list[tuple[float, str]] = []
        self._forgotten_to = float("-inf")
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    def use(self, id: str, until: float, now: float) -> str:
        """Empty if this is the first use; else ``replayed`` or ``full``.  Times: seconds.

        A clock that goes back makes permits live again that were forgotten: those count as replayed.
        """
        with self._lock:
            while self._ends and self._ends[0][0] < now:
                end, gone = heapq.heappop(self._ends)
                self._ids.discard(gone)
                self._forgotten_to = max(self._forgotten_to, end)
            if id in self._ids or until <= self._forgotten_to:
                return "replayed"
            if len(self._ids) >= self._capacity:
                return "full"
            self._ids.add(id)
            heapq.heappush(self._ends, (until, id))
            return ""

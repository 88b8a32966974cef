"""So many attempts in so long, per name: against guessing and flooding.  In memory, per process."""

from collections.abc import Callable
from typing import Final

from starlette.requests import Request

NAMES_MAX: Final = 1000
SECOND_NS: Final = 1_000_000_000


def address(request: Request) -> str:
    """Whose attempts are counted together: so that one sender's do not shut out the others."""
    return request.client.host if request.client is not None else ""


class Attempts:
    """``most`` in ``within_s`` seconds; the count starts anew then.  ``clock``: nanoseconds."""

    def __init__(self, most: int, within_s: int, clock: Callable[[], int]) -> None:
        self._most, self._within_ns, self._clock = most, within_s * SECOND_NS, clock
        self._counts: dict[str, tuple[int, int]] = {}

    def take(self, name: str) -> bool:
        """Count one.  False: there were too many."""
        now = self._clock()
        since, count = self._counts.get(name, (now, 0))
        if now - since >= self._within_ns:
            since, count = now, 0
        if name not in self._counts and len(self._counts) >= NAMES_MAX:
            self._counts.clear()
        self._counts[name] = (since, count + 1)
        return count < self._most

    def full(self, name: str) -> bool:
        """Whether the next one would be too many."""
        since, count = self._counts.get(name, (0, 0))
        return count >= self._most and self._clock() - since < self._within_ns

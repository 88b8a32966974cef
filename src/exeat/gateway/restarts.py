"""GW-5: when a stdio server may be started again.  Pure: clock and randomness are given.

Times are nanoseconds of one steady clock; which one is the caller's choice.
"""

from dataclasses import dataclass, replace
from typing import Final

from exeat.core.errors import UpstreamFailed
from exeat.core.ids import ServerId

_NS: Final = 1_000_000_000
_DOUBLINGS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential, with jitter: the nth pause lies between half and the whole of
    ``first_s · 2^(n-1)``, at most ``longest_s``.  A run of ``healthy_s`` clears the count."""

    first_s: float = 0.5
    longest_s: float = 60.0
    healthy_s: float = 60.0

    def pause_ns(self, failures: int, chance: float) -> int:
        """``failures`` ≥ 1 in a row; ``chance`` in [0, 1) from the caller's randomness."""
        whole_s = min(self.longest_s, self.first_s * 2 ** min(failures - 1, _DOUBLINGS_MAX))
        return int(whole_s * (0.5 + chance / 2) * _NS)


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """What is known of one server's starts; each change returns the new value.

    Between an exit and ``allowed_at`` calls fail at once and say for how long; none pile up.
    """

    server: ServerId
    backoff: Backoff = Backoff()
    failures: int = 0
    started_at: int = 0
    allowed_at: int = 0

    def started(self, now: int) -> "RestartPolicy":
        return replace(self, started_at=now)

    def exited(self, now: int, chance: float) -> "RestartPolicy":
        """The process ended unasked, or did not start.  After a healthy run it is the first."""
        healthy = self.started_at and now - self.started_at >= self.backoff.healthy_s * _NS
        failures = 1 if healthy else self.failures + 1
        pause = self.backoff.pause_ns(failures, chance)
        return replace(self, failures=failures, started_at=0, allowed_at=now + pause)

    def wait_ns(self, now: int) -> int:
        """How long until the next start is allowed; 0 = now."""
        return max(0, self.allowed_at - now)

    def check(self, now: int) -> None:
        """Raises UpstreamFailed while a restart must wait."""
        wait = self.wait_ns(now)
        if wait:
            seconds = -(-wait // _NS)
            raise UpstreamFailed(
                f"server {self.server} ended {self.failures} time{'s' * (self.failures > 1)}"
                f" in a row and is restarting in {seconds} s",
                remedy=f"try again in {seconds} s; if it goes on, look at the server's log",
            )

"""What a check is: it looks at one thing and says one sentence, and one remedy if it is not well."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from exeat.app.settings import Settings
from exeat.core.facts import Snapshot

SOON_DAYS: Final = 14
DAY_NS: Final = 86_400 * 1_000_000_000


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, and somebody should know."""
    PROBLEM = "problem"
    """The gateway will not start, or denies, or cannot prove."""
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``id`` is stable: monitoring may name it.  What it is about follows after a colon."""

    id: str
    status: Status
    says: str
    remedy: str = ""


@dataclass
class Patient:
    """What is examined.  ``settings``: as they are, or the defaults if they cannot be read.
    ``snapshot`` is None while the state cannot be read; ``pid``: of the gateway that runs;
    ``workers``: those that run, by instance."""

    home: Path
    settings: Settings
    environ: Mapping[str, str]
    settings_error: str = ""
    now: int = field(default_factory=time.time_ns)
    snapshot: Snapshot | None = None
    pid: int | None = None
    workers: dict[str, int] = field(default_factory=dict)

    @property
    def writers(self) -> tuple[str, ...]:
        """The instances whose logs this home goes on with: as set, or as they run."""
        return tuple(self.workers) if self.workers else self.settings.instances

    @property
    def serving(self) -> int | None:
        """The pid of a process that serves clients: its limits and its memory count."""
        return next(iter(self.workers.values()), self.pid)


Check = Callable[[Patient], Iterable[Finding]]


def ok(check: str, says: str) -> Finding:
    return Finding(check, Status.OK, says)


def warn(check: str, says: str, remedy: str) -> Finding:
    return Finding(check, Status.WARN, says, remedy)


def problem(check: str, says: str, remedy: str) -> Finding:
    return Finding(check, Status.PROBLEM, says, remedy)


def skipped(check: str, says: str, remedy: str = "") -> Finding:
    return Finding(check, Status.SKIPPED, says, remedy)

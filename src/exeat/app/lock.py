"""One gateway per home: two writers on one ledger would each tell their own story."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from exeat.core.errors import Conflict


class HomeLock:
    """Held while the gateway runs; the kernel releases it with the process."""

    def __init__(self, home: Path, instance: str) -> None:
        self._path = home / f"{instance}.lock"
        self._fd = -1

    def __enter__(self) -> "HomeLock":
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Conflict(
                f"another gateway (pid {holder}) already runs on {self._path.parent}",
                remedy="stop it, or give this one another EXEAT_HOME or EXEAT_INSTANCE",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)


class Turn:
    """Of the processes of one home, one at a time.  The kernel ends a turn with its process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self) -> bool:
        """Does not wait: False while it is another's."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)


def holder(home: Path, instance: str) -> tuple[int | None, bool]:
    """The pid in the lock file, and whether its process holds the lock now.  The file is only
    tried if that process lives, so a gateway that is starting is not in our way."""
    path = home / f"{instance}.lock"
    try:
        pid = int(path.read_text(encoding="ascii").strip() or 0)
    except (OSError, ValueError):
        return None, False
    if not pid or not _alive(pid):
        return pid or None, False
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return pid, True
    finally:
        os.close(descriptor)
    return pid, False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

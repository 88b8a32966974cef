"""What a native client keeps between starts: one file per resource, for its owner's eyes only."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

KEPT_MAX_BYTES: Final = 256 * 1024
LOCK_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """A registration (``issuer``, ``client_id``, ``port`` of its redirect URI) and the tokens that came
    of it.  ``renew_at``: seconds since the epoch; 0: the server did not say how long the token lives.

    All belong to ``issuer`` and are shown to no other authorization server.
    """

    issuer: str = ""
    client_id: str = ""
    method: str = "none"
    secret: str = field(default="", repr=False)
    port: int = 0
    access: str = field(default="", repr=False)
    refresh: str = field(default="", repr=False)
    renew_at: float = 0
    scopes: tuple[str, ...] = ()


NOTHING: Final = Kept()


class Keeper:
    """``folder`` is made when something is kept.  ``name``: several programs of one person may each
    have their own sign-in at one resource."""

    def __init__(self, folder: Path, resource: str, name: str = "") -> None:
        whole = f"{resource}\n{name}" if name else resource
        self.path = folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"

    def read(self) -> Kept:
        """NOTHING if there is no file, or none that can be understood: then a person signs in again."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            with os.fdopen(descriptor, "rb") as file:
                return msgspec.json.decode(file.read(KEPT_MAX_BYTES), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return NOTHING

    def write(self, kept: Kept) -> None:
        """Whole or not at all, durable, 0600 in a folder of 0700.  Raises OSError; then the file is gone,
        since what it held may be void by now."""
        new = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                new.unlink()
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError:
            for path in (new, self.path):
                with suppress(OSError):
                    path.unlink()
            raise

    def forget(self) -> None:
        """Raises OSError if it cannot be deleted."""
        self.path.unlink(missing_ok=True)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """While one process obtains a token, others wait: a refresh token that two present is a stolen
        one (OAuth 2.1 section 4.3.1).  Raises OSError if there can be no lock."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _lock(descriptor):  # noqa: ASYNC110 - other processes set no event
                await asyncio.sleep(LOCK_PAUSE_S)
            yield
        finally:
            os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

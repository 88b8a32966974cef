"""Reading and replacing files of other programs: bounded, whole or not at all, with their rights kept."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exeat.core.errors import Conflict, Invalid

FILE_MAX_BYTES: Final = 16 * 1024 * 1024
"""Claude Code keeps histories in its file, so some are megabytes long."""
FOLDERS_MAX: Final = 20_000
DEPTH_MAX: Final = 6
SKIPPED: Final = frozenset({"node_modules", "__pycache__", "site-packages", "Library"})
NEW_MODE: Final = 0o600


@dataclass(frozen=True, slots=True)
class Found:
    """``path``: the file itself, behind any symbolic link."""

    path: Path
    data: bytes = b""
    exists: bool = True

    @property
    def digest(self) -> str:
        return digest_of(self.data) if self.exists else ""


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Found | None:
    """None if there is none.  Never waits (a pipe), never reads without bound.  Raises Invalid."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}", remedy="Look at its permissions.") from None
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise Invalid(f"{path}: not a file", remedy="Put the client's file in its place.")
    with os.fdopen(descriptor, "rb") as file:
        if about.st_size > FILE_MAX_BYTES:
            raise Invalid(f"{path}: longer than {FILE_MAX_BYTES // 2**20} MiB")
        try:
            data = file.read(FILE_MAX_BYTES + 1)
        except OSError as error:
            raise Invalid(f"{path}: {error.strerror}") from None
    if len(data) > FILE_MAX_BYTES:
        raise Invalid(f"{path}: longer than {FILE_MAX_BYTES // 2**20} MiB")
    return Found(path.resolve(), data)


def expand(path: str) -> list[Path]:
    """The path itself, or, where a part is ``*``, what is there."""
    whole = Path(path)
    if "*" not in whole.parts:
        return [whole]
    at = whole.parts.index("*")
    base = Path(*whole.parts[:at])
    with suppress(OSError):
        names = sorted(each.name for each in os.scandir(base))
        return [base.joinpath(name, *whole.parts[at + 1 :]) for name in names[:100]]
    return []


def folders(root: Path) -> Iterator[Path]:
    """The root and what is under it, bounded; hidden folders, dependencies and links are left out."""
    waiting, count = [(root, 0)], 0
    while waiting and count < FOLDERS_MAX:
        folder, depth = waiting.pop()
        count += 1
        yield folder
        if depth == DEPTH_MAX:
            continue
        with suppress(OSError), os.scandir(folder) as listed:
            inner = [each for each in listed if each.is_dir(follow_symlinks=False)]
            names = sorted((each.name for each in inner), reverse=True)
            waiting += [
                (folder / name, depth + 1)
                for name in names
                if name not in SKIPPED and not name.startswith(".")
            ]


class Staged:
    """New content beside its file, durable, waiting to take the file's place.

    ``before``: as the file was when it was read.  Making one raises Invalid if the folder cannot be
    written, so nothing has been changed when that is found.
    """

    def __init__(self, before: Found, data: bytes) -> None:
        self.before, self.data = before, data
        self.made: list[str] = []
        target = before.path
        try:
            self._make_folders(target.parent)
            self._temporary = self._write(target, data)
        except OSError as error:
            self.made_folders_away()
            raise Invalid(
                f"{target} cannot be written: {error.strerror}. Nothing was changed.",
                remedy=f"Look at the permissions of {target.parent}.",
            ) from None

    def commit(self) -> None:
        """Raises Conflict if the file is not as it was; then it is left alone."""
        check_unchanged(self.before)
        try:
            os.replace(self._temporary, self.before.path)
        except OSError as error:
            raise Invalid(f"{self.before.path} cannot be replaced: {error.strerror}.") from None
        _sync_folder(self.before.path.parent)

    def discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)
            self.made_folders_away()

    def made_folders_away(self) -> None:
        remove_folders(self.made)

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(mode=0o700)
            self.made.append(str(each))

    def _write(self, target: Path, data: bytes) -> Path:
        temporary = target.with_name(f".{target.name}.exeat-{os.getpid()}")
        about = target.stat() if self.before.exists else None
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if about is not None and (about.st_uid, about.st_gid) != (
                    os.geteuid(),
                    os.getegid(),
                ):
                    os.fchown(descriptor, about.st_uid, about.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(about.st_mode) if about else NEW_MODE)
                file.flush()
                os.fsync(descriptor)
        except OSError:
            os.unlink(temporary)
            raise
        return temporary


def check_unchanged(before: Found) -> None:
    """Raises Conflict."""
    now = read(before.path)
    if (now.digest if now is not None else "") != before.digest:
        raise Conflict(
            f"{before.path} was changed meanwhile; it is left as it is now.",
            remedy="Close the client, and run the command again.",
        )


def remove(path: Path) -> None:
    """Raises Invalid."""
    try:
        path.unlink()
    except OSError as error:
        raise Invalid(f"{path} cannot be removed: {error.strerror}.") from None
    _sync_folder(path.parent)


def remove_folders(made: list[str]) -> None:
    """Those that are empty, the innermost first."""
    for each in reversed(made):
        with suppress(OSError):
            os.rmdir(each)


def write_private(path: Path, data: bytes) -> None:
    """A new file for its owner only, durable when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

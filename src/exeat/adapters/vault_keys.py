"""Where the vault's keys come from (ID-10): a file, an environment variable, or a command.

All three hold the same text: base64 of 32 bytes each, apart by white space.  The first key seals, the
others only open what was sealed before.
"""

import contextlib
import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from exeat.core.errors import Conflict, Invalid, VaultFailed
from exeat.identity.vault.model import VaultKey, parse_keys

KEYS_TEXT_MAX_BYTES: Final = 4096
COMMAND_MAX_S: Final = 10.0
COMMAND_AGAIN_S: Final = 5.0
"""A command that failed is not run again before."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class FileKeys:
    """``path``: mode 0600, written whole or not at all.  exeat makes it with the first secret."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"the file {path}"

    def read(self) -> tuple[VaultKey, ...]:
        try:
            with self._path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                raw = file.read(KEYS_TEXT_MAX_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise VaultFailed(
                f"{self.name} cannot be read: {error.strerror}.",
                remedy="Let the user that the gateway runs as read it, and nobody else.",
            ) from None
        if mode & _OTHERS:
            raise Invalid(
                f"{self.name} can be read by others.", remedy=f"Run `chmod 600 {self._path}`."
            )
        keys = parse_keys(_text(raw, self.name), self.name)
        if not keys:
            raise Invalid(f"{self.name} is empty.", remedy="Put back the key that was in it.")
        return keys

    def add(self, key: VaultKey) -> None:
        self._write((key, *self.read()))

    def drop(self, keys: frozenset[str]) -> None:
        if keys:
            self._write(tuple(key for key in self.read() if key.id not in keys))

    def _write(self, keys: Sequence[VaultKey]) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.unlink(missing_ok=True)  # of a writer that was stopped
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write("".join(f"{key.text()}\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            _flush(self._path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise VaultFailed(
                f"{self.name} cannot be written: {error.strerror}.",
                remedy="Make room, or let the gateway's user write there; nothing was changed.",
            ) from None


class _Elsewhere:
    """Keys that somebody else makes."""

    name: str

    def add(self, key: VaultKey) -> None:
        raise Conflict(
            f"exeat cannot put a new key into {self.name}.",
            remedy="Make one (openssl rand -base64 32), put it there, in front of an old one and apart "
            "by white space, for every gateway; then say it again.",
        )

    def drop(self, keys: frozenset[str]) -> None:
        """The old key may be taken away by whoever keeps it."""


class SharedFileKeys(_Elsewhere):
    """The same file in every home of gateways that share a database.  A key that exeat made in one of them
    would be unknown to the others, and gone with a home that does not last."""

    def __init__(self, path: Path) -> None:
        self._file = FileKeys(path)
        self.name = self._file.name

    def read(self) -> tuple[VaultKey, ...]:
        return self._file.read()


class EnvironmentKeys(_Elsewhere):
    def __init__(self, variable: str, environ: Mapping[str, str]) -> None:
        self._variable, self._environ = variable, environ
        self.name = f"the environment variable {variable}"

    def read(self) -> tuple[VaultKey, ...]:
        text = self._environ.get(self._variable, "")
        keys = parse_keys(text, self.name)
        if not keys:
            raise VaultFailed(
                f"{self.name} is not set.",
                remedy="Set it to the vault's key, or take vault_key_env out of the settings.",
            )
        return keys


class CommandKeys(_Elsewhere):
    """A program that prints the keys, such as one that asks a key management service to decrypt
    them.  Started without a shell; what it says on stderr is not repeated."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self._argv, self._environ = tuple(argv), environ
        self.name = f"what {self._argv[0]} prints"
        self._failed: VaultFailed | None = None
        self._failed_at = 0.0

    def read(self) -> tuple[VaultKey, ...]:
        if self._failed is not None and time.monotonic() - self._failed_at < COMMAND_AGAIN_S:
            raise self._failed
        try:
            keys = parse_keys(_text(self._run(), self.name), self.name)
        except VaultFailed as error:
            self._failed, self._failed_at = error, time.monotonic()
            raise
        if not keys:
            raise Invalid(f"{self.name} is empty.", remedy="It prints keys, base64, on stdout.")
        return keys

    def _run(self) -> bytes:
        """Bounded in time and output, whatever the program and its children do."""
        try:
            process = subprocess.Popen(  # noqa: S603 - the operator's own, by the settings
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=dict(self._environ),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise self._failure(f"cannot be started ({why})") from None
        assert process.stdout is not None  # noqa: S101
        try:
            out, ends = b"", time.monotonic() + COMMAND_MAX_S
            while len(out) <= KEYS_TEXT_MAX_BYTES:
                left = ends - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    raise self._failure(f"did not end within {COMMAND_MAX_S:.0f} s")
                part = os.read(process.stdout.fileno(), KEYS_TEXT_MAX_BYTES)
                if not part:
                    break
                out += part
            else:
                return out
            status = process.wait(max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._failure(f"did not end within {COMMAND_MAX_S:.0f} s") from None
        finally:
            process.stdout.close()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if status != 0:
            raise self._failure(f"ended with status {status}")
        return out

    def _failure(self, what: str) -> VaultFailed:
        return VaultFailed(
            f"The command for the vault's key, {self._argv[0]}, {what}.",
            remedy="Run it by hand as the gateway's user; it must print the key and end with 0.",
        )


def _text(raw: bytes, source: str) -> str:
    if len(raw) > KEYS_TEXT_MAX_BYTES or not raw.isascii():
        raise Invalid(
            f"{source} does not hold keys: it is long, or no plain text.",
            remedy="It holds base64 of 32 bytes for each key, and nothing else.",
        )
    return raw.decode("ascii")


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

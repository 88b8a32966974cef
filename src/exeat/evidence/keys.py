"""Key files: the ledger's signing key and the master key that wraps the keys of data subjects."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from exeat.core.errors import Invalid, NotFound
from exeat.evidence.note import Signer

MASTER_BYTES: Final = 32
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def create_signer(path: Path, name: str, random: Callable[[int], bytes]) -> Signer:
    """A new Ed25519 key named ``name`` in a new file of mode 0600.  An existing file is refused."""
    signer = Signer(name, random(32))
    _write(path, signer.export())
    return signer


def load_signer(path: Path) -> Signer:
    """Raises NotFound, or Invalid if others may read the file."""
    return Signer.parse(_read(path))


def create_master(path: Path, random: Callable[[int], bytes]) -> bytes:
    """A new master key, in hexadecimal in a new file of mode 0600."""
    master = random(MASTER_BYTES)
    _write(path, master.hex())
    return master


def load_master(path: Path) -> bytes:
    try:
        master = bytes.fromhex(_read(path))
    except ValueError:
        master = b""
    if len(master) != MASTER_BYTES:
        raise Invalid(f"{path.name} does not hold a master key of 32 bytes in hexadecimal")
    return master


def _write(path: Path, secret: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Invalid(
            f"the key file {path.name} exists already", remedy="Keep it: what it signed needs it."
        ) from None
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise NotFound(f"there is no key file {path}", remedy="Run `exeat init` first.") from None
    except UnicodeDecodeError:
        raise Invalid(f"{path.name} is not a key file") from None
    if mode & _OTHERS:
        raise Invalid(
            f"the key file {path} can be read by others", remedy=f"Run `chmod 600 {path}`."
        )
    return text.strip()

"""What a backup says of itself: every file by SHA-256, every ledger by its last signed checkpoint.

The manifest is signed with the key of each ledger in it, as a note whose first line is no log's
origin, so it can never pass for a checkpoint.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

import msgspec

from exeat.core.errors import Invalid
from exeat.evidence.note import Signer, Verifier, open_note

FORMAT: Final = "exeat backup 1"
MANIFEST: Final = "manifest.json"
MANIFEST_MAX_BYTES: Final = 1024 * 1024
_FILES: Final = re.compile(
    r"state\.db|exeat\.toml|operator|keys/[a-z0-9][a-z0-9.-]{0,60}"
    r"|ledger/[a-z0-9][a-z0-9-]{0,30}(\.db|\.db\.checkpoint|\.checkpoint)"
)
_IN_DATABASE: Final = re.compile(r"ledger/([a-z0-9][a-z0-9-]{0,30})\.checkpoint")
_NOTES: Final = re.compile(r"manifest\.[a-z0-9][a-z0-9-]{0,30}\.note")
_CHUNK: Final = 1024 * 1024


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    bytes: int


class LedgerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``checkpoint``: the signed note, empty if none was signed yet."""

    entries: int
    checkpoint: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``state``: ``sqlite`` (in the backup) or ``postgresql`` (not in it)."""

    format: str
    exeat: str
    made_at: str
    state: str
    keys: bool
    ledgers: dict[str, LedgerEntry]
    files: dict[str, FileEntry]


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def decode(data: bytes) -> Manifest:
    """Raises Invalid unless it is a manifest of this format that names only files of a home."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise Invalid(f"The manifest cannot be read: {error}.") from None
    if manifest.format != FORMAT:
        raise Invalid(f"This is no {FORMAT!r} but {manifest.format!r}.", remedy="Use that exeat.")
    for name in manifest.files:
        if not _FILES.fullmatch(name) or ".." in name:
            raise Invalid(f"The manifest names {name!r}, which is no file of a home.")
    return manifest


def in_database(manifest: Manifest) -> list[str]:
    """Instances whose log is in a database: only its last checkpoint lies in the home."""
    found = (_IN_DATABASE.fullmatch(name) for name in manifest.files)
    return [each[1] for each in found if each is not None]


def is_note(name: str) -> bool:
    return _NOTES.fullmatch(name) is not None


def note_name(instance: str) -> str:
    return f"manifest.{instance}.note"


def sign(manifest: bytes, signer: Signer) -> bytes:
    return signer.sign(_signed_text(manifest))


def check_signature(manifest: bytes, note: bytes, verifier: Verifier) -> None:
    """Raises Invalid."""
    if open_note(note, verifier) != _signed_text(manifest):
        raise Invalid("The manifest is not the one that was signed.")


def _signed_text(manifest: bytes) -> str:
    return f"{FORMAT}\n{hashlib.sha256(manifest).hexdigest()}\n"


def entry_of(path: Path) -> FileEntry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return FileEntry(digest.hexdigest(), path.stat().st_size)

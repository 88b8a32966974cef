"""``exeat restore``: nothing appears at the new home before everything was checked."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from exeat.app.backup import manifest as manifests
from exeat.app.backup.manifest import MANIFEST, MANIFEST_MAX_BYTES, Manifest
from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.evidence.note import NOTE_MAX_BYTES, Verifier, open_checkpoint
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader

_CHUNK: Final = 1024 * 1024
_REFUSED: Final = "Nothing was written. Use another backup; this one was damaged or altered."


@dataclass(slots=True)
class Restored:
    """``newer``: instance → the size of a checkpoint, held elsewhere, that this backup is behind.
    ``unconfirmed``: instances in a database, whose key must be named to check what they signed."""

    manifest: Manifest
    unconfirmed: list[str] = field(default_factory=list)
    newer: dict[str, int] = field(default_factory=dict)


def restore(
    archive: Path,
    home: Path,
    *,
    key: Verifier | None = None,
    held: Sequence[bytes] = (),
    accept_unsigned: bool = False,
) -> Restored:
    """Check manifest, files, ledgers and signatures; then put the whole home in place at once.

    ``key``: the gateway's key as its owner told you; without it the one in the ledger itself is
    used.  ``held``: checkpoints kept elsewhere.  Raises ExeatError, StoreFailed.
    """
    if home.is_symlink() or (home.exists() and not (home.is_dir() and not any(home.iterdir()))):
        raise Conflict(f"{home} is not empty.", remedy="Name a new folder with --home.")
    if not archive.is_file():
        raise NotFound(f"There is no backup {archive}.", remedy="Name the file.")
    home.parent.mkdir(parents=True, exist_ok=True)
    with _staged(home) as stage, _refusals():
        with tarfile.open(archive, "r:") as tar:
            found, packed, notes = _unpack(tar, stage)
        restored = Restored(found)
        known = [_check_ledger(restored, stage, each, key, held) for each in found.ledgers]
        verifiers = {each.name: each for each in known if each is not None}
        verifiers |= _confirm(restored, packed, notes, key)
        _all_used(verifiers, key, held)
        for instance, verifier in zip(found.ledgers, known, strict=True):
            note = notes.get(manifests.note_name(instance))
            if note is not None and verifier is not None:
                manifests.check_signature(packed, note, verifier)
            elif verifier is not None and not accept_unsigned:
                raise Invalid(
                    f"The manifest is not signed by {instance}, so its files prove nothing.",
                    remedy="Add --accept-unsigned if you know where the file comes from.",
                )
        stage.rename(home)
    return restored


@contextmanager
def _staged(home: Path) -> Iterator[Path]:
    stage = Path(tempfile.mkdtemp(dir=home.parent, prefix=".exeat-restore-"))
    try:
        yield stage
    finally:
        if stage.exists():
            shutil.rmtree(stage)


@contextmanager
def _refusals() -> Iterator[None]:
    """What is wrong with the file, as one error that says that nothing was written."""
    try:
        yield
    except tarfile.TarError as error:
        raise Invalid(f"This is not a backup: {error}.", remedy=_REFUSED) from None
    except Invalid as error:
        raise Invalid(str(error), remedy=error.remedy or _REFUSED) from None


def _unpack(tar: tarfile.TarFile, stage: Path) -> tuple[Manifest, bytes, dict[str, bytes]]:
    """Only regular files that the manifest names, each with the size and digest that it says."""
    head = tar.next()
    if head is None or head.name != MANIFEST:
        raise Invalid("This is not a backup: it does not begin with its manifest.")
    packed = _small(tar, head, MANIFEST_MAX_BYTES)
    found, notes, seen = manifests.decode(packed), dict[str, bytes](), set[str]()
    while (member := tar.next()) is not None:
        if member.name in seen:
            raise Invalid(f"{member.name} is twice in the backup.")
        seen.add(member.name)
        if manifests.is_note(member.name):
            notes[member.name] = _small(tar, member, NOTE_MAX_BYTES)
        elif member.name in found.files:
            _extract(tar, member, stage / member.name, found.files[member.name])
        else:
            raise Invalid(f"The backup holds {member.name!r}, which its manifest does not name.")
    for name in found.files:
        if name not in seen:
            raise Invalid(f"{name} is missing from the backup.")
    return found, packed, notes


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise Invalid(f"{member.name} is no plain file in the backup.")
    return content


def _small(tar: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise Invalid(f"{member.name} is too large.")
    return _content(tar, member).read()


def _extract(
    tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, wanted: manifests.FileEntry
) -> None:
    if member.size != wanted.bytes:
        raise Invalid(f"{member.name} has another size than its manifest says.")
    target.parent.mkdir(mode=0o700, exist_ok=True)
    digest, content = hashlib.sha256(), _content(tar, member)
    with target.open("xb") as file:
        target.chmod(0o600)
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != wanted.sha256:
        raise Invalid(f"{member.name} is not the file that its manifest names.")


def _check_ledger(
    restored: Restored, stage: Path, instance: str, key: Verifier | None, held: Sequence[bytes]
) -> Verifier | None:
    """The key of the ledger, once all of it verified; None for an empty ledger."""
    said, path = restored.manifest.ledgers[instance], stage / "ledger" / f"{instance}.db"
    if not path.is_file():
        raise Invalid(f"The ledger of {instance} is missing from the backup.")
    if not said.entries:
        return None
    with closing(SqliteLedgerReader(path)) as reader:
        verifier = key if key is not None and key.name == f"exeat/{instance}" else None
        published = (said.checkpoint.encode(),) if said.checkpoint else ()
        report = verify(reader, key=verifier, published=published)
        if not report.sound or report.entries != said.entries:
            problem = report.problems[0] if report.problems else "it has another length"
            raise Invalid(f"The ledger of {instance} is not whole: {problem}.")
        verifier = Verifier.parse(report.key)
        older = []
        for note in held:
            if _origin(note) != verifier.name:
                continue
            size = open_checkpoint(note, verifier).size
            if size > report.entries:
                restored.newer[instance] = max(size, restored.newer.get(instance, 0))
            else:
                older.append(note)
        again = verify(reader, key=verifier, held=tuple(older)) if older else report
        if not again.sound:
            raise Invalid(f"The ledger of {instance}: {again.problems[0]}.")
    return verifier


def _confirm(
    restored: Restored,
    packed: bytes,
    notes: dict[str, bytes],
    key: Verifier | None,
) -> dict[str, Verifier]:
    """For logs that are in a database and not here: their key is only known if it was named."""
    confirmed = {}
    for instance in manifests.in_database(restored.manifest):
        note = notes.get(manifests.note_name(instance))
        if key is None or key.name != f"exeat/{instance}" or note is None:
            restored.unconfirmed.append(instance)
            continue
        manifests.check_signature(packed, note, key)
        confirmed[key.name] = key
    return confirmed


def _origin(note: bytes) -> str:
    return note.split(b"\n", 1)[0].decode("utf-8", "replace")


def _all_used(verifiers: dict[str, Verifier], key: Verifier | None, held: Sequence[bytes]) -> None:
    """A key or checkpoint that speaks of none of these ledgers proves nothing: say so."""
    given = [*map(_origin, held), *([key.name] if key is not None else [])]
    for name in given:
        if name not in verifiers:
            raise Invalid(
                f"This backup holds no ledger of {name}.",
                remedy="Name a checkpoint and key of a ledger in it: "
                f"{', '.join(verifiers) or 'there is none'}.",
            )

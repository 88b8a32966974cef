"""``exeat backup``: one consistent file while the gateway runs."""

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exeat import __version__
from exeat.app.backup import manifest as manifests
from exeat.app.backup.manifest import FORMAT, MANIFEST, FileEntry, LedgerEntry, Manifest
from exeat.core.errors import Conflict, ExeatError, Invalid, NotFound
from exeat.evidence.keys import load_signer
from exeat.evidence.verify import verify
from exeat.storage.copies import copy_ledger, copy_state
from exeat.storage.ledger import SqliteLedgerReader

PLAIN: Final = ("exeat.toml", "operator")
_KNOWN: Final = {"state.db", "state.db-wal", "state.db-shm", "ledger", "keys", "workers", *PLAIN}


@dataclass(slots=True)
class Made:
    """``unsigned``: the instances whose key was not there to sign with."""

    manifest: Manifest
    path: Path
    unsigned: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def backup(home: Path, target: Path, *, with_keys: bool, database_url: str | None) -> Made:
    """Write ``target``, or a file named by the time into the folder ``target``; mode 0600; it
    appears whole or not at all.

    The state is copied before the ledger: a change between the two is in the ledger twice at most,
    never lost.  Raises ExeatError, StoreFailed.
    """
    if target.is_dir():
        target = target / time.strftime("exeat-%Y%m%dT%H%M%SZ.tar", time.gmtime())
    if target.exists():
        raise Conflict(f"{target} exists already.", remedy="Name a new file.")
    if not (home / "state.db").is_file() and database_url is None:
        raise NotFound(f"There is no exeat home at {home}.", remedy="Name it with --home.")
    if not target.parent.is_dir():
        raise NotFound(f"There is no folder {target.parent}.", remedy="Create it first.")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exeat-backup-") as folder:
        stage = Path(folder)
        if database_url is None:
            copy_state(home, stage / "state.db")
        ledgers = dict(_ledgers(home, stage))
        _copy_plain(home, stage, with_keys=with_keys)
        files = {name: manifests.entry_of(stage / name) for name in _names(stage)}
        manifest = _manifest(files, ledgers, with_keys=with_keys, url=database_url)
        made = Made(manifest, target)
        made.left_out = sorted(_left_out(home))
        packed = manifests.encode(made.manifest)
        (stage / MANIFEST).write_bytes(packed)
        for instance in dict.fromkeys((*ledgers, *manifests.in_database(manifest))):
            try:
                signer = load_signer(home / "keys" / f"{instance}.ed25519")
            except ExeatError:
                made.unsigned.append(instance)
                continue
            (stage / manifests.note_name(instance)).write_bytes(manifests.sign(packed, signer))
        _pack(stage, target, files)
    return made


def _ledgers(home: Path, stage: Path) -> Iterator[tuple[str, LedgerEntry]]:
    """Each copied and verified from its first entry on: a backup that could not be restored is none."""
    (stage / "ledger").mkdir(mode=0o700)
    for note_of_database in sorted((home / "ledger").glob("*.checkpoint")):
        if not note_of_database.name.endswith(".db.checkpoint"):
            shutil.copyfile(note_of_database, stage / "ledger" / note_of_database.name)
    for source in sorted((home / "ledger").glob("*.db")):
        copy = stage / "ledger" / source.name
        made = copy_ledger(source, copy)
        note = made.checkpoint or b""
        if note:
            copy.with_name(copy.name + ".checkpoint").write_bytes(note)
        if made.entries:
            with closing(SqliteLedgerReader(copy)) as reader:
                report = verify(reader)
            if not report.sound:
                raise Invalid(
                    f"The ledger {source.name} is not whole: {report.problems[0]}.",
                    remedy="Keep the home as it is and run `exeat evidence verify`.",
                )
        yield source.stem, LedgerEntry(made.entries, note.decode())


def _copy_plain(home: Path, stage: Path, *, with_keys: bool) -> None:
    for name in PLAIN:
        if (home / name).is_file():
            shutil.copyfile(home / name, stage / name)
    if with_keys:
        (stage / "keys").mkdir(mode=0o700)
        for path in sorted((home / "keys").glob("*")):
            if path.is_file():
                shutil.copyfile(path, stage / "keys" / path.name)
                (stage / "keys" / path.name).chmod(0o600)


def _names(stage: Path) -> list[str]:
    return sorted(p.relative_to(stage).as_posix() for p in stage.rglob("*") if p.is_file())


def _manifest(
    files: dict[str, FileEntry],
    ledgers: dict[str, LedgerEntry],
    *,
    with_keys: bool,
    url: str | None,
) -> Manifest:
    return Manifest(
        format=FORMAT,
        exeat=__version__,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        state="sqlite" if url is None else "postgresql",
        keys=with_keys,
        ledgers=ledgers,
        files=files,
    )


def _left_out(home: Path) -> Iterator[str]:
    """What else lies in the home, so that nobody believes it is in the backup."""
    for path in home.iterdir():
        if path.name not in _KNOWN and path.suffix != ".lock":
            yield path.name


def _pack(stage: Path, target: Path, files: dict[str, FileEntry]) -> None:
    """Manifest and notes first, so that they can be read without the rest."""
    heads = [MANIFEST, *sorted(p.name for p in stage.glob("manifest.*.note"))]
    new = stage / ".new"
    with os.fdopen(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name in (*heads, *files):
                info = tarfile.TarInfo(name)
                info.size, info.mode = (stage / name).stat().st_size, 0o600
                info.mtime = int(time.time())
                with (stage / name).open("rb") as content:
                    archive.addfile(info, content)
        file.flush()
        os.fsync(file.fileno())
    os.link(new, target)  # refuses a file that came meanwhile

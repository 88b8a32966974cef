"""What was changed in clients' files, and their bytes before: enough to put every one back (REG-5).

``home/adoptions/ID/``: ``manifest.json`` and the originals, readable by their owner only, since originals may
hold secrets.  The manifest is durable before the first file is touched.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from exeat.app.inventory import files
from exeat.app.inventory.files import Found, Staged, digest_of
from exeat.core.errors import Conflict, ExeatError, Invalid, NotFound
from exeat.governance.inventory.clients import CLIENTS, read_document
from exeat.governance.inventory.text import Malformed, decode, lookup

FOLDER: Final = "adoptions"
FORMAT: Final = "exeat adoption 1"
ID_RANDOM_BYTES: Final = 3


class ChangedEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``after``: the digest of what was written."""

    path: list[str]
    after: str


class ChangedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``before``: SHA-256 of the original, empty if there was no file.  ``original``: its copy's name.
    ``folders``: those that were made for it."""

    path: str
    client: str
    before: str
    after: str
    original: str
    folders: list[str]
    entries: list[ChangedEntry]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``servers``: the ids that were registered with it.  ``undone``: it is put back, or its originals
    are gone."""

    format: str
    id: str
    kind: Literal["adopt", "connect"]
    at: str
    files: list[ChangedFile]
    servers: list[str]
    undone: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One file's change.  ``client``: the id of the client whose file it is.  ``entries``: the keys of
    the servers that changed."""

    client: str
    before: Found
    data: bytes
    entries: tuple[tuple[str, ...], ...] = ()


@dataclass(slots=True)
class Undone:
    record: Record
    restored: list[str] = field(default_factory=list)


@contextmanager
def carried_out(
    home: Path,
    kind: Literal["adopt", "connect"],
    changes: Sequence[Change],
    servers: Iterable[str],
    random: bytes,
) -> Iterator[Record]:
    """Replaces the files, then lets the caller finish; whatever fails, each file is as it was.

    Raises Invalid if a file cannot be written, Conflict if one was changed meanwhile.
    """
    staged: list[Staged] = []
    committed: list[Staged] = []
    kept: Record | None = None
    try:
        for change in changes:
            staged.append(Staged(change.before, change.data))
        kept = _keep(home, kind, list(zip(changes, staged, strict=True)), list(servers), random)
        for each in staged:
            each.commit()
            committed.append(each)
        yield kept
    except BaseException:
        for each in reversed(committed):
            _put_back(each)
        if kept is not None:
            shutil.rmtree(home / FOLDER / kept.id, ignore_errors=True)
        raise
    finally:
        for each in staged:
            if each not in committed:
                each.discard()


def records(home: Path) -> list[Record]:
    """The oldest first; one that cannot be read is left out."""
    found = []
    for path in sorted((home / FOLDER).glob("*/manifest.json")):
        with suppress(ExeatError):
            found.append(_read_record(path))
    return found


def undo(home: Path, wanted: str | None, kind: str, client: str | None = None) -> Undone:
    """Puts back every file of a record, byte for byte, or none: the last that stands, or by its id.

    Raises NotFound, Conflict (a file was changed since), Invalid.
    """
    record = _choose(home, wanted, kind, client)
    return _put_all_back(home, record, _bytes_back)


def undo_entries(home: Path, wanted: str | None, kind: str, client: str | None = None) -> Undone:
    """Like ``undo``; in a file that was changed since, only what exeat wrote is put back, and only if
    it still stands as it was written.  Raises as ``undo`` does, and CannotEdit."""
    record = _choose(home, wanted, kind, client)
    return _put_all_back(home, record, _entries_back)


def _put_all_back(home: Path, record: Record, back: Callable[..., bytes | None]) -> Undone:
    """``back``: what the file becomes, or None if it goes.  All are staged before the first changes."""
    folder = home / FOLDER / record.id
    todo: list[tuple[ChangedFile, Staged | None]] = []
    done = Undone(record)
    try:
        for each in record.files:
            if Path(each.path).resolve() != Path(each.path):  # it was, when the file was changed
                raise Conflict(
                    f"{each.path} leads elsewhere now. Nothing was put back.",
                    remedy=f"Look who put a link there; the original is in {folder}.",
                )
            now = files.read(Path(each.path))
            if (now.digest if now is not None else "") == each.before:
                continue  # put back already, by a person or by an undo that was cut short
            data = back(record, each, now, _original(folder, each))
            present = now or Found(Path(each.path), exists=False)
            todo.append((each, None if data is None else Staged(present, data)))
        for each, step in todo:
            if step is None:
                files.remove(Path(each.path))
                files.remove_folders(each.folders)
            else:
                step.commit()
            done.restored.append(each.path)
    finally:
        for _, step in todo:
            if step is not None:
                step.discard()
    _replace_record(folder, msgspec.structs.replace(record, undone=True))
    _drop_originals(folder, record)
    return done


def forget(home: Path, wanted: str | None, kind: str) -> Record:
    """Deletes the originals of a record, and the secrets in them: it can no longer be undone.  Raises
    NotFound, Conflict, Invalid."""
    record = _choose(home, wanted, kind, None)
    folder = home / FOLDER / record.id
    _replace_record(folder, msgspec.structs.replace(record, undone=True))
    _drop_originals(folder, record)
    return record


def _drop_originals(folder: Path, record: Record) -> None:
    for each in record.files:
        if each.original and (folder / each.original).exists():
            files.remove(folder / each.original)


def _original(folder: Path, each: ChangedFile) -> Found | None:
    """None: there was no file."""
    if not each.original:
        return None
    kept = files.read(folder / each.original)
    if kept is None or kept.digest != each.before:
        raise Invalid(f"The original of {each.path} in {folder} is not what it was.")
    return Found(folder / each.original, kept.data)


def _bytes_back(
    record: Record, each: ChangedFile, now: Found | None, original: Found | None
) -> bytes | None:
    if now is None or now.digest != each.after:
        where = f" What it was before is in {original.path}." if original is not None else ""
        raise Conflict(
            f"{each.path} was changed since {record.at}. Nothing was put back.{where}",
            remedy=f"`exeat {record.kind} {_client_of(record)}--undo --entries` puts back only the "
            "servers, and leaves the other changes.",
        )
    return original.data if original is not None else None


def _client_of(record: Record) -> str:
    return "" if record.kind == "adopt" else f"{record.files[0].client} "


def _entries_back(
    record: Record, each: ChangedFile, now: Found | None, original: Found | None
) -> bytes | None:
    if now is not None and now.digest == each.after:
        return _bytes_back(record, each, now, original)
    client = CLIENTS[each.client]
    try:
        mark, text = decode(now.data if now is not None else b"")
        old = read_document(client, decode(original.data)[1] if original is not None else "")
        for entry in each.entries:
            document, path = read_document(client, text), tuple(entry.path)
            if digest_of_value(lookup(document.value, path)) != entry.after:
                raise Conflict(
                    f"{path[-1]!r} in {each.path} was changed since {record.at}. Nothing was put "
                    "back.",
                    remedy="Put it back by hand.",
                )
            text = document.restored(path, old)
    except Malformed as error:
        raise Invalid(f"{each.path}:{error.line}:{error.column}: {error.what}.") from None
    return (mark + text).encode()


def _written(change: Change) -> list[ChangedEntry]:
    if not change.entries:
        return []
    document = read_document(CLIENTS[change.client], decode(change.data)[1])
    return [
        ChangedEntry(list(path), digest_of_value(lookup(document.value, path)))
        for path in change.entries
    ]


def digest_of_value(value: Any) -> str:
    return digest_of(json.dumps(value, sort_keys=True, default=str).encode())


def _choose(home: Path, wanted: str | None, kind: str, client: str | None) -> Record:
    listed = records(home)
    if wanted is not None:
        found = [each for each in listed if each.id == wanted]
        if not found:
            raise NotFound(f"There is no change {wanted!r}.", remedy=_known(listed))
        if found[0].undone:
            raise Conflict(f"{wanted} was undone or forgotten already.")
        return found[0]
    fits = [
        each
        for each in listed
        if each.kind == kind
        and not each.undone
        and (client is None or any(file.client == client for file in each.files))
    ]
    if not fits:
        raise NotFound(f"There is no `exeat {kind}` to undo.", remedy=_known(listed))
    return fits[-1]


def _known(listed: list[Record]) -> str:
    open_ones = [each.id for each in listed if not each.undone]
    if open_ones:
        return f"Known: {', '.join(open_ones)}."
    return "All is put back or forgotten." if listed else "Nothing was changed by exeat so far."


def _put_back(step: Staged) -> None:
    """Raises Conflict if another program has written the file since; its original stays kept."""
    before, now = step.before, files.read(step.before.path)
    if now is None or now.digest != digest_of(step.data):
        raise Conflict(f"{before.path} was changed by another program and is left as it is.")
    if before.exists:
        Staged(now, before.data).commit()
    else:
        files.remove(before.path)
        files.remove_folders(step.made)


def _keep(
    home: Path,
    kind: Literal["adopt", "connect"],
    pairs: list[tuple[Change, Staged]],
    servers: list[str],
    random: bytes,
) -> Record:
    now = time.gmtime()
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', now)}-{random.hex()}"
    folder = home / FOLDER / name
    try:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        changed = []
        for number, (change, staged) in enumerate(pairs):
            original = f"{number}.original" if change.before.exists else ""
            if original:
                files.write_private(folder / original, change.before.data)
            changed.append(
                ChangedFile(
                    str(change.before.path),
                    change.client,
                    change.before.digest,
                    digest_of(change.data),
                    original,
                    staged.made,
                    _written(change),
                )
            )
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", now)
        record = Record(FORMAT, name, kind, at, changed, servers)
        files.write_private(folder / "manifest.json", _encoded(record))
    except OSError as error:
        raise Invalid(
            f"The originals cannot be kept in {folder}: {error.strerror}. Nothing was changed.",
            remedy="Look at the permissions of exeat's home.",
        ) from None
    return record


def _encoded(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def _read_record(path: Path) -> Record:
    found = files.read(path)
    try:
        record = msgspec.json.decode(found.data if found else b"", type=Record)
    except msgspec.MsgspecError as error:
        raise Invalid(f"{path} cannot be read: {error}.") from None
    if record.format != FORMAT or record.id != path.parent.name:
        raise Invalid(f"{path} is no {FORMAT!r}.")
    if any(os.sep in file.original for file in record.files):
        raise Invalid(f"{path} names a file elsewhere.")
    return record


def _replace_record(folder: Path, record: Record) -> None:
    before = files.read(folder / "manifest.json")
    Staged(before or Found(folder / "manifest.json", exists=False), _encoded(record)).commit()

"""REG-5: files change whole or not at all, never over somebody else's change, and come back byte for byte."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from requirements import requirement

from exeat.app.inventory import files
from exeat.app.inventory.files import FILE_MAX_BYTES, Found, read
from exeat.app.inventory.records import (
    FOLDER,
    Change,
    Record,
    carried_out,
    forget,
    records,
    undo,
    undo_entries,
)
from exeat.core.errors import Conflict, ExeatError, Invalid, NotFound


def change(path: Path, data: bytes) -> Change:
    return Change("cursor", read(path) or Found(path, exists=False), data)


@contextmanager
def done(home: Path, *changes: Change) -> Iterator[Record]:
    with carried_out(home, "adopt", changes, ["git"], os.urandom(3)) as record:
        yield record


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def one(tmp_path: Path) -> Path:
    path = tmp_path / "c" / "one.json"
    path.parent.mkdir()
    path.write_bytes(b"\xef\xbb\xbf{ }\r\n")
    path.chmod(0o640)
    return path


@requirement("REG-5")
def test_a_change_keeps_rights_and_its_undo_gives_the_bytes(home: Path, one: Path) -> None:
    with done(home, change(one, b"new")) as record:
        assert one.read_bytes() == b"new"
    assert stat.S_IMODE(one.stat().st_mode) == 0o640
    kept = home / FOLDER / record.id
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in kept.iterdir()} == {0o600}
    assert undo(home, record.id, "adopt").restored == [str(one)]
    assert one.read_bytes() == b"\xef\xbb\xbf{ }\r\n"
    assert stat.S_IMODE(one.stat().st_mode) == 0o640
    assert [p.name for p in one.parent.iterdir()] == ["one.json"]
    assert records(home)[0].undone
    with pytest.raises(Conflict, match="was undone or forgotten already"):
        undo(home, record.id, "adopt")
    with pytest.raises(NotFound, match="no `exeat adopt` to undo"):
        undo(home, None, "adopt")
    with pytest.raises(NotFound, match="no change 'x'"):
        undo(home, "x", "adopt")


@requirement("REG-5")
def test_originals_go_with_the_undo_or_when_they_are_forgotten(home: Path, one: Path) -> None:
    with done(home, change(one, b"1")) as record:
        pass
    undo(home, record.id, "adopt")
    assert [p.name for p in (home / FOLDER / record.id).iterdir()] == ["manifest.json"]
    with done(home, change(one, b"2")) as record:
        pass
    assert forget(home, None, "adopt").id == record.id
    assert [p.name for p in (home / FOLDER / record.id).iterdir()] == ["manifest.json"]
    assert one.read_bytes() == b"2"
    with pytest.raises(Conflict, match="was undone or forgotten already"):
        undo(home, record.id, "adopt")


@requirement("REG-5")
def test_a_new_file_and_its_folders_go_again(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "mcp.json"
    with done(home, change(path, b"{}")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    undo(home, None, "adopt")
    assert not (tmp_path / "a").exists()


@requirement("REG-5")
def test_a_link_stays_a_link(home: Path, one: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(one)
    with done(home, change(link, b"new")):
        assert link.is_symlink() and one.read_bytes() == b"new"
    undo(home, None, "adopt")
    assert link.is_symlink() and link.read_bytes() == b"\xef\xbb\xbf{ }\r\n"


@requirement("REG-5")
def test_a_file_that_changed_while_it_was_planned_is_left_alone(
    home: Path, one: Path, tmp_path: Path
) -> None:
    two = tmp_path / "c" / "two.json"
    two.write_bytes(b"2")
    planned = [change(one, b"new"), change(two, b"new")]
    two.write_bytes(b"theirs")
    with pytest.raises(Conflict, match=r"two\.json was changed meanwhile"), done(home, *planned):
        raise AssertionError("never reached")
    assert (one.read_bytes(), two.read_bytes()) == (b"\xef\xbb\xbf{ }\r\n", b"theirs")
    assert sorted(p.name for p in one.parent.iterdir()) == ["one.json", "two.json"]
    assert records(home) == []


@requirement("REG-5")
def test_what_fails_after_the_files_puts_them_back(home: Path, one: Path, tmp_path: Path) -> None:
    new = tmp_path / "n" / "new.json"
    with pytest.raises(RuntimeError), done(home, change(one, b"new"), change(new, b"{}")):
        raise RuntimeError("the registry is gone")
    assert one.read_bytes() == b"\xef\xbb\xbf{ }\r\n"
    assert not new.parent.exists() and records(home) == []


@requirement("REG-5")
def test_an_undo_never_goes_over_a_later_change(home: Path, one: Path, tmp_path: Path) -> None:
    two = tmp_path / "c" / "two.json"
    two.write_bytes(b"2")
    with done(home, change(one, b"new"), change(two, b"new")) as record:
        pass
    two.write_bytes(b"later")
    with pytest.raises(Conflict, match=r"was changed since .* Nothing was put back") as refused:
        undo(home, None, "adopt")
    assert str(home / FOLDER / record.id / "1.original") in str(refused.value)
    assert (one.read_bytes(), two.read_bytes()) == (b"new", b"later")
    two.write_bytes(b"2")  # put back by hand: then the rest comes back
    assert undo(home, None, "adopt").restored == [str(one)]


@requirement("REG-5")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_an_undo_follows_no_link_that_was_put_in_place(
    home: Path, one: Path, tmp_path: Path, which: str
) -> None:
    """The original, which may hold secrets, would land where the link leads, with the rights there."""
    with done(home, change(one, b"new")):
        pass
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "one.json").write_bytes(b"new")
    if which == "file":
        one.unlink()
        one.symlink_to(elsewhere / "one.json")
    else:
        one.unlink()
        one.parent.rmdir()
        one.parent.symlink_to(elsewhere)
    for put_back in (undo, undo_entries):
        with pytest.raises(Conflict, match="leads elsewhere now"):
            put_back(home, None, "adopt")
    assert (elsewhere / "one.json").read_bytes() == b"new"
    assert not records(home)[0].undone


@requirement("REG-5")
def test_an_undo_that_was_cut_short_goes_on(
    home: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = tmp_path / "c" / "two.json"
    two.write_bytes(b"2")
    with done(home, change(one, b"new"), change(two, b"new")):
        pass
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if target == two:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(Invalid, match="cannot be replaced"):
        undo(home, None, "adopt")
    monkeypatch.undo()
    assert undo(home, None, "adopt").restored == [str(two)]
    assert two.read_bytes() == b"2"
    assert sorted(p.name for p in one.parent.iterdir()) == ["one.json", "two.json"]


@requirement("REG-5")
def test_a_changed_original_is_not_put_back(home: Path, one: Path) -> None:
    with done(home, change(one, b"new")) as record:
        pass
    (home / FOLDER / record.id / "0.original").write_bytes(b"tampered")
    with pytest.raises(Invalid, match="is not what it was"):
        undo(home, None, "adopt")
    assert one.read_bytes() == b"new"


@requirement("REG-5")
def test_a_folder_that_cannot_be_written_changes_nothing(
    home: Path, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    (locked / "f.json").write_bytes(b"{}")
    planned = [change(one, b"new"), change(locked / "f.json", b"new")]
    opens = os.open

    def refusing(path: Path, flags: int, mode: int = 0o777) -> int:
        if (
            flags & os.O_CREAT and Path(path).parent == locked
        ):  # as for anybody but root, who may all
            raise PermissionError(13, "Permission denied")
        return opens(path, flags, mode)

    monkeypatch.setattr(files.os, "open", refusing)
    with pytest.raises(Invalid, match="cannot be written: Permission denied"), done(home, *planned):
        raise AssertionError("never reached")
    assert one.read_bytes() == b"\xef\xbb\xbf{ }\r\n"
    assert [p.name for p in one.parent.iterdir()] == ["one.json"] and records(home) == []


@requirement("REG-5")
def test_a_write_that_fails_changes_nothing(
    home: Path, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Invalid, match="No space left on device"), done(home, change(one, b"new")):
        raise AssertionError("never reached")
    assert one.read_bytes() == b"\xef\xbb\xbf{ }\r\n"
    assert [p.name for p in one.parent.iterdir()] == ["one.json"]


@requirement("REG-5")
def test_reading_is_bounded_and_never_waits(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(FILE_MAX_BYTES + 1)
    for name, why in (("pipe", "not a file"), (".", "not a file"), ("loop", "Too many levels"),
                      ("huge", "longer than 16 MiB")):  # fmt: skip
        with pytest.raises(ExeatError, match=why):
            read(tmp_path / name)


@requirement("REG-5")
def test_looking_into_folders_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    (tmp_path / "node_modules" / "x").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    listed = [str(p.relative_to(tmp_path)) for p in files.folders(tmp_path)]
    assert listed == [".", "a", "a/b", "a/b/c", "a/b/c/d", "a/b/c/d/e", "a/b/c/d/e/f"]
    monkeypatch.setattr(files, "FOLDERS_MAX", 3)
    assert len(list(files.folders(tmp_path))) == 3

"""Backup while the gateway works, restore only what was checked whole."""

import hashlib
import io
import json
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from gateways import Gateway, Wire, decisions, entries, ledger_path, running, text, verified
from homes import Home
from requirements import requirement

from exeat.app.settings import Settings
from exeat.app.vault import open_vault
from exeat.core.errors import VaultFailed
from exeat.core.secret import TENANT, SecretId
from exeat.evidence.keys import load_signer
from exeat.evidence.note import Signer
from exeat.governance.secrets import set_secret
from exeat.storage.copies import copy_ledger
from exeat.storage.ledger import SqliteLedgerReader
from exeat.storage.state import open_state

TESTS = Path(__file__).parents[2]
Run = Callable[..., tuple[int, str, str]]


def served(path: Path) -> Home:
    """Its server is the one of the matrix, on stdio; what agents may do is everything."""
    made = Home(path)
    server = made.server(
        "m", command=[sys.executable, str(TESTS / "e2e" / "matrix_server.py"), "--stdio"]
    )
    made.pin_all(server)
    made.policy('@id("all") permit(principal, action, resource);')
    (made.path / "exeat.toml").write_text("heartbeat_s = 0.2\n")
    return made


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = served(tmp_path / "home")
    yield made
    made.state.close()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home on which a gateway answered a call and was stopped."""
    home = served(tmp_path_factory.mktemp("used") / "home")
    key = home.agent("bot", ["m"])
    with running(Gateway(home.path)) as gateway:
        wire = Wire(gateway.port, key, "/mcp/m")
        assert text(wire.call("add", a=1, b=2)) == "3"
        wire.http.close()
        assert gateway.stop() == 0
    home.state.close()
    return home.path


@pytest.fixture
def stopped(used: Path, tmp_path: Path) -> Iterator[Home]:
    """A copy of ``used``, a test's own."""
    made = Home.copied(used, tmp_path / "home")
    yield made
    made.state.close()


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def rewrite(archive: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@requirement("EVD-3", "EVD-4")
def test_backup_under_load_restores_to_a_gateway_that_works(
    home: Home, run: Run, tmp_path: Path
) -> None:
    """Calls and changes of the registry go on while five backups are made."""
    key = home.agent("bot", ["m"])
    over = threading.Event()
    answered: list[int] = []
    progress = threading.Semaphore(0)

    def call(port: int) -> None:
        wire = Wire(port, key, "/mcp/m")
        while not over.is_set():
            assert text(wire.call("add", a=1, b=1)) == "2"
            answered.append(1)
            progress.release()
        wire.http.close()

    def change() -> None:
        number = 0
        while not over.is_set():
            home.registry.register_person(f"p{number}", [], home.act())
            number += 1

    made: list[tuple[Path, int]] = []
    with running(Gateway(home.path)) as gateway:
        threads = [threading.Thread(target=call, args=(gateway.port,)) for _ in range(3)]
        threads.append(threading.Thread(target=change))
        for each in threads:
            each.start()
        try:
            for number in range(5):
                for _ in range(25):
                    assert progress.acquire(timeout=20)
                seen = len(answered)
                archive = tmp_path / f"b{number}.tar"
                code, _, err = run("backup", archive, "--with-keys", "--home", home.path)
                assert code == 0, err
                made.append((archive, seen))
        finally:
            over.set()
            for each in threads:
                each.join()
        assert gateway.stop() == 0
    whole = [entry.leaf_hash for entry in entries(home.path)]
    for archive, seen in made:
        new = tmp_path / archive.stem
        code, out, err = run("restore", archive, "--home", new)
        assert code == 0, err
        assert verified(new).sound and "verified" in out
        copied = entries(new)  # opens every sealed value with the restored master key
        assert [entry.leaf_hash for entry in copied] == whole[: len(copied)]
        permits = [d for d in decisions(new) if d[0].action.id == "m/add"]
        assert len(permits) >= seen  # every call that was answered before is in it
    assert made[-1][1] > made[0][1]
    (new / "exeat.toml").write_text("")
    with running(Gateway(new, instance="gw2")) as again:  # the old one went on: a new name
        wire = Wire(again.port, key, "/mcp/m")
        assert text(wire.call("add", a=2, b=2)) == "4"
        wire.http.close()
        assert again.stop() == 0
    assert sorted(p.name for p in (new / "ledger").glob("*.db")) == ["gw1.db", "gw2.db"]


@requirement("EVD-4")
def test_a_backup_of_a_stopped_gateway_goes_on_under_its_name(
    stopped: Home, run: Run, tmp_path: Path
) -> None:
    assert run("backup", tmp_path / "b.tar", "--with-keys", "--home", stopped.path)[0] == 0
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    new = tmp_path / "new"
    code, _, err = run("restore", tmp_path / "b.tar", "--home", new)
    assert code == 0 and "EXEAT_INSTANCE" in err
    assert new.stat().st_mode & 0o777 == 0o700
    for path in new.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    with running(Gateway(new)) as gateway:
        assert gateway.stop() == 0
    assert verified(new).sound and verified(new).entries > verified(stopped.path).entries


@requirement("EVD-4")
def test_keys_only_on_request(stopped: Home, run: Run, tmp_path: Path) -> None:
    code, _, err = run("backup", tmp_path / "plain.tar", "--home", stopped.path)
    assert code == 0 and "no keys" in err
    files = contents(tmp_path / "plain.tar")
    assert not [name for name in files if name.startswith("keys/")]
    secrets = [path.read_bytes().strip() for path in (stopped.path / "keys").iterdir()]
    assert len(secrets) == 5
    assert not [s for s in secrets if any(s in data for data in files.values())]
    code, _, err = run("backup", tmp_path / "keys.tar", "--with-keys", "--home", stopped.path)
    assert code == 0 and "private keys" in err
    assert len([name for name in contents(tmp_path / "keys.tar") if name.startswith("keys/")]) == 5
    code, _, err = run("restore", tmp_path / "plain.tar", "--home", tmp_path / "new")
    assert code == 0 and "put the private keys back" in err
    shutil.copytree(stopped.path / "keys", tmp_path / "new" / "keys")
    assert entries(tmp_path / "new")


@requirement("EVD-4")
def test_the_manifest_names_every_file_and_the_last_checkpoint(
    stopped: Home, run: Run, tmp_path: Path
) -> None:
    (stopped.path / "notes.txt").write_text("mine")
    code, _, err = run("backup", tmp_path / "b.tar", "--home", stopped.path)
    assert code == 0 and "left out: notes.txt" in err
    files = contents(tmp_path / "b.tar")
    manifest = json.loads(files["manifest.json"])
    assert next(iter(files)) == "manifest.json"
    named = {name: each["sha256"] for name, each in manifest["files"].items()}
    assert named == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in files.items()
        if not name.startswith("manifest.")
    }
    published = ledger_path(stopped.path).with_name("gw1.db.checkpoint").read_text()
    assert manifest["ledgers"]["gw1"]["checkpoint"] == published


def repack(files: dict[str, bytes], name: str, data: bytes) -> None:
    """Change a file, and the manifest with it."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    files[name], files["manifest.json"] = data, json.dumps(manifest).encode()


def change_a_file(files: dict[str, bytes], home: Home) -> None:
    files["state.db"] = files["state.db"].replace(b"ada", b"eve", 1)


def change_a_file_and_the_manifest(files: dict[str, bytes], home: Home) -> None:
    repack(files, "state.db", files["state.db"].replace(b"ada", b"eve", 1))


def strip_the_signature(files: dict[str, bytes], home: Home) -> None:
    change_a_file_and_the_manifest(files, home)
    del files["manifest.gw1.note"]


def sign_with_another_key(files: dict[str, bytes], home: Home) -> None:
    from exeat.app.backup.manifest import sign

    change_a_file_and_the_manifest(files, home)
    files["manifest.gw1.note"] = sign(files["manifest.json"], Signer("exeat/gw1", b"z" * 32))


def cut_the_ledger(files: dict[str, bytes], home: Home) -> None:
    """By somebody who has the signing key, too: the checkpoint still says how long it was."""
    import sqlite3

    from exeat.app.backup.manifest import sign

    path = home.path / "cut.db"
    path.write_bytes(files["ledger/gw1.db"])
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM batches WHERE first = (SELECT max(first) FROM batches)")
    db.close()
    repack(files, "ledger/gw1.db", path.read_bytes())
    signer = load_signer(home.path / "keys" / "gw1.ed25519")
    files["manifest.gw1.note"] = sign(files["manifest.json"], signer)


def lose_a_file(files: dict[str, bytes], home: Home) -> None:
    del files["ledger/gw1.db"]


def add_a_file(files: dict[str, bytes], home: Home) -> None:
    files["keys/extra.key"] = b"x"


def climb_out(files: dict[str, bytes], home: Home) -> None:
    repack(files, "../evil", b"x")


def no_manifest(files: dict[str, bytes], home: Home) -> None:
    del files["manifest.json"]


BENT = (
    change_a_file, change_a_file_and_the_manifest, strip_the_signature, sign_with_another_key,
    cut_the_ledger, lose_a_file, add_a_file, climb_out, no_manifest,
)  # fmt: skip


@requirement("EVD-4")
def test_a_tampered_backup_is_refused_and_nothing_is_written(
    stopped: Home, run: Run, tmp_path: Path
) -> None:
    good, bad, new = tmp_path / "good.tar", tmp_path / "bad.tar", tmp_path / "in" / "new"
    assert run("backup", good, "--home", stopped.path)[0] == 0
    for bend in BENT:
        files = contents(good)
        bend(files, stopped)
        rewrite(bad, files)
        code, out, err = run("restore", bad, "--home", new)
        assert code == 1 and err.startswith("exeat: "), (bend.__name__, out, err)
        assert list(new.parent.iterdir()) == [], bend.__name__
        assert not (tmp_path / "evil").exists() and not (tmp_path / "in" / "evil").exists()
    for cut in (100, 5000, good.stat().st_size // 2):
        bad.write_bytes(good.read_bytes()[:cut])
        assert run("restore", bad, "--home", new)[0] == 1
    bad.unlink()
    with tarfile.open(bad, "w") as tar:  # a link in place of a file
        for name, data in contents(good).items():
            info = tarfile.TarInfo(name)
            if name == "operator" or name == "state.db":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                info.size = 0
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert run("restore", bad, "--home", new)[0] == 1
    assert run("restore", good, "--home", new)[0] == 0


@requirement("EVD-4")
def test_a_checkpoint_that_is_newer_asks_for_a_new_name(
    stopped: Home, run: Run, tmp_path: Path
) -> None:
    archive, held = tmp_path / "b.tar", tmp_path / "held"
    published = ledger_path(stopped.path).with_name("gw1.db.checkpoint")
    old = tmp_path / "old"
    old.write_bytes(published.read_bytes())
    assert run("backup", archive, "--with-keys", "--home", stopped.path)[0] == 0
    with running(Gateway(stopped.path)) as gateway:
        gateway.stop()
    held.write_bytes(published.read_bytes())
    code, _, err = run("restore", archive, "--home", tmp_path / "a", "--checkpoint", old)
    assert code == 0 and "must not go on" not in err
    code, _, err = run("restore", archive, "--home", tmp_path / "b", "--checkpoint", held)
    assert code == 0 and "must not go on under that name" in err and "EXEAT_INSTANCE=gw2" in err
    held.write_bytes(Signer("exeat/gw1", b"q" * 32).sign("exeat/gw1\n3\n" + "A" * 43 + "=\n"))
    assert run("restore", archive, "--home", tmp_path / "c", "--checkpoint", held)[0] == 1
    key = str(load_signer(stopped.path / "keys" / "gw1.ed25519").verifier)
    assert run("restore", archive, "--home", tmp_path / "d", "--key", key)[0] == 0
    wrong = str(Signer("exeat/gw1", b"q" * 32).verifier)
    assert run("restore", archive, "--home", tmp_path / "e", "--key", wrong)[0] == 1
    other = str(Signer("exeat/other", b"q" * 32).verifier)
    code, _, err = run("restore", archive, "--home", tmp_path / "e", "--key", other)
    assert code == 1 and "holds no ledger of exeat/other" in err


@requirement("EVD-4")
def test_into_a_folder(stopped: Home, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    code, out, err = run("backup", folder, "--home", stopped.path)
    (made,) = folder.iterdir()
    assert code == 0 and str(made) in out and f"restore {made}" in err
    assert made.name.startswith("exeat-2") and made.suffix == ".tar"
    assert run("restore", made, "--home", tmp_path / "new")[0] == 0
    code, _, err = run("backup", f"{tmp_path}/absent/", "--home", stopped.path)
    assert code == 1 and "There is no folder" in err and "Make it first" in err


@requirement("EVD-4")
def test_refusals_name_the_next_step(stopped: Home, run: Run, tmp_path: Path) -> None:
    archive = tmp_path / "b.tar"
    assert run("backup", archive, "--home", stopped.path)[0] == 0
    code, _, err = run("backup", archive, "--home", stopped.path)
    assert code == 1 and "exists already" in err
    code, _, err = run("restore", archive, "--home", stopped.path)
    assert code == 1 and "not empty" in err and verified(stopped.path).sound
    assert run("restore", tmp_path / "none.tar", "--home", tmp_path / "n")[0] == 1
    assert run("backup", tmp_path / "c.tar", "--home", tmp_path / "none")[0] == 1
    (stopped.path / "keys" / "gw1.ed25519").unlink()
    code, _, err = run("backup", tmp_path / "u.tar", "--home", stopped.path)
    assert code == 0 and "not signed" in err
    code, _, err = run("restore", tmp_path / "u.tar", "--home", tmp_path / "n")
    assert code == 1 and "--accept-unsigned" in err
    assert run("restore", tmp_path / "u.tar", "--home", tmp_path / "n", "--accept-unsigned")[0] == 0


@requirement("EVD-4")
def test_a_ledger_that_is_not_whole_is_not_backed_up(
    stopped: Home, run: Run, tmp_path: Path
) -> None:
    import sqlite3

    with sqlite3.connect(ledger_path(stopped.path)) as db:
        db.execute("DELETE FROM batches WHERE first = (SELECT max(first) FROM batches)")
    db.close()
    code, _, err = run("backup", tmp_path / "b.tar", "--home", stopped.path)
    assert code == 1 and "not whole" in err
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


@requirement("EVD-3")
def test_a_copy_holds_what_is_only_in_the_tail(home: Home, tmp_path: Path) -> None:
    key = home.agent("bot", ["m"])
    with running(Gateway(home.path, heartbeat_s="3600")) as gateway:
        wire = Wire(gateway.port, key, "/mcp/m")
        for number in range(5):
            assert text(wire.call("add", a=number, b=1)) == str(number + 1)
        wire.http.close()
        made = copy_ledger(ledger_path(home.path), tmp_path / "copy.db")
        gateway.kill()
    rows = list(SqliteLedgerReader(tmp_path / "copy.db").rows())
    assert rows[-1].end == made.entries
    assert not (tmp_path / "copy.db.tail").exists()
    adds = [d for d in decisions(home.path) if d[0].action.id == "m/add"]
    assert len(adds) == 5 and made.entries > adds[-1][0].index


@requirement("ID-10")
def test_secrets_come_back_with_their_key_and_only_with_it(
    stopped: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = SecretId(TENANT, "", "", "github")
    vault = open_vault(stopped.path, Settings(), stopped.state)
    set_secret(vault, at, b"hush-41", stopped.act())
    _, _, err = run("backup", tmp_path / "plain.tar", "--home", stopped.path)
    assert "secrets of servers vault.key" in err
    run("backup", tmp_path / "keys.tar", "--with-keys", "--home", stopped.path)
    files = (tmp_path / "plain.tar", tmp_path / "keys.tar")
    assert not [file for file in files if b"hush-41" in file.read_bytes()]
    for name, opens in (("keys", True), ("plain", False)):
        new = tmp_path / name
        assert run("restore", tmp_path / f"{name}.tar", "--home", new)[0] == 0
        with closing(open_state(new)) as state:
            restored = open_vault(new, Settings(), state)
            if opens:
                assert restored.get(at) == b"hush-41"
            else:
                with pytest.raises(VaultFailed, match="is not in the file"):
                    restored.get(at)
    monkeypatch.setenv("EXEAT_VAULT_KEY_ENV", "MY_KEY")
    _, _, err = run("backup", tmp_path / "other.tar", "--with-keys", "--home", stopped.path)
    assert "the vault's key is never in it: keep the variable MY_KEY" in err

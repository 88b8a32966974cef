"""Backup where state and record are in PostgreSQL: the file, the dump, and both put back."""

import hashlib
import io
import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from faulting.database import Database, binaries
from gateways import TESTS, Gateway, NotStarted, Wire, environ, running, text
from homes import Home
from requirements import requirement

from exeat.app.backup.dump import dump_command, without_password
from exeat.evidence.keys import load_signer
from exeat.evidence.note import Signer
from exeat.evidence.verify import Report, verify
from exeat.storage.ledger_postgres import PostgresLedgerReader

Run = Callable[..., tuple[int, str, str]]


def tool(*argv: str) -> None:
    found = binaries()
    assert found is not None
    env = environ(PATH=f"{found}:{os.environ['PATH']}")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def call(gateway: Gateway, key: str) -> None:
    wire = Wire(gateway.port, key, "/mcp/m")
    assert text(wire.call("add", a=1, b=2)) == "3"
    wire.http.close()


def verified(url: str) -> Report:
    reader = PostgresLedgerReader(url, "exeat/gw1")
    try:
        return verify(reader)
    finally:
        reader.close()


@pytest.mark.long
@requirement("EVD-4", "EVD-3")
def test_file_and_dump_make_a_gateway_that_goes_on(
    database: Database, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", database.url)
    program = [sys.executable, str(TESTS / "e2e" / "matrix_server.py"), "--stdio"]
    home.pin_all(home.server("m", command=program))
    home.policy('@id("all") permit(principal, action, resource);')
    key = home.agent("bot", ["m"])
    (home.path / "exeat.toml").write_text("heartbeat_s = 0.2\n")
    monkeypatch.setenv("EXEAT_DATABASE_URL", database.url)
    archive, early = tmp_path / "b.tar", tmp_path / "early.dump"
    with running(Gateway(home.path, database_url=database.url)) as gateway:
        tool(
            "pg_dump",
            "--format=custom",
            "--no-owner",
            f"--file={early}",
            without_password(database.url),
        )
        call(gateway, key)
        assert gateway.stop() == 0
    with running(Gateway(home.path, database_url=database.url)) as gateway:
        code, out, err = run("backup", archive, "--with-keys", "--home", home.path)
        assert code == 0 and "PostgreSQL" in err
        (command,) = [line.strip() for line in out.splitlines() if "pg_dump" in line]
        tool(*shlex.split(command))  # as it was told, beside the running gateway
        call(gateway, key)
        assert gateway.stop() == 0
    home.state.close()
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert "ledger/gw1.checkpoint" in names and "manifest.gw1.note" in names
    assert "state.db" not in names

    there, earlier = database.another(), database.another()
    tool(
        "pg_restore",
        "--no-owner",
        f"--dbname={without_password(there)}",
        str(archive.with_suffix(".dump")),
    )
    tool("pg_restore", "--no-owner", f"--dbname={without_password(earlier)}", str(early))
    code, _, err = run("restore", archive, "--home", tmp_path / "new")
    assert code == 0 and "pg_restore" in err and "EXEAT_INSTANCE=gw2" in err
    before = verified(there)
    assert before.sound
    with running(Gateway(tmp_path / "new", database_url=there)) as again:
        call(again, key)
        assert again.stop() == 0
    after = verified(there)
    assert after.sound and after.entries > before.entries
    with pytest.raises(NotStarted, match="checkpoint was signed"):  # a dump older than the file
        Gateway(tmp_path / "new", database_url=earlier)


@requirement("EVD-4")
def test_the_manifest_is_checked_with_the_key_that_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the log is in the file; so its key is whatever its owner told."""
    home, archive = tmp_path / "home", tmp_path / "b.tar"
    (home / "ledger").mkdir(parents=True)
    signer = Signer("exeat/gw1", b"k" * 32)
    (home / "exeat.toml").write_text("")
    (home / "ledger" / "gw1.checkpoint").write_bytes(
        signer.sign("exeat/gw1\n3\n" + "A" * 43 + "=\n")
    )
    monkeypatch.setenv("EXEAT_DATABASE_URL", "postgresql://u:hush@h/d?password=hush")
    from exeat.evidence.keys import create_signer

    create_signer(home / "keys" / "gw1.ed25519", "exeat/gw1", lambda n: b"k" * n)
    assert load_signer(home / "keys" / "gw1.ed25519").verifier == signer.verifier
    code, out, err = run("backup", archive, "--home", home)
    assert code == 0 and "hush" not in out + err and "postgresql://u@h/d" in out
    code, _, err = run("restore", archive, "--home", tmp_path / "a")
    assert code == 0 and "nobody checked that gw1 signed" in err
    code, _, err = run("restore", archive, "--home", tmp_path / "b", "--key", signer.verifier)
    assert code == 0 and "nobody checked" not in err
    _replace(archive, "exeat.toml", b'host = "0.0.0.0"\n')  # and the manifest with it; not its note
    code, _, err = run("restore", archive, "--home", tmp_path / "c", "--key", signer.verifier)
    assert code == 1 and "not the one that was signed" in err and not (tmp_path / "c").exists()
    other = Signer("exeat/gw1", b"o" * 32).verifier
    code, _, err = run("restore", archive, "--home", tmp_path / "c", "--key", other)
    assert code == 1 and not (tmp_path / "c").exists()


def _replace(archive: Path, name: str, content: bytes) -> None:
    with tarfile.open(archive) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    manifest = json.loads(files["manifest.json"])
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["files"][name] = entry
    files |= {name: content, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(archive, "w") as tar:
        for each, data in files.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@requirement("EVD-4")
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:5433/d?sslmode=require", "postgresql://u@h:5433/d?sslmode=require"),
        ("postgresql+psycopg://u:p@h/d?password=p", "postgresql://u@h/d"),
        ("postgresql://u@/d?host=/run/pg", "postgresql://u@/d?host=%2Frun%2Fpg"),
        ("postgresql:///d", "postgresql:///d"),
    ],
)
def test_the_command_shows_no_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    command = shlex.split(dump_command(url, Path("/a b/monday.tar")))
    assert command[0] == "pg_dump" and command[-1] == shown
    assert "--file=/a b/monday.dump" in command

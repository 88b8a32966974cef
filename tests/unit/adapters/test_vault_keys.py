"""Where the vault's key comes from: a file that only we can read, a variable, a command (ID-10)."""

import base64
import os
import stat
import sys
from pathlib import Path

import pytest
from requirements import requirement

from exeat.adapters import vault_keys
from exeat.adapters.vault_keys import CommandKeys, EnvironmentKeys, FileKeys, SharedFileKeys
from exeat.core.errors import Conflict, ExeatError, Invalid, VaultFailed
from exeat.identity.vault.model import VaultKey

A, B = VaultKey(b"a" * 32), VaultKey(b"b" * 32)


def printing(text: str, more: str = "") -> CommandKeys:
    return CommandKeys([sys.executable, "-c", f"print({text!r});{more}"], {})


@requirement("ID-10")
def test_the_file_is_made_closed_and_keeps_old_keys_until_they_are_dropped(tmp_path: Path) -> None:
    os.umask(os.umask(0))
    keys = FileKeys(tmp_path / "keys" / "vault.key")
    assert keys.read() == ()
    keys.add(A)
    keys.add(B)
    assert keys.read() == (B, A)
    assert stat.S_IMODE((tmp_path / "keys" / "vault.key").stat().st_mode) == 0o600
    keys.drop(frozenset({A.id}))
    assert FileKeys(tmp_path / "keys" / "vault.key").read() == (B,)
    assert [each.name for each in (tmp_path / "keys").iterdir()] == ["vault.key"]


@requirement("ID-10")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "vault.key"
    FileKeys(path).add(A)
    path.chmod(mode)
    with pytest.raises(Invalid, match="can be read by others") as refused:
        FileKeys(path).read()
    assert refused.value.remedy == f"Run `chmod 600 {path}`."


@requirement("ID-10")
@pytest.mark.parametrize(
    "text", ["", "\n", "short", A.text()[:-4], f"{A.text()} {A.text()}", "é", A.text() + "x" * 5000]
)
def test_a_file_that_holds_something_else_is_refused_unquoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vault.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ExeatError) as refused:
        FileKeys(path).read()
    assert text.strip()[:6] not in str(refused.value) or not text.strip()


@requirement("ID-10")
def test_a_full_disk_leaves_the_keys_that_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = FileKeys(tmp_path / "vault.key")
    keys.add(A)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultFailed, match="No space left"):
        keys.add(B)
    assert keys.read() == (A,)


@requirement("ID-10")
def test_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = EnvironmentKeys("MY_KEY", {"MY_KEY": f"{B.text()} {A.text()}"})
    assert keys.read() == (B, A)
    with pytest.raises(VaultFailed, match="MY_KEY is not set"):
        EnvironmentKeys("MY_KEY", {}).read()
    with pytest.raises(Conflict, match="cannot put a new key"):
        keys.add(A)
    keys.drop(frozenset({A.id}))


@requirement("ID-10")
def test_a_command_prints_the_key() -> None:
    assert printing(f"{B.text()} {A.text()}").read() == (B, A)
    seen = CommandKeys([sys.executable, "-c", "import os; print(os.environ['K'])"], {"K": A.text()})
    assert seen.read() == (A,)


@requirement("ID-10")
@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        (A.text(), "raise SystemExit(3)", "ended with status 3"),
        ("no key", "", "does not hold keys"),
        ("", "", "is empty"),
        ("x" * 5000, "", "does not hold keys"),
    ],
)
def test_a_command_that_fails_says_how_and_not_what(text: str, more: str, says: str) -> None:
    with pytest.raises(ExeatError, match=says) as failed:
        printing(text, more).read()
    assert A.text() not in str(failed.value)


@requirement("ID-10")
def test_a_command_is_bounded_in_time_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a grandchild keeps the pipe open, or the program never stops printing."""
    endless = CommandKeys([sys.executable, "-c", "while True: print('x' * 4096)"], {})
    with pytest.raises(Invalid, match="does not hold keys"):
        endless.read()
    monkeypatch.setattr(vault_keys, "COMMAND_MAX_S", 0.3)
    script = "import subprocess,sys; subprocess.Popen([sys.executable,'-c','import time;time.sleep(60)'])"
    with pytest.raises(VaultFailed, match="did not end"):
        CommandKeys([sys.executable, "-c", script], {}).read()


@requirement("ID-10")
def test_a_command_that_is_not_there_is_not_started_again_at_once() -> None:
    keys = CommandKeys(["/no/such/program"], {})
    with pytest.raises(VaultFailed, match="cannot be started") as first:
        keys.read()
    with pytest.raises(VaultFailed) as second:
        keys.read()
    assert second.value is first.value


@requirement("ID-10")
def test_an_id_says_nothing_of_its_key() -> None:
    assert len(A.id) == 16 and A.id != B.id
    assert A.text() not in repr(A) and base64.b64decode(A.text()) == A.secret
    assert A.id not in (A.secret.hex(), A.text())


@requirement("ID-10")
def test_a_file_that_several_homes_share_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    keys = SharedFileKeys(path)
    assert keys.read() == ()
    with pytest.raises(Conflict, match="cannot put a new key into the file"):
        keys.add(A)
    FileKeys(path).add(A)
    keys.drop(frozenset({A.id}))
    assert keys.read() == (A,)

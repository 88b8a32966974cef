"""``exeat secret``: values come in and never come out (ID-10)."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import Run
from requirements import requirement

VALUE = "hush-hush-value"


@pytest.fixture
def exeat(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A home with ada; ``stdin`` is what is piped in."""
    monkeypatch.setenv("EXEAT_HOME", str(tmp_path / "home"))

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(
            isatty=lambda: False, buffer=io.BytesIO(stdin)
        ))  # fmt: skip
        return run(*arguments)

    assert call("init", "--me", "ada")[0] == 0
    return call


def set_it(exeat: Run, *arguments: str, value: str = VALUE) -> tuple[int, str, str]:
    return exeat("secret", "set", *arguments, stdin=value.encode())


@requirement("ID-10")
def test_set_list_rotate_remove(exeat: Run, tmp_path: Path) -> None:
    assert set_it(exeat, "github", value=VALUE + "\n")[0] == 0
    exeat(
        "server",
        "add",
        "web",
        "--url",
        "http://h/",
        "--header-secret",
        "Authorization=Bearer {github}",
    )
    listed = json.loads(exeat("secret", "list", "--json")[1])
    first = listed[0].pop("key")
    assert listed[0].pop("set_at").endswith("Z")
    assert listed == [
        {
            "name": "github",
            "server": "",
            "agent": "",
            "version": 1,
            "set_by": "ada",
            "used_by": ["web"],
        }
    ]
    code, out, _ = exeat("secret", "rotate")
    assert code == 0 and out.startswith("1 secret is under key ") and first in out
    assert first not in exeat("secret", "list")[1]
    code, _, err = exeat("secret", "remove", "github")
    assert code == 1 and "Server web needs secret github" in err
    assert exeat("server", "change", "web", "--header-secret", "Authorization=")[0] == 0
    assert exeat("secret", "remove", "github")[0] == 0
    assert exeat("secret", "list", "--json")[1] == "[]\n"
    files = [path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert files and not [each for each in files if VALUE.encode() in each]


@requirement("ID-10")
@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "The value of secret t is empty."),
        ("\n", "The value of secret t is empty."),
        ("x" * 65_537, "longer than 65536 bytes"),
        ("a\r\nb", "cannot be sent in a header"),
        ("a\x00b", "cannot be sent in a header"),
        ("schlüssel", "cannot be sent in a header"),
        (" hush-hush", "cannot be sent in a header"),
    ],
)
def test_values_that_cannot_be_used_are_refused_and_not_repeated(
    exeat: Run, value: str, says: str
) -> None:
    exeat("server", "add", "web", "--url", "http://h/", "--header-secret", "X-Key=t")
    code, out, err = set_it(exeat, "t", value=value)
    assert code == 1 and says in err and (value.strip() or "-" * 9) not in out + err
    assert exeat("secret", "list", "--json")[1] == "[]\n"


@requirement("ID-10")
def test_the_largest_value_is_kept_whole(exeat: Run) -> None:
    assert set_it(exeat, "big", value="x" * 65_536)[0] == 0


@requirement("ID-10")
@pytest.mark.parametrize(
    "option",
    [
        "--header-secret=Authorization=Bearer hush-hush-value",
        "--header-secret=Authorization=hush {a} hush",
        "--header-secret=Authorization=hush41hush {a}",
        "--header-secret=Authorization={a}{b}",
        "--header-secret=Authorization=Bearer {A}",
        "--header-secret=Authorization=",
        "--header-secret=Host=a",
        "--header-secret=Mcp-Name=a",
        "--header-secret=Bad Header=a",
    ],
)
def test_what_is_no_name_of_a_secret_is_refused_and_not_repeated(exeat: Run, option: str) -> None:
    code, out, err = exeat("server", "add", "web", "--url", "http://h/", option)
    assert code == 1 and "hush" not in out + err and err.startswith("exeat: ")


@requirement("ID-10")
def test_a_command_line_shows_no_value(exeat: Run) -> None:
    code, _, _ = exeat("secret", "set", "github", "hush-hush-value")
    assert code == 2 and exeat("secret", "list", "--json")[1] == "[]\n"


@requirement("ID-10")
def test_a_person_types_it_twice_without_echo(exeat: Run, tmp_path: Path) -> None:
    """On a real terminal: what the program writes there holds no value."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "exeat.cli.main", "secret", "set", "github"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "EXEAT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    for prompt in (b"Value of github: ", b"Again: "):
        while prompt not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, VALUE.encode() + b"\n")
    while b"is set" not in shown:
        shown += os.read(ours, 1024)
    assert process.wait(20) == 0
    os.close(ours)
    assert VALUE.encode() not in shown
    assert json.loads(exeat("secret", "list", "--json")[1])[0]["name"] == "github"


@requirement("ID-10")
def test_two_places_for_the_key_are_one_too_many(
    exeat: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXEAT_VAULT_KEY_ENV", "K")
    monkeypatch.setenv("EXEAT_VAULT_KEY_COMMAND", '["true"]')
    code, _, err = set_it(exeat, "github")
    assert code == 1 and "Both vault_key_env and vault_key_command" in err


@requirement("ID-10", "REG-8")
def test_declared_files_name_secrets_and_come_back_the_same(exeat: Run, tmp_path: Path) -> None:
    exeat(
        "server",
        "add",
        "web",
        "--url",
        "http://h/",
        "--header-secret",
        "Authorization=Bearer {github}",
    )
    exeat("server", "add", "box", "--env-secret", "TOKEN=github", "--", "box-server")
    code, declared, _ = exeat("export")
    assert (
        code == 0 and "Authorization: Bearer {github}" in declared and "TOKEN: github" in declared
    )
    path = tmp_path / "all.yaml"
    path.write_text(declared)
    assert "is what the files say" in exeat("plan", str(path))[1]
    path.write_text(declared.replace("TOKEN: github", "TOKEN: gitlab"))
    code, out, _ = exeat("plan", str(path))
    assert "env_secret" in out and "gitlab" in out
    assert exeat("apply", str(path), "--reason", "x")[0] == 0
    assert json.loads(exeat("server", "show", "box")[1])["env_secret"] == {"TOKEN": "gitlab"}

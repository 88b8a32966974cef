"""Servers that demand permits, and the keys that they are given, at the command line (ID-11)."""

import json
from pathlib import Path

import pytest
from command_line import Run
from requirements import requirement

from exeat.permit import load_keys


@requirement("ID-11")
def test_the_command_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXEAT_HOME", str(tmp_path / "home"))

    def modes() -> dict[str, tuple[str, str]]:
        listed = json.loads(run("server", "list", "--json")[1])
        return {each["id"]: (each["permit"], each["mode"]) for each in listed}

    run("init", "--me", "ada")
    code, out, _ = run("permit", "keys")
    assert code == 0 and len(load_keys(out)) == 1 and run("permit", "keys")[1] == out
    key = tmp_path / "home" / "keys" / "permit.key"
    assert key.stat().st_mode & 0o777 == 0o600 and key.read_text().strip() not in out
    run("server", "add", "web", "--url", "https://h/mcp", "--permit")
    run("server", "add", "box", "--permit", "--", "box")
    run("server", "add", "own", "--url", "https://h/mcp", "--permit-audience", "urn:own")
    run("server", "add", "key", "--url", "https://h/mcp", "--header-secret", "X-Key=k")
    run("server", "add", "free", "--url", "https://h/mcp")
    assert modes() == {
        "web": ("https://h/mcp", "permit-enforced"),
        "box": ("box", "permit-enforced"),
        "own": ("urn:own", "permit-enforced"),
        "key": ("", "credential-only"),
        "free": ("", "none"),
    }
    assert "permit: urn:own" in run("export")[1]
    assert run("server", "change", "own", "--no-permit")[0] == 0
    assert run("server", "change", "free", "--permit")[0] == 0
    assert modes()["own"] == ("", "none") and modes()["free"][1] == "permit-enforced"
    code, _, err = run("server", "add", "bad", "--url", "https://h/mcp", "--permit-audience", "a b")
    assert code == 1 and "cannot be the audience of a permit" in err

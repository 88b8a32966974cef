"""Every file and command of the policy guide is executed, in its order (POL-5, POL-6)."""

import re
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from command_line import Run
from homes import BOB
from recorded_home import RecordedHome
from requirements import requirement

from exeat.registry.model.person import ADMIN

GUIDE = Path(__file__).parents[3] / "docs/how-to/policy-guide.md"
PART = re.compile(r"<!-- (file: [\w./-]+|traffic|team) -->|```(\w+)\n(.*?)```", re.DOTALL)
TO = {"to": "x@example.com", "currency": "EUR"}


def parts() -> Iterator[tuple[str, str]]:
    """``("file: NAME" | "traffic" | "team" | a language, text)`` in the order of the page."""
    named = ""
    for mark, language, body in PART.findall(GUIDE.read_text(encoding="utf-8")):
        if mark.startswith("file: "):
            named = mark
        elif mark:
            yield mark, ""
        else:
            yield named or language, body
            named = ""


@requirement("POL-5", "POL-6")
def test_the_guide_is_true(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = RecordedHome(tmp_path / "home")
    monkeypatch.setenv("EXEAT_HOME", str(home.path))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    said, ran, written = "", 0, 0
    for what, text in parts():
        if what.startswith("file: "):
            path = folder / what.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written += 1
        elif what == "traffic":
            payments = [("bank/transfer", {"amount": Decimal(n), **TO}) for n in (20, 80, 150, 900)]
            home.record([*payments, ("bank/balance", {}), ("fs/read", {"path": "/w/a/b.txt"})])
        elif what == "team":
            home.registry.set_roles(BOB, [ADMIN], home.act())
        elif what == "sh":
            said = ""
            for line in text.splitlines():
                command, _, wanted = line.partition("# exit ")
                code, out, err = run(*shlex.split(command)[1:])
                assert code == int(wanted or 0), f"{line}\n{out}{err}"
                said += out + err
                ran += 1
        elif what == "text":
            for line in text.splitlines():
                assert line.rstrip("… ") in said, f"{line!r} is not in:\n{said}"
        else:
            raise AssertionError(f"a block of {what} that nothing runs:\n{text}")
    assert (ran, written) > (25, 12)
    home.state.close()

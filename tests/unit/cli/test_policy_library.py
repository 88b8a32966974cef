"""``exeat policy library``: what is copied lints and keeps its cases (POL-5)."""

from pathlib import Path

import pytest
from command_line import Run
from requirements import requirement

from exeat.policy import library


@requirement("POL-5")
@pytest.mark.parametrize("name", library.names())
def test_what_is_copied_is_ready_to_be_tried(run: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "policies"
    code, out, err = run("policy", "library", "copy", name, folder)
    assert code == 0, err
    assert f"{name}.cedar" in out and "exeat policy test" in err
    catalogue = ("--catalogue", folder / "catalogue.yaml")
    assert run("policy", "lint", folder, *catalogue)[0] == 0
    code, out, _ = run("policy", "test", folder, *catalogue)
    assert code == 0 and " 0 failed" in out
    code, _, err = run("policy", "library", "copy", name, folder)
    assert code == 1 and "is there already" in err


@requirement("POL-5")
def test_it_is_listed_and_shown(run: Run) -> None:
    code, out, _ = run("policy", "library", "list")
    assert code == 0 and len(out.splitlines()) == 1 + len(library.names())
    code, out, _ = run("policy", "library", "show", "amounts")
    assert "amounts-by-owner" in out and "quorum: 2" in out and "cases:" in out
    code, _, err = run("policy", "library", "show", "amuonts")
    assert code == 1 and "There are: amounts" in err

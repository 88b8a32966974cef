"""``exeat policy`` on the example policies, from a catalogue file."""

import shutil
from pathlib import Path

import pytest
from requirements import requirement
from typer.testing import CliRunner

from exeat.cli.policy import app

EXAMPLES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    shutil.copytree(EXAMPLES, tmp_path / "p", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return tmp_path / "p"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.exit_code, result.output


@requirement("POL-1", "POL-3")
def test_lint_and_cases_pass(policies: Path) -> None:
    catalogue = policies / "catalogue.yaml"
    assert run("lint", policies, "--catalogue", catalogue) == (0, "1 file, no findings.\n")
    code, output = run("test", policies, "--catalogue", catalogue)
    assert (code, output.splitlines()[-1]) == (0, "4 cases, 0 failed.")


@requirement("POL-3")
def test_a_failing_case_says_what_differs(policies: Path) -> None:
    text = (policies / "bank.cedar").read_text().replace('"100.0"', '"50.0"')
    (policies / "bank.cedar").write_text(text)
    code, output = run("test", policies, "--catalogue", policies / "catalogue.yaml")
    assert code == 1
    assert "verdict is deny, expected permit" in output


@requirement("POL-3")
def test_lint_names_file_line_and_remedy(policies: Path) -> None:
    (policies / "typo.cedar").write_text(
        '\n@id("x") permit(principal, action == Action::"fs/rd", resource);'
    )
    code, output = run("lint", policies, "--catalogue", policies / "catalogue.yaml")
    assert code == 1
    assert "typo.cedar:2:" in output
    assert "fs/read" in output


@requirement("POL-3")
def test_explain_names_the_condition_that_does_not_hold(policies: Path) -> None:
    catalogue = policies / "catalogue.yaml"
    wanted = ["--directory", policies, "--catalogue", catalogue, "--case"]
    code, output = run("explain", *wanted, "a large transfer is not")
    assert code == 0
    assert "nearest permit  pay-small (bank.cedar:2)" in output
    assert "does not hold: when { " in output
    assert "100.0" in output
    code, output = run("explain", *wanted, "a known crook gets nothing")
    assert "no-evil (bank.cedar:10) decided" in output


@requirement("POL-3")
def test_mistaken_use_is_a_sentence_and_a_next_step(policies: Path, tmp_path: Path) -> None:
    for arguments in (
        ["lint", tmp_path / "none", "--catalogue", policies / "catalogue.yaml"],
        ["lint", policies, "--home", tmp_path / "nohome"],
        [
            "explain",
            "--case",
            "nope",
            "--directory",
            policies,
            "--catalogue",
            policies / "catalogue.yaml",
        ],
    ):
        code, output = run(*arguments)
        assert code == 2
        assert "Next: " in output


@requirement("POL-3")
def test_a_folder_that_is_no_home_stays_as_it_is(policies: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, output = run("lint", policies, "--home", tmp_path / "empty")
    assert code == 2 and "There is no exeat home at" in output
    assert not list((tmp_path / "empty").iterdir())

"""What the documentation names, exists: commands with their options, settings, make targets, files."""

import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from requirements import requirement

from exeat.app.settings import Settings
from exeat.cli.main import NOUNS
from exeat.core.decision import Reason

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packaging/*/*.y*ml"))
    if "adr" not in path.parts and path.name != "CHANGELOG.md"
)


@cache
def commands(noun: str) -> dict[str, set[str]]:
    """Each verb of a noun with its options; a noun without verbs under ""."""
    module, name, _ = NOUNS[noun]
    found = getattr(importlib.import_module(module), name)
    app = found
    if not isinstance(found, typer.Typer):
        app = typer.Typer()
        app.command()(found)
    command = typer.main.get_command(app)
    verbs = getattr(command, "commands", None) or {"": command}
    return {verb: {o for p in each.params for o in p.opts} for verb, each in verbs.items()}


def written(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Noun, verb and options of each `exeat …` in a page; what stands behind ` -- ` is another's."""
    for noun, rest in re.findall(r"\bexeat ([a-z]+)\b([^\n`|;#]*)", text):
        if noun in NOUNS:
            words = rest.partition(" -- ")[0].split()
            verb = words[0] if words and "" not in commands(noun) else ""
            yield noun, verb, [word for word in words if re.fullmatch(r"--[a-z-]+", word)]


@requirement("REG-1")
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_and_files_of_a_page_exist(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for noun, verb, options in written(text):
        if not re.fullmatch(r"[a-z]+", verb) and verb:
            continue  # a sentence that goes on
        assert verb in commands(noun), f"exeat {noun} {verb}"
        assert set(options) <= commands(noun)[verb] | {"--help"}, f"exeat {noun} {verb} {options}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?m)`make ([a-z-]+)[^`]*`|^make ([a-z-]+)", text)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    for path in re.findall(r"`((?:tests|scripts|src|packaging|docs|demo)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@requirement("REG-1")
def test_every_setting_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "gateway.md").read_text(encoding="utf-8")
    table = page.partition("## Settings")[2].partition("## Limits")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(Settings.model_fields)


@requirement("POL-3")
def test_every_reason_stands_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "gateway.md").read_text(encoding="utf-8")
    section = page.partition("### Reasons")[2].partition("## Settings")[0]
    assert sorted(set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section))) == sorted(Reason)

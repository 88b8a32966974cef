"""``exeat policy library``: policies to start from, with the cases that they keep (POL-5)."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import next_step, say, table
from exeat.core.errors import Conflict
from exeat.policy import library

app = typer.Typer(
    help="Policies to start from, each with its cases.", no_args_is_help=True, add_completion=False
)
Name = Annotated[str, typer.Argument(help="As `exeat policy library list` says.")]


@app.command("list")
def list_() -> None:
    """What there is, and what it is for."""
    table(("policy", "what it does"), ((name, _first(name)) for name in library.names()))


def _first(name: str) -> str:
    return library.about(name).partition(" Change:")[0].partition(" PARTIAL:")[0]


@app.command()
def show(name: Name) -> None:
    """Its text: policies, controls and cases."""
    for file, text in library.files(name).items():
        say(f"# {file}\n{text.rstrip()}\n")


@app.command()
def copy(
    name: Name, directory: Annotated[Path, typer.Argument(help="Where your policies are.")]
) -> None:
    """Write it into a directory of yours; nothing that is there is overwritten."""
    files = {**library.files(name)}
    for file in files:
        if (directory / file).exists():
            raise Conflict(
                f"{directory / file} is there already.",
                remedy=f"Join them by hand: exeat policy library show {name}",
            )
    example = directory / library.CATALOGUE
    if not example.exists():
        files[library.CATALOGUE] = library.catalogue()
    for file, text in files.items():
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).write_text(text, encoding="utf-8")
    say(f"{', '.join(sorted(files))} are in {directory}.")
    next_step(
        f"exeat policy test {directory} --catalogue {example}   (then change it to your needs)"
    )

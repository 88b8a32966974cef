"""``exeat plan``, ``apply`` and ``export``: the registry as files (REG-8)."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import (
    AsOption,
    HomeOption,
    JsonOption,
    ReasonOption,
    next_step,
    open_desk,
    printable,
    say,
    show_json,
)
from exeat.core.errors import Invalid
from exeat.core.facts import Lifecycle
from exeat.governance.export import export as export_registry
from exeat.governance.manifest import read_manifest
from exeat.governance.plan import Plan, apply_manifest, make_plan

Files = Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A YAML file, or a directory.")]
Prune = Annotated[bool, typer.Option("--prune", help="Take away what is not declared.")]


def plan(
    files: Files, prune: Prune = False, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Show what `exeat apply` would change, and what is registered but not declared."""
    manifest = read_manifest(declared_files(files))
    desk = open_desk(home)
    with desk.state.registry.read() as now:
        made = make_plan(manifest, now, prune=prune)
    if as_json:
        show_json(_json(made))
        return
    _show(made)
    say(_summary(made, "would change"))
    if made.steps:
        next_step(f"exeat apply {files} --reason …{' --prune' if prune else ''}")


def apply(
    files: Files,
    reason: ReasonOption,
    prune: Prune = False,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Make the registry what the files say, in one transaction: all of it, or nothing."""
    manifest = read_manifest(declared_files(files))
    desk = open_desk(home, as_)
    done = apply_manifest(manifest, desk.registry, desk.act(reason), prune=prune)
    _show(done)
    say(_summary(done, "changed"))
    with desk.state.registry.read() as now:
        for agent in now.agents():
            if agent.id in manifest.agents and not agent.accepted:
                say(
                    f"The scope of {agent.id} waits for its owner or deputy; no file can accept it."
                )
                next_step(f"exeat agent accept {agent.id} --as {agent.charter.owner or 'OWNER'}")
            elif agent.id in manifest.agents and agent.lifecycle is Lifecycle.DRAFT:
                next_step(f"exeat agent activate {agent.id}")


def export(
    to: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Else to stdout.")] = None,
    home: HomeOption = None,
) -> None:
    """Write the registry as a file for `exeat plan` and `exeat apply`."""
    desk = open_desk(home)
    with desk.state.registry.read() as now:
        text = export_registry(now)
    if to is None:
        typer.echo(text, nl=False)
        return
    try:
        with to.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Invalid(
            f"{to} cannot be written: {error.strerror}.", remedy="Name a file that is not there."
        ) from None
    say(f"The registry is in {to}.")
    next_step(f"exeat plan {to}")


def declared_files(where: Path) -> dict[str, str]:
    """The file, or every ``*.yaml`` and ``*.yml`` directly in the directory.  Raises Invalid."""
    found = [where] if not where.is_dir() else sorted((*where.glob("*.yaml"), *where.glob("*.yml")))
    if not found:
        raise Invalid(f"{where} holds no *.yaml file.", remedy="Begin with `exeat export`.")
    try:
        return {str(path): path.read_text(encoding="utf-8") for path in found}
    except (OSError, UnicodeDecodeError):
        raise Invalid(
            f"{where} cannot be read as UTF-8 text.", remedy="Check the name and the file."
        ) from None


def _show(made: Plan) -> None:
    for step in made.steps:
        say(f"{step.sign} {printable(step.subject)}")
        for line in step.lines:
            say(f"    {printable(line)}")
    for subject in made.drift:
        say(f"! {printable(subject)} is registered but not declared")
    for line in made.waiting:
        say(f"? {printable(line)}")


def _summary(made: Plan, verb: str) -> str:
    if not (made.steps or made.drift or made.waiting):
        return "The registry is what the files say."
    return f"{len(made.steps)} {verb}, {len(made.drift)} not declared, {len(made.waiting)} waiting."


def _json(made: Plan) -> dict[str, object]:
    steps = [
        {"sign": step.sign, "subject": step.subject, "lines": list(step.lines)}
        for step in made.steps
    ]
    return {"steps": steps, "drift": list(made.drift), "waiting": list(made.waiting)}

"""``exeat policy apply``: check, then put a policy version in force."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import AsOption, HomeOption, ReasonOption, next_step, open_desk, say
from exeat.core.errors import Invalid
from exeat.core.ids import PersonId


def apply(
    directory: Annotated[Path, typer.Argument(help="Directory with *.cedar.")],
    reason: ReasonOption,
    author: Annotated[
        str | None, typer.Option(help="Who wrote it; else the person who applies it.")
    ] = None,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Check the policies against the registry and put them in force; on any finding nothing changes."""
    from exeat.cli.policy_files import policy_files
    from exeat.policy.lint import lint
    from exeat.policy.world import Catalogue

    desk = open_desk(home, as_)
    files = policy_files(directory)
    known = desk.state.snapshot()
    findings = lint(files, Catalogue(known.tools, known.servers, known.agents, known.people))
    if findings:
        for finding in findings:
            say(str(finding))
        raise Invalid(
            f"{len(findings)} findings: nothing was applied, the version in force stays.",
            remedy="Correct the files and apply them again.",
        )
    version = desk.registry.apply_policy(files, PersonId(author or desk.actor), desk.act(reason))
    say(f"Policy version {version.number} ({version.digest[:12]}) is in force.")
    next_step("exeat up   (a running gateway has it within a second)")


def versions(home: HomeOption = None) -> None:
    """All versions that are kept, newest first."""
    from exeat.cli.desk import table
    from exeat.registry.model.names import show_time

    desk = open_desk(home)
    now = desk.state.policies.in_force()
    table(
        ("version", "digest", "author", "approver", "when", "in force", "reason"),
        (
            (v.number, v.digest[:12], v.author, v.approver, show_time(v.at),
             "yes" if now is not None and v.number == now.number else "", v.reason)
            for v in reversed(desk.state.policies.versions())
        ),
    )  # fmt: skip


def rollback(
    number: int, reason: ReasonOption, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Put an earlier (or later) version that is kept in force."""
    desk = open_desk(home, as_)
    version = desk.registry.enforce_policy(number, desk.act(reason))
    say(f"Policy version {version.number} is in force.")

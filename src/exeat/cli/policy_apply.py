"""``exeat policy apply``, ``propose``, ``approve``: what comes into force, by whom (POL-5, POL-10)."""

from pathlib import Path
from typing import Annotated, Final

import typer

from exeat.app.settings import load_settings
from exeat.cli.desk import (
    AsOption,
    Desk,
    HomeOption,
    ReasonOption,
    next_step,
    open_desk,
    say,
    table,
)
from exeat.cli.policy_diff import show_differences
from exeat.cli.policy_files import policy_files
from exeat.core.errors import Conflict, Invalid
from exeat.core.ids import PersonId
from exeat.policy.lint import lint
from exeat.policy.world import Catalogue
from exeat.registry.model.names import show_time
from exeat.registry.model.policy import policy_digest
from exeat.registry.model.proposal import Kind, Proposal, Standing

FINDINGS_SHOWN: Final = 50
DIGEST_MIN: Final = 8
"""Characters of a digest that a person has to give, so that it says which."""
Directory = Annotated[Path, typer.Argument(help="Directory with *.cedar and controls.yaml.")]
Author = Annotated[
    str | None, typer.Option("--author", help="Who wrote it; else the person who acts.")
]
Seen = Annotated[
    str | None, typer.Option("--digest", help="The digest that you were shown, or its beginning.")
]


def apply(
    directory: Directory,
    reason: ReasonOption,
    author: Author = None,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Check the policies against the registry and put them in force; on any finding nothing changes."""
    desk = open_desk(home, as_)
    files = _sound(desk, policy_files(directory))
    version = desk.registry.apply_policy(
        files, PersonId(author or desk.actor), desk.act(reason), approvals(desk)
    )
    _say_in_force(version.number, version.digest)


def propose(
    directory: Directory,
    reason: ReasonOption,
    author: Author = None,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Check the policies and propose them; another admin puts them in force with `policy approve`."""
    desk = open_desk(home, as_)
    files = _sound(desk, policy_files(directory))
    made = desk.registry.propose_policy(files, PersonId(author or desk.actor), desk.act(reason))
    say(f"Proposal {made.number} ({made.digest[:12]}) waits for another admin.")
    next_step(f"exeat policy proposals {made.number}; exeat policy approve {made.number} --as …")


def proposals(
    number: Annotated[int | None, typer.Argument(help="Show this one whole.")] = None,
    home: HomeOption = None,
) -> None:
    """What people proposed: policy versions, and agents to be observed."""
    desk = open_desk(home)
    with desk.state.registry.read() as read:
        found = read.proposals() if number is None else (read.proposal(number),)
        in_force = read.policy_in_force()
    table(
        ("proposal", "what", "digest", "author", "by", "when", "standing", "reason"),
        (
            (p.number, _what(p), p.digest[:12], p.author, p.by, show_time(p.at),
             f"{p.standing} by {p.decided_by}" if p.decided_by else p.standing, p.reason)
            for p in reversed(found)
        ),
    )  # fmt: skip
    if number is not None and found[0].kind is Kind.POLICY:
        show_differences({} if in_force is None else in_force.files, found[0].body["files"])
    open_one = next((p for p in found if p.standing is Standing.OPEN), None)
    if open_one is not None:
        next_step(
            f"exeat policy approve {open_one.number} --digest {open_one.digest[:12]} --reason …"
        )


def approve(
    number: int,
    reason: ReasonOption,
    digest: Seen = None,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Put in force what another person proposed; it is checked again and shown first."""
    desk = open_desk(home, as_)
    with desk.state.registry.read() as read:
        meant = read.proposal(number)
        before = read.policy_in_force()
    if digest is not None and (len(digest) < DIGEST_MIN or not meant.digest.startswith(digest)):
        raise Conflict(
            f"Proposal {number} has the digest {meant.digest[:12]}, not {digest}.",
            remedy=f"Look at it: exeat policy proposals {number}",
        )
    say(f"Proposal {number} ({meant.digest[:12]}) of {meant.by}: {_what(meant)}; {meant.reason}")
    if meant.kind is Kind.POLICY:
        _sound(desk, meant.body["files"])
        show_differences({} if before is None else before.files, meant.body["files"])
    desk.registry.approve(number, meant.digest, desk.act(reason))
    if meant.kind is Kind.POLICY:
        now = desk.state.policies.in_force()
        _say_in_force(0 if now is None else now.number, policy_digest(meant.body["files"]))
    else:
        say(f"Agent {meant.body['agent']} is observed from now on.")


def withdraw(
    number: int, reason: ReasonOption, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Withdraw a proposal that nobody approved."""
    desk = open_desk(home, as_)
    desk.registry.withdraw(number, desk.act(reason))
    say(f"Proposal {number} is withdrawn.")


def approvals(desk: Desk) -> int | None:
    """How many people a change of policy takes, as the settings say; None: as the home's admins are."""
    return load_settings(desk.home).policy_approvals


def _sound(desk: Desk, files: dict[str, str]) -> dict[str, str]:
    """Raises Invalid on any finding, having said all of them."""
    known = desk.state.snapshot()
    findings = lint(files, Catalogue(known.tools, known.servers, known.agents, known.people))
    if findings:
        for finding in findings[:FINDINGS_SHOWN]:
            say(str(finding))
        if len(findings) > FINDINGS_SHOWN:
            say(f"… and {len(findings) - FINDINGS_SHOWN} more.")
        raise Invalid(
            f"{len(findings)} findings: nothing was applied, the version in force stays.",
            remedy="Correct the files and apply them again.",
        )
    return files


def _say_in_force(number: int, digest: str) -> None:
    say(f"Policy version {number} ({digest[:12]}) is in force.")
    next_step("exeat up   (a running gateway has it within a second)")


def _what(proposal: Proposal) -> str:
    if proposal.kind is Kind.POLICY:
        return f"policy of {len(proposal.body['files'])} files"
    hours, seconds = divmod(proposal.body["for_s"], 3600)
    return f"observe {proposal.body['agent']} for {hours} h{f' {seconds} s' if seconds else ''}"


def versions(home: HomeOption = None) -> None:
    """All versions that are kept, newest first."""
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

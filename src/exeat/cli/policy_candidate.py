"""A policy that is meant: a directory of files, or the number of a version that is kept."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import Desk
from exeat.cli.policy_files import policy_files
from exeat.core.errors import Invalid
from exeat.core.facts import PolicyVersionFacts, Snapshot
from exeat.core.ids import Digest, PersonId
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp
from exeat.registry.model.policy import PolicyVersion, policy_digest

Candidate = Annotated[str, typer.Argument(help="A directory of policies, or a version's number.")]


def meant(candidate: str, desk: Desk) -> PolicyVersionFacts:
    """Raises Invalid, NotFound."""
    if candidate.isascii() and candidate.isdigit() and not Path(candidate).is_dir():
        with desk.state.registry.read() as read:
            return facts_of(read.policy(int(candidate)))
    files = policy_files(Path(candidate))
    nobody = PersonId("")
    return PolicyVersionFacts(
        Digest(policy_digest(files)), 0, nobody, nobody, f"the files in {candidate}", files
    )


def facts_of(version: PolicyVersion) -> PolicyVersionFacts:
    return PolicyVersionFacts(
        version.digest,
        version.number,
        version.author,
        version.approver,
        version.reason,
        version.files,
    )


def title(policy: PolicyVersionFacts) -> str:
    return f"version {policy.number}" if policy.number else policy.reason


def compiled(policy: PolicyVersionFacts, known: Snapshot) -> Pdp:
    """Raises Invalid, naming the first finding: a candidate that is not sound decides nothing."""
    pdp = compile_bundle(
        policy, known.tools, known.servers, agents=known.agents, people=known.people
    )
    if pdp.findings:
        more = f" (and {len(pdp.findings) - 1} more)" if len(pdp.findings) > 1 else ""
        raise Invalid(f"{pdp.findings[0]}{more}", remedy="See them all: exeat policy lint")
    return pdp

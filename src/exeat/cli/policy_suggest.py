"""``exeat policy suggest``: a least-privilege policy from what an agent used (POL-6)."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import HomeOption, next_step, open_desk, say
from exeat.cli.spans import since_ns
from exeat.cli.traffic import Traffic
from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.ids import AgentId
from exeat.policy.suggest import Suggested
from exeat.policy.suggest import suggest as learn
from exeat.policy.world import Catalogue


def suggest(
    agent: Annotated[str, typer.Option("--agent", help="Whose use it is made from.")],
    since: Annotated[str, typer.Option("--since", help="From the last 12h, 7d, 30d.")] = "30d",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Directory to write it to; else it is printed."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Permits for what an agent used and nothing else, with cases; the replay of that use proves it."""
    desk = open_desk(home)
    known = desk.state.snapshot()
    if AgentId(agent) not in known.agents:
        raise NotFound(f"There is no agent {agent}.", remedy="See `exeat agent list`.")
    traffic = Traffic(desk.home, known, since_ns(since), agent)
    catalogue = Catalogue(known.tools, known.servers, known.agents, known.people)
    found = learn(agent, traffic.used(), catalogue)
    left_out = traffic.recall.left_out + found.left_out
    if not found.taught:
        raise NotFound(
            f"{agent} used nothing that could teach a policy in the last {since}.",
            remedy="; ".join(f"{n} calls were left out: {why}" for why, n in left_out.items())
            or "Look further back with --since.",
        )
    _require_proof(found)
    if out is None:
        say(found.text)
    else:
        _write(out, found)
        say(f"{found.file} and cases/{found.case_file} are in {out}.")
    typer.echo(f"{found.taught} used calls, and all of them are permitted by it alone.", err=True)
    for why, count in sorted(left_out.items()):
        typer.echo(f"{count} calls taught nothing: {why}.", err=True)
    if out is not None:
        next_step(f"read it; exeat policy test {out}; exeat policy diff {out}")


def _require_proof(found: Suggested) -> None:
    """Nothing is written that is not sound and sufficient."""
    if found.findings:
        raise Invalid(
            f"What was learned is not sound: {found.findings[0]}", remedy="Please report this."
        )
    if found.refused:
        names = ", ".join(each.id for each in found.refused[:5])
        raise Conflict(
            f"What was learned would refuse {len(found.refused)} of the calls it was made from: {names}.",
            remedy="Nothing was written.  See why: exeat policy explain DECISION.",
        )


def _write(out: Path, found: Suggested) -> None:
    places = (out / found.file, out / "cases" / found.case_file)
    for place in places:
        if place.exists():
            raise Conflict(f"{place} is there already.", remedy="Name another directory.")
    (out / "cases").mkdir(parents=True, exist_ok=True)
    for place, text in zip(places, (found.text + "\n", found.cases), strict=True):
        place.write_text(text, encoding="utf-8")

"""``exeat policy diff``: what changes from one policy to another (POL-6)."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from exeat.cli.desk import Desk, HomeOption, JsonOption, open_desk, printable, say, show_json, table
from exeat.cli.policy_candidate import facts_of, meant, title
from exeat.core.errors import NotFound
from exeat.core.facts import PolicyVersionFacts, Snapshot
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp
from exeat.policy.difference import Difference, Reach, differences, reaches
from exeat.policy.world import Catalogue

_SIGN = {"added": "+", "removed": "-", "changed": "~"}


def diff(
    after: Annotated[
        str | None,
        typer.Argument(help="A directory or a version's number; else the version in force."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Argument(help="What it is held against; else the version in force."),
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Policies added, removed and changed, controls, and what agents could do now that they could not."""
    desk = open_desk(home)
    old, new = _pair(desk, after, before)
    known = desk.state.snapshot()
    catalogue = Catalogue(known.tools, known.servers, known.agents, known.people)
    found = differences({} if old is None else old.files, new.files)
    moved = list(reaches(_pdp(old, known), _pdp(new, known), catalogue, time.time_ns()))
    if as_json:
        show_json(_data(found, moved))
        return
    say(f"From {'nothing' if old is None else title(old)} to {title(new)}:")
    _show(found)
    _show_reach(moved)


def show_differences(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    """Policies and controls, as text."""
    _show(differences(before, after))


def _show(found: list[Difference]) -> None:
    for each in found:
        say(f"{_SIGN[each.what]} {printable(each.id)} ({each.what}, {printable(each.place)})")
        for line in each.lines:
            say(f"    {_shown(line)}")
    if not found:
        say("  The policies are the same.")


def _shown(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line)


def _pair(
    desk: Desk, after: str | None, before: str | None
) -> tuple[PolicyVersionFacts | None, PolicyVersionFacts]:
    with desk.state.registry.read() as read:
        in_force = read.policy_in_force()
        kept = {version.number: version for version in read.policies()}
    if after is None:
        if in_force is None:
            raise NotFound(
                "No policy is in force.", remedy="Name a directory: exeat policy diff DIR"
            )
        earlier = kept.get(in_force.number - 1)
        return None if earlier is None else facts_of(earlier), facts_of(in_force)
    if before is not None:
        return meant(before, desk), meant(after, desk)
    return None if in_force is None else facts_of(in_force), meant(after, desk)


def _pdp(policy: PolicyVersionFacts | None, known: Snapshot) -> Pdp | None:
    if policy is None:
        return None
    return compile_bundle(policy, known.tools, known.servers, people=known.people)


def _show_reach(moved: list[Reach]) -> None:
    if not moved:
        say("No agent could call a tool that it could not call before, nor the other way round.")
        return
    heads = ("agent", "tool", "effect", "sink", "could be permitted")
    table(
        heads,
        (
            (each.agent, each.tool.action, each.tool.effect, each.tool.sink, _word(each))
            for each in sorted(moved, key=lambda each: (not each.could, each.agent))
        ),
    )


def _word(reach: Reach) -> str:
    return "now, not before" if reach.could else "no longer"


def _data(found: list[Difference], moved: list[Reach]) -> dict[str, Any]:
    return {
        "policies": [
            {"what": d.what, "id": d.id, "place": d.place, "lines": list(d.lines)} for d in found
        ],
        "tools": [
            {
                "agent": m.agent,
                "tool": m.tool.action,
                "effect": m.tool.effect.value,
                "could": m.could,
            }
            for m in moved
        ],
    }

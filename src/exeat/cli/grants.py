"""``exeat grants``: what approvers made of held calls, bounded, and taken back (APP-6)."""

import os
import time
from typing import Annotated, Any

import typer

from exeat.approvals.model.grant import Grant
from exeat.approvals.service.grants import Revocation
from exeat.cli.approval_view import show_bounds
from exeat.cli.approvals import open_desk_approvals
from exeat.cli.desk import NO_REASON as NONE
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
    table,
)
from exeat.registry.model.names import show_time

app = typer.Typer(
    help="Bounded grants: list, show, revoke.", no_args_is_help=True, add_completion=False
)
GrantArgument = Annotated[str, typer.Argument(help="The grant, as `exeat grants list` names it.")]


@app.command("list")
def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Grants with their last use, the next to end first."""
    desk = open_desk(home)
    approvals, _ = open_desk_approvals(desk)
    now = time.time_ns()
    found = approvals.grants.all()
    if as_json:
        show_json([_row(each, now) for each in found])
        return
    table(
        ("grant", "state", "agent", "for", "tool", "gives", "used", "until", "last use"),
        (
            (
                each.id,
                state(each, now),
                each.binding.agent,
                each.binding.user or "-",
                each.binding.action,
                "+".join(sorted(each.controls)),
                f"{each.uses - each.left} of {each.uses}",
                show_time(each.until),
                show_time(each.last_used) if each.last_used else "never",
            )
            for each in found
        ),
    )


@app.command()
def show(grant: GrantArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Its bounds, argument by argument, and its use."""
    desk = open_desk(home)
    approvals, _ = open_desk_approvals(desk)
    found = approvals.grants.one(grant)
    extent = approvals.grants.extent(found)
    now = time.time_ns()
    if as_json:
        show_json({**_row(found, now), "bounds": extent.bounds.as_json()})
        return
    say(f"{found.id}  {state(found, now)}")
    say(f"  {'tool':<10}  {printable(found.binding.action)}")
    say(f"  {'agent':<10}  {found.binding.agent}, for {found.binding.user or 'nobody'}")
    say(f"  {'gives':<10}  {', '.join(sorted(found.controls))}   (from {found.hold})")
    say(
        f"  {'used':<10}  {found.uses - found.left} of {found.uses}, until {show_time(found.until)}"
    )
    say(f"  {'arguments':<10}")
    show_bounds(extent.bounds, extent.held)
    if found.live(now):
        next_step(f"exeat grants revoke {grant}")


@app.command()
def revoke(
    grant: GrantArgument, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Nothing takes from it any more."""
    desk = open_desk(home, as_)
    approvals, standing = open_desk_approvals(desk)
    act = desk.act(reason)
    how = Revocation(act.actor, f"cli:{os.geteuid()}", act.reason)
    found = approvals.grants.revoke(grant, how, standing, act.at)
    say(f"{found.id} is revoked; it was used {found.uses - found.left} of {found.uses} times.")


def state(grant: Grant, now: int) -> str:
    if grant.revoked_at:
        return "revoked"
    if grant.left == 0:
        return "used up"
    return "live" if grant.live(now) else "ended"


def _row(grant: Grant, now: int) -> dict[str, Any]:
    return {
        "id": grant.id,
        "state": state(grant, now),
        "agent": grant.binding.agent,
        "user": grant.binding.user or "",
        "tool": grant.binding.action,
        "controls": sorted(grant.controls),
        "hold": grant.hold,
        "uses": grant.uses,
        "left": grant.left,
        "made_at": show_time(grant.made_at),
        "until": show_time(grant.until),
        "last_used": show_time(grant.last_used) if grant.last_used else None,
        "revoked_by": grant.revoked_by,
    }

"""``exeat approvals``: held calls, and people's answers (APP-1 … APP-7)."""

import os
import time
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exeat.approvals.model.bounds import Bounds
from exeat.approvals.model.hold import Hold, HoldState, Word
from exeat.approvals.service.answers import Outcome, Said
from exeat.approvals.service.approvals import Approvals
from exeat.cli.approval_view import show_call
from exeat.cli.bounds import Typed, read_typed, window
from exeat.cli.desk import NO_REASON as NONE
from exeat.cli.desk import (
    AsOption,
    Desk,
    HomeOption,
    JsonOption,
    ReasonOption,
    next_step,
    open_desk,
    say,
    show_json,
    table,
)
from exeat.core.controls import CONFIRMED_BY_USER, Channel
from exeat.core.errors import Invalid
from exeat.registry.model.names import show_time

if TYPE_CHECKING:
    from exeat.approvals.model.standing import Standing

app = typer.Typer(
    help="Held calls: see what is asked, approve or deny it.",
    no_args_is_help=True,
    add_completion=False,
)
HoldArgument = Annotated[
    str, typer.Argument(help="The held call, as `exeat approvals list` names it.")
]


REDEFINED = (
    "the tool's definition is another one since this call was held, so an approval of it will not count;"
    " if the agent makes the call again, people are asked again"
)


def _how_to_answer(hold: Hold) -> str:
    if hold.alternatives == ((CONFIRMED_BY_USER,),):
        return f"{hold.binding.user} confirms it with a passkey, at /holds/{hold.id} of the control listener"
    return f"exeat approvals approve {hold.id}   (or: exeat approvals deny {hold.id})"


def _redefined(desk: Desk, hold: Hold) -> bool:
    """An approval is for the definition that was shown (APP-2); who answers should know it is gone."""
    tool = desk.state.snapshot().tools.get(hold.binding.action)
    return tool is not None and tool.pin != hold.binding.pin


def open_desk_approvals(desk: Desk) -> tuple[Approvals, "Standing"]:
    from exeat.app.approvals import open_approvals, standing_now
    from exeat.app.settings import load_settings
    from exeat.app.vault import open_vault

    vault = open_vault(desk.home, load_settings(desk.home), desk.state)
    return open_approvals(desk.state, vault), standing_now(desk.state)


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="Also those that wait no more.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Calls that wait for people, the next to expire first."""
    desk = open_desk(home)
    approvals, _ = open_desk_approvals(desk)
    now = time.time_ns()
    holds = approvals.all() if every else approvals.waiting(now)
    if as_json:
        show_json([_row(each) for each in holds])
        return
    table(
        ("held", "state", "agent", "for", "tool", "asks", "until", "called"),
        (
            (
                each.id,
                each.state.value,
                each.binding.agent,
                each.binding.user or "-",
                each.binding.action,
                " or ".join("+".join(a) for a in each.alternatives),
                show_time(each.use_by or each.expires_at),
                each.attempts,
            )
            for each in holds
        ),
    )
    if not holds:
        next_step("nothing to do: no call waits for people")
    elif not every:
        next_step(f"exeat approvals show {holds[0].id}")


@app.command()
def show(hold: HoldArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """The real call: arguments, destination, effect, why, who is asked, and what happens otherwise."""
    desk = open_desk(home)
    approvals, standing = open_desk_approvals(desk)
    found = approvals.hold(hold)
    call = approvals.presented(found, standing)
    if as_json:
        show_json(call)
        return
    show_call(call)
    if _redefined(desk, found):
        next_step(REDEFINED)
    elif found.state is HoldState.PENDING:
        next_step(_how_to_answer(found))


@app.command()
def approve(  # noqa: PLR0913 - one per option
    hold: HoldArgument,
    grant: Annotated[
        bool, typer.Option("--grant", help="Make it a bounded grant instead of this one call.")
    ] = False,
    at_most: Annotated[
        list[str] | None, typer.Option("--at-most", help="ARGUMENT=NUMBER, from 0; repeatable.")
    ] = None,
    below: Annotated[
        list[str] | None, typer.Option("--below", help="ARGUMENT=PATH; repeatable.")
    ] = None,
    one_of: Annotated[
        list[str] | None, typer.Option("--one-of", help="ARGUMENT=VALUE; repeat it per value.")
    ] = None,
    same: Annotated[
        list[str] | None,
        typer.Option("--same", help="ARGUMENT as in this call; so is every other without a bound."),
    ] = None,
    until: Annotated[
        str, typer.Option("--until", help="18:00, 8h, 7d, or a day; at most 90 days.")
    ] = "",
    times: Annotated[int, typer.Option("--times", help="How often.")] = 0,
    this_run: Annotated[bool, typer.Option("--this-run", help="In this run only.")] = False,
    reason: ReasonOption = NONE,
    home: HomeOption = None,
    as_: AsOption = None,
) -> None:
    """Say yes to this very call, once; with --grant, to calls like it, within bounds."""
    desk = open_desk(home, as_)
    approvals, standing = open_desk_approvals(desk)
    typed = Typed(
        tuple(at_most or ()), tuple(below or ()), tuple(one_of or ()), tuple(same or ()),
        until, times, this_run,
    )  # fmt: skip
    if typed and not grant:
        raise Invalid("Bounds belong to a grant.", remedy="Add --grant, or leave them out.")
    bounds = None
    if grant:
        held = approvals.shown(approvals.hold(hold)).leaving
        bounds = read_typed(typed, held, datetime.now().astimezone())
    redefined = _redefined(desk, approvals.hold(hold))
    outcome = _answer(desk, approvals, standing, hold, Word.APPROVE, reason, bounds)
    _say_outcome(outcome, bounds)
    if redefined:
        next_step(REDEFINED)


@app.command()
def deny(
    hold: HoldArgument, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Say no; the same call is refused for an hour without anybody being asked."""
    desk = open_desk(home, as_)
    approvals, standing = open_desk_approvals(desk)
    _answer(desk, approvals, standing, hold, Word.DENY, reason, None)
    say(f"{hold} is denied.")


@app.command()
def figures(
    since: Annotated[str, typer.Option("--since", help="How far back: 8h, 30d.")] = "30d",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How people decide: how many, how fast, how often yes.  Quick: within 5 s of the request."""
    desk = open_desk(home)
    approvals, _ = open_desk_approvals(desk)
    found = approvals.figures(time.time_ns() - window(since))
    if as_json:
        show_json(asdict(found))
        return
    say(
        f"{found.holds} held calls ({found.attempts} attempts): {found.approved} approved"
        f" ({found.granted} as grants), {found.confirmed} confirmed, {found.denied} denied,"
        f" {found.expired} expired, {found.pending} pending; median {found.median_s} s to decide."
    )
    table(
        ("person", "approvals", "denials", "confirmations", "quick", "rate", "median s"),
        (
            (p.person, p.approvals, p.denials, p.confirmations, p.quick, p.rate, p.median_s)
            for p in found.people
        ),
    )


def _answer(
    desk: Desk,
    approvals: Approvals,
    standing: "Standing",
    hold: str,
    word: Word,
    reason: str,
    bounds: Bounds | None,
) -> Outcome:
    act = desk.act(reason)
    said = Said(act.actor, Channel.CLI, word, act.reason, bounds, f"cli:{os.geteuid()}")
    return approvals.answer(hold, said, standing, act.at)


def _say_outcome(outcome: Outcome, bounds: Bounds | None) -> None:
    hold = outcome.hold
    if outcome.missing:
        wanted = " or ".join(", ".join(each) for each in outcome.missing)
        say(f"Noted.  {hold.id} still waits for: {wanted}.")
    elif outcome.grant is not None:
        say(
            f"Granted: {outcome.grant.id}, {outcome.grant.uses} times until"
            f" {show_time(outcome.grant.until)}."
        )
        next_step(f"exeat grants show {outcome.grant.id}")
    else:
        confirmed = {c for a in hold.approvals for c in a.controls} == {CONFIRMED_BY_USER}
        word = "Confirmed" if confirmed else "Approved"
        say(f"{word}: the same call may be made once until {show_time(hold.use_by)}.")
        if bounds is not None:
            say("No grant was made: all who are needed must propose the same bounds.")


def _row(hold: Hold) -> dict[str, Any]:
    return {
        "id": hold.id,
        "state": hold.state.value,
        "agent": hold.binding.agent,
        "user": hold.binding.user or "",
        "tool": hold.binding.action,
        "alternatives": [list(each) for each in hold.alternatives],
        "asked_at": show_time(hold.asked_at),
        "expires_at": show_time(hold.expires_at),
        "attempts": hold.attempts,
        "answers": [{"person": a.person, "said": a.word.value} for a in hold.answers],
        "grant": hold.grant,
    }

"""``exeat budgets``: what is spent of each budget of the policy in force, by whom, until when (APP-8)."""

from typing import Annotated, Any, Final

import typer

from exeat.cli.desk import Desk, HomeOption, JsonOption, next_step, open_desk, say, show_json, table
from exeat.core.controls import AMOUNT_UNITS, Budget, Counts
from exeat.core.errors import Conflict, NotFound
from exeat.policy.controls import read_controls
from exeat.registry.model.names import show_time
from exeat.storage.budgets import Share, Use

app = typer.Typer(
    help="Budgets and rates: what is spent, by whom, and when there is room again.",
    no_args_is_help=True,
)
USES: Final = 20
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


@app.command("list")
def list_budgets(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Every budget of the policy in force, and the fullest share of each."""
    desk = open_desk(home)
    found = [(each, desk.state.budgets.shares(each)) for each in _declared(desk)]
    if as_json:
        show_json(
            [{**_about(b), "shares": [_of_share(b, s) for s in shares]} for b, shares in found]
        )
        return
    table(
        ("budget", "counts", "per", "limit", "window", "shares", "fullest", "spent"),
        (
            (
                b.id,
                f"{b.counts} of {b.argument}" if b.argument else b.counts,
                b.per,
                _units(b, b.limit),
                _span(b.window_s),
                len(shares),
                shares[0].key if shares else "-",
                _units(b, shares[0].spent) if shares else "0",
            )
            for b, shares in found
        ),
    )
    if found:
        next_step(f"exeat budgets show {found[0][0].id}")
    else:
        say("The policy in force declares no budgets.")


@app.command()
def show(
    budget: str,
    uses: Annotated[int, typer.Option(help="How many of the latest uses to show.")] = USES,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who has how much of it, until when, and who took it."""
    desk = open_desk(home)
    declared = {each.id: each for each in _declared(desk)}
    if budget not in declared:
        known = ", ".join(sorted(declared)) or "none"
        raise NotFound(
            f"The policy in force declares no budget {budget}.", remedy=f"There are: {known}."
        )
    of = declared[budget]
    shares = desk.state.budgets.shares(of)
    taken = desk.state.budgets.uses(of, max(0, uses))
    if as_json:
        shown = {
            "shares": [_of_share(of, s) for s in shares],
            "uses": [_of_use(of, u) for u in taken],
        }
        show_json({**_about(of), **shown})
        return
    say(f"{of.id}: {_units(of, of.limit)} {_counted(of)} per {of.per} in {_span(of.window_s)}\n")
    table(
        ("share", "spent", "left", "calls", "next free at"),
        (
            (
                s.key,
                _units(of, s.spent),
                _units(of, max(0, of.limit - s.spent)),
                s.calls,
                show_time(s.free_at),
            )
            for s in shares
        ),
    )
    if taken:
        say("")
        table(
            ("at", "share", "by", "took", "call"),
            ((show_time(u.at), u.key, u.by or "-", _units(of, u.amount), u.call) for u in taken),
        )


def _declared(desk: Desk) -> tuple[Budget, ...]:
    version = desk.state.policies.in_force()
    if version is None:
        return ()
    controls, findings = read_controls(version.files)
    if findings:
        raise Conflict(
            f"The policy in force cannot be read: {findings[0]}",
            remedy="Correct controls.yaml, then run `exeat policy apply`.",
        )
    return controls.budgets


def _about(b: Budget) -> dict[str, Any]:
    return {
        "budget": b.id,
        "actions": list(b.actions),
        "agents": sorted(b.agents),
        "per": str(b.per),
        "counts": str(b.counts),
        "argument": b.argument,
        "limit": _units(b, b.limit),
        "window_s": b.window_s,
    }


def _of_share(b: Budget, s: Share) -> dict[str, Any]:
    return {
        "share": s.key,
        "spent": _units(b, s.spent),
        "calls": s.calls,
        "free_at": show_time(s.free_at),
    }


def _of_use(b: Budget, u: Use) -> dict[str, Any]:
    return {
        "at": show_time(u.at),
        "share": u.key,
        "by": u.by,
        "took": _units(b, u.amount),
        "call": u.call,
    }


def _counted(b: Budget) -> str:
    if b.counts is Counts.AMOUNT:
        return b.argument
    return f"distinct {b.argument}" if b.counts is Counts.DISTINCT else str(b.counts)


def _units(b: Budget, units: int) -> str:
    """Amounts with as many decimals as they have."""
    if b.counts is not Counts.AMOUNT:
        return str(units)
    whole, rest = divmod(units, AMOUNT_UNITS)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _span(seconds: int) -> str:
    size, letter = next(pair for pair in _SPANS if seconds % pair[0] == 0)
    return f"{seconds // size}{letter}"

"""``exeat kill`` and ``exeat revive``: stop something at once, everywhere, and let it go on (APP-9)."""

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

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
from exeat.core.errors import Invalid
from exeat.core.kills import Target
from exeat.registry.model.kill import Kill
from exeat.storage.kills import KillEffect

TARGETS = ", ".join(Target)


def kill(
    target: Annotated[str, typer.Argument(help=TARGETS)] = "",
    name: Annotated[str, typer.Argument(metavar="ID", help="Of what to stop; not for all.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the evidence.")] = "",
    listed: Annotated[bool, typer.Option("--list", help="What is stopped now.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="How fast each kill took effect, and where.")
    ] = False,
    home: HomeOption = None,
    as_: AsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop an agent, a person's agents, a user, a server, a tool, a run, or all: on every gateway, at once.

    Any live person may; what is under way is cancelled.  Only an admin lets it go on: exeat revive."""
    if listed or report:
        if target or name or (listed and report):
            raise Invalid("--list and --report stand alone.", remedy="Leave the rest out.")
        desk = open_desk(home, as_)
        _report(desk, as_json) if report else _list(desk, as_json)
        return
    if target not in set(Target):
        said = f"{target[:40]!r} cannot be killed." if target else "It is not said what to stop."
        raise Invalid(said, remedy=f"Name one of: {TARGETS}.  Or look: exeat kill --list")
    if not reason:
        raise Invalid("It is not said why.", remedy='Add --reason "…"; a few words will do.')
    desk = open_desk(home, as_)
    made = desk.registry.kill(Target(target), name, desk.act(reason))
    if as_json:
        show_json(_order(made))
        return
    say(f"Stopped: {made.what} ({made.id}).")
    next_step(f"exeat kill --report   and when it may go on: exeat revive {made.id}")


def revive(
    kill: str, reason: ReasonOption = NONE, home: HomeOption = None, as_: AsOption = None
) -> None:
    """Let go on what was killed, as far as everything else permits it.  Takes an admin."""
    desk = open_desk(home, as_)
    ended = desk.registry.revive(kill, desk.act(reason))
    say(f"{ended.what.capitalize()} may go on; {kill} has ended.")


def _kills(desk: Desk) -> list[Kill]:
    with desk.state.registry.read() as read:
        return sorted(read.kills(), key=lambda each: -each.at)


def _list(desk: Desk, as_json: bool) -> None:
    found = [each for each in _kills(desk) if each.stands]
    if as_json:
        show_json([_order(each) for each in found])
        return
    table(
        ("id", "stops", "since", "by", "reason"),
        ((k.id, k.what, _instant(k.at), k.by, k.reason) for k in found),
    )


def _report(desk: Desk, as_json: bool) -> None:
    effects: dict[str, list[KillEffect]] = defaultdict(list)
    for effect in desk.state.kill_effects.all():
        effects[effect.kill].append(effect)
    kills = _kills(desk)
    times = [e.at - k.at for k in kills for e in effects[k.id]]
    if as_json:
        show_json(
            {
                "kills": [{**_order(k), "gateways": _where(k, effects[k.id])} for k in kills],
                "after_ms": {name: ms for name, ms in _summary(times)},
            }
        )
        return
    rows: list[tuple[object, ...]] = []
    for each in kills:
        order = (each.id, each.what, _instant(each.at), each.by)
        for effect in effects[each.id]:
            rows.append((*order, effect.instance, _ms(effect.at - each.at), effect.cancelled))
        if not effects[each.id]:
            rows.append((*order, "no gateway yet", "-", "-"))
    table(("id", "stops", "ordered", "by", "gateway", "in effect after ms", "cancelled"), rows)
    if times:
        say("after ms: " + ", ".join(f"{name} {ms}" for name, ms in _summary(times)))


def _order(k: Kill) -> dict[str, Any]:
    ended = {"ended_at": _instant(k.ended_at), "ended_by": k.ended_by} if k.ended_at else {}
    return {**k.as_json(), "ordered_at": _instant(k.at), "by": k.by, "reason": k.reason, **ended}


def _where(k: Kill, effects: Sequence[KillEffect]) -> list[dict[str, Any]]:
    return [
        {"gateway": e.instance, "after_ms": _ms(e.at - k.at), "cancelled": e.cancelled}
        for e in effects
    ]


def _summary(times: Sequence[int]) -> list[tuple[str, int]]:
    """Nearest rank; nothing if there is none."""
    known = sorted(times)
    if not known:
        return []
    ranks = (("p50", 0.5), ("p95", 0.95), ("max", 1.0))
    return [(name, _ms(known[math.ceil(part * len(known)) - 1])) for name, part in ranks]


def _ms(ns: int) -> int:
    return round(ns / 1_000_000)


def _instant(ns: int) -> str:
    """To the millisecond, UTC."""
    at = datetime.fromtimestamp(ns // 1_000_000 / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

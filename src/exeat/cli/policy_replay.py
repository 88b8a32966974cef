"""``exeat policy replay`` and ``shadow-report``: what another policy would have said (POL-5, POL-6)."""

import time
from collections import Counter
from typing import Annotated, Any

import typer

from exeat.cli.desk import HomeOption, JsonOption, open_desk, say, show_json, table
from exeat.cli.policy_candidate import Candidate, compiled, meant, title
from exeat.cli.recorded import Recall
from exeat.cli.spans import since_ns
from exeat.cli.traffic import Traffic
from exeat.evidence.words import moment
from exeat.policy.replay import Change, Replayed
from exeat.policy.replay import replay as decide_again
from exeat.policy.shadow import SHADOW

SinceOption = Annotated[str | None, typer.Option("--since", help="Only the last 10m, 2h, 3d.")]
AgentOption = Annotated[str | None, typer.Option("--agent", help="Only this agent.")]
OF_NOW = (
    "Facts are those of the record; groups and environments of agents, roles of people, scopes and "
    "the definitions of tools are those of now."
)


def replay(
    candidate: Candidate,
    since: SinceOption = None,
    agent: AgentOption = None,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="Exit code 1 if a verdict would change.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Decide recorded traffic of all gateways under a candidate; list each verdict that would change."""
    desk = open_desk(home)
    policy, known = meant(candidate, desk), desk.state.snapshot()
    pdp = compiled(policy, known)
    traffic = Traffic(desk.home, known, since_ns(since), agent)
    began = time.perf_counter()
    found = decide_again(pdp, traffic.decisions())
    seconds = time.perf_counter() - began
    found.changes.sort(key=lambda change: change.before.request.now)
    if as_json:
        show_json(_data(found, traffic.recall))
    else:
        _show(found, traffic.recall, title(policy), seconds)
    if found.changes and fail_on_change:
        raise typer.Exit(1)


def _show(found: Replayed, recall: Recall, name: str, seconds: float) -> None:
    if found.changes:
        heads = ("decision", "agent", "action", "verdict", "reason", "policies")
        table(heads, (_row(change) for change in found.changes))
    say(
        f"{found.decided} decisions under {name} in {seconds:.1f} s: "
        f"{len(found.changes)} verdicts would change."
    )
    for move, count in sorted(found.moves.items()):
        say(f"  {move}: {count}")
    for why, count in sorted(recall.left_out.items()):
        say(f"  {count} were left out: {why}")
    for what, count in sorted(recall.changed.items()):
        say(f"  {count} were decided when the {what} was another than now")
    say(OF_NOW)


def _row(change: Change) -> tuple[str, ...]:
    before, after = change.before, change.after
    return (
        before.id,
        before.request.caller.agent.id,
        before.request.action,
        f"{before.of_policy.value} -> {after.verdict.value}",
        f"{before.reason.value} -> {after.reason.value}",
        ", ".join(after.policies) or "-",
    )


def _data(found: Replayed, recall: Recall) -> dict[str, Any]:
    return {
        "decided": found.decided,
        "moves": dict(found.moves),
        "left_out": dict(recall.left_out),
        "changed_since": dict(recall.changed),
        "changes": [
            {
                "decision": each.before.id,
                "time": moment(each.before.request.now),
                "agent": each.before.request.caller.agent.id,
                "action": each.before.request.action,
                "before": {
                    "verdict": each.before.verdict.value,
                    "reason": each.before.reason.value,
                    "policies": list(each.before.policies),
                },
                "after": {
                    "verdict": each.after.verdict.value,
                    "reason": each.after.reason.value,
                    "policies": list(each.after.policies),
                    "detail": each.after.detail,
                },
            }
            for each in found.changes
        ],
    }


def shadow_report(
    since: SinceOption = None,
    agent: AgentOption = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What shadow policies would have changed, and what observed agents would have met."""
    desk = open_desk(home)
    traffic = Traffic(desk.home, desk.state.snapshot(), since_ns(since), agent)
    counts, last, decided = Counter[tuple[str, ...]](), dict[tuple[str, ...], str](), 0
    for each in traffic.told():
        decided += 1
        for would in each.would:
            kind, verdict, who = would.split(":", 2)
            what = f"{each.verdict} -> {verdict}" if kind == SHADOW else f"{verdict} -> permit"
            row = (kind, each.agent, each.action, what, who)
            counts[row] += 1
            last[row] = each.id
    keys = ("kind", "agent", "action", "verdict", "policies or reason")
    if as_json:
        show_json([
            {**dict(zip(keys, row, strict=True)), "calls": count, "last": last[row]}
            for row, count in sorted(counts.items())
        ])  # fmt: skip
        return
    if counts:
        rows = ((*row, count, last[row]) for row, count in sorted(counts.items()))
        table((*keys, "calls", "last"), rows)
    told = sum(count for row, count in counts.items() if row[0] == SHADOW)
    say(f"{decided} decisions; shadow policies would have changed {told} of them.")

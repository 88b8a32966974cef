"""``exeat evidence``: read the record, check it, hand it to a stranger (EVD-1, EVD-4)."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from exeat.cli.desk import (
    HomeOption,
    JsonOption,
    next_step,
    say,
    show_json,
    table,
)
from exeat.cli.ledgers import (
    InstanceOption,
    Where,
    ledger_of,
    ledgers,
    meant,
    one_ledger,
    open_reader,
)
from exeat.cli.rooted import Rooted, check_home, latest_root
from exeat.cli.spans import since_ns
from exeat.core.errors import Invalid, NotFound
from exeat.evidence.model import DecisionLeaf, EventLeaf, OutcomeLeaf
from exeat.evidence.note import Verifier
from exeat.evidence.reader import Entry, EvidenceReader, enrolled
from exeat.evidence.verify import verify as verify_ledger
from exeat.evidence.words import moment, report_lines
from exeat.storage.ledger import export_ledger

app = typer.Typer(
    help="The record: what happened, and whether it is whole.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def verify(
    where: Where = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept elsewhere; repeatable.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="A gateway's key as its owner told you (name+id+base64); repeatable."),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(help="A root over all logs that was kept elsewhere; repeatable."),
    ] = None,
    instance: InstanceOption = None,
    home: HomeOption = None,
) -> None:
    """Check the whole record offline: nothing cut, edited, reordered or inserted, no log gone."""
    told = Told([path.read_bytes() for path in checkpoint or ()], key or [])
    kept = [path.read_bytes() for path in root or ()]
    found = ledgers(where, home, instance)
    rooted = Rooted()
    if instance is None and (where is None or not where.is_file()):
        rooted = check_home(meant(where, home), found, kept, told.keys)
    elif kept:
        raise Invalid("A root is over all logs.", remedy="Name the home, not one ledger.")
    sound = not rooted.problems
    for place in found:
        began = time.perf_counter()
        with closing(place.reader()) as reader:
            origin = enrolled(reader)[0]
            verifier, held = told.of(origin, only=len(found) == 1)
            report = verify_ledger(
                reader,
                key=verifier,
                held=held,
                published=place.published(),
                heads=rooted.wanted.get(origin),
            )
        say(f"{place.shown}:")
        for line in report_lines(report):
            say(line)
        say(f"({report.entries} entries in {time.perf_counter() - began:.2f} s)")
        sound = sound and report.sound
    if rooted.count or rooted.problems:
        say("all logs:")
        for line in rooted.lines():
            say(line)
    for origin in sorted(told.unmet):
        say(f"NOT SOUND: something was given of {origin}, and no ledger here is of that name")
    if not sound or told.unmet:
        raise typer.Exit(1)


class Told:
    """Checkpoints and keys that somebody else kept; each speaks of the log of its name (EVD-4).
    ``unmet``: names of logs that were not seen.  Raises Invalid for a key that is none."""

    def __init__(self, held: list[bytes], keys: list[str]) -> None:
        self._held = [(note.partition(b"\n")[0].decode("utf-8", "replace"), note) for note in held]
        self.keys = {made.name: made for made in map(Verifier.parse, keys)}
        self.unmet = {*self.keys, *(name for name, _ in self._held)}

    def of(self, origin: str, *, only: bool) -> tuple[Verifier | None, tuple[bytes, ...]]:
        """``only``: there is one ledger, so all of it must be about that."""
        self.unmet.discard(origin)
        if not only:
            return self.keys.get(origin), tuple(n for name, n in self._held if name == origin)
        self.unmet.clear()
        first = next(iter(self.keys.values()), None)
        return self.keys.get(origin, first), tuple(note for _, note in self._held)


@app.command()
def audit(  # noqa: PLR0913 - one per option
    where: Where = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    since: Annotated[str | None, typer.Option(help="Only the last 10m, 2h, 3d.")] = None,
    last: Annotated[int, typer.Option(help="At most so many, the latest; 0 = all.")] = 50,
    values: Annotated[
        bool, typer.Option("--values", help="Show arguments, where they can be opened.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Changes of registry and policy too.")
    ] = False,
    as_json: JsonOption = False,
    instance: InstanceOption = None,
    home: HomeOption = None,
) -> None:
    """What agents tried, what was decided and why, and what became of it; of all gateways."""
    found = ledgers(where, home, instance)
    rows = list[dict[str, Any]]()
    for place in found:
        with open_reader(place, values=values) as reader:
            told = _rows(reader, agent, since_ns(since), events=events)
            rows += [{"instance": place.name, **row} for row in told]
    if len(found) > 1:
        rows.sort(key=lambda row: str(row["time"]))
    rows = rows[-last:] if last else rows
    if as_json:
        show_json(rows)
        return
    if len(found) > 1:
        rows = [{**row, "entry": f"{row['instance']}-{row['entry']}"} for row in rows]
    heads = ("entry", "time", "agent", "action", "verdict", "reason", "outcome")
    keys = (*heads, "arguments") if values else heads
    table(keys, ([row.get(key, "") for key in keys] for row in rows))


def _rows(
    reader: EvidenceReader, agent: str | None, since: int, *, events: bool
) -> Iterator[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for entry in reader.entries(0):
        leaf = entry.leaf
        if isinstance(leaf, DecisionLeaf):
            if agent in (None, leaf.agent.id) and int(leaf.at) >= since:
                found[leaf.index] = _decision(entry, leaf)
        elif isinstance(leaf, OutcomeLeaf) and leaf.decision in found:
            cause = f" ({leaf.cause})" if leaf.cause else ""
            found[leaf.decision]["outcome"] = f"{leaf.status}{cause}"
        elif isinstance(leaf, EventLeaf) and events and agent is None and int(leaf.at) >= since:
            found[leaf.index] = {
                "entry": leaf.index,
                "time": moment(int(leaf.at)),
                "agent": leaf.actor,
                "action": f"{leaf.event} {leaf.subject}",
                "verdict": "",
                "reason": str(entry.values.get("reason", "")),
                "outcome": "",
            }
    yield from found.values()


def _decision(entry: Entry, leaf: DecisionLeaf) -> dict[str, Any]:
    return {
        "entry": leaf.index,
        "time": moment(int(leaf.at)),
        "agent": leaf.agent.id,
        "user": leaf.user,
        "server": leaf.action.server,
        "action": leaf.action.id,
        "verdict": leaf.verdict,
        "reason": leaf.reason,
        "policies": list(leaf.policies),
        "outcome": "open" if leaf.verdict == "permit" else "",
        "arguments": entry.values.get("arguments", ""),
    }


@app.command()
def show(
    decision: Annotated[
        str, typer.Argument(help="An entry's number, or a decision id like gw1-42.")
    ],
    where: Where = None,
    values: Annotated[bool, typer.Option("--values", help="Open the sealed values.")] = False,
    instance: InstanceOption = None,
    home: HomeOption = None,
) -> None:
    """One entry whole; a decision with its outcome."""
    import msgspec

    number = decision.rpartition("-")[2]
    place = one_ledger(where, home, instance) if instance else ledger_of(decision, where, home)
    with open_reader(place, values=values) as reader:
        entry = reader.entry(int(number)) if number.isdigit() else reader.decision(decision)[0]
        shown = {
            "entry": msgspec.to_builtins(entry.leaf),
            "hash": entry.leaf_hash.hex(),
            "values": entry.values,
        }
        if isinstance(entry.leaf, DecisionLeaf):
            _, outcome = reader.decision(decision)
            if outcome is not None:
                shown["outcome"] = msgspec.to_builtins(outcome.leaf)
    show_json(shown)


@app.command()
def checkpoint(
    where: Where = None, instance: InstanceOption = None, home: HomeOption = None
) -> None:
    """Print the latest signed checkpoint: keep it somewhere else, or give it to an auditor."""
    latest = None
    with closing(one_ledger(where, home, instance).reader()) as reader:
        for _, note in reader.checkpoints():
            latest = note
    if latest is None:
        raise NotFound(
            "No checkpoint was signed yet.", remedy="The gateway signs one every few seconds."
        )
    typer.echo(latest.decode(), nl=False)


@app.command()
def roots(home: HomeOption = None) -> None:
    """Print the latest signed root over all logs: kept elsewhere, no whole log can vanish."""
    typer.echo(latest_root(meant(None, home)).decode(), nl=False)


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    where: Annotated[Path | None, typer.Option("--from", help="A ledger file or home.")] = None,
    instance: InstanceOption = None,
    home: HomeOption = None,
) -> None:
    """A copy for a stranger: every entry and checkpoint, no sealed value and no key."""
    if target.exists():
        raise Invalid(f"{target} exists already.", remedy="Name a new file.")
    with closing(one_ledger(where, home, instance).reader()) as reader:
        size = export_ledger(reader, target)
    say(f"{size} entries in {target}.")
    next_step(f"exeat evidence verify {target}   (works on any machine)")

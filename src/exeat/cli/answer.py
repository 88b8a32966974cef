"""``exeat answer AGENT``: who owns it, what it may do, what proves enforcement (REG-10)."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from exeat.cli.desk import (
    Desk,
    HomeOption,
    JsonOption,
    database_url,
    open_desk,
    printable,
    say,
    show_json,
    table,
)
from exeat.core.errors import Conflict, LedgerUnavailable
from exeat.core.ids import AgentId
from exeat.evidence.model import DecisionLeaf
from exeat.evidence.store import StoreFailed
from exeat.governance import answer as governance
from exeat.governance.answer import Answer, Ownership, Permission, Permitted, Proof
from exeat.storage.places import LedgerPlace, places

_TRIES: Final = 5
_LAST: Final = 2**62


def answer(
    agent: Annotated[str, typer.Argument(help="The agent's id.")],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Who owns it, what is permitted, what proves enforcement; the same on every replica."""
    desk = open_desk(home)
    given = ask(desk, AgentId(agent), time.time_ns())
    if as_json:
        show_json(given.as_json())
        return
    for line in _owner_lines(given.agent, given.owned):
        say(line)
    say("")
    _show_permitted(given.permitted)
    say("")
    _show_proofs(given)


def ask(desk: Desk, agent: AgentId, now: int) -> Answer:
    """Agent and snapshot are two readings; a change between them shows in the revision."""
    from exeat.policy.bundle import compile_bundle

    for tried in range(_TRIES):
        with desk.state.registry.read() as read:
            found = read.agent(agent)
        snapshot = desk.state.snapshot()
        pdp = compile_bundle(
            snapshot.policy,
            snapshot.tools,
            snapshot.servers,
            agents=snapshot.agents,
            people=snapshot.people,
        )
        try:
            return governance.answer(
                found, snapshot, pdp, LedgerFiles(desk.home, database_url(desk.home)), now
            )
        except Conflict:
            if tried == _TRIES - 1:
                raise
    raise AssertionError  # the last try has returned or raised


class LedgerFiles:
    """Proofs from the ledgers of a home, one per gateway instance."""

    def __init__(self, home: Path, url: str | None = None) -> None:
        self._home, self._url = home, url

    def latest(self, agent: AgentId, count: int) -> tuple[Proof, ...] | None:
        try:
            where = places(self._home, self._url)
            if not where:
                return None
            found = [proof for place in where for proof in _latest(place, agent, count)]
        except StoreFailed as error:
            raise LedgerUnavailable(
                f"The ledger cannot be read: {error}.", remedy="Ask again, or look at the disk."
            ) from None
        return tuple(sorted(found, key=lambda proof: (-proof.at, proof.decision))[:count])


def _latest(place: LedgerPlace, agent: str, count: int) -> list[Proof]:
    """Batch by batch from the end."""
    from exeat.evidence.reader import EvidenceReader

    source, proofs = place.reader(), list[Proof]()
    try:
        reader, row = EvidenceReader(source), source.row_before(_LAST)
        while row is not None and len(proofs) < count:
            batch = []
            for entry in reader.entries(row.first):
                if entry.index >= row.end:
                    break
                leaf = entry.leaf
                if isinstance(leaf, DecisionLeaf) and leaf.agent.id == agent:
                    batch.append(_proof(place.name, leaf))
            proofs += reversed(batch)
            row = source.row_before(row.first)
    finally:
        source.close()
    return proofs[:count]


def _proof(instance: str, leaf: DecisionLeaf) -> Proof:
    return Proof(
        f"{instance}-{leaf.index}", int(leaf.at), leaf.action.id, leaf.verdict, leaf.reason
    )


def _owner_lines(agent: str, owned: Ownership) -> list[str]:
    held = [
        f"{h.role} {h.person or '(nobody)'}{'' if h.live or not h.person else ' (gone)'}"
        for h in owned.holders
    ]
    by = f"accepted by {owned.accepted_by} at {owned.accepted_at} ({owned.acceptance})"
    scope = owned.scope
    lines = [
        f"1. Who owns {agent}?",
        f"   {', '.join(held)}; {owned.lifecycle}",
        f"   scope {owned.scope_digest[:12]}: {by if owned.accepted else 'NOT ACCEPTED as it stands'}",
        f"     servers {', '.join(scope['servers']) or '-'}; effects {', '.join(scope['effects']) or '-'}; "
        f"actions {printable(', '.join(scope['actions'])) or 'as policy permits'}; "
        f"until {scope['until'] or '-'}",
    ]
    return [*lines, f"   for: {owned.purpose}"] if owned.purpose else lines


def _show_permitted(permitted: Permitted) -> None:
    say(f"2. What is permitted, until {permitted.until or '(no end date)'}?")
    if permitted.stopped:
        say(f"   Nothing at present: {permitted.stopped}.")
    if permitted.observed_until:
        say(
            f"   OBSERVED until {permitted.observed_until}: what policy would refuse is let through "
            "and recorded, but for what deletes, sends, pays or executes."
        )
    policy = permitted.policy
    if policy is None:
        say("   No policy is in force, so everything is denied.")
    else:
        say(
            f"   by policy version {policy['version']} ({policy['digest'][:12]}), written by "
            f"{policy['author']}, approved by {policy['approver']}: {policy['reason']}"
        )
    for finding in permitted.findings:
        say(f"   {printable(finding)}")
    tools = [a for a in permitted.actions if "/" in a.action and a.action.startswith(a.server)]
    methods = [a for a in permitted.actions if a not in tools]
    may = [a for a in methods if a.permission is not Permission.NEVER]
    rows = [
        (
            "  ",
            f"{a.server}: {a.action}" if a in may else printable(a.action),
            a.permission.value,
            f"{a.effect}{', ' + a.sink if a.sink else ''}"
            f"{'' if a.confirmed or a in may else ' (cautious: not confirmed)'}",
            printable("; ".join(filter(None, (a.why, *(f"asks {who}" for who in a.approvals))))),
        )
        for a in (*tools, *may)
    ]
    if rows:
        table(("  ", "action", "permitted", "effect, sink", "because"), rows)
    if hidden := len(methods) - len(may):
        say(f"   {hidden} other MCP methods: never (lists show only what could be permitted)")
    places = {p for a in (*tools, *may) if a.permission is not Permission.NEVER for p in a.policies}
    for place in sorted(places, key=lambda p: (p.place, p.id)):
        say(f"   {'permit' if place.permit else 'forbid'} {place.id}: {place.place}")


def _show_proofs(given: Answer) -> None:
    say("3. What proves enforcement?")
    if given.proofs is None:
        say("   No ledger was found in this home: no gateway has run here.")
        return
    if not given.proofs:
        say("   The ledger holds no decision about it yet.")
        return
    from exeat.registry.model.names import show_time

    table(
        ("  ", "decision", "time", "action", "verdict", "reason"),
        [
            ("  ", p.decision, show_time(p.at), printable(p.action), p.verdict, p.reason)
            for p in given.proofs
        ],
    )
    say("   check them: exeat evidence verify")

"""A recorded decision as a request again, for ``exeat policy explain DECISION`` (POL-6).

The record says what was asked and what was answered; the policy version is the recorded one if it is
still kept.  Facts of the registry are those of now, and what differs from the record is said.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exeat.cli.recorded import controls_of, without_beside
from exeat.core.errors import Invalid, NotFound
from exeat.core.facts import PolicyVersionFacts, Snapshot
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.evidence.model import DecisionLeaf
from exeat.evidence.reader import Entry
from exeat.storage.state import State


@dataclass(frozen=True)
class Recalled:
    """``notes``: in words, what is not as it was."""

    request: AccessRequest
    policy: PolicyVersionFacts | None
    leaf: DecisionLeaf
    notes: tuple[str, ...]


def recall(decision: str, home: Path, state: State) -> Recalled:
    """Raises NotFound, Invalid, LedgerUnavailable."""
    from exeat.cli.ledgers import one_ledger, open_reader
    from exeat.evidence.reader import index_of

    index = index_of(decision)
    place = one_ledger(None, home, decision.rpartition("-")[0] or None)
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(open_reader(place, values=True, exact=True))
        except NotFound:  # no master key in this home: explained without the arguments
            reader = stack.enter_context(open_reader(place, values=False))
        entry = reader.entry(index)
    if not isinstance(entry.leaf, DecisionLeaf):
        raise Invalid(f"Entry {index} is no decision.", remedy="See `exeat evidence audit`.")
    return _request(entry, entry.leaf, state)


def _request(entry: Entry, leaf: DecisionLeaf, state: State) -> Recalled:
    snapshot = state.snapshot()
    agent = snapshot.agents.get(AgentId(leaf.agent.id))
    server = snapshot.servers.get(ServerId(leaf.action.server))
    if agent is None or server is None:
        raise NotFound(
            f"The {'agent' if agent is None else 'server'} of entry {leaf.index} is not registered."
        )
    arguments: Any = entry.values.get("arguments")
    notes = []
    if isinstance(arguments, dict):
        arguments = without_beside(leaf.action.method, arguments)
    else:
        arguments = {}
        notes.append("its arguments were erased or cannot be opened")
    if agent.revision != leaf.agent.revision:
        notes.append(
            f"agent {agent.id} has changed since (revision {leaf.agent.revision} → {agent.revision})"
        )
    action = ActionId(leaf.action.id)
    tool = snapshot.tools.get(action)
    if tool is not None and tool.pin != leaf.action.pin:
        notes.append(f"the pinned definition of {action} has changed since")
    user = snapshot.people.get(PersonId(leaf.user)) if leaf.user else None
    request = AccessRequest(
        Caller(agent, user, leaf.credential),
        leaf.action.method,
        action,
        server,
        str(entry.values.get("target", "")) or (tool.name if tool is not None else ""),
        tool,
        leaf.action.observed_pin,
        arguments,
        int(leaf.now),
        leaf.clock_trusted,
        leaf.run,
        controls_of(leaf.obligations),
    )
    policy, note = _policy(leaf, snapshot, state)
    return Recalled(request, policy, leaf, (*notes, *note))


def _policy(
    leaf: DecisionLeaf, snapshot: Snapshot, state: State
) -> tuple[PolicyVersionFacts | None, tuple[str, ...]]:
    for version in state.policies.versions():
        if version.digest == leaf.bundle:
            facts = PolicyVersionFacts(
                Digest(version.digest),
                version.number,
                version.author,
                version.approver,
                version.reason,
                version.files,
            )
            return facts, ()
    return snapshot.policy, ("the policy version that decided is no longer kept",)

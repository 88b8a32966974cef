"""What the ledger trusts when it starts, and after every failure: only what it reads again (EVD-3).

The tail since the last heartbeat is recomputed; what is torn, cut or altered is refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from exeat.core.decision import Verdict
from exeat.core.errors import Invalid
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.merkle import Frontier, leaf_hash
from exeat.evidence.model import DecisionLeaf, Leaf, LogLeaf, OutcomeLeaf
from exeat.evidence.note import Checkpoint, Verifier, open_checkpoint
from exeat.evidence.store import LedgerBroken, Recoverable, Row, unpack_leaves


class OpenDecision(msgspec.Struct, frozen=True, array_like=True):
    """A permitted decision without an outcome yet.  ``subject``: whose values it seals."""

    index: int
    leaf_hash: bytes
    subject: str


_open_decisions: Final = msgspec.msgpack.Decoder(list[OpenDecision]).decode
pack_open: Final = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class Recovered:
    """The last durable state.  ``closed``: the ledger ended with its own closing entry."""

    frontier: Frontier
    at: int = 0
    closed: bool = True
    open: dict[int, OpenDecision] = field(default_factory=dict)


def subject_of(user: str, agent: str) -> str:
    """EVD-7: values belong to the person for whom the agent acts, else to the agent."""
    return f"person:{user}" if user else f"agent:{agent}"


def recover(store: Recoverable, verifier: Verifier) -> Recovered:
    """Read the tail.  Steps: 1 where the last heartbeat stood; 2 recompute every row from there on;
    3 the tree must contain each checkpoint that we signed.  Raises LedgerBroken, StoreFailed."""
    state = store.open_state()
    start = 0 if state is None else state.size
    before = store.row_before(start)
    if before is None and start:
        raise _broken(f"entries before {start} are missing")
    found = Recovered(Frontier())
    if before is not None:
        found.frontier = _frontier(before)
        if before.end != start:
            raise _broken(f"entries before {start} are missing")
        _replay(_check_row(before), Recovered(Frontier()), before.first)
        _adopt(found, before)
    if state is not None:
        found.open = {entry.index: entry for entry in _read_open(state.packed)}
    roots = {found.frontier.size: found.frontier.root()}
    for row in store.rows(start):
        _extend(found, row)
        roots[row.end] = found.frontier.root()
    for note in _signed(store):
        _holds(store, _authentic(note, verifier), found.frontier.size, roots)
    return found


def _signed(store: Recoverable) -> Iterable[bytes]:
    last, published = store.last_checkpoint(), store.published()
    return [note for note in (last and last[1], published) if note]


def _read_open(packed: bytes) -> list[OpenDecision]:
    try:
        return _open_decisions(packed)
    except msgspec.MsgspecError:
        raise _broken("the list of open decisions cannot be read") from None


def _check_row(row: Row) -> list[Leaf]:
    leaves = unpack_leaves(row.leaves)
    if len(leaves) != row.count:
        raise _broken(f"the row of entry {row.first} is torn")
    try:
        return [decode_leaf(leaf) for leaf in leaves]
    except Invalid as error:
        raise _broken(f"in the row of entry {row.first}, {error}") from None


def _replay(leaves: list[Leaf], found: Recovered, first: int) -> None:
    for n, leaf in enumerate(leaves):
        if leaf.index != first + n:
            raise _broken(f"entry {first + n} calls itself {leaf.index}")
        found.at = max(found.at, int(leaf.at))
        found.closed = isinstance(leaf, LogLeaf) and leaf.what == "closed"


def _adopt(found: Recovered, row: Row) -> None:
    _replay(_check_row(row), found, row.first)


def _extend(found: Recovered, row: Row) -> None:
    if row.first != found.frontier.size:
        raise _broken(f"entry {found.frontier.size} is missing")
    leaves = _check_row(row)
    _replay(leaves, found, row.first)
    for raw, leaf in zip(unpack_leaves(row.leaves), leaves, strict=True):
        hashed = leaf_hash(raw)
        found.frontier.append(hashed)
        if isinstance(leaf, DecisionLeaf) and leaf.verdict == Verdict.PERMIT:
            subject = subject_of(leaf.user, leaf.agent.id)
            found.open[leaf.index] = OpenDecision(leaf.index, hashed, subject)
        elif isinstance(leaf, OutcomeLeaf):
            found.open.pop(leaf.decision, None)
    if found.frontier.pack() != row.frontier:
        raise _broken(f"the row of entry {row.first} was altered: its hashes do not fit")


def _frontier(row: Row) -> Frontier:
    try:
        return Frontier(row.end, row.frontier)
    except ValueError:
        raise _broken(f"the row of entry {row.first} is torn") from None


def _authentic(note: bytes, verifier: Verifier) -> Checkpoint:
    try:
        return open_checkpoint(note, verifier)
    except Invalid as error:
        raise _broken(f"a stored checkpoint is not ours: {error}") from None


def _holds(store: Recoverable, checkpoint: Checkpoint, size: int, roots: dict[int, bytes]) -> None:
    if checkpoint.size > size:
        raise _broken(
            f"a checkpoint was signed at {checkpoint.size} entries and only {size} are left"
        )
    root = roots.get(checkpoint.size)
    if root is None:
        row = store.row_before(checkpoint.size)
        if row is None or row.end != checkpoint.size:
            raise _broken(f"no row ends at the checkpoint of {checkpoint.size} entries")
        root = _frontier(row).root()
    if root != checkpoint.root:
        raise _broken(f"the first {checkpoint.size} entries are not those that were signed")


def _broken(fact: str) -> LedgerBroken:
    return LedgerBroken(f"the ledger cannot be trusted: {fact}")

"""Check a whole ledger offline, with nothing but its entries and a key (EVD-1, EVD-4).

The numbers in the code: 1 rows and entries are dense, canonical and of a known kind; 2 time never
decreases; 3 every outcome names an earlier permit by index and hash, once; 4 the tree recomputed
from the entries has the root of every signed checkpoint, also of one that somebody else held.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from exeat.core.decision import Verdict
from exeat.core.errors import Invalid
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.merkle import Frontier, leaf_hash
from exeat.evidence.model import DecisionLeaf, Leaf, LogLeaf, OutcomeLeaf
from exeat.evidence.note import Verifier, open_checkpoint
from exeat.evidence.store import LedgerBroken, LedgerReader, Row, unpack_leaves

PROBLEMS_MAX: Final = 20


@dataclass(slots=True)
class Report:
    """What was found.  ``key_given``: the key came from the reader, not from the file itself.
    ``signed``: entries under the last good checkpoint; ``held``: size of the one held outside."""

    problems: list[str] = field(default_factory=list)
    entries: int = 0
    permits: int = 0
    denials: int = 0
    outcomes: int = 0
    unknown: int = 0
    waiting: int = 0
    first_at: int = 0
    last_at: int = 0
    root: bytes = b""
    key: str = ""
    key_given: bool = False
    checkpoints: int = 0
    signed: int = 0
    held: int | None = None
    closed: bool = False

    @property
    def sound(self) -> bool:
        return not self.problems

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


def verify(
    reader: LedgerReader,
    *,
    key: Verifier | None = None,
    held: tuple[bytes, ...] = (),
    published: tuple[bytes, ...] = (),
    heads: Mapping[int, bytes] | None = None,
) -> Report:
    """Check everything.  ``key``: given by somebody who knows the gateway; without it the key that
    the ledger enrolled itself is used.  ``held``: checkpoints that somebody else kept;
    ``published``: those that lie beside the ledger, so in the same hands.  ``heads``: size → root
    hash, as roots over all logs say."""
    report = Report(key_given=key is not None)
    check = _Check(report)
    try:
        rows = reader.rows()
        first = next(rows, None)
        if first is None:
            report.problem("the ledger is empty")
            return report
        verifier = key or _enrolled(first)
        report.key = str(verifier)
        wanted = _Wanted(report, verifier, reader, (*held, *published))
        report.held = wanted.largest(held)
        wanted.rooted(heads or {})
        check.row(first, wanted)
        for row in rows:
            check.row(row, wanted)
    except (LedgerBroken, Invalid) as error:
        report.problem(str(error))
        return report
    report.root = check.frontier.root()
    report.waiting = len(check.permits)
    wanted.finish(check.frontier.size)
    return report


def _enrolled(first: Row) -> Verifier:
    leaf = decode_leaf(unpack_leaves(first.leaves)[0])
    if isinstance(leaf, LogLeaf) and leaf.what == "enrolled" and isinstance(leaf.facts, dict):
        return Verifier.parse(str(leaf.facts.get("key", "")))
    raise Invalid("the ledger does not begin with the enrolment of its writer")


class _Wanted:
    """Checkpoints that the growing tree must meet, in order of their sizes."""

    def __init__(
        self, report: Report, verifier: Verifier, reader: LedgerReader, held: tuple[bytes, ...]
    ) -> None:
        self._report, self._verifier = report, verifier
        self._stored = self._open_stored(reader)
        self._held: dict[int, list[bytes]] = {}
        self._opened: dict[bytes, int] = {}
        self._sizes: list[int] = []
        for note in held:
            try:
                checkpoint = open_checkpoint(note, verifier)
            except Invalid as error:
                report.problem(f"a checkpoint kept apart from the ledger is refused: {error}")
                continue
            self._opened[note] = checkpoint.size
            self._held.setdefault(checkpoint.size, []).append(checkpoint.root)
            heappush(self._sizes, checkpoint.size)
        self._stored_next = next(self._stored, None)
        self.next_size = self._least()

    def _open_stored(self, reader: LedgerReader) -> Iterator[tuple[int, bytes]]:
        for size, note in reader.checkpoints():
            try:
                checkpoint = open_checkpoint(note, self._verifier)
            except Invalid as error:
                self._report.problem(f"the checkpoint at {size} entries is refused: {error}")
                continue
            if checkpoint.size != size:
                self._report.problem(f"the checkpoint at {size} entries says {checkpoint.size}")
                continue
            yield size, checkpoint.root

    def largest(self, held: tuple[bytes, ...]) -> int | None:
        """Size of the largest good checkpoint among ``held``."""
        return max((self._opened[note] for note in held if note in self._opened), default=None)

    def rooted(self, heads: Mapping[int, bytes]) -> None:
        """Also what the roots over all logs say of this one."""
        for size, root in heads.items():
            self._held.setdefault(size, []).append(root)
            heappush(self._sizes, size)
        self.next_size = self._least()

    def _least(self) -> int:
        while self._sizes and self._sizes[0] not in self._held:
            heappop(self._sizes)
        sizes = self._sizes[:1]
        if self._stored_next is not None:
            sizes.append(self._stored_next[0])
        return min(sizes, default=-1)

    def meet(self, frontier: Frontier) -> None:
        """The tree has ``next_size`` leaves: compare every root that is wanted here."""
        size, root = frontier.size, frontier.root()
        for wanted in self._held.pop(size, []):
            if wanted != root:
                self._report.problem(
                    f"the first {size} entries are not those of the checkpoint kept apart"
                )
        while self._stored_next is not None and self._stored_next[0] == size:
            if self._stored_next[1] == root:
                self._report.checkpoints += 1
                self._report.signed = size
            else:
                self._report.problem(f"the first {size} entries are not those that were signed")
            self._stored_next = next(self._stored, None)
        self.next_size = self._least()

    def finish(self, size: int) -> None:
        for wanted in sorted(self._held):
            self._report.problem(
                f"the ledger was cut: a checkpoint kept apart has {wanted} entries, "
                f"and {size} are left"
            )
        if self._stored_next is not None:
            self._report.problem(
                f"the ledger was cut: it signed {self._stored_next[0]} entries, and {size} are left"
            )
        if not self._report.checkpoints and self._report.held is None:
            self._report.problem("no signed checkpoint covers these entries")


class _Check:
    """State that grows with the tree: open permits only."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.frontier = Frontier()
        self.permits: dict[int, str] = {}

    def row(self, row: Row, wanted: _Wanted) -> None:
        leaves = unpack_leaves(row.leaves)
        frontier = self.frontier
        if row.first != frontier.size or len(leaves) != row.count:  # 1
            raise LedgerBroken(f"entry {frontier.size} is missing: the next row is {row.first}")
        for raw in leaves:
            try:
                leaf = decode_leaf(raw)
            except Invalid as error:
                raise Invalid(f"entry {frontier.size}: {error}") from None
            hashed = leaf_hash(raw)
            self._entry(leaf, frontier.size, hashed)
            frontier.append(hashed)
            if frontier.size == wanted.next_size:  # 4
                wanted.meet(frontier)
        if frontier.pack() != row.frontier:
            self.report.problem(f"the hashes stored with entry {row.first} do not fit its row")
        self.report.entries = frontier.size

    def _entry(self, leaf: Leaf, index: int, hashed: bytes) -> None:
        report = self.report
        if leaf.index != index:  # 1
            report.problem(f"entry {index} calls itself {leaf.index}")
        at = int(leaf.at)
        if at < report.last_at:  # 2
            report.problem(f"entry {index} is dated before the one that precedes it")
        report.first_at, report.last_at = report.first_at or at, at
        report.closed = False
        if isinstance(leaf, DecisionLeaf):
            if leaf.verdict == Verdict.PERMIT:
                report.permits += 1
                self.permits[index] = hashed.hex()
            else:
                report.denials += 1
        elif isinstance(leaf, OutcomeLeaf):
            report.outcomes += 1
            report.unknown += leaf.status == "unknown"
            if self.permits.pop(leaf.decision, None) != leaf.decision_hash:  # 3
                report.problem(
                    f"entry {index} is an outcome without its permit: decision {leaf.decision} is "
                    "none, has another hash, or had an outcome before"
                )
        elif isinstance(leaf, LogLeaf):
            report.closed = leaf.what == "closed"

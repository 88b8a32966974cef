"""What agents did, as all gateways of a home recorded it, for replay and suggest (POL-6).

Ledgers are read batch by batch, from the first batch of the span on, and nothing is opened twice.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from exeat.cli.ledgers import ledgers, open_reader
from exeat.cli.recorded import Recall
from exeat.core.errors import NotFound
from exeat.core.facts import Snapshot
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.model import DecisionLeaf, OutcomeLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.store import LedgerReader, unpack_leaves
from exeat.policy.replay import Recorded
from exeat.storage.places import LedgerPlace

_LAST: Final = 2**62


@dataclass(frozen=True, slots=True)
class Told:
    """A decision, and what observe mode and shadow policies say of it."""

    id: str
    agent: str
    action: str
    verdict: str
    would: tuple[str, ...]


class Traffic:
    """``since``: nanoseconds; 0: all.  ``agent``: of this one only."""

    def __init__(self, home: Path, snapshot: Snapshot, since: int, agent: str | None) -> None:
        self._home, self._since, self._agent = home, since, agent
        self.recall = Recall(snapshot)

    def decisions(self) -> Iterator[Recorded]:
        """All of them, ledger by ledger, in order.  Raises NotFound, LedgerUnavailable."""
        for place in ledgers(None, self._home):
            yield from (each for each, _ in self._read(place, outcomes=False))

    def used(self) -> Iterator[Recorded]:
        """Only what was permitted and then executed without an error (outcome ``ok``)."""
        for place in ledgers(None, self._home):
            yield from (each for each, status in self._read(place, outcomes=True) if status == "ok")

    def told(self) -> Iterator["Told"]:
        """All decisions with what stands beside them; nothing is unsealed."""
        for place in ledgers(None, self._home):
            with closing(place.reader()) as source:
                for entry in EvidenceReader(source).entries(start_of(source, self._since)):
                    leaf = entry.leaf
                    if isinstance(leaf, DecisionLeaf) and self._meant(leaf):
                        name = f"{place.name}-{leaf.index}"
                        yield Told(name, leaf.agent.id, leaf.action.id, leaf.verdict, leaf.would)

    def _meant(self, leaf: DecisionLeaf) -> bool:
        return int(leaf.at) >= self._since and self._agent in (None, leaf.agent.id)

    def _read(self, place: LedgerPlace, *, outcomes: bool) -> Iterator[tuple[Recorded, str]]:
        waiting: dict[int, Recorded] = {}
        with closing(place.reader()) as source:
            start = start_of(source, self._since)
        with _opened(place) as reader:
            for entry in reader.entries(start):
                leaf = entry.leaf
                if isinstance(leaf, OutcomeLeaf):
                    recorded = waiting.pop(leaf.decision, None)
                    if recorded is not None:
                        yield recorded, leaf.status
                if not isinstance(leaf, DecisionLeaf) or not self._meant(leaf):
                    continue
                if outcomes and leaf.verdict != "permit":
                    continue
                recorded = self.recall.of(place.name, entry, leaf)
                if recorded is not None and outcomes:
                    waiting[leaf.index] = recorded
                elif recorded is not None:
                    yield recorded, ""


@contextmanager
def _opened(place: LedgerPlace) -> Iterator[EvidenceReader]:
    """A reader of values with exact numbers.  Raises NotFound if they cannot be opened here."""
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(open_reader(place, values=True, exact=True))
        except NotFound as error:
            raise NotFound(
                str(error),
                remedy="Run it where the home's keys/master.key is: arguments are sealed.",
            ) from None
        yield reader


def start_of(source: LedgerReader, since: int) -> int:
    """The first entry of a batch that begins before ``since``, found from the end in growing steps."""
    if not since:
        return 0
    row, step = source.row_before(_LAST), 1
    while row is not None:
        if int(decode_leaf(unpack_leaves(row.leaves)[0]).at) < since:
            return row.first
        row = source.row_before(row.first - step)
        step *= 2
    return 0

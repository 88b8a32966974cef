"""Entries for people and for other rooms: joined, with their values opened where keys remain."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import msgspec

from exeat.core.errors import Invalid, NotFound
from exeat.evidence import canonical
from exeat.evidence.canonical import commit, decode_leaf
from exeat.evidence.merkle import leaf_hash
from exeat.evidence.model import (
    CountsLeaf,
    DecisionLeaf,
    EventLeaf,
    Leaf,
    LogLeaf,
    OutcomeLeaf,
)
from exeat.evidence.note import Verifier
from exeat.evidence.sealed import associated, open_sealed, unwrap_key
from exeat.evidence.store import LedgerBroken, LedgerReader, Row, unpack_leaves

_TEXT: Final = frozenset({canonical.DETAIL, canonical.REASON, canonical.TARGET})
_NAMES: Final = {
    canonical.ARGUMENTS: "arguments",
    canonical.DETAIL: "detail",
    canonical.TARGET: "target",
    canonical.RESULT: "result",
    canonical.REASON: "reason",
    canonical.BEFORE: "before",
    canonical.AFTER: "after",
    canonical.SAMPLES: "samples",
    canonical.WIRE: "wire",
}


_PLAIN: Final = msgspec.json.Decoder[Any]()
_EXACT: Final = msgspec.json.Decoder[Any](float_hook=Decimal)


@dataclass(frozen=True, slots=True)
class Entry:
    """``values``: name → value, each checked against its commitment; JSON values decoded, the
    digest of a result in hexadecimal.  Erased or unopened values are absent."""

    leaf: Leaf
    leaf_hash: bytes
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def index(self) -> int:
        return self.leaf.index


def index_of(decision_id: str) -> int:
    """``gw-1-42`` or ``42`` → 42.  Raises Invalid."""
    number = decision_id.rpartition("-")[2]
    if not (number.isascii() and number.isdigit()):
        raise Invalid(f"{decision_id!r} is no decision id; one looks like gw-1-42")
    return int(number)


class EvidenceReader:
    """``master``: opens sealed values; without it there are none.  ``origin``: of the log.  ``exact``:
    numbers with a point are decimals with their own digits, as policy reads them (POL-4)."""

    def __init__(
        self,
        source: LedgerReader,
        origin: str = "",
        master: bytes | None = None,
        *,
        exact: bool = False,
    ) -> None:
        self._source, self._origin, self._master = source, origin, master
        self._json = _EXACT if exact else _PLAIN
        self._keys: dict[int, bytes | None] = {}

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Entries from ``start`` on, in order.  Raises Invalid, LedgerBroken on altered ones."""
        for row in self._source.rows(start):
            yield from (entry for entry in self._read(row) if entry.index >= start)

    def entry(self, index: int) -> Entry:
        """Raises NotFound."""
        for entry in self.entries(index):
            if entry.index == index:
                return entry
            break
        raise NotFound(
            f"There is no entry {index} in this ledger.", remedy="See `exeat evidence audit`."
        )

    def decision(self, decision_id: str) -> tuple[Entry, Entry | None]:
        """A decision with its values, and its outcome if there is one.  Raises NotFound, Invalid."""
        index = index_of(decision_id)
        found = self.entry(index)
        if not isinstance(found.leaf, DecisionLeaf):
            raise NotFound(f"entry {index} is no decision but of the kind {found.leaf.kind}")
        return found, self._outcome(index) if found.leaf.verdict == "permit" else None

    def _outcome(self, index: int) -> Entry | None:
        for entry in self.entries(index + 1):
            if isinstance(entry.leaf, OutcomeLeaf) and entry.leaf.decision == index:
                return entry
        return None

    def _read(self, row: Row) -> list[Entry]:
        opened: dict[int, dict[bytes, tuple[bytes, bytes]]] = {}
        if self._master is not None and row.sealed:
            bound = associated(self._origin, row.first)
            opened = open_sealed(row.sealed, bound, self._key(self._master))
        entries = []
        for n, raw in enumerate(unpack_leaves(row.leaves)):
            leaf, index = decode_leaf(raw), row.first + n
            if leaf.index != index:
                raise LedgerBroken(f"entry {index} calls itself {leaf.index}")
            entries.append(
                Entry(leaf, leaf_hash(raw), _values(leaf, opened.get(index, {}), self._json))
            )
        return entries

    def _key(self, master: bytes) -> Callable[[int], bytes | None]:
        def find(key_id: int) -> bytes | None:
            if key_id not in self._keys:
                kept = self._source.subject_key(key_id)
                usable = kept is not None and kept.wrapped
                self._keys[key_id] = unwrap_key(master, kept) if kept and usable else None
            return self._keys[key_id]

        return find


def commitments_of(leaf: Leaf) -> dict[bytes, str]:
    """Domain → commitment, of every value that the entry commits to."""
    if isinstance(leaf, DecisionLeaf):
        of = leaf.commitments
        pairs = {
            canonical.ARGUMENTS: of.arguments,
            canonical.DETAIL: of.detail,
            canonical.TARGET: of.target,
            canonical.WIRE: of.wire,
        }
    elif isinstance(leaf, OutcomeLeaf):
        pairs = {canonical.RESULT: leaf.result}
    elif isinstance(leaf, EventLeaf):
        pairs = {
            canonical.REASON: leaf.commitments.reason,
            canonical.BEFORE: leaf.commitments.before,
            canonical.AFTER: leaf.commitments.after,
        }
    elif isinstance(leaf, CountsLeaf):
        pairs = {canonical.SAMPLES: leaf.samples}
    else:
        pairs = {}
    return {domain: digest for domain, digest in pairs.items() if digest}


def _values(
    leaf: Leaf, opened: dict[bytes, tuple[bytes, bytes]], read: msgspec.json.Decoder[Any]
) -> dict[str, Any]:
    wanted = commitments_of(leaf)
    values: dict[str, Any] = {}
    for domain, (salt, value) in opened.items():
        if wanted.get(domain) != commit(domain, salt, value):
            raise LedgerBroken(
                f"a sealed value of entry {leaf.index} is not the one it committed to"
            )
        values[_NAMES[domain]] = _shown(domain, value, read)
    return values


def _shown(domain: bytes, value: bytes, read: msgspec.json.Decoder[Any]) -> Any:
    if domain == canonical.RESULT:
        return value.hex()
    return value.decode() if domain in _TEXT else read.decode(value)


def enrolled(reader: LedgerReader) -> tuple[str, Verifier | None]:
    """The log's name and key, as its first entry says; empty and None if it cannot be read."""
    key = ""
    with suppress(LedgerBroken, Invalid):
        for entry in EvidenceReader(reader).entries(0):
            if isinstance(entry.leaf, LogLeaf) and isinstance(entry.leaf.facts, dict):
                key = str(entry.leaf.facts.get("key", ""))
                return key.partition("+")[0], Verifier.parse(key)
            break
    return key.partition("+")[0], None

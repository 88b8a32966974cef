"""Roots over all logs, for ``exeat evidence verify`` and ``roots`` (EVD-1)."""

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from exeat.cli.desk import database_url
from exeat.core.errors import Invalid, NotFound
from exeat.evidence.model import LogLeaf
from exeat.evidence.note import Verifier
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.roots import SignedRoot, check_roots
from exeat.evidence.store import LedgerBroken, LedgerReader
from exeat.storage.places import LedgerPlace


@dataclass(frozen=True)
class Rooted:
    """``wanted``: what each log must contain: origin → size → root hash."""

    count: int = 0
    problems: tuple[str, ...] = ()
    wanted: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        if self.problems:
            return ["NOT SOUND. The roots over all logs:", *[f"  - {p}." for p in self.problems]]
        logs = ", ".join(sorted(self.wanted))
        return [
            f"SOUND: {self.count} roots over the logs {logs}. No log is missing or shorter than a "
            "root says; that nothing was rewritten as a whole takes a root that somebody else holds "
            "(--root)."
        ]


def origin_of(reader: LedgerReader) -> tuple[str, Verifier | None]:
    """The log's name and key, as its first entry enrolled them; empty if it cannot be read."""
    key = ""
    with suppress(LedgerBroken, Invalid):
        for entry in EvidenceReader(reader).entries(0):
            if isinstance(entry.leaf, LogLeaf) and isinstance(entry.leaf.facts, dict):
                key = str(entry.leaf.facts.get("key", ""))
                return key.partition("+")[0], Verifier.parse(key)
            break
    return key.partition("+")[0], None


def read_roots(home: Path) -> list[SignedRoot]:
    """All roots of a home or its database, in order; none where there is no state."""
    from exeat.storage.state import look_at_state

    url = database_url(home)
    if url is None and not (home / "state.db").is_file():
        return []
    with closing(look_at_state(home, url)) as state:
        return list(state.roots.all())


def latest_root(home: Path) -> bytes:
    roots = read_roots(home)
    if not roots:
        raise NotFound(
            "No root over all logs was signed yet.",
            remedy="A gateway signs one every minute, and when it stops.",
        )
    return roots[-1].note


def check_home(home: Path, logs: Sequence[LedgerPlace], held: Sequence[bytes]) -> Rooted:
    """All roots against the logs that are there."""
    keys: dict[str, Verifier] = {}
    present = set()
    for place in logs:
        with closing(place.reader()) as reader:
            origin, key = origin_of(reader)
        present.add(origin)
        if key is not None:
            keys[origin] = key
    roots = read_roots(home)
    problems, wanted = check_roots(roots, keys, held)
    for origin in sorted(wanted.keys() - present):
        problems.append(f"the log {origin}, of {max(wanted[origin])} entries or more, is gone")
    return Rooted(len(roots), tuple(problems), wanted)

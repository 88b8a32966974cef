"""Roots over all logs, for ``exeat evidence verify`` and ``roots`` (EVD-1)."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from exeat.cli.ledgers import Meant
from exeat.core.errors import NotFound
from exeat.evidence.note import Verifier
from exeat.evidence.reader import enrolled
from exeat.evidence.roots import PUBLISHED, SignedRoot, check_roots
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


def read_roots(place: Meant) -> list[SignedRoot]:
    """All roots of a home or its database, in order; none where there is no state."""
    from exeat.storage.state import look_at_state

    if place.database is None and not (place.home / "state.db").is_file():
        return []
    with closing(look_at_state(place.home, place.database)) as state:
        return list(state.roots.all())


def latest_root(place: Meant) -> bytes:
    roots = read_roots(place)
    if not roots:
        raise NotFound(
            "No root over all logs was signed yet.",
            remedy="A gateway signs one every minute, and when it stops.",
        )
    return roots[-1].note


def check_home(
    where: Meant, logs: Sequence[LedgerPlace], held: Sequence[bytes], told: Mapping[str, Verifier]
) -> Rooted:
    """All roots against the logs that are there.  ``told``: keys of logs, from their owner."""
    keys: dict[str, Verifier] = {}
    for place in logs:
        with closing(place.reader()) as reader:
            origin, key = enrolled(reader)
        if key is not None:
            keys[origin] = key
    roots = read_roots(where)
    beside = where.home / "ledger" / PUBLISHED
    if beside.is_file():
        held = (*held, beside.read_bytes())
    problems, wanted = check_roots(roots, {**keys, **told}, held)
    for origin in sorted(wanted.keys() - keys.keys()):
        problems.append(f"the log {origin}, of {max(wanted[origin])} entries or more, is gone")
    problems += [f"{name} is here, and its log is gone" for name in _orphans(where.home, logs)]
    return Rooted(len(roots), tuple(problems), wanted)


def _orphans(home: Path, logs: Sequence[LedgerPlace]) -> list[str]:
    """Checkpoints in the home whose log is nowhere."""
    there = {place.name for place in logs}
    found = sorted((home / "ledger").glob("*.checkpoint"))
    return [path.name for path in found if path.name.split(".")[0] not in there]

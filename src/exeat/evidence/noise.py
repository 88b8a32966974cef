"""Noise: counted by kind, sampled, bounded (EVD-9)."""

from collections.abc import Mapping
from typing import Final

from exeat.evidence.quota import LedgerLimits

OTHER: Final = "other"
KIND_MAX_CHARS: Final = 64


class Noise:
    """Counts since the last entry.  The first samples of each kind and period are kept."""

    __slots__ = ("_counts", "_limits", "_samples", "since")

    def __init__(self, limits: LedgerLimits) -> None:
        self._limits = limits
        self._counts: dict[str, int] = {}
        self._samples: dict[str, list[dict[str, str]]] = {}
        self.since = 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    def count(self, kind: str, sample: Mapping[str, str] | None) -> None:
        counts = self._counts
        if kind not in counts and (len(counts) >= self._limits.noise_kinds_max or not _word(kind)):
            kind = OTHER
        counts[kind] = counts.get(kind, 0) + 1
        if sample is None:
            return
        kept = self._samples.setdefault(kind, [])
        if len(kept) < self._limits.noise_samples_max:
            most = self._limits.noise_sample_max_bytes
            if sum(len(name) + len(value) for name, value in sample.items()) <= most:
                kept.append(dict(sample))

    def take(self) -> tuple[dict[str, int], dict[str, list[dict[str, str]]]] | None:
        """What gathered, once; None if nothing did."""
        if not self._counts:
            return None
        taken = self._counts, self._samples
        self._counts, self._samples = {}, {}
        return taken


def _word(kind: str) -> bool:
    return kind.isascii() and len(kind) <= KIND_MAX_CHARS and kind.isprintable()

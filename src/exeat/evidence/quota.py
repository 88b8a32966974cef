"""Room in the ledger: denials cannot starve permits, nor permits denials (EVD-9)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_MIB: Final = 1024 * 1024


class Room(IntEnum):
    """How much is left.  ``SCARCE``: denials are counted, not entered, so that permits can go on.
    ``RESERVED``: permits are refused too; what is left is for outcomes, events and counts."""

    ENOUGH = 0
    SCARCE = 1
    RESERVED = 2


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """``waiting``: entries not yet durable, of which either verdict may hold the given share."""

    waiting_max: int = 20_000
    waiting_share_max: int = 15_000
    waiting_bytes_max: int = 64 * _MIB
    free_scarce_bytes: int = 256 * _MIB
    free_reserved_bytes: int = 64 * _MIB
    hysteresis_bytes: int = 32 * _MIB
    heartbeat_s: float = 10.0
    idle_heartbeats: int = 6
    """An idle ledger beats once in so many periods."""
    clock_backwards_max_ns: int = 2_000_000_000
    noise_kinds_max: int = 64
    noise_samples_max: int = 8
    noise_sample_max_bytes: int = 1024


def room(now: Room, free_bytes: int, limits: LedgerLimits) -> Room:
    """The new level; leaving a worse one takes ``hysteresis_bytes`` more than entering it did."""
    spare = free_bytes - limits.hysteresis_bytes
    if free_bytes < limits.free_reserved_bytes:
        return Room.RESERVED
    if now is Room.RESERVED and spare < limits.free_reserved_bytes:
        return Room.RESERVED
    if free_bytes < limits.free_scarce_bytes:
        return Room.SCARCE
    if now is not Room.ENOUGH and spare < limits.free_scarce_bytes:
        return Room.SCARCE
    return Room.ENOUGH

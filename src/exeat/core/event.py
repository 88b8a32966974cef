"""A control-plane event: who changed what, from what, to what, and why (REG-3).

Written in the same transaction as the change, into the outbox; the ledger's writer takes it from
there.  ``before`` and ``after`` are JSON values without names, e-mail addresses or secrets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exeat.core.ids import PersonId


@dataclass(frozen=True, slots=True)
class Event:
    """``kind``: past tense, dotted (``agent.suspended``).  ``subject``: ``agent:invoice-bot``."""

    kind: str
    subject: str
    actor: PersonId
    channel: str
    at: int
    reason: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

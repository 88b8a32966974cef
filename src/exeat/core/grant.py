"""What a held call is bound to, and what an approval issues (APP-2, APP-6, APP-11).

Policy and approvals never import each other: a hold says what could be approved, approving issues a
grant, and the retried call is simply decided again with the grant's control as evidence.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exeat.core.ids import ActionId, AgentId, PersonId, ServerId


@dataclass(frozen=True, slots=True)
class Binding:
    """The very call.  ``pin``: digest of the tool's definition.  ``arguments``: SHA-256 in hex of the
    canonical bytes as they would leave (narrowed).  ``slice``: digest of the policies and controls that
    asked.  ``owner``: who answered for the agent, live or not, and the acceptance of its scope.
    ``labels``: a ceiling, not an equality."""

    agent: AgentId
    user: PersonId | None
    run: str
    server: ServerId
    method: str
    action: ActionId
    pin: str
    arguments: str
    slice: str
    owner: str
    labels: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all but the labels."""
        named = {
            "action": self.action,
            "agent": self.agent,
            "arguments": self.arguments,
            "method": self.method,
            "owner": self.owner,
            "pin": self.pin,
            "run": self.run,
            "server": self.server,
            "slice": self.slice,
            "user": self.user or "",
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Held:
    """A call that Cedar would permit with an approval (APP-1).

    ``alternatives``: sets of controls, any of which suffices.  ``arguments``: as the agent wrote them;
    ``narrowed``: as they would leave, if that differs.  ``why``: ids of the policies that would permit it.
    ``effect`` and ``sink``: of the tool's profile.  ``beside``: SHA-256 in hex of what leaves with the action
    and is no argument, or empty."""

    binding: Binding
    alternatives: tuple[tuple[str, ...], ...]
    arguments: Mapping[str, Any]
    narrowed: Mapping[str, Any] | None
    why: tuple[str, ...]
    effect: str
    sink: str
    at: int
    beside: str = ""

    @property
    def leaving(self) -> Mapping[str, Any]:
        return self.arguments if self.narrowed is None else self.narrowed


@dataclass(frozen=True, slots=True)
class Granted:
    """Consumed, durably: the controls it gives, and the approvals' ids for the record."""

    controls: frozenset[str]
    approvals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """Somebody is being asked.  ``expires_at``: nanoseconds; then the answer is no."""

    hold: str
    expires_at: int
    asked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declined:
    """A person said no, or there is nobody who could say yes, or too many calls wait already.
    ``word``: ``denied``, ``nobody`` or ``capped``."""

    hold: str
    word: str
    says: str


Claim = Granted | Pending | Declined

"""Who stands where at this moment; read from the snapshot and the policy version in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exeat.core.controls import ApproverRole
from exeat.core.facts import AgentFacts, PersonFacts
from exeat.core.ids import AgentId, PersonId


@dataclass(frozen=True, slots=True)
class Standing:
    """``roles``: declared approver roles by name (``Controls.approvers``).  ``solo``: one person, one
    machine, and no approvals but ``confirmed_by_user`` (APP-3)."""

    roles: Mapping[str, ApproverRole] = field(default_factory=dict)
    people: Mapping[PersonId, PersonFacts] = field(default_factory=dict)
    agents: Mapping[AgentId, AgentFacts] = field(default_factory=dict)
    solo: bool = False

    def live(self, person: PersonId) -> bool:
        found = self.people.get(person)
        return found is not None and found.live

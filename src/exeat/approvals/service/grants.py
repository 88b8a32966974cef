"""Grants: listed with their last use, and revoked (APP-6)."""

from dataclasses import dataclass, replace

from exeat.approvals.model.grant import Grant
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.approvals.service.sealing import Extent, open_extent
from exeat.approvals.store import ApprovalsStore, Seals
from exeat.core.errors import Conflict, NotFound
from exeat.core.event import Event
from exeat.core.ids import PersonId

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Revocation:
    by: PersonId
    via: str
    reason: str


class Grants:
    def __init__(self, store: ApprovalsStore, seals: Seals) -> None:
        self._store, self._seals = store, seals

    def all(self) -> tuple[Grant, ...]:
        with self._store.read() as read:
            return read.grants()

    def one(self, grant: str) -> Grant:
        """Raises NotFound."""
        with self._store.read() as read:
            found = read.grant(grant)
        if found is None:
            raise _unknown(grant)
        return found

    def extent(self, grant: Grant) -> Extent:
        """The held call of which it was made, and its bounds.  Raises NotFound once it was forgotten,
        VaultFailed."""
        self._seals.ready()
        return open_extent(self._seals, grant)

    def revoke(self, grant: str, how: Revocation, standing: Standing, now: int) -> Grant:
        """Nothing takes from it once this returns.  Raises NotFound, Conflict."""
        with self._store.change() as tx:
            found = tx.grant(grant)
            if found is None:
                raise _unknown(grant)
            hold = tx.hold(found.hold)
            gave = {a.person for a in hold.approvals} if hold is not None else set()
            if how.by not in gave and not _may_revoke(found, how.by, standing):
                raise Conflict(
                    f"{how.by} may not revoke {grant}.",
                    remedy="Ask who gave it, the agent's owner or deputy, or an admin.",
                )
            if not standing.live(how.by):
                raise Conflict(f"{how.by} is not a live person here.", remedy="exeat person list")
            revoked = replace(found, revoked_at=now, revoked_by=how.by)
            before, after = {"left": found.left}, revoked.as_json()
            told = Event(
                "grant.revoked", found.subject, how.by, how.via, now, how.reason, before, after
            )
            if not tx.revoke(revoked, told):
                raise Conflict(f"{grant} was revoked before.", remedy="exeat grants list")
            return revoked


def _may_revoke(grant: Grant, person: PersonId, standing: Standing) -> bool:
    """What only takes power away is open to all who could give it, the user for whom it was given among
    them."""
    binding = grant.binding
    agent = standing.agents.get(binding.agent)
    facts = standing.people.get(person)
    return (
        person == binding.user
        or (facts is not None and ADMIN in facts.roles)
        or (agent is not None and person in (agent.owner, agent.deputy))
        or any(authority.stands(each, person, binding, standing) for each in grant.controls)
    )


def _unknown(grant: str) -> NotFound:
    return NotFound(f"There is no grant {grant[:40]!r}.", remedy="exeat grants list")

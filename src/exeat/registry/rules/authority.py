"""Who may change what.  Admins change the registry; an owner or deputy can always stop an agent."""

from typing import Final

from exeat.core.errors import Conflict
from exeat.registry.model.agent import Agent
from exeat.registry.model.person import ADMIN, Person

_STOPPING: Final = frozenset({"suspend", "retire", "revoke a key of", "enforce policy on"})


def require_admin(actor: Person, verb: str) -> None:
    """Raises Conflict unless a live admin acts."""
    if not (actor.live and ADMIN in actor.roles):
        raise Conflict(
            f"{actor.id} may not {verb}: that takes the role {ADMIN}.",
            remedy=f"Ask an admin, or let one run `exeat person roles {actor.id} --role {ADMIN}`.",
        )


def require_for_agent(actor: Person, verb: str, agent: Agent) -> None:
    """An admin may; what only takes power away, the live owner and deputy may too."""
    if verb in _STOPPING and actor.live and actor.id in (agent.charter.owner, agent.charter.deputy):
        return
    require_admin(actor, f"{verb} agent {agent.id}")

"""Who may change what.  Admins change the registry; an owner or deputy can always stop an agent."""

from typing import Final

from exeat.core.errors import Conflict
from exeat.registry.model.agent import Agent
from exeat.registry.model.person import ADMIN, Person

_STOPPING: Final = frozenset({"suspend", "retire", "revoke a key of", "enforce policy on"})


def require_admin(actor: Person, verb: str) -> None:
    """Raises Conflict unless a live admin acts."""
    _require_admin(actor, verb, f"the role {ADMIN}")


def _require_admin(actor: Person, verb: str, takes: str) -> None:
    if not actor.live:
        raise Conflict(
            f"{actor.id} may not {verb}: {actor.id} has departed.", remedy="Ask an admin."
        )
    if ADMIN not in actor.roles:
        raise Conflict(
            f"{actor.id} may not {verb}: that takes {takes}.",
            remedy=f"Ask an admin, or let one run `exeat person roles {actor.id} --role {ADMIN}`.",
        )


def require_for_agent(actor: Person, verb: str, agent: Agent) -> None:
    """An admin may; what only takes power away, the live owner and deputy may too."""
    takes = f"the role {ADMIN}"
    if verb in _STOPPING:
        if actor.live and actor.id in (agent.charter.owner, agent.charter.deputy):
            return
        takes = f"its owner, its deputy or {takes}"
    _require_admin(actor, f"{verb} agent {agent.id}", takes)

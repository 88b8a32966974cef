"""The kill switch's verbs (APP-9).

Any live person may stop anything, with a reason that stands in the record; only an admin revives.  A
wrong stop costs minutes and has a name; a stop that waits for somebody with the right role costs what
the agent does meanwhile.
"""

import difflib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from exeat.core.errors import Conflict, Invalid, NotFound
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.kills import Target
from exeat.registry.model.act import Act
from exeat.registry.model.kill import Kill
from exeat.registry.rules.authority import require_admin
from exeat.registry.store import RegistryChange

KILL_RANDOM_BYTES: Final = 5
NEAR_MAX: Final = 3


class Killing:
    """Every verb is one transaction, and raises NotFound, Conflict or Invalid; then nothing changed."""

    _begin: Callable[[], AbstractContextManager[RegistryChange]]
    _draw: Callable[[int], bytes]

    def kill(self, target: Target, name: str, act: Act) -> Kill:
        """From the next look of each gateway on, nothing of it is permitted.  ``name``: empty for ALL.
        Conflict if it is stopped already.  Run ids are taken as they are: nobody registers runs."""
        with self._begin() as tx:
            if not tx.person(act.actor).live:
                raise Conflict(f"{act.actor} has departed.")
            _check(tx, target, name)
            for old in tx.kills():
                if old.stands and (old.target, old.name) == (target, name):
                    raise Conflict(
                        f"{old.what} is stopped already, by {old.by} ({old.id}).".capitalize(),
                        remedy=f"An admin lets it go on with `exeat revive {old.id}`.",
                    )
            number = f"k-{self._draw(KILL_RANDOM_BYTES).hex()}"
            kill, event = Kill.order(number, target, name, act)
            tx.save_kill(kill, event)
            return kill

    def revive(self, kill: str, act: Act) -> Kill:
        """It may go on, as far as everything else permits it."""
        with self._begin() as tx:
            require_admin(tx.person(act.actor), "revive what was killed")
            ended, event = tx.kill(kill).end(act)
            tx.save_kill(ended, event)
            return ended


def _check(tx: RegistryChange, target: Target, name: str) -> None:
    """Raises NotFound, naming what is near, if there is no such agent, person, server or tool."""
    if target is Target.ALL:
        if name:
            raise Invalid("`all` takes no id.", remedy="Leave it out, or name what to stop.")
        return
    if not name:
        raise Invalid(f"It is not said which {target}.", remedy=f"Name the {target}'s id.")
    if target is Target.RUN:
        return
    try:
        if target is Target.AGENT:
            tx.agent(AgentId(name))
        elif target is Target.SERVER:
            tx.server(ServerId(name))
        elif target is Target.TOOL:
            tx.tool(ActionId(name))
        else:
            tx.person(PersonId(name))
    except NotFound as error:
        near = _near(name, _known(tx, target))
        remedy = f"Did you mean {' or '.join(near)}?" if near else error.remedy
        raise NotFound(str(error), remedy=remedy) from None


def _known(tx: RegistryChange, target: Target) -> Iterable[str]:
    if target is Target.AGENT:
        return [each.id for each in tx.agents()]
    if target is Target.SERVER:
        return [each.id for each in tx.servers()]
    if target is Target.TOOL:
        return [each.action for each in tx.tools()]
    return [each.id for each in tx.people()]


def _near(name: str, known: Iterable[str]) -> list[str]:
    """A tool may be named without its server."""
    ids = list(known)
    tools = [each for each in ids if each.partition("/")[2] == name]
    return tools[:NEAR_MAX] or difflib.get_close_matches(name, ids, NEAR_MAX)

"""``/holds/{id}``: how a call that waits for people stands (APP-4).

The agent's client sends its user here.  The page says a word about a hold whose id the visitor knows, and
nothing of the call; there is no button on it, since who asks is not who approves.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from exeat.approvals.model.hold import HoldState
from exeat.console.pages import Console, show, shown
from exeat.core.errors import NotFound

States = Callable[[tuple[str, ...]], Mapping[str, HoldState]]
"""Reads the database."""
ID_MAX: Final = 64
SAID: Final[Mapping[HoldState, tuple[str, str]]] = {
    HoldState.PENDING: ("Waiting", "Somebody is being asked. Load this page again to see how it stands."),
    HoldState.APPROVED: ("Approved", "Go back to your agent: the same call is made now."),
    HoldState.GRANTED: ("Approved", "Go back to your agent: the same call is made now."),
    HoldState.USED: ("Made", "The approval was used. It counts once."),
    HoldState.DENIED: ("Denied", "A person said no. Ask the agent's owner."),
    HoldState.EXPIRED: ("Too late", "The time for it has passed. Have the agent make the call again."),
    HoldState.LAPSED: ("Lapsed", "Who approved it may not do so any more. Have the agent ask again."),
}  # fmt: skip


def routes(console: Console, states: States) -> list[Route]:
    async def page(request: Request) -> Response:
        hold = request.path_params["hold"]
        found = await asyncio.to_thread(states, (hold,)) if len(hold) <= ID_MAX else {}
        state = found.get(hold)
        if state is None:
            raise NotFound("There is no such call.", remedy="Have the agent make the call again.")
        title, text = SAID[state]
        return show(console, None, "hold", title=title, text=text, hold=hold)

    return [Route("/holds/{hold}", shown(console, page), methods=["GET"])]

"""What is under way for somebody or something that was just killed ends at once (APP-9).

New calls are stopped by the PDP.  Here: calls in flight are cancelled, held calls and open questions are
given up, sessions, streams and subscriptions are closed.  Cancelling undoes nothing: what a server did by
then is unknown, and is recorded so.
"""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from exeat.core.facts import PersonFacts
from exeat.core.ids import AgentId, PersonId, ServerId
from exeat.core.kills import Kills, Target
from exeat.core.request import AccessRequest, Caller
from exeat.gateway.sessions import principal_key

if TYPE_CHECKING:
    from exeat.gateway.front import Front
    from exeat.gateway.ports import View

CAUSE: Final = "killed"


def killed(view: "View", access: AccessRequest, run: str) -> str:
    """The kill that stops this action; empty if none does.  ``run``: the one it counts as, if the
    request names none."""
    return _of(view, access.caller, access.server.id, access.action, access.run or run)


def server_killed(kills: Kills, server: ServerId) -> bool:
    return bool(kills) and bool(
        kills.of.get((Target.SERVER, server)) or kills.of.get((Target.ALL, ""))
    )


def end_killed(front: "Front") -> Mapping[str, int]:
    """Cancelled calls, by kill."""
    view = front.pipeline.state.view
    ended: Counter[str] = Counter()
    if not view.snapshot.kills:
        return ended
    for call in list(front.calls):
        kill = killed(view, call.access, call.route.run)
        if kill:
            ended[kill] += 1
            call.give_up(CAUSE)
    ended.update(front.held.end_killed(view))
    _end_sessions(front, view)
    _end_streams(front, view)
    return ended


def _of(view: "View", caller: Caller, server: str, action: str, run: str) -> str:
    """Also through an agent that the authority was delegated by: it has none to give any more."""
    snapshot = view.snapshot
    agent = snapshot.agents.get(caller.agent.id, caller.agent)
    found = snapshot.kills.hit(agent, caller.user, server, action, run)
    for each in caller.token.actors if caller.token is not None and not found else ():
        actor = snapshot.agents.get(each)
        found = found or (snapshot.kills.hit(actor, None, "", "", "") if actor is not None else "")
    return found


def _end_sessions(front: "Front", view: "View") -> None:
    snapshot = view.snapshot
    for session in front.sessions:
        name, _, whose = session.principal.partition("/")
        agent = snapshot.agents.get(AgentId(name))
        user = PersonFacts(PersonId(whose), live=True) if whose != "-" else None
        endpoint = session.endpoint or ""
        if agent is None or snapshot.kills.hit(agent, user, endpoint, "", session.principal):
            front.sessions.end(session)
            continue
        for server, handle in list(session.listening.items()):
            if server_killed(snapshot.kills, server):
                del session.listening[server]
                handle.cancel()


def _end_streams(front: "Front", view: "View") -> None:
    streams = front.clients.streams
    for answer, caller in list(streams.items()):
        if _of(view, caller, "", "", principal_key(caller)):
            del streams[answer]
            if answer.open:
                answer.end_stream()

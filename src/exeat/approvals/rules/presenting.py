"""A held call as people are shown it (APP-1): for the command line, the console and webhooks.  Pure.

Everything in it that an agent or a server wrote is data; whoever prints it makes it harmless.
"""

from dataclasses import dataclass
from typing import Any

from exeat.approvals.model.exact import exact
from exeat.approvals.model.hold import Answer, Hold, HoldState, Shown
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.approvals.rules.destinations import listed
from exeat.core.controls import CONFIRMED_BY_USER
from exeat.core.ids import PersonId

ASKED_MAX = 50


@dataclass(frozen=True, slots=True)
class Asked:
    """``control``: what it gives.  ``people``: who can give it now, at most ASKED_MAX.  ``wanted``: how
    many."""

    control: str
    wanted: int
    people: tuple[PersonId, ...]
    channels: tuple[str, ...]


def asked(hold: Hold, standing: Standing) -> tuple[tuple[Asked, ...], ...]:
    """For each alternative."""
    return tuple(
        tuple(_asked(each, hold, standing) for each in alternative)
        for alternative in hold.alternatives
    )


def _asked(control: str, hold: Hold, standing: Standing) -> Asked:
    able = (
        p for p in sorted(standing.people) if authority.stands(control, p, hold.binding, standing)
    )
    wanted = authority.quorum(control, standing)
    through = sorted(authority.channels(control, standing))
    return Asked(control, wanted, tuple(able)[:ASKED_MAX], tuple(map(str, through)))


def otherwise(hold: Hold) -> str:
    """What happens if nobody answers."""
    if hold.state is HoldState.PENDING:
        return "the answer is no; if the agent makes the same call again, it is asked again"
    if hold.state is HoldState.APPROVED:
        return "it is approved; if the agent does not make the same call in time, it ends unused"
    return f"it is {hold.state.value}; nothing waits any more"


def presented(hold: Hold, shown: Shown | None, standing: Standing) -> dict[str, Any]:
    """JSON values.  ``shown`` None: the arguments were forgotten, or cannot be opened.  Arguments are
    exact JSON texts, so that no digit is lost on the way."""
    b = hold.binding
    places, more = listed(shown.leaving) if shown is not None else ((), False)
    return {
        "id": hold.id,
        "state": hold.state.value,
        "tool": b.action,
        "server": b.server,
        "method": b.method,
        "agent": b.agent,
        "user": b.user or "",
        "run": b.run,
        "arguments": None if shown is None else exact(shown.arguments),
        "narrowed": None if shown is None or shown.narrowed is None else exact(shown.narrowed),
        "destination": [{"argument": where, "value": value} for where, value in places],
        "more_destinations": more,
        "effect": hold.effect,
        "sink": hold.sink,
        "labels": list(b.labels),
        "why": list(hold.why),
        "asked": [
            [
                {
                    "control": each.control,
                    "wanted": each.wanted,
                    "people": list(each.people),
                    "channels": list(each.channels),
                }
                for each in alternative
            ]
            for alternative in asked(hold, standing)
        ],
        "answers": [_said(each) for each in hold.answers],
        "if_nobody_answers": otherwise(hold),
        "asked_at": hold.asked_at,
        "expires_at": hold.expires_at,
        "decided_at": hold.decided_at,
        "use_by": hold.use_by,
        "attempts": hold.attempts,
        "grant": hold.grant,
        "binding": b.digest,
        "arguments_digest": b.arguments,
        "pin": b.pin,
        "slice": b.slice,
        "commitment": hold.commitment,
        "salt": "" if shown is None else shown.salt,
    }


def _said(answer: Answer) -> dict[str, Any]:
    confirms = CONFIRMED_BY_USER in answer.controls and answer.word == "approve"
    return {
        "person": answer.person,
        "said": "confirm" if confirms else answer.word.value,
        "channel": answer.channel.value,
        "at": answer.at,
        "reason": answer.reason,
        "controls": sorted(answer.controls),
        "proposes_grant": bool(answer.bounds),
    }

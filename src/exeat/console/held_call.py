"""A held call as a page shows it, and what the person before it may do.  Pure.

Values are exact JSON in ASCII, so that nothing in them hides or poses as something else.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from exeat.approvals.model.exact import exact, read_exact
from exeat.approvals.model.hold import SECOND_NS, Hold, HoldState
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import authority
from exeat.core.controls import CONFIRMED_BY_USER, Channel
from exeat.core.ids import PersonId

VALUE_MAX_CHARS: Final = 4000
ADMIN: Final = "admin"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@*\[\]-]{1,200}")
_MINUTE: Final = 60
_WORDS: Final = {
    HoldState.PENDING: "waits",
    HoldState.APPROVED: "approved",
    HoldState.GRANTED: "approved, and calls like it within bounds",
    HoldState.USED: "approved, and made",
    HoldState.DENIED: "denied",
    HoldState.EXPIRED: "over: nobody answered, or the agent did not call again in time",
    HoldState.LAPSED: "over: an approver may not approve any more",
}


def confirms(hold: Hold) -> bool:
    """What its user alone confirms is never called an approval (APP-3)."""
    return authority.controls(hold.alternatives) == (CONFIRMED_BY_USER,)


def sees(hold: Hold, person: PersonId, standing: Standing) -> str:
    """``whole``: the arguments, too.  ``short``: of one's own call.  Empty: nothing, not even that it
    exists."""
    facts = standing.people.get(person)
    if facts is None or not facts.live:
        return ""
    could = any(
        authority.stands(each, person, hold.binding, standing)
        for each in authority.controls(hold.alternatives)
    )
    if could or ADMIN in facts.roles or any(each.person == person for each in hold.answers):
        return "whole"
    return "short" if person == hold.binding.user else ""


def ways(
    hold: Hold, person: PersonId, now: int, standing: Standing
) -> tuple[frozenset[Channel], frozenset[str]]:
    """By which channels of a browser this person can answer now, and which controls that would give."""
    answered = any(each.person == person for each in hold.answers)
    if hold.state is not HoldState.PENDING or now >= hold.expires_at or answered:
        return frozenset(), frozenset()
    signed_in = authority.gives(hold, person, Channel.CONSOLE, now, standing)
    passkey = authority.gives(hold, person, Channel.PASSKEY, now, standing)
    found = {Channel.CONSOLE} if signed_in else set()
    if passkey - signed_in:
        found.add(Channel.PASSKEY)
    return frozenset(found), signed_in | passkey


def state(hold: Hold, now: int) -> str:
    if hold.state is HoldState.PENDING and now >= hold.expires_at:
        return _WORDS[HoldState.EXPIRED]
    word = _WORDS[hold.state]
    return word.replace("approved", "confirmed") if confirms(hold) else word


def left(end: int, now: int) -> str:
    seconds = max(0, end - now) // SECOND_NS
    return f"{seconds} s" if seconds < 2 * _MINUTE else f"{seconds // _MINUTE} min"


def rows(call: Mapping[str, Any]) -> list[dict[str, str]] | None:
    """Each argument, what becomes of it, and the value in full or what of it is not shown.  None: they
    were forgotten, or cannot be opened."""
    if call["arguments"] is None:
        return None
    original = read_exact(call["arguments"])
    narrowed = original if call["narrowed"] is None else read_exact(call["narrowed"])
    found = []
    for name, value in original.items():
        changed = ""
        if name not in narrowed:
            changed = "left out"
        elif exact(narrowed[name]) != exact(value):
            changed = f"made smaller: {_value(narrowed[name])}"
        found.append({"name": plain(name), "value": _value(value), "changed": changed})
    for name, value in narrowed.items():
        if name not in original:
            row = {"name": plain(name), "value": _value(value), "changed": "set by exeat"}
            found.append(row)
    return found


def plain(name: str) -> str:
    """In quotation marks unless it is one plain word, so that a name cannot pose as more than that."""
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def _value(value: Any) -> str:
    text = exact(value)
    if len(text) <= VALUE_MAX_CHARS:
        return text
    return (
        f"{text[:VALUE_MAX_CHARS]} … NOT SHOWN HERE: {len(text) - VALUE_MAX_CHARS} more characters"
    )


def places(call: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"value": _value(each["value"]), "argument": plain(str(each["argument"]))}
        for each in call["destination"]
    ]

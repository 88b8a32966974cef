"""How a held call and a grant are printed: harmlessly, whatever an agent or a server wrote into them."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from exeat.approvals.model.bounds import AtMost, Below, Bound, Bounds, OneOf
from exeat.approvals.model.exact import exact, read_exact
from exeat.cli.desk import printable, say
from exeat.core.controls import CONFIRMED_BY_USER
from exeat.registry.model.names import SECOND_NS, show_time

VALUE_MAX_CHARS: Final = 4000
_MINUTE: Final = 60
_HOUR: Final = 3600
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@*\[\]-]{1,200}")


def show_call(call: Mapping[str, Any], now: int | None = None) -> None:
    """What ``rules.presenting`` presents, line by line (APP-1)."""
    for line in _lines(call, time.time_ns() if now is None else now):
        say(line)


def _lines(call: Mapping[str, Any], now: int) -> Iterator[str]:
    yield f"{call['id']}  {call['state']}"
    yield _line(
        "tool", f"{_name(call['tool'])}  ({_name(call['method'])} at server {call['server']})"
    )
    yield _line("agent", call["agent"])
    yield _line("for", call["user"] or "nobody: the agent acts for itself")
    yield _line("run", _name(call["run"]) if call["run"] else "-")
    yield from _arguments(call)
    for each in call["destination"]:
        yield _line("goes to", f"{_value(each['value'])}  ({_name(each['argument'])})")
    if call["more_destinations"]:
        yield _line("goes to", "MORE THAN IS LISTED HERE: look through the arguments")
    elif not call["destination"]:
        yield _line("goes to", "no argument names a place or a party")
    yield _line("effect", call["effect"] or "unknown")
    yield _line("sink", call["sink"] or "unknown")
    yield _line("labels", ", ".join(map(_name, call["labels"])) or "none")
    yield _line("why", f"policy asks for people: {', '.join(call['why']) or '-'}")
    for n, alternative in enumerate(call["asked"]):
        yield _line("asked" if n == 0 else "or", " and ".join(map(_who, alternative)))
    for each in call["answers"]:
        said = f"{each['person']}: {each['said']}, by {each['channel']}, {show_time(each['at'])}"
        grant = ", proposes a grant" if each["proposes_grant"] else ""
        yield _line(
            "said", f"{said}{grant}" + (f": {_text(each['reason'])}" if each["reason"] else "")
        )
    yield _line("held", f"{show_time(call['asked_at'])}, called {_times(call['attempts'])}")
    ends_at = call["use_by"] or call["expires_at"]
    yield _line("until", f"{show_time(ends_at)} ({_left(ends_at - now)})")
    yield _line("otherwise", call["if_nobody_answers"])
    if call["grant"]:
        yield _line("grant", f"{call['grant']}   (exeat grants show {call['grant']})")
    yield _line("binding", call["binding"])


def _arguments(call: Mapping[str, Any]) -> Iterator[str]:
    if call["arguments"] is None:
        yield _line("arguments", f"cannot be shown any more; digest {call['arguments_digest']}")
        return
    original = read_exact(call["arguments"])
    narrowed = None if call["narrowed"] is None else read_exact(call["narrowed"])
    for n, (name, value) in enumerate(original.items()):
        changed = ""
        if narrowed is not None and (name not in narrowed or exact(narrowed[name]) != exact(value)):
            after = _value(narrowed[name]) if name in narrowed else "left out"
            changed = f"   narrowed to {after}"
        yield _line("arguments" if n == 0 else "", f"{_name(name)} = {_value(value)}{changed}")
    for name, value in (narrowed or {}).items():
        if name not in original:
            yield _line("", f"{_name(name)} = {_value(value)}   set by exeat")
    if not original:
        yield _line("arguments", "none")


def show_bounds(bounds: Bounds, held: Mapping[str, Any]) -> None:
    for name, value in held.items():
        say(_line("", f"{_name(name)} {_bound(bounds.arguments.get(name), value)}"))
    runs = "any run of the same agent and user" if bounds.any_run else "this run only"
    say(_line("where", runs))


def _bound(bound: Bound | None, held: Any) -> str:
    match bound:
        case AtMost(most):
            return f"from 0 to {most}"
        case Below(path):
            return f"{_text(path)} or below it"
        case OneOf(values):
            return "one of " + ", ".join(printable(each) for each in sorted(values))
    return f"= {_value(held)}"


def _who(each: Mapping[str, Any]) -> str:
    people = ", ".join(each["people"]) or "nobody"
    if each["control"] == CONFIRMED_BY_USER:
        return f"{each['control']}: a confirmation by {people}, by passkey"
    wanted = f"{each['wanted']} of " if each["wanted"] > 1 else ""
    return f"{each['control']}: {wanted}{people} (by {', '.join(each['channels']) or 'nothing'})"


def _line(name: str, text: str) -> str:
    return f"  {name:<10}  {printable(text)}"


def _text(value: str) -> str:
    return printable(value)


def _name(value: str) -> str:
    """In quotation marks unless it is one plain word, so that a name cannot pose as more of the line."""
    return value if _PLAIN.fullmatch(value) else printable(json.dumps(value))


def _value(value: Any) -> str:
    """JSON on one line; what is cut off is said."""
    text = printable(exact(value) if not isinstance(value, str) else json.dumps(value))
    if len(text) <= VALUE_MAX_CHARS:
        return text
    more = len(text) - VALUE_MAX_CHARS
    return f"{text[:VALUE_MAX_CHARS]} ... NOT SHOWN HERE: {more} more characters; --json shows all"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _left(span_ns: int) -> str:
    seconds = span_ns // SECOND_NS
    if seconds <= 0:
        return "over"
    if seconds < 2 * _MINUTE:
        return f"in {seconds} s"
    if seconds < 2 * _HOUR:
        return f"in {seconds // _MINUTE} min"
    return f"in {seconds // _HOUR} h"

"""Narrowing: a call made smaller until policy permits it (POL-9).  Pure.

Only arguments that a person confirmed as monotone change, each to a value below the original in its own
order; none is dropped.  What comes out is a proposal: it is authorized anew like any other call.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice, product
from typing import Any, Final

from exeat.core.controls import Order
from exeat.core.facts import Effect, ToolFacts
from exeat.policy.canonical import NotCanonical, fact
from exeat.policy.model import Kind, Limit
from exeat.policy.slices import Slice

NEVER: Final = frozenset({Effect.PAY, Effect.SEND, Effect.DELETE})
"""Less of these is another act, so they hold instead."""
PROPOSALS_MAX: Final = 16


def narrowable(tool: ToolFacts | None) -> bool:
    return (
        tool is not None
        and bool(tool.monotone)
        and tool.profile_confirmed
        and tool.effect not in NEVER
    )


def proposals(
    part: Slice, tool: ToolFacts, arguments: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Smaller arguments that the limits of the policies suggest, the largest first; at most
    PROPOSALS_MAX, so that no policy can make a decision long."""
    if narrowable(tool):
        yield from islice(_proposed(part, tool, arguments), PROPOSALS_MAX)


def _proposed(
    part: Slice, tool: ToolFacts, arguments: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    seen: list[Mapping[str, Any]] = []
    for policy in sorted(part.policies, key=lambda each: each.id):  # not as files stand
        by_name: dict[str, list[Limit]] = {}
        for limit in policy.limits:
            by_name.setdefault(limit.path[0], []).append(limit)
        ways: list[list[tuple[str, Any]]] = []
        for name, several in sorted(by_name.items()):
            order = tool.monotone.get(name)
            if order is not None and name in arguments:
                values = [_toward(order, arguments[name], limit) for limit in several]
                smaller = [value for value in values if below(order, arguments[name], value)]
                if smaller:
                    smaller.sort(key=_size, reverse=True)
                    ways.append([(name, value) for value in smaller])
        for way in product(*ways) if ways else ():
            proposed = {**arguments, **dict(way)}
            if proposed not in seen:
                seen.append(proposed)
                yield proposed


def dry(tool: ToolFacts | None, arguments: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The same call as a dry run, if the tool has a confirmed flag for it; else None."""
    if tool is None or not narrowable(tool):
        return None
    for name, order in sorted(tool.monotone.items()):
        if order is Order.FLAG:
            return arguments if arguments.get(name) is True else {**arguments, name: True}
    return None


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the arguments that differ, sorted."""
    return tuple(sorted(n for n in after if n not in before or before[n] != after[n]))


def lawful(tool: ToolFacts, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether ``after`` is a narrowing of ``before``: the check that does not trust who proposed it."""
    if not narrowable(tool) or any(name not in after for name in before):
        return False
    for name in changed(before, after):
        order = tool.monotone.get(name)
        if order is None or not below(order, before.get(name), after[name]):
            return False
    return True


def below(order: Order, old: Any, new: Any) -> bool:
    """Whether ``new`` is strictly less than ``old`` in the order."""
    if new is None:
        return False
    if order is Order.LESS:
        if not _number(old) or not _number(new):
            return False
        return bool(new < old and (new > 0 or old <= 0))  # many servers take 0 for "no limit"
    if order is Order.FLAG:
        return new is True and (old is False or old is None)
    if order is Order.SUBSET:
        if not isinstance(old, list) or not isinstance(new, list) or not new:
            return False
        rest = list(old)
        for each in new:
            if each not in rest:
                return False
            rest.remove(each)
        return bool(rest)
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    above, inner = _place(old), _place(new)
    return above is not None and inner is not None and above != inner and _inside(above, inner)


def _toward(order: Order, old: Any, limit: Limit) -> Any:
    if limit.order is not order:
        return None
    if order is Order.LESS:
        whole = isinstance(old, int) and not isinstance(limit.value, int)
        return int(limit.value) if whole and limit.value == int(limit.value) else limit.value  # type: ignore[arg-type]
    if order is Order.SUBSET and isinstance(old, list) and isinstance(limit.value, tuple):
        return [each for each in old if each in limit.value]
    return limit.value if order is Order.BELOW else None


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _place(text: str) -> str | None:
    try:
        return str(fact(Kind.PATH, text)["canonical"])
    except NotCanonical:
        return None


def _inside(above: str, inner: str) -> bool:
    if above == "/":
        return inner.startswith("/")
    if above == ".":
        return not inner.startswith("/")
    return inner.startswith(f"{above}/")


def _size(value: Any) -> Any:
    """Larger keys first; a path that is shorter holds more."""
    if isinstance(value, str):
        return -len(value)
    return len(value) if isinstance(value, list) else value

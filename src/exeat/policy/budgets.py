"""Which budgets a call takes from, whose share of them, and how much (APP-8).  Pure.

What cannot be counted exactly is refused: an amount that two readers could take for different numbers
would be a way around the limit.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from exeat.core.controls import QUANTITY_MAX, Budget, Charge, Controls, Counts, Per
from exeat.core.decision import Reason
from exeat.core.request import AccessRequest
from exeat.policy.canonical import NotCanonical, fact
from exeat.policy.controls import amount_units
from exeat.policy.encode import ELEMENTS_MAX, Refused
from exeat.policy.facts import CANONICAL
from exeat.policy.methods import ANY_METHOD
from exeat.policy.model import Kind
from exeat.policy.world import tool_ancestors

_MISSING: Final = object()
_SEPARATORS: Final = re.compile(r"[,;|\s]*[,;|\n\r\t][,;|\s]*")
_PLAIN_KINDS: Final = (Kind.URL, Kind.EMAIL, Kind.HOST)


def charges(
    controls: Controls, request: AccessRequest, arguments: Mapping[str, Any]
) -> tuple[Charge, ...]:
    """What the call takes, in the order of the budgets.  ``arguments``: those that will leave.

    Raises Refused for a value that cannot be counted."""
    found: list[Charge] = []
    for budget in controls.budgets:
        if binds(budget, request):
            found.extend(_charged(budget, share(budget.per, request), arguments))
    return tuple(found)


def binds(budget: Budget, request: AccessRequest) -> bool:
    """``actions``: tools, methods, or groups of them.  ``agents``: agents, or groups of agents."""
    agent, tool = request.caller.agent, request.tool
    if budget.agents and agent.id not in budget.agents and not (budget.agents & agent.groups):
        return False
    groups = (ANY_METHOD,) if tool is None else tool_ancestors(tool)
    return request.action in budget.actions or any(each in budget.actions for each in groups)


def share(per: Per, request: AccessRequest) -> str:
    """Whose share: ``agent:mail-bot``.  An agent that acts for no user has one of its own; calls outside
    of any explicit run share the run of their agent and user."""
    agent, user = request.caller.agent.id, request.caller.user
    if per is Per.TOOL:
        return f"tool:{request.action}"
    if per is Per.RUN:
        whose = "-" if user is None else user.id
        return f"run:{request.run or f'{agent}/{whose}'}"
    if per is Per.USER and user is not None:
        return f"user:{user.id}"
    return f"agent:{agent}"


def _charged(budget: Budget, key: str, arguments: Mapping[str, Any]) -> Iterator[Charge]:
    if budget.counts is Counts.DISTINCT:
        for member in _members(budget, arguments):
            yield _charge(budget, key, 1, member)
        return
    if budget.counts is Counts.CALLS:
        amount = 1
    elif budget.counts is Counts.AMOUNT:
        amount = _amount(budget.argument, arguments)
    else:
        amount = budget.reserve
    yield _charge(budget, key, amount)


def _charge(budget: Budget, key: str, amount: int, member: str = "") -> Charge:
    return Charge(budget.id, key, amount, budget.limit, budget.window_s, member)


def _amount(name: str, arguments: Mapping[str, Any]) -> int:
    """The sum, if the argument stands in each element of a list (``payments.amount``)."""
    total = 0
    for value in _values(name, arguments):
        if value is _MISSING or value is None:
            raise Refused(Reason.AMOUNT_INVALID, name, "it is missing, and a budget counts it")
        try:
            total += amount_units(value)
        except ValueError as error:
            raise Refused(Reason.AMOUNT_INVALID, name, str(error)) from None
    if total > QUANTITY_MAX:
        raise Refused(Reason.AMOUNT_INVALID, name, "it is too large")
    return total


def _members(budget: Budget, arguments: Mapping[str, Any]) -> list[str]:
    """Digests of the values, each once.  An argument that is not there is a value too: the server
    would choose one."""
    found: dict[str, None] = {}
    for value in _values(budget.argument, arguments):
        for each in _each(value):
            found[_member(budget.id, None if each is _MISSING else each)] = None
            if len(found) > ELEMENTS_MAX:
                why = f"it holds more than {ELEMENTS_MAX} values"
                raise Refused(Reason.ARGUMENT_OVERSIZE, budget.argument, why)
    return list(found)


def _each(value: Any) -> Iterator[Any]:
    """The elements of a list, and the parts of a text in which a server could read several: ``a@x.org,
    b@x.org`` is two recipients.  Where no part is an address, the whole counts as well."""
    for each in value if isinstance(value, list) else (value,):
        parts = _parts(each) if isinstance(each, str) else []
        if len(parts) < 2 or not any("@" in part or "://" in part for part in parts):
            yield each
        if len(parts) > 1:
            yield from parts


def _parts(text: str) -> list[str]:
    """One URL is one, whatever stands in it."""
    try:
        fact(Kind.URL, text)
    except NotCanonical:
        parts = [part for each in _SEPARATORS.split(text) if (part := each.strip())]
        return [piece for part in parts for piece in _addresses(part)]
    return [text]


def _addresses(part: str) -> list[str]:
    """Several addresses with nothing but spaces between them."""
    return [part] if part.count("@") < 2 else [each for each in part.split() if "@" in each]


def _member(budget: str, value: Any) -> str:
    """Values that are plainly the same address count once."""
    if isinstance(value, str):
        for kind in _PLAIN_KINDS:
            try:
                value = fact(kind, value)["canonical"]
                break
            except NotCanonical:
                continue
    written = CANONICAL.encode([budget, value])
    return hashlib.sha256(written).hexdigest()


def _values(name: str, arguments: Any) -> Iterator[Any]:
    """What stands at ``a.b.c``; of lists on the way, in each element.  Where it is not: _MISSING.  An
    argument that is called so as a whole counts as well, and stands in for nothing."""
    key, _, rest = name.partition(".")
    members = arguments if isinstance(arguments, Mapping) else {}
    if rest and name in members:
        yield members[name]
    if key not in members:
        yield _MISSING
        return
    found = members[key]
    if not rest:
        yield found
    elif isinstance(found, list):
        for each in found:
            yield from _values(rest, each)
    else:
        yield from _values(rest, found)

"""Reads ``controls.yaml``, which a policy version declares beside its ``*.cedar`` files (POL-5).

A misspelt word is an error that names file, line and remedy; it never opens a door.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, TypeVar

import yaml

from exeat.core.controls import (
    APPROVED_BY,
    BUILT_IN,
    CONFIRMED_BY_USER,
    CONTROLS_FILE,
    NO_CONTROLS,
    OWNER,
    OWNER_ROLE,
    QUANTITY_MAX,
    ApproverRole,
    Budget,
    Channel,
    Controls,
    Counts,
    Fulfilled,
    Per,
)
from exeat.core.ids import PersonId
from exeat.policy.model import Finding

DETECTORS: Final = frozenset({"secret", "card", "iban", "email", "phone"})
WITHIN_MAX_S: Final = 7 * 24 * 3600
WINDOW_MAX_S: Final = 366 * 24 * 3600
BUDGETS_MAX: Final = 1_000
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_TIME: Final = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)\Z")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_POINTER: Final = re.compile(r"(/([^~/]|~[01])*)+\Z")
_W = TypeVar("_W", bound=StrEnum)


class _Wrong(Exception):
    def __init__(self, node: yaml.Node, problem: str, remedy: str) -> None:
        self.node, self.problem, self.remedy = node, problem, remedy


def read_controls(files: Mapping[str, str]) -> tuple[Controls, list[Finding]]:
    """What a version declares, or what every version has; with findings, what is sound of it is lost,
    so a caller must not let a version with findings into force."""
    text = files.get(CONTROLS_FILE)
    if text is None:
        return NO_CONTROLS, []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        what = str(getattr(error, "problem", "") or "it cannot be read")
        return NO_CONTROLS, [_finding(line, 1, f"This is not YAML: {what}.", "Correct it.")]
    except RecursionError:
        return NO_CONTROLS, [_finding(1, 1, "It is nested too deeply.", "Write it flat.")]
    if node is None:
        return NO_CONTROLS, []
    try:
        return _controls(node), []
    except _Wrong as wrong:
        mark = wrong.node.start_mark
        return NO_CONTROLS, [_finding(mark.line + 1, mark.column + 1, wrong.problem, wrong.remedy)]
    except RecursionError:
        return NO_CONTROLS, [_finding(1, 1, "It is nested too deeply.", "Write it flat.")]


def _finding(line: int, column: int, problem: str, remedy: str) -> Finding:
    return Finding(CONTROLS_FILE, line, column, "", problem, remedy)


def _controls(node: yaml.Node) -> Controls:
    top = dict(_entries(node, {"approvers", "controls", "budgets"}))
    approvers = {OWNER: OWNER_ROLE}
    for key, below in _named(top.get("approvers")):
        approvers[key] = _approver(key, below)
    fulfilled = dict(BUILT_IN)
    for key, below in _named(top.get("controls")):
        if key.startswith(APPROVED_BY) or key == CONFIRMED_BY_USER:
            raise _Wrong(below, f"{key} is an answer of people.", "Declare it under approvers.")
        fulfilled[key] = _fulfilled(key, below)
    listed = _items(top["budgets"]) if "budgets" in top else []
    budgets = [_budget(each) for each in listed]
    seen: set[str] = set()
    for budget, each in zip(budgets, listed, strict=True):
        if budget.id in seen:
            raise _Wrong(each, f"The budget {budget.id} stands here twice.", "Give it another id.")
        seen.add(budget.id)
    if len(budgets) > BUDGETS_MAX:
        raise _Wrong(top["budgets"], f"More than {BUDGETS_MAX} budgets.", "Join some of them.")
    return Controls(approvers, fulfilled, tuple(budgets))


def _approver(name: str, node: yaml.Node) -> ApproverRole:
    of = dict(_entries(node, {"people", "roles", "quorum", "channels", "within"}))
    people = frozenset(PersonId(text) for text in _texts(of.get("people")))
    roles = frozenset(_texts(of.get("roles")))
    if name != OWNER and not people and not roles:
        raise _Wrong(node, f"Nobody could approve as {name}.", "Name people or roles.")
    quorum = _whole(of["quorum"], 100) if "quorum" in of else 1
    if people and not roles and name != OWNER and quorum > len(people):
        raise _Wrong(of["quorum"], f"{quorum} of {len(people)} cannot agree.", "Lower the quorum.")
    channels = frozenset(_word(each, Channel) for each in _items(of.get("channels")))
    return ApproverRole(
        name,
        people,
        roles,
        owner=name == OWNER,
        quorum=quorum,
        channels=channels or OWNER_ROLE.channels,
        within_s=_seconds(of["within"], WITHIN_MAX_S) if "within" in of else OWNER_ROLE.within_s,
    )


def _fulfilled(name: str, node: yaml.Node) -> Fulfilled:
    of = dict(_entries(node, {"redact", "fields", "rows", "bytes", "dry_run"}))
    detectors = frozenset(_texts(of.get("redact")))
    for unknown in sorted(detectors - DETECTORS):
        known = ", ".join(sorted(DETECTORS))
        raise _Wrong(of["redact"], f"There is no detector {unknown}.", f"There are: {known}.")
    fields = tuple(_texts(of.get("fields")))
    for each in fields:
        if not _POINTER.match(each):
            raise _Wrong(of["fields"], f"{each} is no JSON pointer.", "Write it as /a/b or /a/*/b.")
    rows = _whole(of["rows"], 1_000_000) if "rows" in of else 0
    size = _whole(of["bytes"], 2**30) if "bytes" in of else 0
    dry = "dry_run" in of and _flag(of["dry_run"])
    if not (detectors or fields or rows or size or dry):
        raise _Wrong(node, f"The control {name} does nothing.", "Say what it redacts or caps.")
    return Fulfilled(name, detectors, fields, rows, size, dry)


def _budget(node: yaml.Node) -> Budget:
    known = {"id", "actions", "agents", "per", "counts", "argument", "limit", "reserve", "window"}
    of = dict(_entries(node, known))
    for needed in ("id", "actions", "limit", "window"):
        if needed not in of:
            raise _Wrong(node, f"The budget has no {needed}.", "Write it.")
    name = _text(of["id"])
    if not _ID.match(name):
        raise _Wrong(of["id"], f"{name[:80]!r} is no id.", "Use a-z, 0-9, dot, dash.")
    counts = _word(of["counts"], Counts) if "counts" in of else Counts.CALLS
    argument = _text(of["argument"]) if "argument" in of else ""
    if (counts in (Counts.AMOUNT, Counts.DISTINCT)) is not bool(argument):
        wanted = "needs the argument that it reads" if not argument else "reads no argument"
        raise _Wrong(node, f"A budget of {counts} {wanted}.", "Correct counts or argument.")
    measure = _amount if counts is Counts.AMOUNT else _quantity
    reserve = _quantity(of["reserve"]) if "reserve" in of else 0
    limit = measure(of["limit"])
    if (counts in (Counts.ROWS, Counts.BYTES)) is not bool(reserve):
        wanted = "needs reserve: the most that one result may use" if not reserve else "has none"
        raise _Wrong(node, f"A budget of {counts} {wanted}.", "Correct counts or reserve.")
    if reserve > limit:
        raise _Wrong(of["reserve"], "One result may use more than the limit.", "Lower reserve.")
    actions = tuple(_texts(of["actions"]))
    if not actions:
        raise _Wrong(of["actions"], "The budget counts no action.", "Name tools or groups.")
    return Budget(
        name,
        actions,
        _word(of["per"], Per) if "per" in of else Per.AGENT,
        counts,
        limit,
        _seconds(of["window"], WINDOW_MAX_S),
        argument,
        reserve,
        frozenset(_texts(of.get("agents"))),
    )


# --- nodes


def _entries(node: yaml.Node, known: Collection[str]) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null":
        return
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong(node, "A mapping was expected here.", "Write it as name: value.")
    seen: set[str] = set()
    for key, below in node.value:
        name = _text(key)
        if name in seen:
            raise _Wrong(key, f"{name[:80]} stands here twice.", "Remove one.")
        seen.add(name)
        if known and name not in known:
            names = ", ".join(sorted(known))
            raise _Wrong(key, f"{name[:80]} is not known here.", f"There are: {names}.")
        yield name, below


def _named(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if node is None:
        return
    for name, below in _entries(node, ()):
        if not _NAME.match(name):
            raise _Wrong(below, f"{name[:80]!r} is no name.", "Use a-z, 0-9 and _, 40 at most.")
        yield name, below


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _Wrong(node, "A list was expected here.", "Write it as [one, two].")
    return list(node.value)


def _texts(node: yaml.Node | None) -> list[str]:
    return [_text(each) for each in _items(node)]


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise _Wrong(node, "A word was expected here.", "Write one.")
    return str(node.value)


def _word(node: yaml.Node, words: type[_W]) -> _W:
    text = _text(node)
    if text not in set(words):
        raise _Wrong(node, f"{text[:80]} is not known here.", f"There are: {', '.join(words)}.")
    return words(text)


def _flag(node: yaml.Node) -> bool:
    if _text(node) not in ("true", "false"):
        raise _Wrong(node, "true or false was expected here.", "Write one of them.")
    return _text(node) == "true"


def _seconds(node: yaml.Node, most: int) -> int:
    match = _TIME.match(_text(node))
    found = int(match.group(1)) * _SECONDS[match.group(2)] if match else 0
    if not 0 < found <= most:
        raise _Wrong(node, f"{_text(node)[:40]} is no time within {most} s.", "E.g. 90s, 8h, 7d.")
    return found


def _whole(node: yaml.Node, most: int) -> int:
    text = _text(node)
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:20]) <= most:
        raise _Wrong(node, f"A whole number from 1 to {most} was expected.", "Correct it.")
    return int(text)


def _quantity(node: yaml.Node) -> int:
    return _whole(node, QUANTITY_MAX)


def _amount(node: yaml.Node) -> int:
    return _measured(node, amount_units)


def _measured(node: yaml.Node, read: Callable[[Any], int]) -> int:
    try:
        found = read(Decimal(_text(node)))
    except (ValueError, InvalidOperation) as error:
        raise _Wrong(node, f"This is no amount: {error}.", "At most four places.") from None
    if found == 0:
        raise _Wrong(node, "A limit of 0 permits nothing.", "Forbid the action instead.")
    return found


def amount_units(value: Any) -> int:
    """An amount in ten-thousandths (Cedar's decimal has four places).  Raises ValueError, saying why."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("it is not a number")
    exact = Decimal(value)
    if not exact.is_finite():
        raise ValueError("it is not a finite number")
    if exact < 0:
        raise ValueError("it is negative")
    if exact == 0:
        return 0  # whatever its exponent, which could be astronomical
    if exact.adjusted() > 18:
        raise ValueError("it is too large")
    _, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - it is finite
    number = int("".join(map(str, digits)))
    if exponent < -4 and number % 10 ** min(-4 - exponent, len(digits)):
        raise ValueError("it has more than four decimal places")
    shift: int = 10 ** abs(exponent + 4)
    units = number // shift if exponent < -4 else number * shift
    if units > QUANTITY_MAX:
        raise ValueError("it is too large")
    return units

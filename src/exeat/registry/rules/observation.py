"""REG-6: what a server shows now against what is known of it: changes to keep, and findings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.core.facts import PinState
from exeat.core.ids import ServerId
from exeat.registry.model.act import Act
from exeat.registry.model.names import tool_name
from exeat.registry.model.tool import Change, Tool
from exeat.registry.rules.lookalikes import hides_script, lookalikes
from exeat.registry.rules.pins import definition, drift
from exeat.registry.rules.suspicion import suspicions

PENDING_MAX: Final = 256
"""Definitions of one server that wait for a person.  A server cannot fill the disk with more."""
_LINES_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """``kind``: new, changed, restored, lookalike, shadowing, hidden_text, instruction, over_limit,
    invalid.  ``says``: one plain sentence, ASCII where it quotes the server."""

    kind: str
    server: ServerId
    tool: str
    says: str


@dataclass(frozen=True, slots=True)
class Observation:
    """``changes``: tools to save, each with its event.  Empty if nothing is new."""

    changes: tuple[Change, ...]
    findings: tuple[Finding, ...]


def compare(
    server: ServerId, shown: Sequence[Mapping[str, Any]], known: Iterable[Tool], act: Act
) -> Observation:
    """Total over whatever the server shows.  Idempotent: the same list again changes nothing.

    ``known``: the tools of *all* servers, for look-alikes and shadowing.  At most PENDING_MAX tools
    of the server wait at a time; what is beyond is a finding and is not kept (it stays unknown, and
    unknown tools are denied).
    """
    everywhere = tuple(known)
    own = {tool.name: tool for tool in everywhere if tool.server == server}
    waiting = sum(tool.state is not PinState.PINNED for tool in own.values())
    changes: list[Change] = []
    findings: list[Finding] = []
    names: set[str] = set()
    for body in shown:
        name = body.get("name") if isinstance(body, Mapping) else None
        if not isinstance(name, str) or not tool_name(name) or name in names:
            findings.append(_finding("invalid", server, name, "nameless, misnamed or named twice"))
            continue
        names.add(name)
        try:
            change = _one(server, name, body, own.get(name), act)
        except Invalid as error:
            findings.append(_finding("invalid", server, name, str(error)))
            continue
        if change is None:
            continue
        was_waiting = name in own and own[name].state is not PinState.PINNED
        now_waiting = change[0].state is not PinState.PINNED
        if now_waiting and not was_waiting and waiting >= PENDING_MAX:
            findings.append(
                _finding("over_limit", server, name, f"{PENDING_MAX} definitions wait already")
            )
            continue
        waiting += now_waiting - was_waiting
        changes.append(change)
        findings.extend(_about(change[0], own.get(name)))
    after = {(t.server, t.name): t for t in (*everywhere, *(tool for tool, _ in changes))}
    for tool, _ in changes:
        findings.extend(warnings(tool, after.values()))
    return Observation(tuple(changes), tuple(findings))


def warnings(tool: Tool, known: Iterable[Tool]) -> tuple[Finding, ...]:
    """What a person should see before pinning: look-alikes, shadowing, hidden and speaking text."""
    everywhere = tuple(known)
    found = [
        _finding("lookalike", tool.server, tool.name, f"could be taken for {_quoted(other)}")
        for other in lookalikes(tool.name, {t.name for t in everywhere})
    ]
    if hides_script(tool.name):
        found.append(
            _finding("lookalike", tool.server, tool.name, "mixes scripts or hides characters")
        )
    found += [
        _finding(
            "shadowing", tool.server, tool.name, f"has the name of {t.server}/{_quoted(t.name)}"
        )
        for t in sorted(everywhere, key=lambda t: t.action)
        if t.name == tool.name and t.server != tool.server
    ]
    if tool.pending is not None:
        found += [
            Finding(kind, tool.server, tool.name, says)
            for kind, says in suspicions(tool.pending.body)
        ]
    return tuple(found)


def _one(
    server: ServerId, name: str, body: Mapping[str, Any], known: Tool | None, act: Act
) -> Change | None:
    seen = definition(body)
    if known is None:
        return Tool.first_seen(server, name, seen, act)
    return known.observe(seen, act)


def _about(tool: Tool, before: Tool | None) -> list[Finding]:
    if tool.state is PinState.PINNED:
        return [_finding("restored", tool.server, tool.name, "shows its pinned definition again")]
    if before is None or tool.pinned is None or tool.pending is None:
        return [_finding("new", tool.server, tool.name, "was not seen by a person yet")]
    lines = drift(tool.pinned.body, tool.pending.body)[:_LINES_MAX]
    return [_finding("changed", tool.server, tool.name, line) for line in lines]


def _finding(kind: str, server: ServerId, name: object, says: str) -> Finding:
    return Finding(kind, server, name if isinstance(name, str) else "", says)


def _quoted(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode("ascii")

"""Two policy versions, policy by policy, and what agents could do under one and not the other (POL-6)."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from exeat.core.controls import CONTROLS_FILE
from exeat.core.facts import AgentFacts, ToolFacts
from exeat.core.request import Caller
from exeat.policy.decide import Pdp
from exeat.policy.methods import TOOL_CALL
from exeat.policy.model import Finding, Statement
from exeat.policy.source import split
from exeat.policy.tree import Unreadable, read
from exeat.policy.world import Catalogue

ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """``what``: added, removed, changed.  ``id``: the policy's, or ``controls.yaml``.  ``lines``: of a
    unified diff, without its head."""

    what: str
    id: str
    place: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reach:
    """Some call of this tool by this agent ``could`` be permitted now and could not before, or the other
    way round."""

    agent: str
    tool: ToolFacts
    could: bool


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[Difference]:
    """By ``@id``; a policy that only moved to another file or line is the same."""
    old, new = _by_id(before), _by_id(after)
    found = []
    for name in sorted(old.keys() | new.keys()):
        one, other = old.get(name), new.get(name)
        texts = ("" if one is None else one.text, "" if other is None else other.text)
        if _plain(texts[0]) == _plain(texts[1]):
            continue
        what = ADDED if one is None else REMOVED if other is None else CHANGED
        source = other if other is not None else one
        assert source is not None  # noqa: S101 - it is in one of them
        found.append(Difference(what, name, f"{source.file}:{source.line}", _lines(*texts)))
    controls = (before.get(CONTROLS_FILE, ""), after.get(CONTROLS_FILE, ""))
    if controls[0] != controls[1]:
        what = ADDED if not controls[0] else REMOVED if not controls[1] else CHANGED
        found.append(Difference(what, CONTROLS_FILE, f"{CONTROLS_FILE}:1", _lines(*controls)))
    return found


def _by_id(files: Mapping[str, str]) -> dict[str, Statement]:
    """What cannot be read, and what has no id of its own, is named by its place."""
    found: dict[str, Statement] = {}
    for file in sorted(files.keys() - {CONTROLS_FILE}):
        for part in split(file, files[file]):
            if isinstance(part, Finding):
                continue
            try:
                name = read(part).id
            except Unreadable:
                name = ""
            if not name or name in found:
                name = f"{part.file}:{part.line}"
            found[name] = part
    return found


def _plain(text: str) -> str:
    return " ".join(text.split())


def _lines(before: str, after: str) -> tuple[str, ...]:
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return tuple(line for line in found if not line.startswith(("---", "+++", "@@")))


def reaches(
    before: Pdp | None, after: Pdp | None, catalogue: Catalogue, now: int
) -> Iterator[Reach]:
    """Every agent and tool between which the versions differ.  Conditions that read arguments are taken as
    satisfiable, so a narrower condition alone does not show here (GW-8)."""
    for agent in sorted(catalogue.agents.values(), key=lambda each: each.id):
        for tool in sorted(_within(agent, catalogue.tools.values()), key=lambda each: each.action):
            could = _could(after, catalogue, agent, tool, now)
            if could is not _could(before, catalogue, agent, tool, now):
                yield Reach(agent.id, tool, could)


def _within(agent: AgentFacts, tools: Iterable[ToolFacts]) -> Iterator[ToolFacts]:
    return (tool for tool in tools if tool.server in agent.scope.servers)


def _could(
    pdp: Pdp | None, catalogue: Catalogue, agent: AgentFacts, tool: ToolFacts, now: int
) -> bool:
    server = catalogue.servers.get(tool.server)
    if pdp is None or server is None:
        return False
    caller = Caller(agent, None, "")
    return pdp.could_permit(caller, server, TOOL_CALL, tool.action, tool, tool.name, now)

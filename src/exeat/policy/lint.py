"""What is wrong with policy files, before they come into force (POL-5).

Cedar's strict validation, and on the parsed tree everything that Cedar lets pass: a typo must be an
error, never a silent allow.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from exeat.core.controls import CONTROLS_FILE, Controls
from exeat.policy.arguments import ToolArguments
from exeat.policy.canonical import kind_of_use
from exeat.policy.controls import read_controls
from exeat.policy.declared import declared_findings, near
from exeat.policy.model import Finding, Kind, Path, Policy, Statement
from exeat.policy.schema import CedarType
from exeat.policy.source import locate, split
from exeat.policy.tree import Unreadable, read
from exeat.policy.validate import Problem, Validator, resolve, strings
from exeat.policy.world import Catalogue, World

ANNOTATIONS: Final = frozenset({"id", "description", "reason", "narrow", "approvers", "shadow"})


def lint(files: Mapping[str, str], catalogue: Catalogue) -> list[Finding]:
    """Every finding in the files (name → text), in order of file and line; empty if sound."""
    arguments = {
        str(name): ToolArguments(tool.input_schema) for name, tool in catalogue.tools.items()
    }
    controls, findings = read_controls(files)
    world = World(catalogue.tools, catalogue.servers, arguments, controls)
    findings += declared_findings(files.get(CONTROLS_FILE, ""), controls, catalogue, world)
    policies = list(_parsed(files, findings))
    findings.extend(_identity(policies))
    vocabulary = _Vocabulary(catalogue, world, controls)
    for policy, problems in zip(policies, Validator(world).problems(policies), strict=True):
        for problem in (*_own(policy, world), *vocabulary.problems(policy), *problems):
            findings.append(_finding(policy, problem))
    return sorted(set(findings))


def _finding(policy: Policy, problem: Problem) -> Finding:
    line, column = locate(policy.source, problem[2])
    return Finding(policy.source.file, line, column, policy.id, problem[0], problem[1])


def _parsed(files: Mapping[str, str], findings: list[Finding]) -> Iterator[Policy]:
    for file in sorted(files.keys() - {CONTROLS_FILE}):
        for part in split(file, files[file]):
            if isinstance(part, Finding):
                findings.append(part)
                continue
            try:
                yield read(part)
            except Unreadable as error:
                findings.append(_unreadable(part, str(error)))


def _unreadable(part: Statement, why: str) -> Finding:
    problem = f"This is not a policy: {why}."
    return Finding(part.file, part.line, part.column, "", problem, "Correct the Cedar syntax.")


def _identity(policies: list[Policy]) -> Iterator[Finding]:
    first: dict[str, Policy] = {}
    for policy in policies:
        if not policy.id or not policy.id.isprintable():
            problem = ("The policy has no @id.", 'Write @id("a-short-name") before it.', "")
            yield _finding(policy, problem)
        elif policy.id in first:
            place = first[policy.id].source
            yield _finding(
                policy,
                (
                    f"@id {policy.id} is already used at {place.file}:{place.line}.",
                    "Give each policy its own @id.",
                    policy.id,
                ),
            )
        else:
            first[policy.id] = policy


def _own(policy: Policy, world: World) -> Iterator[Problem]:
    for name, value in policy.annotations:
        if name not in ANNOTATIONS:
            yield (
                f"The annotation @{name} does not exist.",
                f"{near(name, ANNOTATIONS)}There are: {', '.join(sorted(ANNOTATIONS))}.",
                name,
            )
        elif name == "shadow" and not value.strip():
            yield ("@shadow gives no reason.", 'Write @shadow("why it is tried").', name)
        elif name == "narrow":
            yield from _narrows(policy, value)
    for clause in policy.constants:
        yield (
            f"A part of the '{clause}' condition is constant.",
            "Remove it; a condition has to read a fact.",
            clause,
        )
    yield from _unbounded(policy, world)
    yield from _literals(policy, world)


def _narrows(policy: Policy, value: str) -> Iterator[Problem]:
    """Each argument that ``@narrow`` names needs a bound in the condition, or the hint never helps."""
    bounded = {limit.path[0] for limit in policy.limits}
    for name in policy.narrows or (value,):
        if name not in bounded:
            yield (
                f'@narrow("{value}") names {name or "no argument"}, which the condition does not bound.',
                'Compare it with a limit: <= 50, like "/projects/*", or ["a", "b"].containsAll(…).',
                "narrow",
            )


def _unbounded(policy: Policy, world: World) -> Iterator[Problem]:
    """A policy over all actions that reads an argument means nothing for tools that name the same
    thing otherwise; that is an error unless every tool has that argument."""
    if policy.action.uids:
        return
    covered = world.covered(policy.action, policy.resource)
    for path in sorted(set(policy.input_paths())):
        lacking = [t for t in covered.tools if resolve(world.input_record(t), path) is None]
        if path and lacking:
            yield (
                f"The policy covers every action, but {lacking[0].action} "
                f"has no argument {'.'.join(path)}.",
                'Bound the action, e.g. action in Action::"server/*".',
                path[-1],
            )


def _literals(policy: Policy, world: World) -> Iterator[Problem]:
    uses: dict[Path, set[Kind]] = {}
    for match in sorted(policy.matches, key=lambda match: (match.path, match.literal)):
        if match.path[:2] != ("context", "input"):
            continue
        kind = kind_of_use(match)
        if kind is not None:
            uses.setdefault(match.path, set()).add(kind)
        types = _types(policy, world, match.path[2:])
        texts = [text for text in map(strings, types) if text is not None]
        words: set[str] = set()
        for text in texts:
            words |= text.vocabulary or frozenset()
        closed = bool(texts) and all(text.vocabulary is not None for text in texts)
        if closed and not match.like and match.literal not in words:
            yield (
                f'"{match.literal}" is not a value of {".".join(match.path[2:])}.',
                f"{near(match.literal, words)}Values: {', '.join(sorted(words)[:20])}.",
                match.literal,
            )
    for path, kinds in uses.items():
        if len(kinds) > 1:
            names = " and ".join(sorted(kind.value for kind in kinds))
            yield (
                f"{'.'.join(path[2:])} is compared as {names} at once; no value is both.",
                "Split the tool's uses, or match one kind only.",
                path[-1],
            )


def _types(policy: Policy, world: World, path: Path) -> list[CedarType]:
    covered = world.covered(policy.action, policy.resource)
    found = (resolve(world.input_record(tool), path) for tool in covered.tools)
    return [each for each in found if each is not None]


class _Vocabulary:
    """Names of things that policies may mention, by Cedar type."""

    def __init__(self, catalogue: Catalogue, world: World, controls: Controls) -> None:
        self._servers = frozenset(map(str, catalogue.servers))
        self._names: Mapping[str, Collection[str]] = {
            "Agent": frozenset(map(str, catalogue.agents)),
            "Group": catalogue.groups,
            "Person": frozenset(map(str, catalogue.people)),
            "Role": catalogue.roles,
            "Server": self._servers,
            "Tool": frozenset(map(str, catalogue.tools)),
            "Action": world.actions,
            "Control": frozenset(controls.names),
        }

    def problems(self, policy: Policy) -> Iterator[Problem]:
        for kind, name in sorted(policy.entities):
            known = self._names.get(kind)
            if known is not None and name not in known:
                some = ", ".join(sorted(known)[:8]) or "none"
                what, there = "is not registered", "Registered"
                if kind == "Control":
                    what, there = f"is not declared in {CONTROLS_FILE}", "There are"
                yield (f'{kind}::"{name}" {what}.', f"{near(name, known)}{there}: {some}.", name)
            elif kind in {"Prompt", "Resource"} and name.split("/", 1)[0] not in self._servers:
                yield (
                    f'{kind}::"{name}" names no registered server.',
                    f'Write {kind}::"server/…" with one of: {", ".join(sorted(self._servers))}.',
                    name,
                )

"""Names in ``controls.yaml`` that nothing answers to: a person nobody registered can approve nothing
(POL-5)."""

import difflib
from collections.abc import Collection, Iterator

from exeat.core.controls import CONTROLS_FILE, Budget, Controls, Counts
from exeat.policy.model import Finding, ScopePart, Statement
from exeat.policy.schema import CedarType, Scalar, Tagged
from exeat.policy.source import locate
from exeat.policy.validate import resolve
from exeat.policy.world import Catalogue, World

_Wrong = tuple[str, str, str]
"""The word at which it stands, what is wrong, what to do."""


def declared_findings(
    text: str, controls: Controls, catalogue: Catalogue, world: World
) -> list[Finding]:
    """What the file names and the registry does not have.  ``text``: of the file."""
    whole = Statement(CONTROLS_FILE, 1, 1, text)
    found = []
    for word, problem, remedy in (
        *_people(controls, catalogue),
        *_budgets(controls, world, catalogue),
    ):
        line, column = locate(whole, word)
        found.append(Finding(CONTROLS_FILE, line, column, "", problem, remedy))
    return found


def near(word: str, words: Collection[str]) -> str:
    """``Did you mean …?`` with two spaces after it, or nothing."""
    found = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {found[0]}?  " if found else ""


def _unknown(kind: str, name: str, known: Collection[str]) -> _Wrong:
    some = ", ".join(sorted(known)[:8]) or "none"
    return name, f"There is no {kind} {name[:80]}.", f"{near(name, known)}Registered: {some}."


def _people(controls: Controls, catalogue: Catalogue) -> Iterator[_Wrong]:
    people = frozenset(map(str, catalogue.people))
    for role in controls.approvers.values():
        for person in sorted(role.people - people):
            yield _unknown("person", person, people)
        for name in sorted(role.roles - catalogue.roles):
            yield _unknown("role", name, catalogue.roles)


def _budgets(controls: Controls, world: World, catalogue: Catalogue) -> Iterator[_Wrong]:
    agents = frozenset(map(str, catalogue.agents)) | catalogue.groups
    for budget in controls.budgets:
        for action in sorted(set(budget.actions) - world.actions):
            yield _unknown("action", action, world.actions)
        for agent in sorted(budget.agents - agents):
            yield _unknown("agent or group", agent, agents)
        if budget.argument:
            yield from _argument(budget, world)


def _argument(budget: Budget, world: World) -> Iterator[_Wrong]:
    """Some tool that the budget counts must have the argument, and amounts are numbers."""
    types = list[CedarType]()
    tools = 0
    for action in budget.actions:
        for tool in world.covered(ScopePart((("Action", action),)), ScopePart()).tools:
            tools += 1
            typed = _typed(world.input_record(tool), budget.argument)
            if typed is not None:
                types.append(typed)
    if tools and not types:
        yield (
            budget.argument,
            f"No tool that budget {budget.id} counts has the argument {budget.argument}.",
            "Check the spelling, or its actions.",
        )
    elif types and budget.counts is Counts.AMOUNT and not any(map(_is_number, types)):
        yield (
            budget.argument,
            f"The argument {budget.argument} of budget {budget.id} is no number.",
            "Count an argument that is one.",
        )


def _typed(record: CedarType, argument: str) -> CedarType | None:
    return resolve(record, (argument,)) or resolve(record, argument.split("."))


def _is_number(found: CedarType) -> bool:
    if isinstance(found, Tagged):
        return any(map(_is_number, found.options.values()))
    return isinstance(found, Scalar) and found.name in {"Long", "decimal"}

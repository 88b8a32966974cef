"""Cedar's strict validation, and the checks that Cedar does not make (POL-5).

Cedar validates ``context.input has amuont && …`` and the policy never fires.  So every attribute
that a policy names, also behind ``has``, must exist in at least one tool that it covers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import cedarpy

from exeat.policy.model import PERSON, Kind, Path, Policy, reads_of
from exeat.policy.schema import CedarType, Record, Scalar, SetOf, Tagged
from exeat.policy.world import World

_PREFIX: Final = re.compile(r"^(?:for policy `[^`]*`[:,]? ?)")
_WHOLE: Final = frozenset(
    {("context",), ("context", "input"), *(("context", kind.value) for kind in Kind)}
)
SESSION: Final = frozenset({"now", "user", "environment", "controls"})
TARGET: Final = frozenset({"name", "uri", "scheme", "host", "path"})
FACTS: Final[Mapping[str, frozenset[str]]] = {
    "path": frozenset({"canonical", "absolute", "name"}),
    "url": frozenset({"canonical", "scheme", "host", "port", "path", "query", "ip"}),
    "email": frozenset({"canonical", "local", "domain"}),
    "host": frozenset({"canonical", "name", "ip"}),
}

Problem = tuple[str, str, str]
"""What is wrong, what to do, and the word in the text at which it stands."""


class Validator:
    """Checks policies against a world.  Keeps Cedar's answers, so an unchanged policy over
    unchanged shapes is validated once (``kept`` may come from the bundle before)."""

    def __init__(self, world: World, kept: Mapping[tuple[str, str], tuple[str, ...]] | None = None):
        self._world = world
        self._known = dict(kept or {})
        self.kept: dict[tuple[str, str], tuple[str, ...]] = {}

    def problems(self, policies: Sequence[Policy]) -> list[list[Problem]]:
        """For each policy what makes it mean something else than it says; empty if sound."""
        groups: dict[str, list[int]] = {}
        found: list[list[Problem]] = []
        for index, policy in enumerate(policies):
            found.append(self.attribute_problems(policy))
            reads = reads_of(policy.values, policy.presence)
            named = frozenset(name for kind, name in policy.entities if kind == "Action")
            who = PERSON if policy.of_users else "Agent"
            schema = self._world.schema(policy.action, policy.resource, reads, named, who)
            groups.setdefault(schema, []).append(index)
        for schema, indexes in groups.items():
            for index, errors in zip(
                indexes, self._cedar(schema, [policies[i] for i in indexes]), strict=True
            ):
                found[index].extend(
                    (f"{error[:1].upper()}{error[1:]}.", _advice(error), _word(error))
                    for error in errors
                )
        return found

    def _cedar(self, schema: str, policies: Sequence[Policy]) -> list[tuple[str, ...]]:
        fresh = [policy for policy in policies if (policy.text, schema) not in self._known]
        if fresh:
            errors: list[list[str]] = [[] for _ in fresh]
            result = cedarpy.validate_policies(
                "\n".join(policy.text for policy in fresh), schema, release_gil=True
            )
            for error in result.errors:
                number = re.search(r"policy(\d+)", error.policy_id or error.error)
                text = _PREFIX.sub("", error.error)
                for each in [errors[int(number.group(1))]] if number else errors:
                    each.append(text)
            for policy, texts in zip(fresh, errors, strict=True):
                self._known[(policy.text, schema)] = tuple(dict.fromkeys(texts))
        for policy in policies:
            self.kept[(policy.text, schema)] = self._known[(policy.text, schema)]
        return [self._known[(policy.text, schema)] for policy in policies]

    def attribute_problems(self, policy: Policy) -> list[Problem]:
        """Our own checks on every attribute path that the policy names."""
        found: list[Problem] = []
        for path in sorted(policy.values | policy.presence):
            problem = self._path_problem(policy, path)
            if problem is not None:
                found.append(problem)
        return found

    def _path_problem(self, policy: Policy, path: Path) -> Problem | None:
        if path in _WHOLE and path in policy.values:
            return (
                f"The policy reads all of {'.'.join(path)} at once.",
                "Name the arguments that it needs.",
                path[-1],
            )
        if path[:2] == ("context", "input"):
            return self._missing(policy, path[2:])
        if len(path) > 2 and path[:1] == ("context",) and path[1] in FACTS:
            if len(path) > 3 and path[3] not in FACTS[path[1]]:
                facts = ", ".join(sorted(FACTS[path[1]]))
                return f"{'.'.join(path)} does not exist.", f"There are: {facts}.", path[3]
            return self._missing(policy, path[2:3], text_only=True)
        known = {"session": SESSION, "target": TARGET}
        if len(path) > 2 and path[1] in known and path[2] not in known[path[1]]:
            names = ", ".join(sorted(known[path[1]]))
            return f"{'.'.join(path)} does not exist.", f"There are: {names}.", path[2]
        if len(path) > 1 and path[0] == "context" and path[1] not in _CONTEXT:
            return (
                f"{'.'.join(path)} does not exist.",
                f"The context has: {', '.join(sorted(_CONTEXT))}.",
                path[1],
            )
        return None

    def _missing(self, policy: Policy, path: Path, *, text_only: bool = False) -> Problem | None:
        covered = self._world.covered(policy.action, policy.resource)
        if not covered.tools or not path:
            return None
        untyped = False
        names: set[str] = set()
        for tool in covered.tools:
            record = self._world.input_record(tool)
            typed = resolve(record, path)
            if typed is not None and (not text_only or _is_text(typed)):
                return None
            names.update(record.attributes)
            untyped = untyped or any(
                ".".join(path[: end + 1]) in self._world.arguments[tool.action].type.untyped
                for end in range(len(path))
            )
        dotted = ".".join(path)
        if untyped:
            return (
                f"Argument {dotted} has a JSON schema that Cedar cannot type.",
                "A policy cannot read it; bound another argument, or forbid the tool.",
                path[-1],
            )
        what = "text argument" if text_only else "argument"
        known = ", ".join(sorted(names)[:12]) or "none"
        return (
            f"No tool in the policy's scope has the {what} {dotted}.",
            f"Check the spelling, or narrow the action.  Arguments in scope: {known}.",
            path[-1],
        )


_CONTEXT: Final = frozenset({"input", "session", "target", "run", *FACTS})


def _is_text(found: CedarType) -> bool:
    return isinstance(found, Scalar) and found.name == "String"


def resolve(found: CedarType, path: Iterable[str]) -> CedarType | None:
    """The type at ``path`` below ``found``, or None."""
    node: CedarType | None = found
    for name in path:
        if isinstance(node, Record) and name in node.attributes:
            node = node.attributes[name].type
        elif isinstance(node, Tagged):
            node = node.options.get(name)
        else:
            return None
    return node


def strings(found: CedarType) -> Scalar | None:
    """The text type that a string literal is compared with: the value's or its elements'."""
    if isinstance(found, SetOf):
        found = found.element
    return found if isinstance(found, Scalar) and found.name == "String" else None


def _advice(error: str) -> str:
    if "optional attribute" in error:
        return "Ask first whether it is there: context.input has <argument> && …"
    if "unrecognized action" in error:
        return "Name a registered tool (server/tool), a group (server/*, effect:read) or a method."
    if "declared as a valid eid" in error:
        return "Use one of the values that the reference page lists."
    if "applicable action" in error:
        return "No principal, action and resource fit this scope together; correct it."
    return "See the policy reference for the types of facts."


def _word(error: str) -> str:
    quoted = re.findall(r"`([^`]*)`", error)
    if not quoted:
        return ""
    return str(re.split(r"[.\"]", quoted[0].rstrip('"'))[-1])

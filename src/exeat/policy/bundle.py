"""From a policy version and the registry's facts to a PDP.

Never raises for a version that was accepted earlier.  A permit that no longer means what it says is
dropped; a forbid loses its conditions and so denies all that its scope covers; both are findings.
"""

from collections.abc import Mapping
from dataclasses import replace

from exeat.core.controls import CONTROLS_FILE, NO_CONTROLS
from exeat.core.facts import AgentFacts, PersonFacts, PolicyVersionFacts, ServerFacts, ToolFacts
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.kills import NO_KILLS, Kills
from exeat.policy.arguments import ToolArguments
from exeat.policy.controls import read_controls
from exeat.policy.decide import Pdp
from exeat.policy.model import Finding, Policy, Statement
from exeat.policy.shadow import Shadows, is_shadow
from exeat.policy.slices import Index
from exeat.policy.source import locate, split
from exeat.policy.tree import Unreadable, read
from exeat.policy.validate import Problem, Validator
from exeat.policy.world import World


class Bundle(Pdp):
    """A PDP with what the next compilation may reuse."""

    parsed: Mapping[Statement, Policy]
    validated: Mapping[tuple[str, str], tuple[str, ...]]
    version: PolicyVersionFacts | None


def compile_bundle(
    policy: PolicyVersionFacts | None,
    tools: Mapping[ActionId, ToolFacts],
    servers: Mapping[ServerId, ServerFacts],
    *,
    agents: Mapping[AgentId, AgentFacts] | None = None,
    people: Mapping[PersonId, PersonFacts] | None = None,
    previous: Pdp | None = None,
    kills: Kills = NO_KILLS,
) -> Pdp:
    """Build the PDP of one policy version over one registry state.

    ``previous``: the PDP before; what did not change is taken over.  ``agents`` is accepted for
    callers that hand over a snapshot; decisions take the agent from the request.
    """
    before = previous if isinstance(previous, Bundle) else None
    arguments = _arguments(tools, before)
    if before is not None and _same(before, policy, arguments, tools, servers):
        return _over(before, people or {}, kills)
    parsed: dict[Statement, Policy] = {}
    controls, findings = NO_CONTROLS, list[Finding]()
    if policy is not None:
        controls, findings = read_controls(policy.files)
    world = World(tools, servers, arguments, controls)
    broken = ""
    if policy is not None:
        _parse(policy, before, parsed, findings)
        if findings:
            broken = f"policy version {policy.number} cannot be read: {findings[0]}"
    kept, validated = _sound(list(parsed.values()), world, before, findings)
    bundle = Bundle(
        Index([each for each in kept if not is_shadow(each)]),
        world,
        people or {},
        digest=policy.digest if policy is not None else "",
        findings=tuple(sorted(findings)),
        broken=broken,
        controls=controls,
        kills=kills,
    )
    bundle.parsed, bundle.validated, bundle.version = parsed, validated, policy
    _shadow(bundle, kept, before)
    return bundle


def _shadow(bundle: Bundle, kept: list[Policy], before: Bundle | None) -> None:
    """The policies that are asked beside, and a PDP as if they were in force (POL-5)."""
    shadows = [policy for policy in kept if is_shadow(policy)]
    if not shadows:
        return
    known = before.shadows if before is not None else None
    whole = Index(kept)
    if known is not None and known.twin.index.policies == whole.policies:
        whole = known.twin.index
    twin = Pdp(
        whole,
        bundle.world,
        bundle.people,
        digest=bundle.digest,
        broken=bundle.broken,
        controls=bundle.controls,
        kills=bundle.kills,
    )
    twin.enforces_only = True
    if known is not None and known.twin.world is bundle.world:
        twin.take_slices(known.twin)
    bundle.shadows = Shadows(shadows, twin)


def _same(
    before: Bundle,
    policy: PolicyVersionFacts | None,
    arguments: Mapping[str, ToolArguments],
    tools: Mapping[ActionId, ToolFacts],
    servers: Mapping[ServerId, ServerFacts],
) -> bool:
    """Whether nothing changed that compilation reads (agents, people and standing may have)."""
    version = before.version
    if (version is None) is not (policy is None):
        return False
    if (
        version is not None
        and policy is not None
        and (version.digest != policy.digest or dict(version.files) != dict(policy.files))
    ):
        return False
    world = before.world
    return (
        world.arguments.keys() == arguments.keys()
        and all(world.arguments[name] is found for name, found in arguments.items())
        and {name: tool.effect for name, tool in world.tools.items()}
        == {name: tool.effect for name, tool in tools.items()}
        and {name: server.extra_methods for name, server in world.servers.items()}
        == {name: server.extra_methods for name, server in servers.items()}
    )


def _over(before: Bundle, people: Mapping[PersonId, PersonFacts], kills: Kills) -> Bundle:
    """The same compilation over other people; parsed slices are taken over, routes are not."""
    bundle = Bundle(
        before.index,
        before.world,
        people,
        digest=before.digest,
        findings=before.findings,
        broken=before.broken,
        controls=before.controls,
        kills=kills,
    )
    bundle.parsed, bundle.validated = before.parsed, before.validated
    bundle.version = before.version
    bundle.take_slices(before)
    if before.shadows is not None:
        _shadow(bundle, list(before.shadows.twin.index.policies), before)
    return bundle


def _arguments(
    tools: Mapping[ActionId, ToolFacts], before: Bundle | None
) -> dict[str, ToolArguments]:
    """Argument checks by action, taken over where the tool's definition or pin is the same."""
    found: dict[str, ToolArguments] = {}
    for action, tool in tools.items():
        old = before.world.tools.get(action) if before is not None else None
        same = old is not None and (
            old.definition is tool.definition or (tool.pin != "" and old.pin == tool.pin)
        )
        if before is not None and same:
            found[action] = before.world.arguments[action]
        else:
            found[action] = ToolArguments(tool.input_schema)
    return found


def _parse(
    version: PolicyVersionFacts,
    before: Bundle | None,
    parsed: dict[Statement, Policy],
    findings: list[Finding],
) -> None:
    known = before.parsed if before is not None else {}
    for file in sorted(version.files.keys() - {CONTROLS_FILE}):
        for part in split(file, version.files[file]):
            if isinstance(part, Finding):
                findings.append(part)
                continue
            found = known.get(part)
            try:
                parsed[part] = found if found is not None else _named(read(part))
            except Unreadable as error:
                findings.append(
                    Finding(
                        file,
                        part.line,
                        part.column,
                        "",
                        f"This is not a policy: {error}.",
                        "Correct it.",
                    )
                )


def _named(policy: Policy) -> Policy:
    """A policy without ``@id`` is named by its place, so that a decision can still name it."""
    place = f"{policy.source.file}:{policy.source.line}"
    return policy if policy.id else replace(policy, id=place)


def _sound(
    policies: list[Policy], world: World, before: Bundle | None, findings: list[Finding]
) -> tuple[list[Policy], Mapping[tuple[str, str], tuple[str, ...]]]:
    validator = Validator(world, before.validated if before is not None else None)
    kept: list[Policy] = []
    for policy, problems in zip(policies, validator.problems(policies), strict=True):
        if not problems:
            kept.append(policy)
            continue
        findings.append(_finding(policy, problems[0]))
        if not policy.permit and not is_shadow(policy):
            kept.append(_unconditional(policy))
    return kept, validator.kept


def _finding(policy: Policy, problem: Problem) -> Finding:
    what = "now denies all that its scope covers" if not policy.permit else "no longer permits"
    what = "is a shadow and is not asked" if is_shadow(policy) else what
    line, column = locate(policy.source, problem[2])
    return Finding(
        policy.source.file,
        line,
        column,
        policy.id,
        f"{problem[0]}  The {'permit' if policy.permit else 'forbid'} {what}.",
        problem[1],
    )


def _unconditional(policy: Policy) -> Policy:
    """A forbid without its conditions: it denies all that its scope covers."""
    return replace(
        policy,
        conditional=False,
        values=frozenset(),
        presence=frozenset(),
        matches=frozenset(),
        source=replace(policy.source, text=policy.bare),
    )

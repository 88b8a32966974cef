"""A least-privilege policy from what an agent used (POL-6).  Pure.

It learns from calls that were permitted and executed without an error, and never from what was held,
denied, observed, or done in an untrusted run: an attacker could teach it there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

from exeat.core.controls import DRY_RUN
from exeat.core.decision import Reason, Verdict
from exeat.core.facts import PolicyVersionFacts
from exeat.core.ids import ActionId, Digest, PersonId
from exeat.core.obligations import BUDGET
from exeat.policy.bounds import ABSENT, Bound, bound_of
from exeat.policy.bundle import compile_bundle
from exeat.policy.canonical import NotCanonical, uri
from exeat.policy.cases import load_cases, run
from exeat.policy.lint import lint
from exeat.policy.methods import PROMPT_METHODS, RESOURCE_METHODS
from exeat.policy.model import Finding
from exeat.policy.replay import Recorded
from exeat.policy.schema import input_type, quoted
from exeat.policy.world import Catalogue

TARGETS_MAX: Final = 20
UNTRUSTED: Final = "untrusted"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")


@dataclass(frozen=True, slots=True)
class Suggested:
    """``file``, ``case_file``: names to write them under.  ``left_out``: why calls taught nothing.
    ``findings`` and ``refused``: what is wrong with it; it is good for nothing unless both are empty."""

    file: str
    text: str
    case_file: str
    cases: str
    taught: int
    left_out: Counter[str] = field(default_factory=Counter)
    findings: tuple[Finding, ...] = ()
    refused: tuple[Recorded, ...] = ()


def suggest(agent: str, used: Iterable[Recorded], catalogue: Catalogue) -> Suggested:
    """Permits for exactly what was used, linted, and proved sufficient by deciding every used call."""
    left_out = Counter[str]()
    taught: list[Recorded] = []
    for each in used:
        why = unfit(each, catalogue)
        if why:
            left_out[why] += 1
        else:
            taught.append(each)
    groups: dict[tuple[str, str], list[Recorded]] = {}
    for each in taught:
        groups.setdefault((each.request.server.id, each.request.action), []).append(each)
    name = f"suggested-{_slug(agent)}"
    texts, cases, names = [], list[dict[str, Any]](), set[str]()
    for (server, action), calls in sorted(groups.items()):
        policy_id = _unique(f"{name}-{_slug(server)}-{_slug(action.rpartition('/')[2])}", names)
        if calls[0].request.tool is not None:
            text, more = _tool(agent, policy_id, calls)
            cases += more
        else:
            text = _method(agent, policy_id, calls)
        texts.append(text)
    policies = "\n".join([f"// What {agent} used, in {len(taught)} calls.", *texts])
    made = Suggested(f"{name}.cedar", policies, f"{name}.yaml", "", len(taught), left_out)
    return _proved(made, taught, cases, catalogue) if taught else made


def unfit(recorded: Recorded, catalogue: Catalogue) -> str:
    """Why a used call must not teach; empty if it may."""
    request = recorded.request
    if recorded.verdict is not Verdict.PERMIT or recorded.reason is Reason.OBSERVED:
        return "policy would have refused them"
    if recorded.mode == "evaluate":
        return "another enforcement point only asked about them"
    if recorded.mode != "enforce":
        return "policy would have refused them"
    if recorded.reason is not Reason.PERMITTED:
        return "no policy permitted them"
    if any(UNTRUSTED in label for label in recorded.labels):
        return "their run had read untrusted content"
    if request.controls:
        return "they needed an approval or another control"
    if any(not each.startswith((f"{BUDGET}:", f"{DRY_RUN}:")) for each in recorded.obligations):
        return "they were narrowed, redacted or needed a control"
    if any(each.startswith(f"{DRY_RUN}:") for each in recorded.obligations):
        return "they were only tried out"
    now = catalogue.tools.get(ActionId(request.action))
    if request.tool is not None and (now is None or now.pin != request.tool.pin):
        return "their tool has another definition now"
    return ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "x"


def _unique(name: str, names: set[str]) -> str:
    found, number = name, 2
    while found in names:
        found, number = f"{name}-{number}", number + 1
    names.add(found)
    return found


def _head(agent: str, policy_id: str, calls: Sequence[Recorded], resource: str) -> list[str]:
    action = calls[0].request.action
    return [
        "",
        f"@id({quoted(policy_id)})",
        f'@description("from {len(calls)} used calls")',
        f"permit(principal == Agent::{quoted(agent)}, action == Action::{quoted(action)}, {resource})",
    ]


def _tool(
    agent: str, policy_id: str, calls: Sequence[Recorded]
) -> tuple[str, list[dict[str, Any]]]:
    tool = calls[0].request.tool
    assert tool is not None  # noqa: S101 - the caller has looked
    effects = sorted({each.request.tool.effect for each in calls if each.request.tool is not None})
    conditions = [" || ".join(f"resource.effect == Effect::{quoted(each)}" for each in effects)]
    if len(effects) > 1:
        conditions[0] = f"({conditions[0]})"
    bounds: dict[str, Bound] = {}
    record = input_type(tool.input_schema).record
    for name, attribute in sorted(record.attributes.items()):
        values = [each.request.arguments.get(name) for each in calls]
        bounds[name] = bound_of(name, attribute, values)
        if bounds[name].condition:
            conditions.append(bounds[name].condition)
    joined = "\n    && ".join(conditions)
    lines = [*_head(agent, policy_id, calls, "resource"), f"  when {{ {joined} }};"]
    required = [name for name, attribute in record.attributes.items() if attribute.required]
    return "\n".join(lines), _cases(agent, tool.action, policy_id, bounds, required)


def _method(agent: str, policy_id: str, calls: Sequence[Recorded]) -> str:
    request = calls[0].request
    server, method = request.server.id, request.method
    targets = sorted({each.request.target for each in calls})
    by_target = method in PROMPT_METHODS | RESOURCE_METHODS
    resource = f"resource {'in' if by_target else '=='} Server::{quoted(server)}"
    condition = ""
    if method in PROMPT_METHODS and len(targets) <= TARGETS_MAX and all(map(_NAME.match, targets)):
        condition = " || ".join(f"context.target.name == {quoted(each)}" for each in targets)
    elif method in RESOURCE_METHODS:
        condition = _schemes(targets)
    lines = _head(agent, policy_id, calls, resource)
    lines[-1] += ";" if not condition else ""
    return "\n".join([*lines, *([f"  when {{ {condition} }};"] if condition else [])])


def _schemes(targets: Sequence[str]) -> str:
    """Schemes and hosts of resources; their paths may say anything."""
    try:
        facts = [uri(each) for each in targets]
    except NotCanonical:
        return ""
    pairs = sorted({(str(each["scheme"]), str(each["host"])) for each in facts})
    if len(pairs) > TARGETS_MAX:
        return ""
    return " || ".join(
        f"(context.target.scheme == {quoted(scheme)} && context.target.host == {quoted(host)})"
        for scheme, host in pairs
    )


def _cases(
    agent: str, action: str, policy_id: str, bounds: dict[str, Bound], required: Sequence[str]
) -> list[dict[str, Any]]:
    """One call inside all bounds, and for each argument one just outside.  All values are made up from
    the bounds; what was really sent stands only in the record."""
    inside = {name: _plain(bound.inside) for name, bound in bounds.items() if name in required}
    if ABSENT in inside.values():
        return []
    for name, bound in bounds.items():
        if bound.condition and name not in required and bound.inside is not ABSENT:
            inside[name] = _plain(bound.inside)
    given = {"agent": agent, "tool": action}
    permitted = {"verdict": "permit", "policies": [policy_id]}
    found: list[dict[str, Any]] = [
        {
            "description": f"{action} as it was used",
            "given": {**given, "arguments": inside},
            "expect": permitted,
        }
    ]
    for name, bound in sorted(bounds.items()):
        if bound.condition and bound.outside is not ABSENT:
            found.append(
                {
                    "description": f"{action} with another {name} than was used",
                    "given": {**given, "arguments": {**inside, name: _plain(bound.outside)}},
                    "expect": {"verdict": "deny", "reason": "not_permitted"},
                }
            )
    return found


def _plain(value: Any) -> Any:
    """As YAML writes it; ``cases.exact`` reads the digits back."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _proved(
    made: Suggested, taught: Sequence[Recorded], cases: list[dict[str, Any]], catalogue: Catalogue
) -> Suggested:
    """Linted; every used call decided under it alone; only cases that hold are kept."""
    files = {made.file: made.text}
    findings = tuple(lint(files, catalogue))
    nobody = PersonId("")
    version = PolicyVersionFacts(Digest("suggested"), 0, nobody, nobody, "suggested", files)
    pdp = compile_bundle(version, catalogue.tools, catalogue.servers, people=catalogue.people)
    refused = tuple(each for each in taught if not pdp.decide(each.request).permitted)
    kept = []
    for case in cases:
        (read,) = load_cases(made.case_file, yaml.safe_dump({"cases": [case]}))
        if not run(read, pdp, catalogue).differences:
            kept.append(case)
    text = yaml.safe_dump(
        {"description": f"What was used: {made.file}", "cases": kept}, sort_keys=False
    )
    return Suggested(
        made.file,
        made.text,
        made.case_file,
        text,
        made.taught,
        made.left_out,
        findings,
        refused,
    )

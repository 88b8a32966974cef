"""Decision cases: what a policy should answer, as YAML (POL-6).

```yaml
description: Payments
cases:
  - description: a small transfer is permitted
    given: {agent: invoice-bot, user: ada, tool: bank/transfer, arguments: {amount: 99.5, to: x}}
    expect: {verdict: permit, reason: permitted, policies: [pay-small]}
```
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.errors import Invalid
from exeat.core.facts import ServerFacts, ToolFacts
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.policy.decide import Pdp
from exeat.policy.documents import document, words
from exeat.policy.methods import TOOL_CALL
from exeat.policy.world import Catalogue

DEFAULT_NOW: Final = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z, for cases that name no time."""
_GIVEN: Final = frozenset(
    {"agent", "user", "tool", "method", "server", "target", "arguments", "now", "controls"}
)
_EXPECT: Final = frozenset({"verdict", "reason", "policies", "arguments", "obligations"})


@dataclass(frozen=True, slots=True)
class Case:
    """One case.  ``reason``, ``policies``, ``arguments`` (as they leave) and ``obligations`` are None
    where the case does not fix them."""

    file: str
    description: str
    given: Mapping[str, Any]
    verdict: Verdict
    reason: Reason | None
    policies: tuple[str, ...] | None
    arguments: Mapping[str, Any] | None = None
    obligations: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class CaseResult:
    """``differences``: plain sentences; empty if the case holds."""

    case: Case
    decision: Decision
    differences: tuple[str, ...]


def load_cases(file: str, text: str) -> list[Case]:
    """Read one file of cases.  Raises Invalid, naming file and case."""
    top = document(text, file)
    listed = top.get("cases") if isinstance(top, Mapping) else None
    if not isinstance(listed, list):
        raise Invalid(f"{file} has no list 'cases'", remedy="see docs/reference/policy.md")
    return [_case(file, number, entry) for number, entry in enumerate(listed, 1)]


def _case(file: str, number: int, entry: object) -> Case:
    where = f"{file}: case {number}"
    given = entry.get("given") if isinstance(entry, Mapping) else None
    expect = entry.get("expect") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(given, Mapping):
        raise Invalid(f"{where} has no 'given'", remedy="name agent and tool under given")
    if not isinstance(expect, Mapping):
        raise Invalid(f"{where} has no 'expect'", remedy="name the verdict under expect")
    for unknown in sorted((set(given) - _GIVEN) | (set(expect) - _EXPECT)):
        raise Invalid(f"{where}: {unknown} is not known here", remedy="check the spelling")
    try:
        verdict = Verdict(str(expect.get("verdict", "")))
        reason = Reason(expect["reason"]) if "reason" in expect else None
    except ValueError as error:
        remedy = f"verdict is one of {', '.join(Verdict)}; reasons: docs/reference/gateway.md"
        raise Invalid(f"{where}: {error}", remedy=remedy) from None
    policies = _words(expect, "policies", where)
    title = str(entry.get("description", f"case {number}"))
    leaving = exact(expect["arguments"]) if isinstance(expect.get("arguments"), Mapping) else None
    todo = _words(expect, "obligations", where)
    words(given.get("controls"), f"{where}: controls")
    return Case(
        file,
        title,
        given,
        verdict,
        reason,
        None if policies is None else tuple(sorted(policies)),
        leaving,
        todo,
    )


def _words(expect: Mapping[str, Any], name: str, where: str) -> tuple[str, ...] | None:
    return words(expect[name], f"{where}: {name}") if name in expect else None


def request_of(case: Case, catalogue: Catalogue) -> AccessRequest:
    """The request that a case describes.  Raises Invalid if it names what is not registered."""
    given = case.given
    agent = catalogue.agents.get(AgentId(str(given.get("agent", ""))))
    if agent is None:
        raise _unknown(case, f"agent {given.get('agent')}")
    user = None
    if given.get("user") is not None:
        user = catalogue.people.get(PersonId(str(given["user"])))
        if user is None:
            raise _unknown(case, f"user {given['user']}")
    server, tool, action = _place(case, catalogue)
    method = str(given.get("method", TOOL_CALL))
    return AccessRequest(
        caller=Caller(agent, user, "case"),
        method=method,
        action=ActionId(action),
        server=server,
        target=tool.name if tool is not None else str(given.get("target", "")),
        tool=tool,
        observed_pin=tool.pin if tool is not None else "",
        arguments=exact(given.get("arguments") or {}),
        now=_instant(case, given.get("now")),
        controls=frozenset(map(str, given.get("controls") or ())),
    )


def _place(case: Case, catalogue: Catalogue) -> tuple[ServerFacts, ToolFacts | None, str]:
    if "tool" in case.given:
        action = str(case.given["tool"])
        tool = catalogue.tools.get(ActionId(action))
        server = catalogue.servers.get(ServerId(action.split("/", 1)[0]))
    else:
        action, tool = str(case.given.get("method", "")), None
        server = catalogue.servers.get(ServerId(str(case.given.get("server", ""))))
    if server is None:
        raise _unknown(case, f"the server of {action or 'the case'}")
    return server, tool, action


def _unknown(case: Case, what: str) -> Invalid:
    return Invalid(
        f"{case.file}: {case.description}: {what} is not registered",
        remedy="check the spelling, or register it",
    )


def exact(value: Any) -> Any:
    """YAML's floats as decimals with the digits that were written."""
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, Mapping):
        return {str(name): exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return value


def _instant(case: Case, value: object) -> int:
    if value is None:
        return DEFAULT_NOW
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise Invalid(f"{case.file}: {case.description}: {value} is not an ISO 8601 time") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return int(at.timestamp()) * 10**9


def run(case: Case, pdp: Pdp, catalogue: Catalogue) -> CaseResult:
    """Decide one case and compare."""
    decision = pdp.decide(request_of(case, catalogue))
    found: list[str] = []
    if decision.verdict is not case.verdict:
        found.append(f"verdict is {decision.verdict.value}, expected {case.verdict.value}")
    if case.reason is not None and decision.reason is not case.reason:
        found.append(f"reason is {decision.reason.value}, expected {case.reason.value}")
    if case.policies is not None and decision.policies != case.policies:
        names = ", ".join(decision.policies) or "none"
        found.append(f"policies are {names}, expected {', '.join(case.policies) or 'none'}")
    leaves = case.given.get("arguments") or {} if decision.narrowed is None else decision.narrowed
    if case.arguments is not None and dict(case.arguments) != exact(leaves):
        found.append(f"the arguments leave as {dict(leaves)}, expected {dict(case.arguments)}")
    if case.obligations is not None and set(decision.obligations) != set(case.obligations):
        names = ", ".join(decision.obligations) or "none"
        found.append(f"obligations are {names}, expected {', '.join(case.obligations) or 'none'}")
    if found and decision.detail:
        found.append(decision.detail)
    return CaseResult(case, decision, tuple(found))

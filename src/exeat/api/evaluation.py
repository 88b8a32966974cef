"""AuthZEN's questions and answers in our terms (Authorization API 1.0, sections 5 to 7).  Pure.

Unknown members are ignored, as section 10.1.1 demands; known ones of the wrong shape are refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from exeat.core.errors import ExeatError
from exeat.policy.methods import LIST_METHODS, METHODS, PROMPT_METHODS, RESOURCE_METHODS, TOOL_CALL

EVALUATIONS_MAX: Final = 50
TEXT_MAX_CHARS: Final = 2048
RUN_MAX_CHARS: Final = 256
METHOD_MAX_CHARS: Final = 128
KINDS_MAX: Final = 50
AGENT: Final = "agent"
DEFAULTS: Final = ("subject", "action", "resource", "context")
_ACTIONS: Final = {
    "tool": frozenset({TOOL_CALL}),
    "prompt": PROMPT_METHODS,
    "resource": RESOURCE_METHODS,
}
_NAMED: Final = frozenset().union(*_ACTIONS.values())
_ALL: Final = frozenset(METHODS) | LIST_METHODS | _NAMED


class BadRequest(ExeatError):
    """The question is not one, whatever policy says."""

    code, http_status = "bad_request", 400


class Semantic(StrEnum):
    """Section 7.1.2.1."""

    ALL = "execute_all"
    DENY = "deny_on_first_deny"
    PERMIT = "permit_on_first_permit"


@dataclass(frozen=True, slots=True)
class Question:
    """``scopes``: of the token that the enforcement point was shown; None: it says nothing of any.
    ``target``: tool or prompt name, resource URI, or empty.  ``obligations``: kinds that the enforcement
    point can meet; None: it does not say, and then it can meet none about which
    something has to be done."""

    agent: str
    user: str
    scopes: frozenset[str] | None
    server: str
    method: str
    target: str
    arguments: Mapping[str, Any]
    run: str
    obligations: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Evaluated:
    """``id``: of the decision on record.  ``narrowed``: the arguments that are permitted instead.  ``hold``:
    sets of controls, any of which would make it permissible."""

    permitted: bool
    reason: str
    id: str
    remedy: str = ""
    obligations: tuple[str, ...] = ()
    narrowed: Mapping[str, Any] | None = None
    hold: tuple[tuple[str, ...], ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        context: dict[str, Any] = {"reason": self.reason, "decision_id": self.id}
        if self.remedy:
            context["remedy"] = self.remedy
        if self.obligations and self.permitted:
            context["obligations"] = [
                _obligation(number, each) for number, each in enumerate(self.obligations, 1)
            ]
        if self.narrowed is not None and self.permitted:
            context["arguments"] = dict(self.narrowed)
        if self.hold:
            context["hold"] = {"alternatives": [list(each) for each in self.hold]}
        return {"decision": self.permitted, "context": context}


class Evaluator(Protocol):
    async def evaluate(self, question: Question, client: str) -> Evaluated:
        """Durable once it returns.  ``client``: the enforcement point.  Raises LedgerUnavailable."""
        ...


def _obligation(number: int, written: str) -> dict[str, Any]:
    """As Draft 1 of the AuthZEN profile for obligations shapes them; the types are ours."""
    kind, _, value = written.partition(":")
    return {"id": f"o{number}", "type": kind, "properties": {"value": value}}


def denied(error: ExeatError) -> dict[str, Any]:
    """Section 7.2.1: of one evaluation among several, closed."""
    said = {"status": error.http_status, "message": str(error)}
    return {"decision": False, "context": {"error": said}}


def read_many(body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Semantic] | None:
    """Each with the defaults filled in; None: it is a single question (section 7.1).  Raises
    BadRequest."""
    listed = body.get("evaluations")
    if listed is None or listed == []:
        return None
    if not isinstance(listed, list):
        raise BadRequest('"evaluations" must be an array.')
    if len(listed) > EVALUATIONS_MAX:
        raise BadRequest(f'"evaluations" holds more than {EVALUATIONS_MAX}.')
    if not all(isinstance(each, dict) for each in listed):
        raise BadRequest('"evaluations" must hold objects.')
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise BadRequest('"options" must be an object.')
    wanted = options.get("evaluations_semantic", Semantic.ALL.value)
    if wanted not in {each.value for each in Semantic}:
        known = ", ".join(Semantic)
        raise BadRequest(f'"options.evaluations_semantic" must be one of {known}.')
    defaults = {name: body[name] for name in DEFAULTS if name in body}
    return [{**defaults, **each} for each in listed], Semantic(wanted)


def read_question(given: Mapping[str, Any]) -> Question:
    """Raises BadRequest."""
    subject, action, resource = (
        _object(given, name, name) for name in ("subject", "action", "resource")
    )
    context = _optional(given, "context", "context")
    kind, name = _text(subject, "type", "subject.type"), _text(subject, "id", "subject.id")
    if kind != AGENT:
        raise BadRequest(f'"subject.type" must be "{AGENT}": exeat decides on agents.')
    properties = _optional(subject, "properties", "subject.properties")
    scope = properties.get("scope")
    if scope is not None and (not isinstance(scope, str) or len(scope) > TEXT_MAX_CHARS):
        raise BadRequest(
            '"subject.properties.scope" must be a string of scopes with spaces between.'
        )
    method = _text(action, "name", "action.name", METHOD_MAX_CHARS)
    server, target = _place(resource, method)
    return Question(
        name,
        _text(properties, "user", "subject.properties.user") if "user" in properties else "",
        None if scope is None else frozenset(scope.split()),
        server,
        method,
        target,
        _arguments(action, resource, method, target),
        _text(context, "run", "context.run", RUN_MAX_CHARS) if "run" in context else "",
        _kinds(context),
    )


def _place(resource: Mapping[str, Any], method: str) -> tuple[str, str]:
    """The server, and what of it."""
    kind, name = _text(resource, "type", "resource.type"), _text(resource, "id", "resource.id")
    actions = _ACTIONS.get(kind)
    if actions is None and kind != "server":
        raise BadRequest('"resource.type" must be tool, prompt, resource or server.')
    of_kind = actions if actions is not None else _ALL - _NAMED
    if method in _ALL and method not in of_kind:
        raise BadRequest(f'"action.name" {method} is not done to a resource of type {kind}.')
    if actions is None:
        return name, ""
    server, slash, target = name.partition("/")
    if not (server and slash and target):
        raise BadRequest('"resource.id" must be SERVER/NAME.')
    return server, target


def _arguments(
    action: Mapping[str, Any], resource: Mapping[str, Any], method: str, target: str
) -> Mapping[str, Any]:
    """As the gateway would decide upon: of a tool its arguments, else the parameters of the method."""
    of_action = _optional(action, "properties", "action.properties")
    of_resource = _optional(resource, "properties", "resource.properties")
    if "arguments" in of_action and "arguments" in of_resource:
        raise BadRequest('"arguments" stands both in action.properties and in resource.properties.')
    found = of_action if "arguments" in of_action else of_resource
    given = _optional(found, "arguments", "arguments")
    if method in PROMPT_METHODS:
        return {"name": target, **({"arguments": given} if given else {})}
    if method in RESOURCE_METHODS:
        return {"uri": target}
    return given


def _kinds(context: Mapping[str, Any]) -> frozenset[str] | None:
    kinds = context.get("supported_obligations")
    if kinds is None:
        return None
    if (
        not isinstance(kinds, list)
        or len(kinds) > KINDS_MAX
        or not all(isinstance(each, str) for each in kinds)
    ):
        raise BadRequest('"context.supported_obligations" must be an array of strings.')
    return frozenset(kinds)


def _object(given: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    if name not in given:
        raise BadRequest(f'"{path}" is missing.')
    found = given[name]
    if not isinstance(found, dict):
        raise BadRequest(f'"{path}" must be an object.')
    return found


def _optional(given: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    return _object(given, name, path) if given.get(name) is not None else {}


def _text(given: Mapping[str, Any], name: str, path: str, most: int = TEXT_MAX_CHARS) -> str:
    if name not in given:
        raise BadRequest(f'"{path}" is missing.')
    found = given[name]
    if not isinstance(found, str) or not 0 < len(found) <= most:
        raise BadRequest(f'"{path}" must be a string of 1 to {most} characters.')
    return found

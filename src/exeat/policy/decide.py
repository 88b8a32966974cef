"""The PDP: every fact of one action in, one verdict out (POL-1, POL-2, POL-3).

Pure: no clock, no I/O, no randomness.  Total: ``decide`` never raises; whatever goes wrong is a
denial that names its cause.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import cedarpy
import msgspec

from exeat.core.controls import NO_CONTROLS, Controls
from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.facts import AgentFacts, PersonFacts, ServerFacts, ToolFacts
from exeat.core.ids import ActionId, PersonId
from exeat.core.kills import NO_KILLS, Kills
from exeat.core.request import AccessRequest, Caller
from exeat.policy.budgets import charges as budget_charges
from exeat.policy.canonical import NotCanonical, uri
from exeat.policy.encode import Refused, check_size
from exeat.policy.facts import (
    CANONICAL,
    action_entities,
    input_digest,
    principal_entities,
    reference,
    resource_entities,
    resource_uid,
    standing_digest,
)
from exeat.policy.inputs import ArgumentEncoder
from exeat.policy.methods import ANY_METHOD, LIST_METHODS, METHODS
from exeat.policy.model import Finding, Policy
from exeat.policy.obliging import obligations, slice_digest
from exeat.policy.observe import could_be_observed, observed
from exeat.policy.otherwise import REFUSALS, Asked, Say, Way, otherwise
from exeat.policy.preconditions import (
    REMEDIES,
    known,
    pinned,
    principal,
    unmet,
    within,
)
from exeat.policy.question import Outcome, Question, answer, instant
from exeat.policy.route import Route
from exeat.policy.shadow import Shadows, would_say
from exeat.policy.slices import Index, Recent, Slice, could_lie, text_of
from exeat.policy.world import World, tool_ancestors

ROUTES_MAX: Final = 16_384
SLICES_MAX: Final = 4_096
TARGETS_MAX: Final = 4_096
ANSWERS_MAX: Final = 16_384
ANSWER_MAX_CHARS: Final = 1_024
"""Cedar's answers that are remembered, each under its route and the very context that Cedar would read again:
the arguments in the slice's footprint, and nothing of the time."""
_ALLOW_ALL: Final = "permit(principal, action, resource);"


class Pdp:
    """Decides under one policy version and one registry state; built by ``compile_bundle``.

    ``findings``: what is wrong with the version against the present registry.  ``broken``: set if
    the version cannot be read at all; then everything is denied (POL-1).  ``controls``: what the
    version declares beside its policies.  ``shadows``: policies that are asked and do not decide.
    ``enforces_only``: nobody is observed.
    """

    def __init__(
        self,
        index: Index,
        world: World,
        people: Mapping[PersonId, PersonFacts],
        *,
        digest: str,
        findings: tuple[Finding, ...] = (),
        broken: str = "",
        controls: Controls = NO_CONTROLS,
        kills: Kills = NO_KILLS,
    ) -> None:
        self.index = index
        self.world = world
        self.people = people
        self.controls = controls
        self.kills = kills
        self.solo = sum(person.live for person in people.values()) == 1
        """There is one person, so nobody could approve what they ask for (APP-3)."""
        self.digest = digest
        self.findings = findings
        self.broken = broken
        self.shadows: Shadows | None = None
        self.enforces_only = False
        self.memo_enabled = True
        self._budgets = bool(controls.budgets)
        self._routes: dict[tuple[str, str, str, str | None], Route] = {}
        self._slices: Recent[tuple[int, ...], Slice] = Recent(SLICES_MAX)
        self._answers: Recent[tuple[Route, str], Outcome] = Recent(ANSWERS_MAX)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """Every policy of the version, in order of files and lines."""
        return self.index.policies

    # --- the decision -------------------------------------------------------------------------

    def decide(self, request: AccessRequest) -> Decision:
        """The verdict on one request.  Never raises."""
        try:
            decision = self._decide(request)
            if self.shadows is not None:
                would = would_say(self, request, decision)
                decision = replace(decision, would=would) if would else decision
            if request.caller.agent.observe_until and not self.enforces_only:
                return self._observed(request, decision)
            return decision
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- an engine panic is no Exception; it denies
            detail = f"the decision failed: {type(error).__name__}: {error}"[:400]
            return self._denied(Outcome(Reason.POLICY_ERROR, detail=detail), "")

    def _observed(self, request: AccessRequest, decision: Decision) -> Decision:
        """POL-10: an observed agent's call goes as it came, and budgets bind it like any other."""
        found = observed(request, decision)
        if found is decision or not self._budgets:
            return found
        try:
            charges = budget_charges(self.controls, request, request.arguments)
        except Refused as refusal:
            return self._refused(refusal, decision.input_digest, decision.arguments)
        todo = obligations(
            request, Way(Outcome(found.reason), request.arguments), charges, self.controls
        )
        return replace(found, charges=charges, obligations=todo)

    def _decide(self, request: AccessRequest) -> Decision:
        route = self.route(
            request.caller, request.server, request.method, request.action, request.tool
        )
        arguments = CANONICAL.encode(request.arguments)
        seen = (
            request.method,
            request.action,
            request.target,
            request.observed_pin,
            request.now,
            request.clock_trusted,
            msgspec.Raw(arguments),
            *((sorted(request.controls),) if request.controls else ()),
        )
        digest = input_digest(self.digest, route.standing or self._stand(route), seen)
        if self.kills and (killed := self._kill(request)):
            stopped = Outcome(Reason.KILLED, detail=f"stopped by kill {killed}")
            return self._denied(stopped, digest, arguments)
        if not (self.memo_enabled and route.met_by(request)):
            failed = unmet(request)
            if failed is not None:
                return self._denied(Outcome(failed[0], detail=failed[1]), digest, arguments)
            route.met = request.tool is not None
        if request.method in LIST_METHODS:
            return Decision(
                Verdict.PERMIT, Reason.LIST_FILTERED, (), self.digest, digest, arguments=arguments
            )
        try:
            if request.tool is not None:
                self.world.arguments[request.action].check(request.arguments)
            outcome = self._said(route, request)
            if outcome.reason is Reason.PERMITTED:
                if not self._budgets and not request.controls:
                    return Decision(
                        Verdict.PERMIT,
                        Reason.PERMITTED,
                        outcome.policies,
                        self.digest,
                        digest,
                        arguments=arguments,
                    )
                return self._permitted(request, Way(outcome, request.arguments), digest, arguments)
            if outcome.reason in REFUSALS:
                way = otherwise(*self._question_otherwise(route, request))
                if way is not None:
                    return self._permitted(
                        request, way, digest, arguments, self._parts(route, request)
                    )
        except Refused as refusal:
            return self._refused(refusal, digest, arguments)
        return self._denied(outcome, digest, arguments)

    def _kill(self, request: AccessRequest) -> str:
        caller = request.caller
        return self.kills.hit(
            caller.agent, caller.user, request.server.id, request.action, request.run
        )

    def _said(self, route: Route, request: AccessRequest) -> Outcome:
        """Cedar's word, of the agent's policies and of the user's.  Raises Refused."""
        outcome = route.outcome if self.memo_enabled else None
        if outcome is None:
            outcome = self._outcome(route, request)
        user = request.caller.user
        if outcome.reason is Reason.PERMITTED and self.index.bounds_users and user is not None:
            return self._with_users(request, user, outcome)
        return outcome

    # --- more than yes and no -----------------------------------------------------------------

    def _parts(self, route: Route, request: AccessRequest) -> tuple[Slice, ...]:
        """The slices that decide: the agent's, and the user's where policies bound users."""
        user = request.caller.user
        if not self.index.bounds_users or user is None:
            return (self._slice(route),)
        return self._slice(route), self._slice(self._user_route(request, user))

    def _question_otherwise(self, route: Route, request: AccessRequest) -> tuple[Asked, Say]:
        tool = request.tool

        def say(arguments: Mapping[str, Any], controls: frozenset[str]) -> Outcome:
            if tool is not None and arguments is not request.arguments:
                self.world.arguments[request.action].check(arguments)
            return self._said(route, replace(request, arguments=arguments, controls=controls))

        parts = self._parts(route, request)
        has_result = route.kind in _WITH_RESULT
        asked = Asked(
            parts, tool, request.arguments, request.controls, self.controls, self.solo, has_result
        )
        return asked, say

    def _permitted(
        self,
        request: AccessRequest,
        way: Way,
        digest: str,
        arguments: bytes,
        parts: tuple[Slice, ...] = (),
    ) -> Decision:
        """PERMIT, or HOLD if people have to be asked; with all that has to be done.  Raises Refused."""
        smaller = None if way.arguments is request.arguments else way.arguments
        charges = budget_charges(self.controls, request, way.arguments) if self._budgets else ()
        todo: tuple[str, ...] = ()
        if smaller is not None or way.fulfilled or request.controls or charges:
            todo = obligations(request, way, charges, self.controls)
        return Decision(
            Verdict.HOLD if way.hold else Verdict.PERMIT,
            Reason.APPROVAL_REQUIRED if way.hold else Reason.PERMITTED,
            way.outcome.policies,
            self.digest,
            digest,
            REMEDIES[Reason.APPROVAL_REQUIRED] if way.hold else "",
            "",
            todo,
            arguments,
            smaller,
            way.hold,
            slice_digest(parts, self.controls) if way.hold else "",
            () if way.hold else charges,
        )

    def _with_users(self, request: AccessRequest, user: PersonFacts, agents: Outcome) -> Outcome:
        """ID-5: what the agent may and the user may.  Raises Refused."""
        route = self._user_route(request, user)
        outcome = route.outcome if self.memo_enabled else None
        if outcome is None:
            outcome = self._outcome(route, request)
        if outcome.reason is Reason.PERMITTED:
            both = tuple(sorted({*agents.policies, *outcome.policies}))
            return Outcome(Reason.PERMITTED, both)
        if outcome.reason is Reason.NOT_PERMITTED:
            return replace(
                outcome, reason=Reason.USER_NOT_PERMITTED, detail="no permit for the user matched"
            )
        return outcome

    def _user_route(self, request: AccessRequest, user: PersonFacts) -> Route:
        caller, server, tool = request.caller, request.server, request.tool
        key = (caller.agent.id, request.action, server.id, f"for {user.id}")
        route = self._routes.get(key)
        if route is None or not route.fits(caller, server, tool):
            route = Route(caller, server, request.action, tool, user)
            self._keep(key, route, request.method)
        return route

    def _denied(self, outcome: Outcome, digest: str, arguments: bytes = b"") -> Decision:
        return Decision(
            Verdict.DENY,
            outcome.reason,
            policies=outcome.policies,
            bundle=self.digest,
            input_digest=digest,
            remedy=REMEDIES.get(outcome.reason, ""),
            detail=outcome.detail,
            arguments=arguments,
        )

    def _refused(self, refusal: Refused, digest: str, arguments: bytes) -> Decision:
        what = (
            refusal.argument
            if refusal.argument == "the arguments"
            else f"argument {refusal.argument}"
        )
        remedy = f"{what[:1].upper()}{what[1:]}: {refusal.why}. Correct it and call again."
        outcome = Outcome(refusal.reason, detail=str(refusal))
        return replace(self._denied(outcome, digest, arguments), remedy=remedy)

    def _outcome(self, route: Route, request: AccessRequest) -> Outcome:
        """What the policies say, once preconditions hold and the arguments fit their schema."""
        if self.broken:
            return Outcome(Reason.POLICY_ERROR, detail=self.broken)
        if not self.digest:
            return Outcome(Reason.NO_POLICY, detail="no policy version is in force")
        if not self.policies:
            return Outcome(Reason.NO_POLICY, detail="the policy version in force holds no policy")
        part = self._slice(route)
        if not part.policies:
            return Outcome(
                Reason.NOT_PERMITTED, detail="no policy covers this principal and action"
            )
        question = self.question(route, request)
        key = (route, question.context)
        known = self._answers.get(key) if self.memo_enabled and not part.reads_controls else None
        if known is not None:
            return known
        outcome = answer(part, question)
        if route.kind in _BY_TARGET:
            if part.memorable(by_target=True):
                route.outcome = outcome
        elif part.memorable(by_target=False):
            route.outcome = outcome
        elif (
            not (part.reads_time or part.reads_controls)
            and len(question.context) <= ANSWER_MAX_CHARS
        ):
            self._answers.put(key, outcome)
        return outcome

    # --- the question to Cedar ----------------------------------------------------------------

    def question(self, route: Route, request: AccessRequest) -> Question:
        """The request in Cedar's terms, with only what the slice reads.  Raises Refused."""
        part = self._slice(route)
        found: dict[str, Any] = {}
        if part.reads.at("context") is not None:
            found = self._context(route, part, request)
        elif part.reads_target and route.kind == "Resource":
            self._target(route, request.target)
        if not route.resource or route.kind in _BY_TARGET:
            route.resource = resource_uid(
                request.method, request.action, request.server, request.target
            )
        return Question(
            _principal(route),
            {"type": "Action", "id": route.action},
            route.resource,
            self._entities(route, request.target),
            CANONICAL.encode(found).decode() if found else "{}",
        )

    def _context(self, route: Route, part: Slice, request: AccessRequest) -> dict[str, Any]:
        found: dict[str, Any] = {"run": {}}
        reads = part.reads
        if route.tool is not None and part.reads_arguments:
            if route.encoder is None:
                record = self.world.input_record(route.tool)
                route.encoder = ArgumentEncoder(record, reads, part.uses)
            found.update(route.encoder(request.arguments))
        if reads.at("context", "session") is not None:
            found["session"] = self._session(route, part, request)
        if part.reads_target:
            found["target"] = self._target(route, request.target)
        return found

    def _session(self, route: Route, part: Slice, request: AccessRequest) -> dict[str, Any]:
        given = [reference("Control", name) for name in sorted(request.controls)]
        session: dict[str, Any] = {"controls": given, "environment": route.agent.environment}
        if part.reads_time:
            session["now"] = instant(request.now)
        if route.user is not None:
            session["user"] = reference("Person", route.user.id)
        return session

    def _target(self, route: Route, target: str) -> dict[str, Any]:
        if route.tool is not None:
            return {"name": route.tool.name}
        if route.kind != "Resource":
            return {} if route.kind == "Server" else {"name": target}
        check_size(target, "uri")
        try:
            facts = uri(target)
        except NotCanonical as error:
            raise Refused(Reason.ARGUMENT_NOT_CANONICAL, "uri", str(error)) from None
        if facts["canonical"] != target:
            raise Refused(
                Reason.ARGUMENT_NOT_CANONICAL, "uri", "it is not written in its canonical form"
            )
        return {"uri": target, **{name: facts[name] for name in ("scheme", "host", "path")}}

    def _entities(self, route: Route, target: str) -> cedarpy.Entities:
        if route.kind in _BY_TARGET:
            if route.targets is None:
                route.targets = Recent(TARGETS_MAX // 64)
            handle = route.targets.get(target)
            if handle is None:
                handle = self._parsed_entities(route)
                route.targets.put(target, handle)
            return handle
        if route.entities is None:
            route.entities = self._parsed_entities(route)
        return route.entities

    def _parsed_entities(self, route: Route) -> cedarpy.Entities:
        found = [
            *principal_entities(route.agent, route.user, self.people),
            *action_entities(route.action, route.tool),
            *resource_entities(route.resource, route.server, route.tool),
        ]
        return cedarpy.Entities.from_json_str(CANONICAL.encode(found).decode())

    # --- routes and slices --------------------------------------------------------------------

    def route(
        self,
        caller: Caller,
        server: ServerFacts,
        method: str,
        action: str,
        tool: ToolFacts | None,
    ) -> Route:
        """What this caller's calls to this action share; kept, within a bound."""
        user = caller.user
        key = (caller.agent.id, action, server.id, None if user is None else user.id)
        route = self._routes.get(key)
        if route is not None and route.fits(caller, server, tool):
            return route
        route = Route(caller, server, action, tool, caller.agent)
        self._keep(key, route, method)
        return route

    def _keep(self, key: tuple[str, str, str, str | None], route: Route, method: str) -> None:
        """Names that a caller can make up are not kept: they would push out what is in use."""
        server = route.server
        named = server.revision > 0 and (method in METHODS or method in server.extra_methods)
        if route.tool is not None or named:
            self._routes[key] = route
            if len(self._routes) > ROUTES_MAX:
                self._routes.pop(next(iter(self._routes)), None)

    def _stand(self, route: Route) -> bytes:
        owner = self.people.get(route.agent.owner)
        route.standing = standing_digest(route.agent, route.user, route.server, route.tool, owner)
        return route.standing

    def _slice(self, route: Route) -> Slice:
        if route.slice is None:
            ancestors = (ANY_METHOD,) if route.tool is None else tool_ancestors(route.tool)
            name = {"Tool": route.action, "Server": route.server.id}.get(route.kind, "")
            numbers = self.index.pick(
                route.who, route.action, ancestors, (route.kind, name, route.server.id)
            )
            part = self._slices.get(numbers)
            if part is None:
                part = Slice([self.policies[number] for number in numbers])
                self._slices.put(numbers, part)
            route.slice = part
        return route.slice

    def take_slices(self, other: "Pdp") -> None:
        """Share the parsed slices of a PDP with the very same index."""
        if other.index is self.index:
            self._slices = other._slices

    def slice_of(self, request: AccessRequest) -> Slice:
        """The policies whose scope could match the request."""
        return self._slice(
            self.route(request.caller, request.server, request.method, request.action, request.tool)
        )

    # --- what could ever be permitted (GW-8) --------------------------------------------------

    def could_permit(
        self,
        caller: Caller,
        server: ServerFacts,
        method: str,
        action: ActionId,
        tool: ToolFacts | None,
        target: str,
        now: int,
    ) -> bool:
        """GW-8: whether some request of this principal, even an approved one, could be permitted.

        Conditions that read the context are taken as satisfiable.  False on any error.
        """
        try:
            failed = known(server, method, action, tool) or (
                pinned(tool, tool.pin) if tool else None
            )
            failed = failed or principal(caller, now) or within(caller.agent, server, method, tool)
            if failed is not None or self.broken or not self.digest:
                return False
            if could_be_observed(caller.agent, method, tool, now) and not self.enforces_only:
                return True
            routes = [self.route(caller, server, method, action, tool)]
            if self.index.bounds_users and caller.user is not None:
                asked = AccessRequest(caller, method, action, server, target, tool, "", {}, now)
                routes.append(self._user_route(asked, caller.user))
            return all(self._reached(route, method, target) for route in routes)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 -- what cannot be decided is hidden
            return False

    def _reached(self, route: Route, method: str, target: str) -> bool:
        if route.kind in _BY_TARGET:
            return self._reachable(route, method, target)
        if route.reachable is None:
            route.reachable = self._reachable(route, method, target)
        return route.reachable

    def _reachable(self, route: Route, method: str, target: str) -> bool:
        route.resource = resource_uid(method, route.action, route.server, target)
        place = (route.kind, route.resource["id"], route.server.id)
        covering = [p for p in self._slice(route).policies if could_lie(p.resource, place)]
        fixed = [p for p in covering if not p.conditional or _context_free(p)]
        permits = [p for p in covering if p.permit]
        if not permits or any(not p.permit and not p.conditional for p in covering):
            return False
        forbids = [p for p in fixed if not p.permit]
        if forbids and not self._holds(route, forbids, _ALLOW_ALL):
            return False
        if any(not p.conditional or not _context_free(p) for p in permits):
            return True
        return self._holds(route, permits, "")

    def _holds(self, route: Route, policies: list[Policy], extra: str) -> bool:
        question = Question(
            _principal(route),
            {"type": "Action", "id": route.action},
            route.resource,
            self._parsed_entities(route),
            "{}",
        )
        result = question.put(cedarpy.PolicySet.from_str(f"{text_of(policies)}\n{extra}"))
        return result.allowed and not result.diagnostics.errors


def _principal(route: Route) -> dict[str, str]:
    kind = "Agent" if isinstance(route.who, AgentFacts) else "Person"
    return {"type": kind, "id": route.who.id}


_BY_TARGET: Final = frozenset({"Prompt", "Resource"})
_WITH_RESULT: Final = frozenset({"Tool", "Prompt", "Resource"})


def _context_free(policy: Policy) -> bool:
    return all(path[0] != "context" for path in policy.values | policy.presence)

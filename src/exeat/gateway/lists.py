"""Lists are decided like any action and answered with what this principal could ever be permitted
(GW-8).  Each tool is shown only if the definition in this very listing is the pinned one (REG-6).
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from exeat.core.errors import ExeatError
from exeat.core.facts import ServerFacts, tool_action
from exeat.core.ids import ActionId, ServerId
from exeat.core.request import AccessRequest, Caller
from exeat.core.upstream_auth import ConsentNeeded
from exeat.gateway import answers, consent
from exeat.gateway.answer import ClientAnswer, Waiting
from exeat.gateway.edge_ports import Exchange
from exeat.gateway.handshake import LIST_MAX_S, UpstreamError, ask, fetch_all
from exeat.gateway.inbound import Request
from exeat.gateway.methods import LIST_KEY, Era
from exeat.gateway.outbound import translate
from exeat.gateway.pipeline import Enforced
from exeat.gateway.routes import SEPARATOR, Route, offered, strings
from exeat.gateway.sessions import ClientSession, principal_key
from exeat.gateway.upstreams import UpstreamServer
from exeat.gateway.wire import encode, error_body, error_message, result_message
from exeat.registry.rules.pins import PINNED

if TYPE_CHECKING:
    from exeat.gateway.front import Front

_NAME: Final = {"tools": "name", "prompts": "name", "resources": "uri"}
_METHOD: Final = {"tools": "tools/call", "prompts": "prompts/get", "resources": "resources/read"}


class Lists:
    def __init__(self, front: "Front") -> None:
        self._front = front

    def start(
        self,
        answer: ClientAnswer,
        request: Request,
        caller: Caller,
        server: ServerId | None,
        session: ClientSession | None,
    ) -> Exchange:
        if server is None:
            self._front.spawn(self._aggregate(answer, request, caller, session), answer.broke)
        else:
            self._front.spawn(self._single(answer, request, caller, server, session), answer.broke)
        return Waiting(answer)

    async def _single(
        self,
        answer: ClientAnswer,
        request: Request,
        caller: Caller,
        server: ServerId,
        session: ClientSession | None,
    ) -> None:
        front = self._front
        route = front.router.route(request, caller, server, session)
        if route is None:
            code = answers.METHOD_NOT_FOUND
            answer.final(answers.unknown(request.id, request.method, ""), error_code=code)
            return
        enforced = await self._enforce(request, route)
        if not enforced.permitted:
            self._deny(answer, request, enforced)
            return
        try:
            look = route.upstream.looking()
            result = await self._fetch(request, route)
        except UpstreamError as refusal:
            front.pipeline.outcome(enforced, "rpc_error")
            given = refusal.error.get("code")
            code = given if type(given) is int else -32603
            body = error_body(code, str(refusal.error.get("message", "")))
            answer.final(error_message(request.id, body), error_code=code)
            return
        except ConsentNeeded as needed:
            self._without_consent(answer, request, route, enforced, needed)
            return
        except ExeatError as failure:
            front.pipeline.outcome(enforced, "failed", cause="upstream_failed")
            answer.final(
                answers.upstream_failed(request.id, server, failure, enforced.id, sent=False)
            )
            return
        key = LIST_KEY[request.method]
        kept: dict[str, Any] = {
            name: result[name] for name in ("nextCursor", "ttlMs") if name in result
        }
        result = {**kept, key: self._filter(result.get(key), key, route, look)}
        self._finish(answer, request, result, [enforced])

    def _without_consent(
        self,
        answer: ClientAnswer,
        request: Request,
        route: Route,
        enforced: Enforced,
        needed: ConsentNeeded,
    ) -> None:
        """Tools are listed as they are pinned, so that a call of one can lead the person to the page."""
        if request.method != "tools/list":
            self._front.pipeline.outcome(enforced, "failed", cause=consent.CAUSE)
            answer.final(
                consent.refusal(request.id, route, request.era, needed),
                error_code=needed.rpc_code,
            )
            return
        result: dict[str, Any] = {"tools": self._pinned(route)}
        if not result["tools"]:
            result["_meta"] = {"exeat/unavailable": {route.server.id: _said(needed)}}
        self._finish(answer, request, result, [enforced])

    def _pinned(self, route: Route) -> list[dict[str, Any]]:
        """What this principal may see of a server that nobody can look at just now."""
        tools = self._front.pipeline.state.view.snapshot.tools.values()
        pinned = [tool for tool in tools if tool.server == route.server.id and tool.pin]
        listed = [{**tool.definition, "name": tool.name} for tool in pinned]
        return self._tools(listed, route, {tool.name: tool.pin for tool in pinned})

    async def _enforce(self, request: Request, route: Route) -> Enforced:
        front = self._front
        now = front.clock()
        access = AccessRequest(
            caller=route.caller,
            method=request.method,
            action=ActionId(request.method),
            server=route.server,
            target="",
            tool=None,
            observed_pin="",
            arguments=request.params,
            now=now,
            clock_trusted=front.pipeline.ledger.clock_trusted(now),
            run=route.run,
        )
        waiting: asyncio.Future[Enforced] = front.loop.create_future()

        def then(enforced: Enforced) -> None:
            if not waiting.done():
                waiting.set_result(enforced)

        front.pipeline.submit(access, route.run, "", then)
        return await waiting

    def _deny(self, answer: ClientAnswer, request: Request, enforced: Enforced) -> None:
        if enforced.receipt is None:
            answer.final(answers.unrecorded(request.id, enforced.failure))
        else:
            self._front.deny(answer, request, enforced)

    async def _fetch(self, request: Request, route: Route) -> dict[str, Any]:
        """One page as the client asked for it.  Raises UpstreamFailed."""
        made = self._front.router.link_now(route)
        if made is None:
            other = await self._front.router.make_link(route)
            if isinstance(other, ExeatError):
                raise other
            made = other
        outbound = translate(request, made.era, "")
        outbound.id = f"exeat-{request.method}"
        return await ask(made, self._front.loop, outbound, LIST_MAX_S)

    def _filter(self, items: object, key: str, route: Route, look: int) -> list[dict[str, Any]]:
        listed = (
            [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        )
        upstream = route.upstream
        if key == "tools":
            return self._tools(listed, route, upstream.compare(listed, look))
        if key == "resources":
            upstream.remember(resources=strings(item.get("uri") for item in listed))
        if key == "resourceTemplates":
            upstream.remember(templates=strings(item.get("uriTemplate") for item in listed))
            return [item for item in listed if self._allowed(route, "resources/read", "")]
        named = _NAME[key]
        return [
            item
            for item in listed
            if isinstance(item.get(named), str) and self._allowed(route, _METHOD[key], item[named])
        ]

    def _allowed(self, route: Route, method: str, target: str) -> bool:
        view = self._front.pipeline.state.view
        return view.pdp.could_permit(
            route.caller, route.server, method, ActionId(method), None, target, self._front.clock()
        )

    def _tools(
        self,
        listed: list[dict[str, Any]],
        route: Route,
        digests: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        caller, server = route.caller, route.server
        view = self._front.pipeline.state.view
        now = self._front.clock()
        shown: list[dict[str, Any]] = []
        for item in listed:
            name = item.get("name")
            if not isinstance(name, str):
                continue
            action = tool_action(server.id, name)
            tool = view.snapshot.tools.get(action)
            if tool is None or not tool.pin or digests.get(name) != tool.pin:
                continue
            if view.pdp.could_permit(caller, server, "tools/call", action, tool, name, now):
                shown.append({str(key): item[key] for key in PINNED if key in item})
        return shown

    # ---- the aggregate endpoint

    async def _aggregate(
        self,
        answer: ClientAnswer,
        request: Request,
        caller: Caller,
        session: ClientSession | None,
    ) -> None:
        """Whole lists of every server in the agent's scope, names prefixed; one slow or broken server
        is left out, and is said to be in the result's ``_meta``."""
        servers = self._front.router.servers(caller)
        parts = await asyncio.gather(
            *(self._part(request, caller, facts, up, session) for facts, up in servers)
        )
        key = LIST_KEY[request.method]
        items: list[dict[str, Any]] = []
        missing: dict[str, str] = {}
        done: list[Enforced] = []
        denied: Enforced | None = None
        for (facts, _), (enforced, listed, failure) in zip(servers, parts, strict=True):
            if not enforced.permitted:
                denied = enforced
                missing[facts.id] = str(enforced.decision.reason)
            elif failure:
                missing[facts.id] = failure
                self._front.pipeline.outcome(enforced, "failed", cause="upstream_failed")
            else:
                done.append(enforced)
                items.extend(listed)
        if denied is not None and not done:
            self._deny(answer, request, denied)
            return
        result: dict[str, Any] = {key: items}
        if missing:
            result["_meta"] = {"exeat/unavailable": missing}
        self._finish(answer, request, result, done)

    async def _part(
        self,
        request: Request,
        caller: Caller,
        facts: ServerFacts,
        upstream: UpstreamServer,
        session: ClientSession | None,
    ) -> tuple[Enforced, list[dict[str, Any]], str]:
        front = self._front
        route = Route(
            facts,
            upstream,
            caller,
            session,
            principal_key(caller),
            "",
            "",
            offered(request, session),
        )
        enforced = await self._enforce(request, route)
        if not enforced.permitted:
            return enforced, [], ""
        key = LIST_KEY[request.method]
        try:
            made = front.router.link_now(route) or await front.router.make_link(route)
            if isinstance(made, ExeatError):
                raise made
            look = upstream.looking()
            listed = await fetch_all(made, front.loop, request.method, key)
            kept = self._filter(listed, key, route, look)
        except ConsentNeeded as needed:
            kept = self._pinned(route) if key == "tools" else []
            if not kept:
                return enforced, [], _said(needed)
        except ExeatError as failure:
            return enforced, [], str(failure)
        if key in ("tools", "prompts"):
            kept = [{**item, "name": f"{facts.id}{SEPARATOR}{item['name']}"} for item in kept]
        return enforced, kept, ""

    def _finish(
        self,
        answer: ClientAnswer,
        request: Request,
        result: dict[str, Any],
        done: list[Enforced],
    ) -> None:
        if request.era is Era.MODERN:
            result.setdefault("ttlMs", 0)
            result["cacheScope"] = "private"
            result["resultType"] = "complete"
        else:
            for name in ("ttlMs", "cacheScope", "resultType"):
                result.pop(name, None)
        body = encode(result)
        answer.final(result_message(request.id, body))
        digest = hashlib.sha256(body).digest()
        for enforced in done:
            self._front.pipeline.outcome(enforced, "ok", digest=digest, size=len(body))


def _said(needed: ConsentNeeded) -> str:
    return f"{needed} ({needed.remedy})"

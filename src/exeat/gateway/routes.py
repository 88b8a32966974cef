"""Which server an action goes to, under which name, and the facts of the decision (the PIP)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from exeat.core.decision import Verdict
from exeat.core.errors import ExeatError
from exeat.core.facts import Lifecycle, ServerFacts, tool_action
from exeat.core.ids import ActionId, PersonId, ServerId
from exeat.core.records import record
from exeat.core.request import AccessRequest, Caller
from exeat.gateway import tasks
from exeat.gateway.http_links import renewed
from exeat.gateway.inbound import Request
from exeat.gateway.link import Link
from exeat.gateway.methods import CLIENT_METHODS, META_CAPABILITIES, askable
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.sessions import ClientSession, principal_key
from exeat.gateway.upstreams import NOTHING, Upstreams, UpstreamServer

SEPARATOR: Final = "__"
INPUTS_KEY: Final = "io.modelcontextprotocol/inputResponses"
STATE_KEY: Final = "io.modelcontextprotocol/requestState"
_SERVER: Final = "[a-z0-9][a-z0-9-]{0,30}"
_ENDPOINT: Final = re.compile(rf"/mcp(?:/({_SERVER}))?/?")
_SERVER_ID: Final = re.compile(_SERVER)
_ENDPOINTS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``server`` None: the aggregate of all servers."""

    server: ServerId | None


@record
class Route:
    """``target``: the name or URI at the upstream; ``shown``: as the client wrote it."""

    server: ServerFacts
    upstream: UpstreamServer
    caller: Caller
    session: ClientSession | None
    principal: str
    target: str
    shown: str
    offers: Mapping[str, Any] = field(default_factory=dict)
    """What a server may ask this client for; a modern client says it with each request."""

    @property
    def run(self) -> str:
        """The default run is agent × user (decisions.md, Runs and labels)."""
        return self.principal


class Router:
    """Reads the view in force; holds no state of its own but a path cache."""

    def __init__(self, upstreams: Upstreams, pipeline: Pipeline) -> None:
        self.upstreams = upstreams
        self._pipeline = pipeline
        self._endpoints: dict[str, Endpoint] = {}

    def endpoint(self, path: str) -> Endpoint | None:
        known = self._endpoints.get(path)
        if known is None:
            match = _ENDPOINT.fullmatch(path)
            if match is None:
                return None
            known = Endpoint(ServerId(match.group(1)) if match.group(1) else None)
            if len(self._endpoints) >= _ENDPOINTS_MAX:
                self._endpoints.clear()
            self._endpoints[path] = known
        return known

    def principal(self, caller: Caller) -> str:
        return principal_key(caller)

    def servers(self, caller: Caller) -> list[tuple[ServerFacts, UpstreamServer]]:
        """What the aggregate endpoint is made of for this agent: the servers of its scope."""
        snapshot = self._pipeline.state.view.snapshot
        found = []
        for server_id in sorted(caller.agent.scope.servers):
            facts, upstream = snapshot.servers.get(server_id), self.upstreams.servers.get(server_id)
            if facts is not None and upstream is not None and facts.active:
                found.append((facts, upstream))
        return found

    def one(self, server: ServerId) -> tuple[ServerFacts, UpstreamServer] | None:
        facts = self._pipeline.state.view.snapshot.servers.get(server)
        upstream = self.upstreams.servers.get(server)
        return (facts, upstream) if facts is not None and upstream is not None else None

    def named(self, server: ServerId) -> tuple[ServerFacts, UpstreamServer]:
        """GW-8: a server that does not exist is one outside of every scope: decided, recorded and
        answered like one that does.  It has no command, so nothing could ever be started for it."""
        found = self.one(server)
        if found is not None:
            return found
        return ServerFacts(server, 0, False, PersonId(""), 0), self.upstreams.unregistered(server)

    def route(
        self,
        request: Request,
        caller: Caller,
        server: ServerId | None,
        session: ClientSession | None,
    ) -> Route | None:
        """None if the name is no server's of the aggregate."""
        target = request.target
        if server is None:
            chosen = self._of_aggregate(request, caller)
            if chosen is None:
                return None
            server, target = chosen
        facts, upstream = self.named(server)
        principal, offers = principal_key(caller), offered(request, session)
        return Route(facts, upstream, caller, session, principal, target, request.target, offers)

    def _of_aggregate(self, request: Request, caller: Caller) -> tuple[ServerId, str] | None:
        method, params = request.method, request.params
        if method in ("tools/call", "prompts/get"):
            prefix, found, name = request.target.partition(SEPARATOR)
            if not found or not name or not _SERVER_ID.fullmatch(prefix):
                return None
            params["name"] = name
            return ServerId(prefix), name
        if method == "completion/complete":
            return self._completion(params, caller)
        if method.startswith("resources/"):
            uri = request.target
            owners = self._owners(caller, uri)
            return (owners[0], uri) if len(owners) == 1 else None
        return None

    def _completion(self, params: dict[str, Any], caller: Caller) -> tuple[ServerId, str] | None:
        ref = params.get("ref")
        if not isinstance(ref, dict):
            return None
        name, uri = ref.get("name"), ref.get("uri")
        if isinstance(name, str):
            prefix, found, rest = name.partition(SEPARATOR)
            if not found or not _SERVER_ID.fullmatch(prefix):
                return None
            params["ref"] = {**ref, "name": rest}
            return ServerId(prefix), ""
        if isinstance(uri, str):
            owners = self._owners(caller, uri)
            if len(owners) == 1:
                return owners[0], ""
        return None

    def _owners(self, caller: Caller, uri: str) -> list[ServerId]:
        """Servers that listed this resource, or a template that it fits."""
        mine = self.servers(caller)
        listed = [facts.id for facts, upstream in mine if uri in upstream.resources]
        if listed:
            return listed
        return [
            facts.id
            for facts, upstream in mine
            if any(fits(template, uri) for template in upstream.templates)
        ]

    def serves(self, request: Request, route: Route) -> bool:
        """GW-7: methods of the client's era, and those that the server is registered to allow."""
        method = request.method
        if method in tasks.NEVER_SERVED:
            return False
        if method in tasks.OWNED and not tasks.served(route.server):
            return False
        return method in CLIENT_METHODS[request.era] or method in route.server.extra_methods

    # ---- facts

    def describe(self, request: Request, route: Route, now: int) -> AccessRequest:
        """The facts, from one frozen view; no I/O."""
        method, params = request.method, request.params
        tool, pin = None, ""
        if method == "tools/call":
            action = tool_action(route.server.id, route.target)
            tool = self._pipeline.state.view.snapshot.tools.get(action)
            arguments = params.get("arguments", {})
            pin = route.upstream.observed.get(route.target, "")
        else:
            action = ActionId(method)
            arguments = params
        return AccessRequest(
            route.caller,
            method,
            action,
            route.server,
            route.target,
            tool,
            pin,
            arguments,
            now,
            self._pipeline.ledger.clock_trusted(now),
            route.run,
        )

    def seen(self, access: AccessRequest, route: Route) -> AccessRequest:
        """The same facts with the definition that the server shows now."""
        if access.tool is None:
            return access
        pin = route.upstream.observed.get(route.target, "")
        return access if pin == access.observed_pin else replace(access, observed_pin=pin)

    def denied_anyway(self, access: AccessRequest) -> bool:
        """True if no definition that the server could show would make this permissible, so that no
        process is started and no server is probed for it."""
        agent = access.caller.agent
        if agent.lifecycle is not Lifecycle.ACTIVE or not access.server.active:
            return True
        if access.method == "tools/call" and access.tool is None:
            return True
        assumed = access
        if access.tool is not None:
            assumed = replace(access, observed_pin=access.tool.pin)
        return self._pipeline.state.view.pdp.decide(assumed).verdict is Verdict.DENY

    # ---- links

    def link_now(self, route: Route) -> Link | None:
        session = route.session
        if session is None:
            return route.upstream.link_now(route.principal, route.offers)
        link = session.links.get(route.server.id)
        return link if link is not None and link.usable and route.upstream.ready else None

    async def make_link(self, route: Route) -> Link | ExeatError:
        """The link, or why there is none."""
        upstream, session = route.upstream, route.session
        try:
            offers = route.offers
            await upstream.prepare(route.principal, offers)
            if session is None:
                return await upstream.link(route.principal, offers)
            kept = session.links.get(route.server.id)
            if kept is not None and await renewed(kept):
                return kept
            opened = await upstream.open_session(
                route.principal, session.capabilities, session.client, session.version
            )
            link = (
                opened.link if opened is not None else await upstream.link(route.principal, offers)
            )
            before = session.links.get(route.server.id)
            if before is not None and before.usable:
                return before
            session.links[route.server.id] = link
            return link
        except ExeatError as error:
            return error


def offered(request: Request, session: ClientSession | None) -> Mapping[str, Any]:
    if session is not None:
        return session.offers
    capabilities = request.meta.get(META_CAPABILITIES)
    return askable(capabilities) if capabilities else NOTHING


def fits(template: str, uri: str) -> bool:
    """Whether a URI could come from a URI template (RFC 6570), reading each expression as any text."""
    first, *rest = re.split(r"\{[^{}]*\}", template)
    if not rest:
        return template == uri
    if not uri.startswith(first):
        return False
    at = len(first)
    *middle, last = rest
    for part in middle:  # each expression stands for at least one character; the leftmost fit does
        at = uri.find(part, at + 1)
        if at < 0:
            return False
        at += len(part)
    return len(uri) - len(last) > at and uri.endswith(last)


def strings(items: Iterable[object]) -> frozenset[str]:
    return frozenset(item for item in items if isinstance(item, str))

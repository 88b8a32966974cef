"""``/oauth/authorize``: what a client asks for, in plain words, before the person who decides (ID-7).

1. somebody is signed in, if the client's document has to be fetched: we fetch nothing for strangers
2. the client and its redirect URI are known: until then nothing is sent anywhere; the rest of the
   request is sound, or the client is told (by us only where its address is trusted)
3. somebody is signed in
4. they said yes to exactly this before, or they are asked
5. on yes: the client is bound to the agent they chose, and gets a code; on no: it is told so
"""

import asyncio
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from exeat.console.pages import Console, require_person, show, shown
from exeat.core.errors import Conflict
from exeat.core.ids import AgentId, PersonId
from exeat.identity.authorization.model.client import Client, ClientKind
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.asking import Asking, answer_to, read_asking, redirect_of
from exeat.identity.authorization.rules.documents import looks_like_address
from exeat.identity.authorization.rules.parameters import need, only_once
from exeat.identity.authorization.rules.redirects import Redirect, read_redirect
from exeat.identity.authorization.rules.scopes import WORDS
from exeat.identity.authorization.service.authentication import kind_words
from exeat.web.attempts import address
from exeat.web.visits import Visit

ADOPT: Final = "later"
"""The choice of no agent: the client stays unregistered, and is denied, until somebody adopts it."""
PARAMETERS_MAX: Final = 50


class Told(Exception):
    """A refusal that the client is told of at its redirect URI."""

    def __init__(self, client: Client, redirect_uri: str, state: str, why: Refused) -> None:
        super().__init__(str(why))
        self.client, self.redirect_uri, self.state, self.why = client, redirect_uri, state, why


def routes(console: Console) -> list[Route]:
    page = ConsentPage(console)
    return [Route("/oauth/authorize", shown(console, page.answer), methods=["GET", "POST"])]


class ConsentPage:
    def __init__(self, console: Console) -> None:
        self._at = console

    async def answer(self, request: Request) -> Response:
        try:
            visit = await self._at.visits.of(request)
            if visit.person is None and looks_like_address(
                request.query_params.get("client_id", "")
            ):
                return self._sign_in_first(request)
            asking = await self._asking(request)
            if request.method == "POST":
                return await self._decided(request, asking)
            return await self._shown(request, asking)
        except Told as told:
            return self._tell(told)

    async def _asking(self, request: Request) -> Asking:
        """Step 2.  Raises Refused, Told."""
        given = only_once(_pairs(request))
        client_id = need(given, "client_id")
        if not self._at.attempts.take(f"authorize {address(request)} {client_id[:200]}"):
            raise Refused("temporarily_unavailable", "Too many requests.", status=429)
        client = await self._at.authentication.find(client_id)
        redirect_uri = redirect_of(client, given)
        try:
            servers = await asyncio.to_thread(self._servers)
            return read_asking(client, redirect_uri, given, self._at.resources, servers)
        except Refused as error:
            state = given.get("state", "")[:2048]
            raise Told(client, redirect_uri, state, error) from None

    def _servers(self) -> Any:
        with self._at.store.read() as read:
            return read.servers()

    def _tell(self, told: Told) -> Response:
        """OAuth 2.1 7.12.2: a stranger's address gets no visitors from us by itself, else anybody could
        send people anywhere through our name."""
        where = answer_to(
            told.redirect_uri,
            self._at.site.issuer,
            told.state,
            error=told.why.code,
            error_description=str(told.why),
        )
        redirect = read_redirect(told.redirect_uri)
        if told.client.kind is ClientKind.REGISTERED or (redirect and redirect.loopback):
            return RedirectResponse(where, 303)
        host = redirect.host if redirect else ""
        return show(
            self._at, None, "refused", status=400, said=str(told.why), host=host, where=where
        )

    async def _shown(self, request: Request, asking: Asking) -> Response:
        """Steps 3 and 4."""
        visit = await self._at.visits.of(request)
        silent = asking.prompt == "none"
        if visit.person is None:
            if silent:
                raise self._told(asking, "login_required", "Nobody is signed in.")
            return self._sign_in_first(request)
        now = self._at.clock()
        if asking.prompt != "consent" and await asyncio.to_thread(
            self._at.grants.consented, asking, visit.person, now
        ):
            agent = await asyncio.to_thread(
                self._at.bindings.agent_of, asking.client.id, visit.person
            )
            return await self._granted(asking, visit.person, agent)
        if silent:
            raise self._told(asking, "consent_required", "The person has to be asked.")
        return await self._page(request, asking, visit)

    def _sign_in_first(self, request: Request) -> Response:
        if request.query_params.get("prompt") == "none":
            raise Refused("login_required", "Nobody is signed in.", status=401)
        back = quote(f"{request.url.path}?{request.url.query}", safe="")
        return RedirectResponse(f"/sign-in?next={back}", 303)

    async def _page(
        self, request: Request, asking: Asking, visit: Visit, *, said: str = "", status: int = 200
    ) -> Response:
        person = require_person(visit)
        bound, agents = await asyncio.to_thread(self._agents, asking.client.id, person)
        redirect = asking.redirect
        return show(
            self._at,
            visit,
            "consent",
            status=status,
            form_to=_form_to(redirect),
            said=said,
            here=f"{request.url.path}?{request.url.query}",
            name=asking.client.name,
            known=kind_words(asking.client),
            client=asking.client.id,
            host=_host_of(asking.client, redirect.origin),
            redirect_uri=asking.redirect_uri,
            native=redirect.native,
            server=asking.resource.server,
            resource=asking.resource.uri,
            may=[WORDS[scope] for scope in asking.scopes],
            bound=bound,
            agents=agents,
            later=ADOPT,
            seen=_seen(asking),
        )

    def _agents(self, client: str, person: PersonId) -> tuple[AgentId | None, list[dict[str, str]]]:
        """The agent that it is already, else those of the person to choose from."""
        bound = self._at.bindings.agent_of(client, person)
        if bound is not None:
            return bound, []
        taken = self._at.bindings.taken(person)
        with self._at.store.read() as read:
            theirs = read.agents_of(person)
        return None, [
            {
                "id": agent.id,
                "name": agent.name,
                "state": agent.lifecycle.value,
                "taken": taken.get(agent.id, ""),
            }
            for agent in theirs
        ]

    async def _decided(self, request: Request, asking: Asking) -> Response:
        """Step 5."""
        visit, form = await self._at.visits.posted(request)
        person = require_person(visit)
        if form.get("decision") != "allow":
            raise self._told(asking, "access_denied", "The person said no.")
        if form.get("seen") != _seen(asking):
            return await self._page(
                request, asking, visit, said="The client changed meanwhile. Look again.", status=409
            )
        chosen = form.get("agent", "")
        try:
            agent = await asyncio.to_thread(self._bound, asking.client.id, person, chosen)
        except Conflict as error:
            return await self._page(request, asking, visit, said=str(error), status=409)
        await self._at.bindings.settled()
        return await self._granted(asking, person, agent)

    def _bound(self, client: str, person: PersonId, chosen: str) -> AgentId | None:
        """Raises Conflict.  Only one's own agents can be chosen, whatever the form holds."""
        bound, agents = self._agents(client, person)
        if bound is not None:
            return bound
        if chosen == ADOPT:
            return None
        if chosen not in {agent["id"] for agent in agents}:
            raise Conflict("Choose one of your agents, or that it is registered later.")
        self._at.bindings.bind(client, person, AgentId(chosen), self._at.clock())
        return AgentId(chosen)

    async def _granted(self, asking: Asking, person: PersonId, agent: AgentId | None) -> Response:
        doing = Doing(person, "console", self._at.clock(), "consent to a client")
        code = await asyncio.to_thread(self._at.grants.approve, asking, person, agent, doing)
        where = answer_to(asking.redirect_uri, self._at.site.issuer, asking.state, code=code)
        return RedirectResponse(where, 303)

    def _told(self, asking: Asking, code: str, message: str) -> Told:
        return Told(asking.client, asking.redirect_uri, asking.state, Refused(code, message))


def _pairs(request: Request) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            request.url.query,
            keep_blank_values=True,
            max_num_fields=PARAMETERS_MAX,
            errors="strict",
        )
    except ValueError:
        raise Refused("invalid_request", "The request cannot be read.") from None


def _host_of(client: Client, redirect_origin: str) -> str:
    """Who answers for the client: the host of its document, else where the answer goes."""
    if client.kind is ClientKind.DOCUMENT:
        return client.id.partition("://")[2].partition("/")[0]
    return redirect_origin.partition("://")[2]


def _form_to(redirect: Redirect) -> str:
    """What CSP has to allow the answer to: an origin, where its grammar knows one."""
    if redirect.scheme not in ("http", "https"):
        return f"{redirect.scheme}:"
    return "http:" if redirect.host == "[::1]" else redirect.origin


def _seen(asking: Asking) -> str:
    """What the person had before their eyes when they decided."""
    parts = (
        asking.client.id, asking.client.name, asking.redirect_uri, asking.resource.uri,
        *asking.scopes,
    )  # fmt: skip
    return sha256("\n".join(parts).encode()).hexdigest()

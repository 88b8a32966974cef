"""``/upstreams``: a person gives the gateway access to a server that it reaches for them (ID-9).

1. an agent carried the link here, so who opens it must be signed in as the person it was made for
2. the person sees which server and whose page comes next, and says yes with a form of ours
3. the authorization server sends the browser back to ``/upstreams/callback``, with the same session
"""

from typing import Any, Final, Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from exeat.console.pages import Console, require_person, show, shown
from exeat.core.errors import Invalid
from exeat.identity.upstream.consent import ConsentShown

PARAMETERS_MAX: Final = 20


class Consents(Protocol):
    """Each raises ConsentRefused or CredentialFailed."""

    async def show(self, link: str, person: str) -> ConsentShown: ...

    async def begin(self, link: str, person: str) -> str:
        """Where the browser is sent."""
        ...

    async def finish(self, answer: dict[str, str], person: str) -> str:
        """The server's name."""
        ...

    def document(self) -> dict[str, Any]:
        """Our client ID metadata document."""
        ...


def routes(console: Console, consents: Consents) -> list[Route]:
    pages = UpstreamPages(console, consents)
    return [
        Route("/upstreams/consent/{link}", shown(console, pages.asked), methods=["GET"]),
        Route("/upstreams/consent/{link}", shown(console, pages.begun), methods=["POST"]),
        Route("/upstreams/callback", shown(console, pages.back), methods=["GET"]),
        Route("/upstreams/client.json", pages.document, methods=["GET"]),
    ]


class UpstreamPages:
    def __init__(self, console: Console, consents: Consents) -> None:
        self._at, self._consents = console, consents

    async def asked(self, request: Request) -> Response:
        """Steps 1 and 2."""
        visit = await self._at.visits.of(request)
        if visit.person is None:
            back = quote(request.url.path, safe="")
            return RedirectResponse(f"/sign-in?next={back}", 303)
        found = await self._consents.show(request.path_params["link"], visit.person)
        return show(
            self._at,
            visit,
            "upstream_consent",
            form_to=found.origin,
            here=request.url.path,
            server=found.server,
            agent=found.agent,
            host=found.origin.partition("://")[2],
            scopes=found.scopes,
        )

    async def begun(self, request: Request) -> Response:
        visit, _ = await self._at.visits.posted(request)
        person = require_person(visit)
        return RedirectResponse(
            await self._consents.begin(request.path_params["link"], person), 303
        )

    async def back(self, request: Request) -> Response:
        """Step 3."""
        visit = await self._at.visits.of(request)
        person = require_person(visit)
        given = request.query_params.multi_items()
        answer = dict(given)
        if len(answer) < len(given) or len(given) > PARAMETERS_MAX:
            raise Invalid("The answer says something twice.", remedy="Call the tool again.")
        server = await self._consents.finish(answer, person)
        return show(self._at, visit, "upstream_done", server=server)

    async def document(self, request: Request) -> Response:
        return JSONResponse(self._consents.document())

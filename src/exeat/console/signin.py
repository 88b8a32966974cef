"""Signing in and out, one-time links, one's own passkeys and authorizations (ID-8)."""

import asyncio
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from exeat.console.pages import (
    Console,
    Page,
    SignInFirst,
    answered,
    day,
    require_person,
    show,
    shown,
)
from exeat.core.errors import ExeatError
from exeat.core.ids import PersonId
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.rules.scopes import WORDS
from exeat.web.attempts import address
from exeat.web.site import own_path


class TooMany(ExeatError):
    """More attempts than anybody needs."""

    code, http_status = "too_many_attempts", 429


def routes(console: Console) -> list[Route]:
    pages = SignInPages(console)

    def page(path: str, answer: Page, *methods: str) -> Route:
        return Route(path, shown(console, answer), methods=list(methods))

    def script(path: str, answer: Page) -> Route:
        return Route(path, answered(answer), methods=["POST"])

    return [
        page("/", pages.home, "GET"),
        page("/sign-in", pages.sign_in, "GET"),
        script("/sign-in/options", pages.sign_in_options),
        script("/sign-in/passkey", pages.sign_in_passkey),
        page("/sign-out", pages.sign_out, "POST"),
        page("/link/{token}", pages.link, "GET"),
        page("/link", pages.use_link, "POST"),
        page("/passkeys", pages.passkeys, "GET"),
        script("/passkeys/options", pages.enrol_options),
        script("/passkeys/enrol", pages.enrol),
        page("/passkeys/remove", pages.remove, "POST"),
        page("/authorizations/revoke", pages.revoke, "POST"),
    ]


class SignInPages:
    def __init__(self, console: Console) -> None:
        self._at = console

    async def home(self, request: Request) -> Response:
        visit = await self._at.visits.of(request)
        if visit.person is None:
            return RedirectResponse("/sign-in", 303)
        held = await asyncio.to_thread(self._held, visit.person)
        return show(self._at, visit, "home", held=held)

    def _held(self, person: PersonId) -> list[dict[str, Any]]:
        now = self._at.clock()
        with self._at.store.read() as read:
            found = [grant for grant in read.grants_of(person) if grant.live(now)]
            names = {g.client: client.name for g in found if (client := read.client(g.client))}
        return [
            {
                "id": grant.id,
                "client": names.get(grant.client, grant.client),
                "agent": grant.agent,
                "resource": grant.resource,
                "may": [WORDS[scope] for scope in grant.scopes if scope in WORDS],
                "since": day(grant.made_at),
                "until": day(grant.ends_at),
            }
            for grant in found
        ]

    async def sign_in(self, request: Request) -> Response:
        visit = await self._at.visits.of(request)
        back = own_path(request.query_params.get("next", "/"))
        if visit.person is not None:
            return RedirectResponse(back, 303)
        return show(self._at, visit, "sign_in", next=back)

    async def sign_in_options(self, request: Request) -> Response:
        visit, _ = await self._at.visits.posted_json(request)
        self._count(request)
        at = self._at
        return JSONResponse(
            await asyncio.to_thread(at.sign_in.begin_sign_in, visit.visit, at.clock())
        )

    async def sign_in_passkey(self, request: Request) -> Response:
        visit, said = await self._at.visits.posted_json(request)
        self._count(request)
        at = self._at
        credential = said.get("credential")
        cookie, _ = await asyncio.to_thread(
            at.sign_in.finish_sign_in,
            visit.visit,
            credential if isinstance(credential, dict) else {},
            at.clock(),
        )
        if visit.session is not None:  # signed in again: the old session ends
            await asyncio.to_thread(at.sign_in.sign_out, visit.cookie)
        response = JSONResponse({"next": own_path(str(said.get("next", "/")))})
        at.visits.begin_session(response, cookie)
        return response

    async def sign_out(self, request: Request) -> Response:
        visit, _ = await self._at.visits.posted(request)
        await asyncio.to_thread(self._at.sign_in.sign_out, visit.cookie)
        response = RedirectResponse("/sign-in", 303)
        self._at.visits.end_session(response)
        return response

    async def link(self, request: Request) -> Response:
        """Only shows a button: what looks at links before people do (mail, chat) uses none up."""
        visit = await self._at.visits.of(request)
        token = request.path_params["token"]
        stands = await asyncio.to_thread(self._at.sign_in.link_stands, token, self._at.clock())
        status = 200 if stands else 401
        return show(self._at, visit, "link", status=status, token=token, stands=stands)

    async def use_link(self, request: Request) -> Response:
        visit, form = await self._at.visits.posted(request)
        self._count(request)
        at = self._at
        cookie, _ = await asyncio.to_thread(at.sign_in.use_link, form.get("token", ""), at.clock())
        if visit.session is not None:
            await asyncio.to_thread(at.sign_in.sign_out, visit.cookie)
        response = RedirectResponse("/passkeys", 303)
        at.visits.begin_session(response, cookie)
        return response

    async def passkeys(self, request: Request) -> Response:
        visit = await self._at.visits.of(request)
        if visit.person is None:
            return RedirectResponse(f"/sign-in?next={quote('/passkeys')}", 303)
        found = await asyncio.to_thread(self._at.sign_in.passkeys_of, visit.person)
        listed = [
            {"id": p.id, "since": day(p.made_at), "used": day(p.used_at), "synced": p.synced}
            for p in found
        ]
        return show(self._at, visit, "passkeys", passkeys=listed)

    async def enrol_options(self, request: Request) -> Response:
        visit, _ = await self._at.visits.posted_json(request)
        if visit.session is None:
            raise SignInFirst("You are not signed in.")
        at = self._at
        options = await asyncio.to_thread(
            at.sign_in.begin_enrolment, visit.cookie, visit.session, at.clock()
        )
        return JSONResponse(options)

    async def enrol(self, request: Request) -> Response:
        visit, said = await self._at.visits.posted_json(request)
        if visit.session is None:
            raise SignInFirst("You are not signed in.")
        at = self._at
        credential = said.get("credential")
        cookie, _ = await asyncio.to_thread(
            at.sign_in.finish_enrolment,
            visit.cookie,
            visit.session,
            credential if isinstance(credential, dict) else {},
            at.clock(),
        )
        response = JSONResponse({"next": "/passkeys"})
        at.visits.begin_session(response, cookie)
        return response

    async def remove(self, request: Request) -> Response:
        visit, form = await self._at.visits.posted(request)
        person = require_person(visit)
        doing = self._doing(person, "removed by its owner")
        await asyncio.to_thread(
            self._at.sign_in.remove_passkey, form.get("passkey", ""), person, doing
        )
        response = RedirectResponse("/sign-in", 303)
        self._at.visits.end_session(response)
        return response

    async def revoke(self, request: Request) -> Response:
        visit, form = await self._at.visits.posted(request)
        person = require_person(visit)
        await asyncio.to_thread(self._revoke, form.get("authorization", ""), person)
        await self._at.bindings.settled()
        return RedirectResponse("/", 303)

    def _revoke(self, grant: str, person: PersonId) -> None:
        with self._at.store.read() as read:
            theirs = grant in {each.id for each in read.grants_of(person)}
        if theirs:
            self._at.grants.revoke(grant, self._doing(person, "revoked by the person"))

    def _doing(self, person: PersonId, reason: str) -> Doing:
        return Doing(person, "console", self._at.clock(), reason)

    def _count(self, request: Request) -> None:
        if not self._at.attempts.take(f"sign-in {address(request)}"):
            raise TooMany("Too many attempts to sign in.", remedy="Wait a minute, then try again.")

"""``/oauth/token``, ``/oauth/revoke``, ``/oauth/register``: for clients, never for browsers' pages."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exeat.core.errors import ExeatError
from exeat.identity.authorization.model.client import (
    CODE,
    CREDENTIALS,
    EXCHANGE,
    JWT_BEARER,
    REFRESH,
    Client,
)
from exeat.identity.authorization.model.doing import SECOND_NS
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.rules.documents import looks_like_address, registered
from exeat.identity.authorization.rules.parameters import need
from exeat.identity.authorization.service.assertions import Assertions
from exeat.identity.authorization.service.authentication import Authentication
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.authorization.service.exchange import Exchange
from exeat.identity.authorization.service.grants import Grants
from exeat.identity.authorization.service.proofs import Proofs
from exeat.identity.authorization.service.tokens import Issued
from exeat.web.attempts import Attempts, address
from exeat.web.bindings import Settled
from exeat.web.visits import read_form, read_json

RETRY_AFTER_S: Final = 60


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the endpoints work with.  ``attempts``: failures to authenticate, per client."""

    issuer: str
    authentication: Authentication
    clients: Clients
    grants: Grants
    exchange: Exchange
    proofs: Proofs
    attempts: Attempts
    clock: Callable[[], int]
    settled: Settled
    assertions: Assertions | None = None

    async def token(self, request: Request) -> Response:
        """RFC 6749 3.2."""
        form = await read_form(request)
        kind = need(form, "grant_type")
        verbs: Mapping[str, Callable[[Client, Mapping[str, str], int, str], Issued]] = {
            CODE: self.grants.redeem,
            REFRESH: self.grants.renew,
            CREDENTIALS: self.grants.by_credentials,
            EXCHANGE: self.exchange.exchange,
        }
        if kind not in verbs and (kind != JWT_BEARER or self.assertions is None):
            raise Refused("unsupported_grant_type", "There is no such grant type here.")
        client = await self._client(request, form)
        if kind not in client.grants:
            raise Refused("unauthorized_client", "This client may not use that grant type.")
        now = self.clock()
        url = f"{self.issuer}/oauth/token"
        proofs = request.headers.getlist("dpop")
        jkt = await asyncio.to_thread(self.proofs.thumbprint, proofs, "POST", url, now)
        if kind == JWT_BEARER and self.assertions is not None:
            vouched = await self.assertions.read(client, form, now)
            redeem = self.assertions.redeem
            issued = await asyncio.to_thread(redeem, client, form, vouched, now, jkt)
        else:
            issued = await asyncio.to_thread(verbs[kind], client, form, now, jkt)
        return JSONResponse(issued.as_json(), headers={"Pragma": "no-cache"})

    async def revoke(self, request: Request) -> Response:
        """RFC 7009 2: 200 also for what we do not know."""
        form = await read_form(request)
        token = need(form, "token")
        client = await self._client(request, form)
        await asyncio.to_thread(self.grants.revoke_token, client, token, self.clock())
        await self.settled()
        return Response()

    async def register(self, request: Request) -> Response:
        """RFC 7591 3."""
        if not self.attempts.take(f"registration {address(request)}"):
            raise _too_many()
        said = await read_json(request)
        client = await asyncio.to_thread(self.clients.register, said, self.clock())
        return JSONResponse(dict(registered(client, self.clock() // SECOND_NS)), 201)

    async def _client(self, request: Request, form: Mapping[str, str]) -> Client:
        """Guessing one client's secret is slowed down; others go on meanwhile, and so does that client
        from elsewhere."""
        sent = request.headers.getlist("authorization")
        if len(sent) > 1:
            raise Refused("invalid_request", "Authorization was sent twice.")
        authorization = sent[0] if sent else None
        shown = self.authentication.named(authorization, form)
        name = f"{address(request)} {shown[:300]}"
        if self.attempts.full(name):
            raise _too_many()
        documents = f"{address(request)} documents"  # each may be fetched from somewhere
        if looks_like_address(shown) and not self.attempts.take(documents):
            raise _too_many()
        try:
            return await self.authentication.authenticate(authorization, form)
        except Refused:
            self.attempts.take(name)
            raise


def _too_many() -> Refused:
    return Refused("temporarily_unavailable", "Too many attempts.", status=429)


def routes(endpoints: Endpoints) -> list[Route]:
    return [
        Route("/oauth/token", _said(endpoints.token), methods=["POST"]),
        Route("/oauth/revoke", _said(endpoints.revoke), methods=["POST"]),
        Route("/oauth/register", _said(endpoints.register), methods=["POST"]),
    ]


def _said(verb: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """Errors as RFC 6749 5.2 writes them."""

    async def answer(request: Request) -> Response:
        try:
            response: Response = await verb(request)
            return response
        except Refused as error:
            return _refusal(request, error)
        except ExeatError as error:
            code = "invalid_request" if error.http_status < 500 else "temporarily_unavailable"
            status = 400 if error.http_status < 500 else 503
            return _refusal(request, Refused(code, str(error), status=status))

    return answer


def _refusal(request: Request, error: Refused) -> Response:
    said = {"error": error.code, "error_description": str(error)}
    headers = {"Pragma": "no-cache"}
    if error.http_status == 401 and "authorization" in request.headers:
        headers["WWW-Authenticate"] = 'Basic realm="exeat"'
    if error.http_status == 429:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return JSONResponse(said, error.http_status, headers=headers)

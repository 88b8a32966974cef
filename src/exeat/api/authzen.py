"""AuthZEN 1.0: other enforcement points ask the same PDP (POL-8).

``POST /access/v1/evaluation``, ``POST /access/v1/evaluations``, and where they are (section 9).  Who asks is
an OAuth client that an admin gave the right to; agents' own keys open nothing here (GW-13).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from exeat.api.evaluation import (
    BadRequest,
    Evaluator,
    Semantic,
    denied,
    read_many,
    read_question,
)
from exeat.approvals.model.exact import exact
from exeat.core import strictjson
from exeat.core.errors import ExeatError
from exeat.core.obligations import KINDS
from exeat.identity.authorization.model.client import EVALUATE
from exeat.identity.authorization.model.refusal import Refused
from exeat.identity.authorization.service.authentication import Authentication
from exeat.web.attempts import Attempts, address

EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
METADATA: Final = "/.well-known/authzen-configuration"
REQUEST_ID: Final = "x-request-id"
REQUEST_ID_MAX_CHARS: Final = 256


class NotLetIn(ExeatError):
    """Nobody who may ask."""

    code, http_status = "unauthorized", 401


class MayNot(ExeatError):
    """A client that proved who it is, without the right."""

    code, http_status = "forbidden", 403


class TooMany(ExeatError):
    """Of failures to prove who one is."""

    code, http_status = "too_many", 429


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``failures``: to authenticate, per address and client."""

    issuer: str
    authentication: Authentication
    evaluator: Evaluator
    failures: Attempts

    async def evaluation(self, client: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Section 6."""
        found = await self.evaluator.evaluate(read_question(body), client)
        return found.as_json()

    async def evaluations(self, client: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Section 7; without ``evaluations`` as section 6."""
        many = read_many(body)
        if many is None:
            return await self.evaluation(client, body)
        listed, semantic = many
        if semantic is Semantic.ALL:
            return {"evaluations": await asyncio.gather(*(self._one(client, e) for e in listed))}
        answers: list[dict[str, Any]] = []
        for each in listed:
            answers.append(await self._one(client, each))
            if answers[-1]["decision"] == (semantic is Semantic.PERMIT):
                break
        return {"evaluations": answers}

    async def _one(self, client: str, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await self.evaluation(client, given)
        except ExeatError as error:
            return denied(error)

    async def metadata(self, _request: Request) -> Response:
        """Section 9, and what may be asked of an enforcement point."""
        return JSONResponse(
            {
                "policy_decision_point": self.issuer,
                "access_evaluation_endpoint": f"{self.issuer}{EVALUATION}",
                "access_evaluations_endpoint": f"{self.issuer}{EVALUATIONS}",
                "supported_obligations": sorted(KINDS),
            }
        )

    async def client(self, request: Request) -> str:
        """Raises NotLetIn, MayNot, TooMany."""
        sent = request.headers.getlist("authorization")
        if len(sent) != 1 or not sent[0].lower().startswith("basic "):
            raise NotLetIn("Show a client id and secret (HTTP Basic).", remedy=_HOW)
        try:
            name = f"{address(request)} {self.authentication.named(sent[0], {})[:300]}"
        except Refused as error:
            raise NotLetIn(str(error), remedy=_HOW) from None
        if self.failures.full(name):
            raise TooMany("Too many attempts.")
        try:
            client = await self.authentication.authenticate(sent[0], {})
        except Refused as error:
            self.failures.take(name)
            raise NotLetIn(str(error), remedy=_HOW) from None
        if EVALUATE not in client.grants:
            raise MayNot(f"{client.id} may not ask for decisions.", remedy=_HOW)
        return client.id


_HOW: Final = "An admin adds such a client: exeat client add NAME --evaluates"
_Verb = Callable[[str, Mapping[str, Any]], Any]


def _answered(endpoint: Endpoint, verb: _Verb) -> Callable[[Request], Any]:
    """Errors as section 10.1.2 writes them: a message, which is no decision."""

    async def answer(request: Request) -> Response:
        headers: dict[str, str] = {}
        try:
            headers = _request_id(request)
            client = await endpoint.client(request)
            text = exact(await verb(client, await _body(request)))
            return Response(text, media_type="application/json", headers=headers)
        except ExeatError as error:
            if error.http_status == 401:
                headers["WWW-Authenticate"] = f'Basic realm="{endpoint.issuer}"'
            said = f"{error} {error.remedy}".strip()
            return PlainTextResponse(f"{said}\n", error.http_status, headers)

    return answer


def _request_id(request: Request) -> dict[str, str]:
    """Section 10.1.3: the same comes back.  Raises BadRequest."""
    sent = request.headers.getlist(REQUEST_ID)
    if len(sent) > 1 or any(len(each) > REQUEST_ID_MAX_CHARS for each in sent):
        raise BadRequest(f"X-Request-ID is one value of at most {REQUEST_ID_MAX_CHARS} characters.")
    return {"X-Request-ID": sent[0]} if sent else {}


async def _body(request: Request) -> Mapping[str, Any]:
    """Raises BadRequest."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise BadRequest("Content-Type must be application/json.")
    try:
        value = strictjson.parse(await request.body())
    except strictjson.MalformedJson as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    return value


def routes(endpoint: Endpoint) -> list[Route]:
    return [
        Route(EVALUATION, _answered(endpoint, endpoint.evaluation), methods=["POST"]),
        Route(EVALUATIONS, _answered(endpoint, endpoint.evaluations), methods=["POST"]),
        Route(METADATA, endpoint.metadata, methods=["GET"]),
    ]

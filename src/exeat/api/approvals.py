"""``POST /approvals/answers``: a signed answer of another system, in a person's name (APP-5).

Only a POST that is signed answers anything; nothing is approved by fetching a URL.  The signature
authenticates the system, so only controls whose approvers allow the channel ``webhook`` take it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exeat.approvals.model.hold import SECOND_NS, Word
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules import messages
from exeat.approvals.service.answers import Message, Outcome, Said
from exeat.approvals.service.approvals import Approvals
from exeat.core import strictjson
from exeat.core.controls import Channel
from exeat.core.errors import ExeatError, Invalid
from exeat.core.ids import PersonId
from exeat.web.attempts import Attempts, address

PATH: Final = "/approvals/answers"
_NAMES: Final = frozenset({"hold", "person", "verdict", "reason"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``secret``, ``standing``: block; called in a thread.  ``failures``: of signatures, per address."""

    approvals: Approvals
    secret: Callable[[], bytes]
    standing: Callable[[], Standing]
    clock: Callable[[], int]
    failures: Attempts

    async def answer(self, request: Request) -> Response:
        sender = address(request)
        if self.failures.full(sender):
            return _refusal(429, "too_many", "Too many bad signatures.", "Wait a minute.")
        body = await request.body()
        headers = {
            name: request.headers.getlist(name)
            for name in (messages.ID, messages.TIMESTAMP, messages.SIGNATURE)
        }
        try:
            outcome = await asyncio.to_thread(self._answered, headers, body)
        except ExeatError as error:
            if error.http_status == 401:
                self.failures.take(sender)
            return _refusal(error.http_status, error.code, str(error), error.remedy)
        hold = outcome.hold
        wanted = [list(each) for each in outcome.missing]
        return JSONResponse({"hold": hold.id, "state": hold.state.value, "missing": wanted})

    def _answered(self, headers: dict[str, list[str]], body: bytes) -> Outcome:
        now = self.clock()
        received = messages.verified(self.secret(), headers, body, now // SECOND_NS)
        hold, said = _read(body)
        until = (received.at + 2 * messages.TOLERANCE_S) * SECOND_NS
        message = Message(received.id, until)
        return self.approvals.answer_once(message, hold, said, self.standing(), now)


def _read(body: bytes) -> tuple[str, Said]:
    """Raises Invalid."""
    try:
        value: Any = strictjson.parse(body)
    except strictjson.MalformedJson as error:
        raise Invalid(f"The body is not JSON: {error}.", remedy=_FORM) from None
    if not isinstance(value, dict) or not set(value) <= _NAMES:
        raise Invalid("The body is not such an object.", remedy=_FORM)
    texts = [value.get(name, "") for name in ("hold", "person", "verdict", "reason")]
    if not all(isinstance(each, str) for each in texts) or texts[2] not in set(Word):
        raise Invalid("The body does not say who answers what.", remedy=_FORM)
    hold, person, verdict, reason = texts
    return hold, Said(PersonId(person), Channel.WEBHOOK, Word(verdict), reason)


_FORM: Final = (
    'Write {"hold": "h-...", "person": "ada", "verdict": "approve" or "deny", "reason": "..."}.'
)


def _refusal(status: int, code: str, message: str, remedy: str) -> Response:
    return JSONResponse({"error": code, "message": message, "remedy": remedy}, status)


def routes(endpoint: Endpoint) -> list[Route]:
    return [Route(PATH, endpoint.answer, methods=["POST"])]

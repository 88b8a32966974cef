"""``/holds/ID``: how a held call stands; and, for who may, approve or deny it (APP-4, APP-5).

1. anybody signs in first, so that a stranger cannot tell which ids there are
2. who asked sees how it stands, without a button; who may answer sees the real call
3. a link leads to a page on which the answer is given by a form of ours; looking at pages changes nothing
4. where signing in is not enough, that page asks for a passkey, for this very answer and nothing else
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from exeat.approvals.model.hold import Hold, HoldState, Word
from exeat.approvals.model.standing import Standing
from exeat.approvals.service.answers import Said
from exeat.approvals.service.approvals import Approvals
from exeat.console.held_call import confirms, left, places, plain, rows, sees, state, ways
from exeat.console.pages import Console, answered, require_person, show, shown
from exeat.core.controls import Channel
from exeat.core.errors import Conflict, ExeatError, Invalid, NotFound
from exeat.core.ids import PersonId
from exeat.identity.signin.model import Passkey
from exeat.web.attempts import address
from exeat.web.visits import Visit

ID_MAX_CHARS: Final = 64
REFRESH_S: Final = 5


@dataclass(frozen=True, slots=True)
class Held:
    """``standing``: who may do what now; blocks."""

    approvals: Approvals
    standing: Callable[[], Standing]


class TooMany(ExeatError):
    """More answers than anybody gives."""

    code, http_status = "too_many_attempts", 429


def routes(console: Console, held: Held) -> list[Route]:
    pages = HoldPages(console, held)
    one, answer = "/holds/{hold}", "/holds/{hold}/{word}"
    return [
        Route(one, shown(console, pages.status), methods=["GET"]),
        Route(answer, shown(console, pages.asked), methods=["GET"]),
        Route(answer, shown(console, pages.said), methods=["POST"]),
        Route(f"{answer}/options", answered(pages.options), methods=["POST"]),
        Route(f"{answer}/passkey", answered(pages.passkey), methods=["POST"]),
    ]


@dataclass(frozen=True, slots=True)
class _Found:
    """A held call, as one person may see it."""

    hold: Hold
    standing: Standing
    whole: bool
    call: dict[str, Any]


class HoldPages:
    def __init__(self, console: Console, held: Held) -> None:
        self._at, self._held = console, held

    # ---- looking

    async def status(self, request: Request) -> Response:
        """Steps 1 and 2."""
        visit = await self._at.visits.of(request)
        if visit.person is None:
            return _sign_in_first(request)
        found = await asyncio.to_thread(self._find, request, visit.person)
        hold, now = found.hold, self._at.clock()
        through, _ = ways(hold, visit.person, now, found.standing)
        waits = hold.state is HoldState.PENDING and now < hold.expires_at
        return self._page(
            visit,
            "hold",
            found,
            refresh=REFRESH_S if waits else 0,
            waits=waits,
            may_answer=bool(through),
            may_approve=bool(through) and found.call["arguments"] is not None,
            mine=visit.person == hold.binding.user,
            answered=[e for e in found.call["answers"] if e["person"] == visit.person],
        )

    async def asked(self, request: Request) -> Response:
        """Steps 3 and 4, before the answer."""
        word = _word(request)
        visit = await self._at.visits.of(request)
        if visit.person is None:
            return _sign_in_first(request)
        return await self._ask(request, visit, visit.person, word)

    async def _ask(
        self, request: Request, visit: Visit, person: PersonId, word: Word, said: str = ""
    ) -> Response:
        found = await asyncio.to_thread(self._find, request, person)
        through, gives = ways(found.hold, person, self._at.clock(), found.standing)
        if not through:
            raise _not_now(found.hold)
        if word is Word.APPROVE and found.call["arguments"] is None:
            raise Conflict("What cannot be shown cannot be approved.", remedy="Deny it instead.")
        return self._page(
            visit,
            "hold_answer",
            found,
            status=409 if said else 200,
            said=said,
            word=word.value,
            form=Channel.CONSOLE in through,
            passkey=Channel.PASSKEY in through,
            gives=sorted(gives),
            seen=found.hold.binding.digest,
            path=f"/holds/{found.hold.id}/{word.value}",
        )

    def _page(self, visit: Visit, template: str, found: _Found, **values: Any) -> Response:
        hold, call, now = found.hold, found.call, self._at.clock()
        return show(
            self._at,
            visit,
            template,
            id=hold.id,
            whole=found.whole,
            confirms=confirms(hold),
            state=state(hold, now),
            tool=plain(call["tool"]),
            server=call["server"],
            agent=call["agent"],
            user=call["user"],
            effect=call["effect"] or "unknown",
            sink=call["sink"] or "unknown",
            arguments=rows(call) if found.whole else None,
            places=places(call) if found.whole else [],
            more_places=found.whole and call["more_destinations"],
            why=call["why"],
            asked=call["asked"],
            said_before=call["answers"],
            left=left(hold.expires_at, now),
            use_left=left(hold.use_by, now) if hold.use_by else "",
            otherwise=call["if_nobody_answers"],
            **values,
        )

    def _find(self, request: Request, person: PersonId) -> _Found:
        """Raises NotFound, the same for what is not there and for what is not theirs to see."""
        name = str(request.path_params["hold"])
        standing = self._held.standing()
        try:
            hold = self._held.approvals.hold(name[:ID_MAX_CHARS])
        except NotFound:
            raise _nothing() from None
        sight = sees(hold, person, standing)
        if not sight:
            raise _nothing()
        call = self._held.approvals.presented(hold, standing)
        return _Found(hold, standing, sight == "whole", call)

    # ---- answering

    async def said(self, request: Request) -> Response:
        """Step 3: the answer, by who has signed in."""
        word = _word(request)
        visit, form = await self._at.visits.posted(request)
        person = require_person(visit)
        self._count(request)
        found = await asyncio.to_thread(self._find, request, person)
        _check_seen(found.hold, form.get("seen"))
        via = f"console:{visit.session.method.value}" if visit.session is not None else "console"
        said = Said(person, Channel.CONSOLE, word, form.get("reason", "").strip(), None, via)
        try:
            await asyncio.to_thread(self._answer, found.hold.id, said)
        except Invalid as error:
            return await self._ask(request, visit, person, word, str(error))
        return RedirectResponse(f"/holds/{found.hold.id}", 303)

    async def options(self, request: Request) -> Response:
        """Step 4: a challenge that serves this session, this call and this word."""
        word = _word(request)
        visit, given = await self._at.visits.posted_json(request)
        person, session = require_person(visit), visit.session
        assert session is not None  # noqa: S101 - there is a person
        self._count(request)
        found = await asyncio.to_thread(self._find, request, person)
        _check_seen(found.hold, given.get("seen"))
        through, _ = ways(found.hold, person, self._at.clock(), found.standing)
        if Channel.PASSKEY not in through:
            raise _not_now(found.hold)
        begin, now = self._at.sign_in.begin_answer, self._at.clock()
        about = _about(found.hold, word)
        return JSONResponse(await asyncio.to_thread(begin, visit.cookie, session, about, now))

    async def passkey(self, request: Request) -> Response:
        """Step 4: the answer, confirmed with the passkey."""
        word = _word(request)
        visit, given = await self._at.visits.posted_json(request)
        person, session = require_person(visit), visit.session
        assert session is not None  # noqa: S101 - there is a person
        self._count(request)
        found = await asyncio.to_thread(self._find, request, person)
        _check_seen(found.hold, given.get("seen"))
        credential, reason = given.get("credential"), given.get("reason", "")
        if not isinstance(credential, dict) or not isinstance(reason, str):
            raise Invalid("The answer cannot be read.")
        passkey = await asyncio.to_thread(
            self._at.sign_in.finish_answer,
            visit.cookie, session, _about(found.hold, word), credential, self._at.clock(),
        )  # fmt: skip
        await asyncio.to_thread(self._check_age, passkey, found.hold)
        said = Said(person, Channel.PASSKEY, word, reason.strip(), None, f"passkey:{passkey.id}")
        await asyncio.to_thread(self._answer, found.hold.id, said)
        return JSONResponse({"next": f"/holds/{found.hold.id}"})

    def _check_age(self, passkey: Passkey, hold: Hold) -> None:
        """Who has come into a session can enrol a passkey of their own; of a person who had one when the
        call was held, that one says nothing."""
        had = self._at.sign_in.passkeys_of(passkey.person)
        if passkey.made_at > hold.asked_at and any(p.made_at <= hold.asked_at for p in had):
            raise Conflict(
                "This passkey is newer than the question.",
                remedy="Use one that you had when the call was held.",
            )

    def _answer(self, hold: str, said: Said) -> None:
        self._held.approvals.answer(hold, said, self._held.standing(), self._at.clock())

    def _count(self, request: Request) -> None:
        if not self._at.attempts.take(f"answers {address(request)}"):
            raise TooMany("Too many answers at a time.", remedy="Wait a minute, then go on.")


def _word(request: Request) -> Word:
    try:
        return Word(request.path_params["word"])
    except ValueError:
        raise _nothing() from None


def _about(hold: Hold, word: Word) -> str:
    return f"{hold.id}\n{hold.binding.digest}\n{word.value}"


def _check_seen(hold: Hold, seen: Any) -> None:
    if seen != hold.binding.digest:
        raise Conflict("This is not the call that was shown.", remedy="Open the page again.")


def _not_now(hold: Hold) -> Conflict:
    return Conflict(
        "You cannot answer this call here, or not any more.",
        remedy=f"See how it stands: /holds/{hold.id}",
    )


def _nothing() -> NotFound:
    return NotFound(
        "There is no such held call, or it is not yours to see.",
        remedy="Calls that wait for somebody: exeat approvals list",
    )


def _sign_in_first(request: Request) -> Response:
    return RedirectResponse(f"/sign-in?next={quote(request.url.path, safe='')}", 303)

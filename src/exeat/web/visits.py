"""Browsers: cookies, whose session it is, and whether a POST comes from our own page (ID-8).

Two cookies: a *visit* (any browser that was shown a page) and a *session* (a person who signed in).
CSRF: every POST must come from our own origin and carry a token that is made from the session's cookie,
or the visit's where there is no session, so neither can be used with another's.
"""

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from exeat.core import strictjson
from exeat.core.errors import ExeatError, Invalid
from exeat.core.ids import PersonId
from exeat.identity.authorization.rules.parameters import only_once
from exeat.identity.signin.model import Session
from exeat.identity.signin.service import SignIn
from exeat.web.site import Site

VISIT_RANDOM_BYTES: Final = 32
FIELDS_MAX: Final = 50
CSRF_FIELD: Final = "csrf"
CSRF_HEADER: Final = "x-csrf-token"
_HEX_CHARS: Final = 2 * VISIT_RANDOM_BYTES


class Forged(ExeatError):
    """A POST that did not come from our own page, or from one that is too old."""

    code, http_status = "forged", 403


@dataclass(frozen=True, slots=True)
class Visit:
    """``visit`` and ``cookie`` are secrets of that browser.  ``fresh``: it has no visit cookie yet."""

    visit: str
    fresh: bool
    cookie: str
    session: Session | None

    @property
    def person(self) -> PersonId | None:
        return None if self.session is None else self.session.person

    @property
    def csrf(self) -> str:
        key = self.cookie if self.session is not None else self.visit
        return hmac.new(key.encode(), b"exeat csrf", sha256).hexdigest()


class Visits:
    def __init__(
        self, site: Site, sign_in: SignIn, draw: Callable[[int], bytes], clock: Callable[[], int]
    ) -> None:
        self.site, self._sign_in, self._draw, self._clock = site, sign_in, draw, clock
        prefix = "__Host-" if site.secure else ""
        port = f"-{site.port}" if site.port else ""  # browsers mix cookies of all ports of a host
        self._visit, self._session = f"{prefix}exeat-visit{port}", f"{prefix}exeat-session{port}"

    async def of(self, request: Request) -> Visit:
        visit = _handle(request.cookies.get(self._visit, ""))
        cookie = _handle(request.cookies.get(self._session, ""))
        session = await asyncio.to_thread(self._sign_in.session, cookie, self._clock())
        fresh = not visit
        return Visit(
            self._draw(VISIT_RANDOM_BYTES).hex() if fresh else visit, fresh, cookie, session
        )

    async def posted(self, request: Request) -> tuple[Visit, dict[str, str]]:
        """A form of our own.  Raises Forged, Invalid, Refused."""
        visit = await self.of(request)
        self._check_origin(request)
        form = await read_form(request)
        _check_csrf(visit, form.get(CSRF_FIELD, ""))
        return visit, form

    async def posted_json(self, request: Request) -> tuple[Visit, dict[str, Any]]:
        """What our own script sends.  Raises Forged, Invalid."""
        visit = await self.of(request)
        self._check_origin(request)
        _check_csrf(visit, request.headers.get(CSRF_HEADER, ""))
        return visit, await read_json(request)

    def keep_visit(self, response: Response, visit: Visit) -> None:
        if visit.fresh:
            self._set(response, self._visit, visit.visit)

    def begin_session(self, response: Response, cookie: str) -> None:
        """Always a new value: what the browser brought along is worth nothing (session fixation)."""
        self._set(response, self._session, cookie)

    def end_session(self, response: Response) -> None:
        for name in (self._session, self._visit):
            response.delete_cookie(
                name, path="/", secure=self.site.secure, httponly=True, samesite="lax"
            )

    def _set(self, response: Response, name: str, value: str) -> None:
        response.set_cookie(
            name, value, path="/", secure=self.site.secure, httponly=True, samesite="lax"
        )

    def _check_origin(self, request: Request) -> None:
        """Cookies do not tell ports of one host apart; the Origin header does."""
        if request.headers.get("origin") != self.site.issuer:
            raise Forged("This did not come from a page of exeat.", remedy="Open the page again.")


def _check_csrf(visit: Visit, token: str) -> None:
    if visit.fresh or not hmac.compare_digest(
        visit.csrf.encode(), token.encode("utf-8", "replace")
    ):
        raise Forged(
            "This page is no longer good: it is older than your sign-in, or not from this browser.",
            remedy="Open it again.",
        )


def _handle(value: str) -> str:
    """A cookie as we made it, or nothing."""
    known = len(value) == _HEX_CHARS and all(c in "0123456789abcdef" for c in value)
    return value if known else ""


async def read_form(request: Request) -> dict[str, str]:
    """``application/x-www-form-urlencoded``; each field once.  Raises Invalid, Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Invalid("A form is sent as application/x-www-form-urlencoded.")
    try:
        text = (await request.body()).decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise Invalid("The form cannot be read.") from None
    return dict(only_once(pairs))


async def read_json(request: Request) -> dict[str, Any]:
    """A JSON object without repeated keys.  Raises Invalid."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Invalid("This is sent as application/json.")
    try:
        value = strictjson.parse(await request.body())
    except strictjson.MalformedJson:
        raise Invalid("The JSON cannot be read.") from None
    if not isinstance(value, dict):
        raise Invalid("A JSON object is needed.")
    return value

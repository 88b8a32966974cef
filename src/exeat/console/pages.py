"""Pages: one template each, escaped, without inline script or style."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from exeat.core.errors import ExeatError
from exeat.core.ids import PersonId
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.service.authentication import Authentication
from exeat.identity.authorization.service.grants import Grants
from exeat.identity.authorization.store import AuthorizationStore
from exeat.identity.signin.service import SignIn
from exeat.web.attempts import Attempts
from exeat.web.bindings import Bindings
from exeat.web.guard import POLICY
from exeat.web.site import Site
from exeat.web.visits import Visit, Visits

_templates: Final = Environment(
    loader=PackageLoader("exeat.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
Page = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Console:
    """What pages work with.  ``clock``: nanoseconds.  ``attempts``: of signing in."""

    site: Site
    visits: Visits
    sign_in: SignIn
    authentication: Authentication
    grants: Grants
    resources: Resources
    bindings: Bindings
    store: AuthorizationStore
    attempts: Attempts
    clock: Callable[[], int]


def show(
    console: Console,
    visit: Visit | None,
    template: str,
    *,
    status: int = 200,
    form_to: str = "",
    **values: Any,
) -> Response:
    """``form_to``: where else, by CSP, the answer to a form may send the browser."""
    person = None if visit is None else visit.person
    csrf = "" if visit is None else visit.csrf
    text = _templates.get_template(f"{template}.html").render(person=person, csrf=csrf, **values)
    response = HTMLResponse(text, status)
    if form_to:
        response.headers["Content-Security-Policy"] = POLICY.format(form=f"'self' {form_to}")
    if visit is not None:
        console.visits.keep_visit(response, visit)
    return response


def shown(console: Console, page: Page) -> Page:
    """A page on which an error is a plain sentence and a next step."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except ExeatError as error:
            return failure(console, error)

    return answer


def answered(page: Page) -> Page:
    """The same for our own script."""

    async def answer(request: Request) -> Response:
        try:
            return await page(request)
        except ExeatError as error:
            said = {"error": str(error), "remedy": error.remedy}
            return JSONResponse(said, error.http_status)

    return answer


def failure(console: Console, error: ExeatError) -> Response:
    return show(
        console, None, "failed", status=error.http_status, said=str(error), remedy=error.remedy
    )


def day(at: int) -> str:
    """``2027-01-31`` (UTC)."""
    return datetime.fromtimestamp(at / 1_000_000_000, UTC).date().isoformat()


def require_person(visit: Visit) -> PersonId:
    """Raises SignInFirst."""
    if visit.person is None:
        raise SignInFirst("You are not signed in.", remedy="Sign in, then come back.")
    return visit.person


class SignInFirst(ExeatError):
    """The page is for people who signed in."""

    code, http_status = "sign_in_first", 401

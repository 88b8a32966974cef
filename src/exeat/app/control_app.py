"""What the control listener serves, wired: every page and endpoint behind one guard."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from exeat.api import approvals as answers
from exeat.api import oauth, oauth_metadata
from exeat.approvals.model.hold import HoldState
from exeat.console import consent, holds, signin, upstreams
from exeat.console.pages import Console
from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.service.assertions import Assertions, Check
from exeat.identity.authorization.service.authentication import (
    Authentication,
    Documents,
    Fetching,
)
from exeat.identity.authorization.service.clients import Clients
from exeat.identity.authorization.service.exchange import Exchange
from exeat.identity.authorization.service.grants import Grants
from exeat.identity.authorization.service.proofs import Proofs
from exeat.identity.authorization.service.tokens import Mint
from exeat.identity.signin.service import RelyingParty, SignIn
from exeat.registry.service import Registry
from exeat.storage.state import State
from exeat.web.attempts import Attempts
from exeat.web.bindings import Bindings, Settled
from exeat.web.guard import Guard
from exeat.web.site import Site
from exeat.web.visits import Visits

PER_MINUTE: Final = 60
FAILURES_PER_MINUTE: Final = 20


@dataclass(frozen=True, slots=True)
class Beside:
    """``consents``: pages on which people give access to upstreams (ID-9).  ``check``: of assertions
    of trusted issuers (ID-JAG).  ``approvals``: where signed answers come in (APP-5)."""

    consents: upstreams.Consents | None = None
    check: Check | None = None
    approvals: answers.Endpoint | None = None


def control_app(
    state: State,
    site: Site,
    mint: Mint,
    resources: Resources,
    fetching: Fetching,
    settled: Settled,
    clock: Callable[[], int] = time.time_ns,
    beside: Beside | None = None,
) -> ASGIApp:
    """``fetching``: the guarded client for documents of clients (GW-10).  ``settled``: waits until
    gateways decide by a change.  ``clock``: nanoseconds.  ``beside``: what the gateway adds."""
    beside = beside or Beside()
    store, issuer = state.authorization, site.issuer
    bindings = Bindings(issuer, Registry(state.registry, os.urandom), state.registry, settled)

    def end(name: str, until: int, doing: Doing) -> None:
        bindings.end_tokens(name, until, doing.actor, doing.reason, doing.at)

    grants = Grants(store, mint, resources, os.urandom, end)
    audiences = frozenset({issuer, f"{issuer}/oauth/token"})
    authentication = Authentication(store, Documents(fetching), audiences, clock)
    sign_in = SignIn(state.sign_in, RelyingParty(site.name, issuer), os.urandom)
    visits = Visits(site, sign_in, os.urandom, clock)
    console = Console(
        site, visits, sign_in, authentication, grants, resources, bindings, store,
        Attempts(PER_MINUTE, 60, clock), clock,
    )  # fmt: skip
    endpoints = oauth.Endpoints(
        issuer, authentication, Clients(store, os.urandom), grants,
        Exchange(store, mint, resources), Proofs(store),
        Attempts(FAILURES_PER_MINUTE, 60, clock), clock, settled,
        None if beside.check is None
        else Assertions(store, mint, resources, os.urandom, beside.check, bindings.person_of),
    )  # fmt: skip

    def window_open() -> bool:
        with store.read() as read:
            window = read.window()
        return window is not None and window.open(clock())

    def standing(asked: tuple[str, ...]) -> Mapping[str, HoldState]:
        with state.approvals.read() as read:
            return read.states(asked)

    routes: list[Any] = [
        *oauth_metadata.routes(issuer, mint, lambda: asyncio.to_thread(window_open)),
        *oauth.routes(endpoints),
        *consent.routes(console),
        *signin.routes(console),
        *holds.routes(console, standing),
    ]
    if beside.consents is not None:
        routes += upstreams.routes(console, beside.consents)
    if beside.approvals is not None:
        routes += answers.routes(beside.approvals)
    app = Starlette(routes=routes)
    app.mount("/static", StaticFiles(packages=[("exeat.console", "static")]))
    return Guard(app, site)

"""Held calls of a gateway, wired: the service, where signed answers come in, who looks after them."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from exeat.adapters.approval_notices import Poster, Targets
from exeat.api.approvals import Endpoint
from exeat.app.approvals import open_approvals, standing_now
from exeat.app.fetching import make_fetcher
from exeat.app.noticing import Noticing, Sources
from exeat.app.settings import Settings
from exeat.app.vault import ENV, HomeVault
from exeat.approvals.model.standing import Standing
from exeat.approvals.rules.messages import read_secret
from exeat.approvals.service.approvals import Approvals
from exeat.core.errors import Invalid, NotFound
from exeat.storage.state import State
from exeat.web.attempts import Attempts

FAILURES_PER_MINUTE: Final = 20


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """``endpoint`` None: no secret is set, so no signed answer can be one.  ``standing``: blocks."""

    approvals: Approvals
    endpoint: Endpoint | None
    noticing: Noticing
    standing: Callable[[], Standing]


def open_held_calls(
    settings: Settings, state: State, vault: HomeVault, clock: Callable[[], int] = time.time_ns
) -> HeldCalls:
    """Raises Invalid if settings do not fit together."""
    if settings.approval_webhook_url and not settings.approval_webhook_secret:
        raise Invalid(
            "setting 'approval_webhook_url': a webhook is signed, and there is no secret",
            remedy="set approval_webhook_secret: a secret of the vault, or env:VARIABLE",
        )
    approvals = open_approvals(state, vault)
    secret = webhook_secret(settings, vault)

    def standing() -> Standing:
        return standing_now(state)

    endpoint = None
    if settings.approval_webhook_secret:
        failures = Attempts(FAILURES_PER_MINUTE, 60, clock)
        endpoint = Endpoint(approvals, secret, standing, clock, failures)
    targets = Targets(settings.approval_webhook_url or "", settings.approval_notifier_url or "")
    poster = Poster(make_fetcher(settings), targets) if targets.names else None
    sources = Sources(secret, standing, clock)
    noticing = Noticing(approvals, state.leases, poster, sources)
    return HeldCalls(approvals, endpoint, noticing, standing)


def webhook_secret(
    settings: Settings, vault: HomeVault, environ: Mapping[str, str] = os.environ
) -> Callable[[], bytes]:
    """Reads it anew each time, so that a new one counts at once.  What is returned blocks, and raises
    NotFound, Invalid, VaultFailed."""
    named = settings.approval_webhook_secret or ""

    def read() -> bytes:
        if not named:
            raise NotFound(
                "No secret for the approval webhook is set.",
                remedy="Set approval_webhook_secret: a secret of the vault, or env:VARIABLE.",
            )
        if named.startswith(ENV):
            return read_secret(environ.get(named.removeprefix(ENV), "").encode())
        return read_secret(vault.find("", "", named).strip())

    return read

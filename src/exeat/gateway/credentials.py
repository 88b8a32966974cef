"""Bearer keys of agents: who is calling, checked on every request."""

import hashlib
from typing import Final

from exeat.core.request import Caller
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.ports import View

CACHED_MAX: Final = 10_000
_SCHEME: Final = "bearer "


class Credentials:
    """Keys that were verified are remembered only as long as the view in which they were found; the
    end of a key's life is checked on every use."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._view: View | None = None
        self._known: dict[str, tuple[Caller, int]] = {}

    def caller(self, header: str | None, now: int) -> Caller | None:
        """The agent (and user) behind an Authorization header; None if there is none.  ``now`` in
        nanoseconds since the epoch."""
        if header is None:
            return None
        view = self._pipeline.state.view
        if view is not self._view:
            self._view = view
            self._known.clear()
        known = self._known.get(header)
        if known is None:
            known = self._look_up(view, header)
            if known is None:
                return None
            if len(self._known) >= CACHED_MAX:
                self._known.clear()
            self._known[header] = known
        return known[0] if known[1] > now else None

    def _look_up(self, view: View, header: str) -> tuple[Caller, int] | None:
        if header[: len(_SCHEME)].lower() != _SCHEME:
            return None
        key = header[len(_SCHEME) :].strip()
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        snapshot = view.snapshot
        credential = snapshot.credentials.get(digest)
        if credential is None:
            return None
        agent = snapshot.agents.get(credential.agent)
        if agent is None:
            return None
        user = None
        if credential.user is not None:
            user = snapshot.people.get(credential.user)
            if user is None:
                return None
        return Caller(agent, user, credential.id), credential.expires_at

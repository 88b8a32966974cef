"""Log messages that name no call, of a server whose results policy has redacted.

A server may say in its log what it answered, before or after the answer, and nobody can tell of which call a
line is.  So whoever had results of a server redacted has its log redacted in the same way from then on.
"""

from typing import Final

from exeat.core.ids import ServerId
from exeat.core.obligations import OnResult
from exeat.gateway.redaction.filter import ResultFilter

KEPT_MAX: Final = 10_000
"""Beyond, no log message of any other passes."""
LOG: Final = "notifications/message"


class Afterwards:
    """Of one gateway, by principal and server."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, ServerId], OnResult] = {}

    def redacted(self, principal: str, server: ServerId, asked: OnResult) -> None:
        """Results of this server are redacted so for this principal."""
        key = (principal, server)
        known = self._of.get(key)
        if known is None and len(self._of) < KEPT_MAX:
            self._of[key] = OnResult(asked.detectors, asked.fields)
        elif known is not None and not (
            asked.detectors <= known.detectors and set(asked.fields) <= set(known.fields)
        ):
            fields = dict.fromkeys((*known.fields, *asked.fields))
            self._of[key] = OnResult(known.detectors | asked.detectors, tuple(fields))

    def clean(self, principal: str, server: ServerId, method: str, params: bytes) -> bytes | None:
        """The parameters of a notification as they may pass; None: they may not."""
        if method != LOG:
            return params
        found = self._of.get((principal, server))
        if found is None:
            return params if len(self._of) < KEPT_MAX else None
        return ResultFilter(found, None, "").notification(method, params) if found else params

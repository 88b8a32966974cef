"""What a person is shown of a consent to an upstream, and the refusal of one (ID-9)."""

from dataclasses import dataclass

from exeat.core.errors import ExeatError


class ConsentRefused(ExeatError):
    """The link or answer is not this person's, is over, or was never given out."""

    code, http_status, rpc_code = "consent_refused", 403, -31507


@dataclass(frozen=True, slots=True)
class ConsentShown:
    """Before anything happens.  ``origin``: of the page that the browser is sent to."""

    server: str
    agent: str
    origin: str
    scopes: tuple[str, ...]

"""Parameters of requests: each at most once (RFC 6749 3.1), of bounded length."""

from collections.abc import Iterable, Mapping
from typing import Final

from exeat.identity.authorization.model.refusal import Refused

VALUE_MAX_CHARS: Final = 8192


def only_once(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Parameters without a value count as not sent.  Raises Refused (``invalid_request``)."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise Refused("invalid_request", "A parameter was sent twice.")
        if len(value) > VALUE_MAX_CHARS or "\x00" in value:
            raise Refused("invalid_request", "A parameter is too long or holds a NUL.")
        seen.add(name)
        if value:
            found[name] = value
    return found


def need(given: Mapping[str, str], name: str) -> str:
    """Raises Refused (``invalid_request``) if it is missing."""
    if not given.get(name):
        raise Refused("invalid_request", f"The parameter {name} is missing.")
    return given[name]

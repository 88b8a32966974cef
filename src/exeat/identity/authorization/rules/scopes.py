"""Scopes: one per effect that a tool can have on the world, and what each means to a person."""

from collections.abc import Iterable, Mapping
from typing import Final

from exeat.core.facts import Effect
from exeat.identity.authorization.model.refusal import Refused

WORDS: Final[Mapping[str, str]] = {
    f"mcp:{Effect.READ}": "look things up",
    f"mcp:{Effect.WRITE}": "create and change things",
    f"mcp:{Effect.DELETE}": "delete things",
    f"mcp:{Effect.EXECUTE}": "run programs and tools of unknown effect",
    f"mcp:{Effect.SEND}": "send messages and data to others",
    f"mcp:{Effect.PAY}": "pay and order",
}
SCOPES: Final = tuple(WORDS)
LEAST: Final = (SCOPES[0],)
"""RFC 6749 3.3: what a client gets that asks for no scope."""
_NOT_OF_RESOURCES: Final = frozenset({"offline_access", "openid", "profile", "email"})
"""Asked for by clients out of habit; whether there is a refresh token is ours to say."""


def read_scopes(text: str) -> tuple[str, ...]:
    """In our own order.  Raises Refused (``invalid_scope``) if one of them is not ours."""
    asked = [scope for scope in text.split(" ") if scope and scope not in _NOT_OF_RESOURCES]
    for scope in asked:
        if scope not in WORDS:
            raise Refused("invalid_scope", "A scope that was asked for does not exist here.")
    return in_order(asked) or LEAST


def in_order(scopes: Iterable[str]) -> tuple[str, ...]:
    wanted = frozenset(scopes)
    return tuple(scope for scope in SCOPES if scope in wanted)


def narrowed(granted: tuple[str, ...], text: str) -> tuple[str, ...]:
    """RFC 6749 6: what is asked for now, never more than was granted.  Nothing asked: all of it."""
    if not text.strip():
        return granted
    asked = read_scopes(text)
    if not set(asked) <= set(granted):
        raise Refused("invalid_scope", "More scope is asked for than was granted.")
    return asked

"""A proposal of what a tool does, from its name, annotations and schema.  Only a proposal.

Annotations are claims of the server (MCP: clients MUST consider them untrusted).
A hint can make a proposal more cautious at any time, less cautious only where the name agrees.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.controls import Order
from exeat.core.errors import Invalid
from exeat.core.facts import Effect, Sink
from exeat.registry.model.tool import Profile

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_EFFECT_WORDS: Final = (
    (Effect.PAY, {"pay", "payment", "charge", "transfer", "refund", "purchase", "buy", "invoice"}),
    (
        Effect.EXECUTE,
        {"exec", "execute", "run", "eval", "shell", "bash", "command", "script", "deploy", "sql"},
    ),
    (
        Effect.DELETE,
        {
            "delete",
            "remove",
            "drop",
            "purge",
            "destroy",
            "erase",
            "truncate",
            "rm",
            "wipe",
            "reset",
        },
    ),
    (
        Effect.SEND,
        {"send", "email", "mail", "post", "publish", "notify", "message", "share", "push"},
    ),
    (
        Effect.WRITE,
        {
            "write",
            "create",
            "update",
            "set",
            "add",
            "edit",
            "insert",
            "save",
            "put",
            "patch",
            "move",
        }
        | {"rename", "commit", "checkout", "merge", "branch", "init", "upload", "append", "assign"},
    ),
    (
        Effect.READ,
        {"get", "list", "read", "search", "find", "show", "view", "query", "fetch", "status", "log"}
        | {"diff", "describe", "count", "lookup", "convert", "calculate", "browse", "head", "time"},
    ),
)
"""The most consequential first: ``run_query`` executes, ``read_and_delete`` deletes."""
_OUTWARD: Final = {
    "url",
    "uri",
    "host",
    "endpoint",
    "webhook",
    "recipient",
    "email",
    "to",
    "channel",
}
_PUBLIC: Final = {"publish", "tweet", "public"}


@dataclass(frozen=True, slots=True)
class Proposal:
    """``because``: the observations that led to it, in words."""

    profile: Profile
    because: tuple[str, ...]


def propose(body: Mapping[str, Any]) -> Proposal:
    """Effect, sink and reversibility as the definition suggests; cautious where it is silent."""
    words = _words(str(body.get("name", "")))
    hints = body.get("annotations")
    hints = hints if isinstance(hints, Mapping) else {}
    effect, because = _effect(words, hints)
    sink, why = _sink(words, hints, effect, _parameters(body))
    reversible = effect is Effect.READ
    return Proposal(Profile(effect, sink, reversible), (*because, why))


def _effect(words: list[str], hints: Mapping[str, Any]) -> tuple[Effect, tuple[str, ...]]:
    named = next((e for e, known in _EFFECT_WORDS if known.intersection(words)), None)
    if named is None:
        return Effect.EXECUTE, ("the name says nothing known, so it counts as execute",)
    because = (f"the name says {named.value}",)
    if named is Effect.READ and hints.get("readOnlyHint") is False:
        return Effect.WRITE, (*because, "but the server says it is not read-only")
    if named is Effect.WRITE and hints.get("destructiveHint") is True:
        return Effect.DELETE, (*because, "and the server says it may destroy")
    return named, because


def _sink(
    words: list[str], hints: Mapping[str, Any], effect: Effect, parameters: set[str]
) -> tuple[Sink, str]:
    if _PUBLIC.intersection(words):
        return Sink.PUBLIC, "the name says that it publishes"
    if effect in (Effect.SEND, Effect.PAY, Effect.EXECUTE):
        return Sink.EXTERNAL, f"what it is passed could leave, as with every {effect.value}"
    if outward := sorted(_OUTWARD & parameters):
        return Sink.EXTERNAL, f"its parameter {outward[0]} may point outwards"
    if hints.get("openWorldHint") is False:
        return (
            Sink.INTERNAL,
            "the server says it works in a closed world, and no parameter disagrees",
        )
    return Sink.EXTERNAL, "nothing says that what it is passed stays inside"


def _parameters(body: Mapping[str, Any]) -> set[str]:
    schema = body.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return set()
    return {word for name in properties for word in _words(str(name))}


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def read_monotone(pairs: Mapping[str, str]) -> tuple[tuple[str, Order], ...]:
    """``limit=less``, as a person writes it.  Raises Invalid."""
    found = []
    for name, order in sorted(pairs.items()):
        if order not in set(Order):
            raise Invalid(
                f"{order!r} is no order of the argument {name!r}.",
                remedy=f"Write one of: {', '.join(Order)}.",
            )
        found.append((name, Order(order)))
    return tuple(found)


def check_monotone(profile: Profile, body: Mapping[str, Any]) -> None:
    """Only arguments that the tool has, of a type that has that order, of a tool whose calls may be made
    smaller without asking (POL-9).  Raises Invalid."""
    if profile.monotone and profile.effect in (Effect.PAY, Effect.SEND, Effect.DELETE):
        raise Invalid(
            f"A tool that can {profile.effect.value} is never narrowed: less of it is another act.",
            remedy="Let a policy hold the call instead.",
        )
    schema = body.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, order in profile.monotone:
        known = properties.get(name) if isinstance(properties, Mapping) else None
        if not isinstance(known, Mapping):
            raise Invalid(f"The tool has no argument {name!r}.", remedy="Check the spelling.")
        kind = known.get("type")
        if kind not in _ORDERED[order]:
            raise Invalid(
                f"The argument {name!r} is of type {kind!r}, which has no order {order.value!r}.",
                remedy=f"That order is for: {', '.join(sorted(_ORDERED[order]))}.",
            )


_ORDERED: Final[Mapping[Order, frozenset[str]]] = {
    Order.LESS: frozenset({"integer", "number"}),
    Order.BELOW: frozenset({"string"}),
    Order.SUBSET: frozenset({"array"}),
    Order.FLAG: frozenset({"boolean"}),
}

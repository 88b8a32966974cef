"""What an unregistered agent would be registered as: proposed from what it is called and tried (ID-5)."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from exeat.core.facts import Effect
from exeat.core.ids import ServerId
from exeat.registry.model.agent import Scope
from exeat.registry.model.stranger import Stranger
from exeat.registry.model.tool import Tool

_NOT_SLUG = re.compile(r"[^a-z0-9._-]+")
_NAME_MAX_CHARS = 63


def proposed_name(stranger: Stranger) -> str:
    """From the host of a product's client id, or the client id itself, and the user."""
    host = urlsplit(stranger.client).hostname if "://" in stranger.client else None
    said = f"{host or stranger.client}{f'-{stranger.user}' if stranger.user else ''}".lower()
    name = _NOT_SLUG.sub("-", said).strip("-._")[:_NAME_MAX_CHARS]
    return name or stranger.id.partition(":")[2]


def proposed_scope(
    stranger: Stranger, servers: Iterable[ServerId], tools: Mapping[str, Tool]
) -> Scope:
    """The registered servers that it tried, and the effects of the tools it tried: as a person confirmed
    them, else the worst (EXECUTE).  It is a proposal; its owner has to accept it."""
    known = stranger.servers & frozenset(servers)
    effects = {Effect.READ}
    for action in stranger.tried:
        tool = tools.get(action)
        if tool is not None:
            effects.add(Effect.EXECUTE if tool.profile is None else tool.profile.effect)
    return Scope(frozenset(map(ServerId, known)), frozenset(effects))

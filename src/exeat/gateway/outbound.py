"""A client's decided request in the era of the link that carries it (GW-4).  Pure."""

from collections.abc import Mapping
from typing import Any, Final

from exeat import __version__
from exeat.gateway.inbound import Params, Request, RequestId
from exeat.gateway.link import Outbound
from exeat.gateway.methods import (
    META_CAPABILITIES,
    META_CLIENT,
    META_FORWARDED,
    META_LOG_LEVEL,
    META_VERSION,
    MODERN_VERSIONS,
    Era,
    askable,
)

CLIENT_INFO: Final = {"name": "exeat", "title": "exeat gateway", "version": __version__}


def envelope(capabilities: Mapping[str, Any], client: Any = None) -> Params:
    """The modern ``_meta`` members that every request carries."""
    return {
        META_VERSION: MODERN_VERSIONS[-1],
        META_CAPABILITIES: dict(capabilities),
        META_CLIENT: client if isinstance(client, dict) else CLIENT_INFO,
    }


def own_request(era: Era, request_id: RequestId, method: str, params: Params) -> Outbound:
    """A request of the gateway itself: probe, handshake, list."""
    if era is Era.MODERN:
        params = {**params, "_meta": envelope({})}
    return Outbound(request_id, method, params)


def translate(
    request: Request,
    era: Era,
    target: str,
    offers: Mapping[str, Any] | None = None,
    log_level: str = "",
) -> Outbound:
    """``target``: the name or URI at the upstream, which may differ from the client's.  ``offers``: what
    a legacy client may be asked for.  ``log_level``: what it wants to be told of, or empty."""
    given = request.meta
    meta = {key: given[key] for key in given if key in META_FORWARDED} if given else {}
    if era is Era.MODERN:
        modern = request.era is Era.MODERN
        client = given.get(META_CLIENT) if modern else None
        meta[META_VERSION] = MODERN_VERSIONS[-1]
        meta[META_CAPABILITIES] = given.get(META_CAPABILITIES, {}) if modern else askable(offers)
        if log_level and not modern:
            meta[META_LOG_LEVEL] = log_level
        meta[META_CLIENT] = client if type(client) is dict else CLIENT_INFO
    params = {**request.params, "_meta": meta} if meta else request.params
    return Outbound(request.id, request.method, params, target)

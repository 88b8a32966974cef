"""File descriptors: as many as the system grants, and never more clients than fit into them."""

import resource
from typing import Final

import structlog

from exeat.app.settings import Settings

_log = structlog.get_logger("exeat.descriptors")
RESERVED: Final = 128
"""For the state, the ledger, listeners and the pipes of stdio servers."""


def fitted(settings: Settings) -> Settings:
    """Raise the limit as far as needed and allowed.  A third of what is left is for upstreams; if
    ``connections_max`` does not fit into the rest, fewer clients are served and the log says so: a
    gateway without descriptors could neither accept nor reach a server (GW-14)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections_max * 3 // 2 + RESERVED
    limit = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    fit = max(8, -(-(limit - RESERVED) * 2 // 3))
    if soft == resource.RLIM_INFINITY:
        return settings
    if fit >= settings.connections_max:
        return settings
    _log.warning(
        "fewer connections than connections_max are served: the system grants too few files",
        connections_max=settings.connections_max, served=fit, files=limit,
        next="raise the limit of open files (ulimit -n, LimitNOFILE=) or lower connections_max",
    )  # fmt: skip
    return settings.model_copy(update={"connections_max": fit})

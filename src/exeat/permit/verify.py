"""Does this permit allow exactly this call, here, now, once? (ID-11)"""

import time
from collections.abc import Mapping
from typing import Any, Final

from exeat.permit.canonical import NotCanonical, digest
from exeat.permit.keys import Keys
from exeat.permit.seen import Seen
from exeat.permit.token import Permit, PermitRefused, Refusal, read

META_KEY: Final = "exeat/permit"
"""Member of ``params._meta`` that carries the permit where there is no HTTP."""
LEEWAY_S: Final = 2.0
"""How far the clocks of gateway and server may differ."""
_OWN: Final = frozenset({"name", "arguments", "_meta"})
_NOTHING: Final[Mapping[str, Any]] = {}


def verify(  # noqa: PLR0913 - one for each thing that must hold
    permit: str,
    *,
    keys: Keys,
    audience: str,
    tool: str,
    arguments: Mapping[str, Any],
    seen: Seen,
    definition: str | None = None,
    beside: Mapping[str, Any] = _NOTHING,
    now: float | None = None,
    leeway_s: float = LEEWAY_S,
) -> Permit:
    """The permit, used up; raises PermitRefused at the first of these that does not hold:

    1. it is a permit, signed by one of ``keys`` (``load_keys``)
    2. it is for ``audience``: what the server is registered with at the gateway
    3. it is valid at ``now`` (seconds since the epoch; the clock if not given), give or take the leeway
    4. it is for ``tool``, and for its ``definition`` (``definition_digest``) if that is given
    5. it is for exactly these ``arguments``, as they came, and members ``beside`` them
    6. it was not used before, as far as ``seen`` knows: one for the whole process
    """
    found = read(permit, keys)
    if found.audience != audience:
        raise PermitRefused(Refusal.AUDIENCE, "The permit is for another server.")
    at = time.time() if now is None else now
    if found.issued_at > at + leeway_s:
        raise PermitRefused(Refusal.NOT_YET_VALID, "The permit is not valid yet.")
    if found.expires_at <= at - leeway_s:
        raise PermitRefused(Refusal.EXPIRED, "The permit has expired.")
    if found.tool != tool:
        raise PermitRefused(Refusal.TOOL, "The permit is for another tool.")
    if definition is not None and found.definition != definition:
        raise PermitRefused(
            Refusal.DEFINITION, "The permit is for another definition of this tool."
        )
    try:
        same = found.arguments == digest(arguments)
        same = same and found.beside == (digest(beside) if beside else "")
    except NotCanonical:
        raise PermitRefused(Refusal.MALFORMED, "The arguments are not JSON.") from None
    if not same:
        raise PermitRefused(Refusal.ARGUMENTS, "The permit is for other arguments.")
    if used := seen.use(found.id, found.expires_at + leeway_s, at):
        says = (
            "The permit was used before." if used == "replayed" else "Too many permits are in use."
        )
        raise PermitRefused(Refusal(used), says)
    return found


def verify_call(
    params: Mapping[str, Any],
    *,
    keys: Keys,
    audience: str,
    seen: Seen,
    permit: str | None = None,
    definition: str | None = None,
    now: float | None = None,
    leeway_s: float = LEEWAY_S,
) -> Permit:
    """``verify`` for the params of a tools/call, as they came.  ``permit`` None: it is in their ``_meta``."""
    meta, tool, arguments = params.get("_meta"), params.get("name"), params.get("arguments")
    if permit is None:
        permit = meta.get(META_KEY) if isinstance(meta, Mapping) else None
    if type(permit) is not str:
        raise PermitRefused(Refusal.MISSING, "The call has no permit.")
    if type(tool) is not str or not (arguments is None or isinstance(arguments, Mapping)):
        raise PermitRefused(Refusal.MALFORMED, "The call has no tool, or no arguments.")
    return verify(
        permit,
        keys=keys,
        audience=audience,
        tool=tool,
        arguments={} if arguments is None else arguments,
        beside={name: value for name, value in params.items() if name not in _OWN},
        seen=seen,
        definition=definition,
        now=now,
        leeway_s=leeway_s,
    )

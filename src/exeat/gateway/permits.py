"""The signed permit that leaves with a tools/call where the server demands one (ID-11).

Made after the decision is durable, of what leaves: a signature costs tens of microseconds, so only such
servers pay for it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.core.request import AccessRequest
from exeat.permit.canonical import NotCanonical, digest
from exeat.permit.token import Permit, Signer

PERMIT_LIFE_S: Final = 10
ID_BYTES: Final = 16
_OWN: Final = frozenset({"name", "arguments", "_meta"})
_SECOND_NS: Final = 1_000_000_000


class Permits:
    """``issuer``: name of the gateway's log.  ``life_s``: how long a permit holds."""

    def __init__(
        self,
        signer: Signer,
        issuer: str,
        life_s: int,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._signer, self._issuer, self._life_s = signer, issuer, life_s
        self._clock, self._random = clock, random

    def sign(
        self,
        access: AccessRequest,
        audience: str,
        decision: str,
        run: str,
        params: Mapping[str, Any],
    ) -> str:
        """``params``: of the tools/call, as they leave.  Raises Invalid if nobody could check them."""
        now = self._clock() // _SECOND_NS
        caller, arguments = access.caller, params.get("arguments")
        beside = {name: value for name, value in params.items() if name not in _OWN}
        try:
            bound = digest({} if arguments is None else arguments)
            bound_beside = digest(beside) if beside else ""
        except NotCanonical as error:
            raise Invalid(f"the call cannot be bound to a permit: {error}") from None
        return self._signer.sign(
            Permit(
                id=self._random(ID_BYTES).hex(),
                issuer=self._issuer,
                audience=audience,
                agent=caller.agent.id,
                user="" if caller.user is None else caller.user.id,
                run=run,
                decision=decision,
                tool=str(params.get("name", "")),
                definition="" if access.tool is None else access.tool.pin,
                arguments=bound,
                beside=bound_beside,
                issued_at=now,
                expires_at=now + self._life_s,
            )
        )

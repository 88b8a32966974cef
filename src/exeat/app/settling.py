"""After a change that somebody made here: wait until gateways decide by it, so that who just chose an
agent, or revoked a token, meets no gateway that has not heard of it."""

import asyncio
from typing import Final

from exeat.app.live import Live
from exeat.storage.state import State

LOOK_EVERY_S: Final = 0.02
WAIT_MAX_S: Final = 2.0


class Settling:
    """``others_s``: how long gateways beside this one may take to look; 0: there are none."""

    def __init__(self, live: Live, state: State, others_s: float) -> None:
        self._live, self._state, self._others_s = live, state, others_s

    async def __call__(self) -> None:
        """Returns after WAIT_MAX_S in any case: the change holds, and is seen at the next poll."""
        wanted = await asyncio.to_thread(self._state.epoch)
        self._live.hint()
        waited = 0.0
        while self._live.view.snapshot.epoch < wanted and waited < WAIT_MAX_S:
            await asyncio.sleep(LOOK_EVERY_S)
            waited += LOOK_EVERY_S
        await asyncio.sleep(max(self._others_s - waited, 0))

"""What unregistered agents tried, kept for a person to see and adopt (ID-5)."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from exeat.core.errors import ExeatError
from exeat.core.request import AccessRequest
from exeat.registry.model.act import EXEAT, Act
from exeat.registry.model.stranger import TRIED_MAX, Stranger
from exeat.registry.service import Registry
from exeat.registry.store import RegistryStore

_log = structlog.get_logger("exeat.strangers")
WRITE_EVERY_S: Final = 1.0
HELD_MAX: Final = 1_000
"""Strangers met between two writings; further ones are on record as denials, like all."""


class Strangers:
    """Gathered in memory, written off the loop together."""

    def __init__(self, store: RegistryStore, loop: asyncio.AbstractEventLoop) -> None:
        self._registry = Registry(store, _no_randomness)
        self._loop = loop
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-strangers")
        self._held: dict[str, Stranger] = {}
        self._writing: asyncio.Task[None] | None = None

    def met(self, request: AccessRequest) -> None:
        caller, token = request.caller, request.caller.token
        if token is None:
            return
        tried = (
            request.action if request.tool is not None else f"{request.server.id} {request.method}"
        )
        user = caller.user.id if caller.user is not None and caller.user.live else None
        seen = Stranger(
            caller.agent.id,
            token.issuer,
            token.client,
            user,
            request.now,
            request.now,
            1,
            frozenset({tried[:200]}),
        )
        before = self._held.get(seen.id)
        if before is not None and len(before.tried) < TRIED_MAX:
            seen = before.again(seen)
        elif before is None and len(self._held) >= HELD_MAX:
            return
        self._held[seen.id] = seen
        if self._writing is None:
            self._writing = self._loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._held:
                await asyncio.sleep(WRITE_EVERY_S)
                await self._flush()
        finally:
            self._writing = None

    async def _flush(self) -> None:
        held, self._held = self._held, {}
        if not held:
            return
        act = Act(EXEAT, "gateway", "called the gateway", time.time_ns())
        try:
            await self._loop.run_in_executor(
                self._thread, self._registry.saw_strangers, list(held.values()), act
            )
        except ExeatError as error:
            _log.warning("unregistered agents were not kept", why=str(error))

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._flush()
        self._thread.shutdown(wait=True)


def _no_randomness(size: int) -> bytes:
    raise AssertionError("seeing somebody draws nothing")

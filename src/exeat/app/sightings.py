"""What servers show, kept for a person to see where it is not what is known of them (REG-6)."""

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from exeat.core.errors import ExeatError
from exeat.core.facts import PinState, ToolFacts
from exeat.core.ids import ActionId, ServerId
from exeat.registry.model.act import EXEAT, Act
from exeat.registry.service import Registry
from exeat.registry.store import RegistryStore

_log = structlog.get_logger("exeat.sightings")


class Sightings:
    """Compared at once in memory; news is written off the loop, one listing of a server after the
    other.  While one is being written, the latest that comes waits for it.

    ``tools``: as the state in force knows them; it may lag behind what was written.
    """

    def __init__(
        self,
        store: RegistryStore,
        loop: asyncio.AbstractEventLoop,
        tools: Callable[[], Mapping[ActionId, ToolFacts]],
    ) -> None:
        self._registry = Registry(store, _no_randomness)
        self._loop, self._tools = loop, tools
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="exeat-sightings")
        self._latest: dict[ServerId, list[dict[str, Any]]] = {}
        self._written: dict[ServerId, dict[str, str]] = {}
        self._writing: dict[ServerId, asyncio.Task[None]] = {}

    def saw(
        self, server: ServerId, definitions: list[dict[str, Any]], found: Mapping[str, str]
    ) -> None:
        """The whole list of a server, or a page of it.  ``found``: digests by name."""
        if self._news(server, found):
            self._latest[server] = definitions
            if server not in self._writing:
                self._writing[server] = self._loop.create_task(self._write(server))

    def _news(self, server: ServerId, found: Mapping[str, str]) -> bool:
        """Unknown, not what was written last, or at odds with the pin's state: a definition that is
        the pinned one again is news as well, since until it is known the tool stays stopped."""
        known = {tool.name: tool for tool in self._tools().values() if tool.server == server}
        written = self._written.setdefault(server, {})

        def news(name: str, digest: str) -> bool:
            tool = known.get(name)
            if tool is None or written.get(name, tool.pin) != digest:
                return True
            return (digest == tool.pin) != (tool.state is PinState.PINNED)

        if not any(news(name, digest) for name, digest in found.items()):
            return False
        written.update((name, digest) for name, digest in found.items() if name in known)
        return True

    async def _write(self, server: ServerId) -> None:
        try:
            while (definitions := self._latest.pop(server, None)) is not None:
                act = Act(EXEAT, "gateway", "seen at the server", time.time_ns())
                await self._loop.run_in_executor(
                    self._thread, self._registry.observe_definitions, server, definitions, act
                )
        except ExeatError as error:
            self._latest.pop(server, None)
            self._written.pop(server, None)  # the next listing is news again
            _log.warning("observed definitions were not kept", server=server, why=str(error))
        finally:
            del self._writing[server]

    async def close(self) -> None:
        await asyncio.gather(*self._writing.values(), return_exceptions=True)
        self._thread.shutdown(wait=True)


def _no_randomness(size: int) -> bytes:
    raise AssertionError("observing definitions draws nothing")

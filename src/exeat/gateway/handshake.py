"""Probing a server's era, the legacy handshake, and fetching whole lists (GW-4).

Modern first: a ``server/discover`` that answers with a modern version, or a refusal that only a
modern server gives, is modern; anything else is met with ``initialize``.  A server on stdio that is
silent may only be starting: its ``initialize`` is sent beside the probe, whose answer still counts.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from exeat.core.errors import UpstreamFailed
from exeat.core.limits import LIST_RESULT_MAX_BYTES
from exeat.core.strictjson import MalformedJson, parse
from exeat.gateway.inbound import HEADER_MISMATCH, UNSUPPORTED_VERSION
from exeat.gateway.link import Handle, Link, Outbound
from exeat.gateway.link_http import Collector, LegacyHttpLink
from exeat.gateway.link_stdio import StdioLink
from exeat.gateway.methods import LEGACY_LATEST, LEGACY_VERSIONS, MODERN_VERSIONS, Era
from exeat.gateway.origin import CLOSED
from exeat.gateway.outbound import CLIENT_INFO, own_request

PROBE_MAX_S: Final = 5.0
HANDSHAKE_MAX_S: Final = 20.0
LIST_MAX_S: Final = 30.0
PAGES_MAX: Final = 100
ITEMS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A link that is ready, and what the server said of itself."""

    link: Link
    about: dict[str, Any]


class UpstreamError(UpstreamFailed):
    """The upstream answered with a JSON-RPC error.  ``error``: its body."""

    def __init__(self, message: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.error = error


async def ask(
    link: Link, loop: asyncio.AbstractEventLoop, outbound: Outbound, seconds: float
) -> dict[str, Any]:
    """One request, strictly parsed result.  Raises UpstreamFailed (UpstreamError for errors)."""
    outbound.result_max_bytes = LIST_RESULT_MAX_BYTES
    kind, data = await _twice(
        loop, lambda collector: link.call(outbound, collector), outbound.method, seconds
    )
    if kind == "failed":
        raise UpstreamFailed(data.decode("utf-8", "replace"))
    value = read_object(data, outbound.method)
    if kind == "error":
        message = value.get("message")
        raise UpstreamError(f"refused {outbound.method}: {message}", value)
    return value


async def _twice(
    loop: asyncio.AbstractEventLoop,
    start: Callable[[Collector], Handle],
    method: str,
    seconds: float,
) -> tuple[str, bytes]:
    """Ask, and once more if the connection was closed under the question: a server may end a
    connection that it thinks idle at any time, and a question of our own does nothing.  (An agent's
    call is never sent twice, GW-11.)"""
    for attempt in range(2):
        collector = Collector(loop)
        handle = start(collector)
        try:
            async with asyncio.timeout(seconds):
                kind, data = await collector.future
        except TimeoutError:
            handle.cancel()
            raise UpstreamFailed(f"did not answer {method} within {seconds:g} s") from None
        except asyncio.CancelledError:
            handle.cancel()
            raise
        if kind != "failed" or data != CLOSED.encode() or attempt:
            break
    return kind, data


def read_object(data: bytes, what: str) -> dict[str, Any]:
    """Raises UpstreamFailed."""
    try:
        value = parse(data)
    except MalformedJson as broken:
        raise UpstreamFailed(f"answered {what} with nonsense ({broken})") from None
    if not isinstance(value, dict):
        raise UpstreamFailed(f"answered {what} with something that is not an object")
    return value


async def discover(
    link: Link, loop: asyncio.AbstractEventLoop, starting_s: float = 0.0
) -> dict[str, Any] | None:
    """What a modern server says of itself; None if the server is legacy.  ``starting_s``: how much
    longer it may be silent.  Raises UpstreamFailed if it cannot be reached at all."""
    probe = own_request(Era.MODERN, "exeat-probe", "server/discover", {})
    try:
        about = await ask(link, loop, probe, PROBE_MAX_S + starting_s)
    except UpstreamError as refusal:
        if refusal.error.get("code") in (UNSUPPORTED_VERSION, HEADER_MISMATCH):
            data = refusal.error.get("data")
            supported = data.get("supported") if isinstance(data, dict) else None
            legacy = isinstance(supported, list) and any(v in LEGACY_VERSIONS for v in supported)
            if not legacy:
                raise
        return None
    except UpstreamFailed as failure:
        if not link.usable or "cannot be reached" in str(failure) or "accept" in str(failure):
            raise
        return None
    versions = about.get("supportedVersions")
    if isinstance(versions, list) and any(version in MODERN_VERSIONS for version in versions):
        return about
    return None


async def initialize(
    link: Link,
    loop: asyncio.AbstractEventLoop,
    capabilities: Mapping[str, Any],
    client: Any,
    version: str,
) -> dict[str, Any] | None:
    """The legacy handshake (2025-11-25, Lifecycle).  None if the server refuses it."""
    params = {
        "protocolVersion": version or LEGACY_LATEST,
        "capabilities": dict(capabilities),
        "clientInfo": client if isinstance(client, dict) else CLIENT_INFO,
    }
    session: list[str] = []

    def start(collector: Collector) -> Handle:
        session.clear()
        if not isinstance(link, LegacyHttpLink):
            return link.call(Outbound(0, "initialize", params), collector)
        return link.opening(
            Outbound(0, "initialize", params),
            collector,
            lambda head: session.append(head.fields.get("mcp-session-id", "")),
        )

    kind, data = await _twice(loop, start, "initialize", HANDSHAKE_MAX_S)
    if kind == "failed":
        raise UpstreamFailed(data.decode("utf-8", "replace"))
    if kind == "error":
        return None
    about = read_object(data, "initialize")
    chosen = about.get("protocolVersion")
    if chosen not in LEGACY_VERSIONS:
        raise UpstreamFailed(f"chose the unknown protocol version {str(chosen)[:40]!r}")
    if isinstance(link, LegacyHttpLink):
        link.opened(session[-1] if session else "", str(chosen))
    link.notify("notifications/initialized", {})
    return about


async def greet(
    link: StdioLink, loop: asyncio.AbstractEventLoop, capabilities: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The handshake with a process just started: the first that succeeds gives the link its era.

    Until PROBE_MAX_S only the probe waits; then both do, for a silent server either ignores the
    probe (legacy) or has not read it yet.  None if both are refused.  Raises UpstreamFailed.
    """
    probe = loop.create_task(discover(link, loop, HANDSHAKE_MAX_S))
    tasks = [probe]
    try:
        await asyncio.wait({probe}, timeout=PROBE_MAX_S)
        if not probe.done() or probe.result() is None:
            tasks.append(loop.create_task(initialize(link, loop, capabilities, None, "")))
        waiting = set(tasks)
        while waiting:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in tasks if each in waiting and each.done()]:
                waiting.remove(task)
                about = task.result()
                if about is not None:
                    link.era = Era.MODERN if task is probe else Era.LEGACY
                    return about
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def fetch_all(
    link: Link, loop: asyncio.AbstractEventLoop, method: str, key: str
) -> list[dict[str, Any]]:
    """Every page of a list; empty if the server does not serve the method.  Raises UpstreamFailed."""
    items: list[dict[str, Any]] = []
    cursor: str | None = None
    seen: set[str] = set()
    for page in range(PAGES_MAX):
        params = {"cursor": cursor} if cursor is not None else {}
        outbound = own_request(link.era, f"exeat-{method}-{page}", method, params)
        try:
            result = await ask(link, loop, outbound, LIST_MAX_S)
        except UpstreamError as refusal:
            if refusal.error.get("code") == -32601 and page == 0:
                return []
            raise
        listed = result.get(key)
        if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
            raise UpstreamFailed(f"answered {method} without a list of {key}")
        items.extend(listed)
        cursor = result.get("nextCursor")
        if cursor is None:
            return items
        if not isinstance(cursor, str) or cursor in seen or len(items) > ITEMS_MAX:
            break
        seen.add(cursor)
    raise UpstreamFailed(f"pages {method} without end")

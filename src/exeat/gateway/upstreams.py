"""The upstream servers: which era each speaks, its links, and what definitions it shows.

Before the first action on a server the gateway probes its era and lists its tools, so that pins are
compared with what the server shows now (REG-6).  Probes, handshakes and the start of a stdio server
precede actions; they are recorded as events (GW-1).
"""

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from exeat.core.errors import UpstreamFailed
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.gateway.guarded import NoCredentials
from exeat.gateway.handshake import Opened, discover, fetch_all, greet, initialize
from exeat.gateway.http_links import HttpLinks, renewed
from exeat.gateway.isolation import Isolation
from exeat.gateway.link import Link
from exeat.gateway.link_http import LegacyHttpLink, ModernHttpLink
from exeat.gateway.link_stdio import StdioLink
from exeat.gateway.origin import Origin
from exeat.gateway.ports import CredentialSource
from exeat.gateway.process import StdioProcess
from exeat.gateway.restarts import RestartPolicy
from exeat.gateway.server_secrets import (
    NO_MARKS,
    Marks,
    OpenSecret,
    ServerSecrets,
    given_to,
    no_vault,
)
from exeat.gateway.wire import Incoming
from exeat.registry.rules.pins import digests

LINKS_MAX: Final = 256
"""Sessions or processes that one server may have for principals at a time."""
RELIST_S: Final = 60.0
KNOWN_URIS_MAX: Final = 20_000
NOTHING: Final[Mapping[str, Any]] = {}

Notice = Callable[[str, ServerId, Mapping[str, Any]], None]
"""(kind, server, details) → an event in the ledger."""
Observe = Callable[[ServerId, list[dict[str, Any]], Mapping[str, str]], None]
"""Definitions as listed, and their digests by name: what is news of them is written elsewhere."""


@dataclass(slots=True)
class Surroundings:
    """What upstreams need of the gateway."""

    loop: asyncio.AbstractEventLoop
    home: Path
    environ: Mapping[str, str]
    isolate: Callable[[ServerSpec], Isolation]
    notice: Notice
    observe: Observe
    client_message: Callable[[ServerId, str, Incoming], None]
    """(server, principal, message): a notification of a server on stdio that belongs to no call."""
    open_secret: OpenSecret = no_vault
    credentials: CredentialSource = field(default_factory=NoCredentials)


@dataclass(slots=True)
class _Slot:
    """One principal's link, being made or made."""

    opened: Opened | None = None
    making: asyncio.Task[Opened] | None = None
    restarts: RestartPolicy | None = None
    used_at: float = field(default=0.0)


class UpstreamServer:
    """One registered server.  Replaced as a whole when its registration changes."""

    def __init__(self, spec: ServerSpec, around: Surroundings, marks: Marks = NO_MARKS) -> None:
        """``marks``: of the secrets that it may be given, as they stand now."""
        self.spec = spec
        self.secrets = ServerSecrets(spec, marks, around.environ, around.open_secret)
        self.id = spec.id
        self._around = around
        self.origin = Origin(spec.url, around.loop) if spec.transport is Transport.HTTP else None
        self.observed: Mapping[str, str] = {}
        self.observed_at = 0.0
        self._looks = 0
        self._looked: dict[str, int] = {}
        self.about: dict[str, Any] = {}
        self._told = ""
        self.resources: frozenset[str] = frozenset()
        self.templates: frozenset[str] = frozenset()
        self.ready = False
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self.http: HttpLinks | None = None
        if self.origin is not None:
            self.http = HttpLinks(spec, self.origin, self.secrets, around.credentials)
        self.guarded = self.http is not None and self.http.guarded
        self.serves_modern = False
        self._legacy_only = False
        self._slots: dict[str, _Slot] = {}
        self._abouts: WeakKeyDictionary[Link, dict[str, Any]] = WeakKeyDictionary()
        self.closed = False

    # ---- links

    def link_now(self, principal: str, offers: Mapping[str, Any] = NOTHING) -> Link | None:
        """The link for a modern client, if it needs no waiting (the hot path)."""
        if not self.ready:
            return None
        if self.serves_modern and self.http is not None:
            return self.http.modern_now(principal)
        slot = self._slots.get(self._key(principal, offers))
        if slot is not None and slot.opened is not None and slot.opened.link.usable:
            return slot.opened.link
        return None

    def links_of(self, principal: str) -> list[Link]:
        """The principal's own, whatever its clients offer."""
        return [
            slot.opened.link
            for key, slot in self._slots.items()
            if slot.opened is not None and key.partition(" ")[0] == principal
        ]

    async def link(self, principal: str, offers: Mapping[str, Any] = NOTHING) -> Link:
        """``offers``: capabilities of the client, so that a server that has a session may ask it.
        Raises UpstreamFailed."""
        await self.prepare(principal, offers)
        if self.http is not None and self.serves_modern:
            return await self.http.modern(principal)
        return (await self._open(principal, offers)).link

    def _key(self, principal: str, offers: Mapping[str, Any] = NOTHING) -> str:
        """Whose link: a process that was told what its client can do serves only such clients."""
        if self.spec.shared:
            return self.secrets.own_agent(principal)
        return f"{principal} {json.dumps(offers, sort_keys=True)}" if offers else principal

    async def prepare(self, principal: str, offers: Mapping[str, Any] = NOTHING) -> None:
        """Probe and list once; later callers wait for the same attempt, unless it was made with a
        credential of somebody else's.  Raises UpstreamFailed, ConsentNeeded, CredentialFailed."""
        if self.ready:
            return
        whose = self.http.whose(principal) if self.http is not None else ""
        preparing = self._preparing.get(whose)
        if preparing is None:
            preparing = self._around.loop.create_task(self._prepare(principal, offers))
            preparing.add_done_callback(lambda _: self._preparing.pop(whose, None))
            self._preparing[whose] = preparing
        await asyncio.shield(preparing)

    async def _prepare(self, principal: str, offers: Mapping[str, Any]) -> None:
        modern = None
        if self.http is not None:
            modern = await self._probe_http(self.http, principal)
        if modern is not None:
            await self._list(modern)
        else:
            opened = await self._open(principal, offers)
            whose = self.http.whose(principal) if self.http is not None else ""
            self.about, self._told = opened.about, whose
        self.ready = True

    async def _probe_http(self, http: HttpLinks, principal: str) -> ModernHttpLink | None:
        link = await http.modern(principal)
        about = await discover(link, self._around.loop)
        if about is not None:
            self.serves_modern = True
            self.about, self._told = about, http.whose(principal)
        self._notice("upstream.probed", {"era": "modern" if about is not None else "legacy"})
        return link if about is not None else None

    async def open_session(
        self, principal: str, capabilities: Mapping[str, Any], client: Any, version: str
    ) -> Opened | None:
        """A legacy session at an HTTP server for one legacy client; None if it is modern only."""
        if self.http is None or self._legacy_only:
            return None
        link = await self.http.legacy(principal)
        opened = await self._handshake_http(link, capabilities, client, version)
        if opened is None and not self.serves_modern:
            raise UpstreamFailed(f"server {self.id} answered neither era's handshake")
        return opened

    async def _handshake_http(
        self, link: LegacyHttpLink, capabilities: Mapping[str, Any], client: Any, version: str
    ) -> Opened | None:
        about = await initialize(link, self._around.loop, capabilities, client, version)
        self._notice("upstream.session_opened", {"accepted": about is not None})
        if about is not None:
            self._abouts[link] = about
        return Opened(link, about) if about is not None else None

    async def _open(self, principal: str, offers: Mapping[str, Any]) -> Opened:
        if self.spec.shared:
            offers = NOTHING
        key = self._key(principal, offers)
        slot = self._slots.get(key)
        if slot is None:
            await self._make_room()
            slot = self._slots[key] = _Slot()
        slot.used_at = self._around.loop.time()
        if slot.opened is not None and await renewed(slot.opened.link):
            return slot.opened
        if slot.making is None or slot.making.done():
            slot.making = self._around.loop.create_task(self._make(slot, principal, offers))
        return await asyncio.shield(slot.making)

    async def _make(self, slot: _Slot, principal: str, offers: Mapping[str, Any]) -> Opened:
        if self.http is not None:
            session = await self.http.legacy(principal)
            made = await self._handshake_http(session, offers, None, "")
            if made is None:
                raise UpstreamFailed(f"server {self.id} answered neither era's handshake")
            await self._list(made.link)
        else:
            made = await self._start(slot, principal, offers)
        slot.opened = made
        return made

    async def _start(self, slot: _Slot, principal: str, offers: Mapping[str, Any]) -> Opened:
        """GW-5: start the process, unless it failed too recently."""
        policy = slot.restarts or RestartPolicy(self.id)
        policy.check(time.monotonic_ns())
        isolation = self._around.isolate(self.spec)
        handed = await self.secrets.variables(self.secrets.own_agent(principal))
        link = StdioLink(isolation.label, shared=self.spec.shared)

        def on_exit(reason: str) -> None:
            if not self.closed:
                before = slot.restarts or policy
                slot.restarts = before.exited(time.monotonic_ns(), secrets.randbelow(1000) / 1000)
                self._notice("upstream.exited", {"reason": reason})
            link.exited(f"ended ({reason})")

        process = StdioProcess(
            self.spec,
            isolation=isolation,
            environ=self._around.environ,
            secrets=handed,
            on_line=link.line,
            on_exit=on_exit,
        )
        link.attach(process)
        link.on_unbound = lambda message: self._around.client_message(self.id, principal, message)
        slot.restarts = policy.started(time.monotonic_ns())
        await process.start()
        self._notice(
            "upstream.started", {"isolation": isolation.label, "evidence": isolation.evidence}
        )
        try:
            return await self._met(link, offers)
        except BaseException:
            await process.stop()  # nobody else knows of it
            raise

    async def _met(self, link: StdioLink, offers: Mapping[str, Any]) -> Opened:
        """Handshake and list with a process just started.  Raises UpstreamFailed."""
        about = await greet(link, self._around.loop, offers)
        if about is None:
            raise UpstreamFailed(
                f"server {self.id} answered neither era's handshake",
                remedy="check that its command starts an MCP server on stdio",
            )
        await self._list(link)
        if self.closed:
            raise UpstreamFailed(f"server {self.id} was changed or removed while it started")
        return Opened(link, about)

    async def _make_room(self) -> None:
        if len(self._slots) < LINKS_MAX:
            return
        for key, slot in sorted(self._slots.items(), key=lambda item: item[1].used_at):
            link = slot.opened.link if slot.opened is not None else None
            if isinstance(link, StdioLink) and not link.busy:
                del self._slots[key]
                await link.close()
                return
            if isinstance(link, LegacyHttpLink):
                del self._slots[key]
                link.close()
                return
        raise UpstreamFailed(
            f"server {self.id} already serves {LINKS_MAX} principals",
            remedy="try again later, or confirm the server as shared if it keeps no state",
        )

    def remember(
        self, *, resources: frozenset[str] = frozenset(), templates: frozenset[str] = frozenset()
    ) -> None:
        """Whose a URI is, for the aggregate endpoint; bounded."""
        if len(self.resources) > KNOWN_URIS_MAX or len(self.templates) > KNOWN_URIS_MAX:
            self.resources = self.templates = frozenset()
        self.resources |= resources
        self.templates |= templates

    def about_of(self, link: Link) -> Mapping[str, Any]:
        """What the server said of itself on this link's handshake."""
        about: Mapping[str, Any] = self._abouts.get(link, self.about)
        return about

    async def about_for(self, principal: str, offers: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the server says of itself to this principal: what it says to who shows another
        credential may be theirs alone.  Raises as ``prepare`` does."""
        await self.prepare(principal, offers)
        http = self.http
        if http is None or http.whose(principal) == self._told:
            return self.about
        if not self.serves_modern:
            return (await self._open(principal, offers)).about
        found = await discover(await http.modern(principal), self._around.loop)
        return found if found is not None else NOTHING

    # ---- definitions

    async def _list(self, link: Link) -> None:
        """REG-6: the whole of what the server shows now, compared with its pins."""
        look = self.looking()
        listed = await fetch_all(link, self._around.loop, "tools/list", "tools")
        self._looked = {name: seen for name, seen in self._looked.items() if seen > look}
        newer = {name: self.observed[name] for name in self._looked if name in self.observed}
        self.observed = {**self._shown(look, listed)[1], **newer}
        self.observed_at = self._around.loop.time()

    def looking(self) -> int:
        """Asked before a list is: what was asked for later shows the server later, whichever answer
        comes first."""
        self._looks += 1
        return self._looks

    def compare(self, definitions: list[dict[str, Any]], look: int) -> Mapping[str, str]:
        """The digests of a part of the list (a page), which are what the server shows from now on."""
        found, news = self._shown(look, definitions)
        if any(self.observed.get(name) != digest for name, digest in news.items()):
            self.observed = {**self.observed, **news}
        return found

    def _shown(
        self, look: int, definitions: list[dict[str, Any]]
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """All digests, and those of tools that no later look has seen: a page says nothing of tools
        that are on another."""
        found = digests(definitions)
        news = {name: d for name, d in found.items() if self._looked.get(name, 0) <= look}
        self._looked.update(dict.fromkeys(news, look))
        kept = [each for each in definitions if each.get("name") in news]
        self._around.observe(self.id, kept, news)
        return found, news

    def said_changed(self) -> None:
        """The server said that its tools changed: look again at the next turn."""
        self.observed_at = float("-inf")

    async def relist(self) -> None:
        """Look again, for servers that change without saying so.  Raises UpstreamFailed."""
        if not self.ready or self._around.loop.time() - self.observed_at < RELIST_S:
            return
        self.observed_at = self._around.loop.time()  # also if it fails: not again at once
        link: Link | None = None
        if self.serves_modern and self.http is not None:
            link = self.http.any_now()
        else:
            usable = [s.opened.link for s in self._slots.values() if s.opened is not None]
            link = next((each for each in usable if each.usable), None)
        if link is not None:
            await self._list(link)

    # ---- rest

    def _notice(self, kind: str, details: Mapping[str, Any]) -> None:
        self._around.notice(kind, self.id, details)

    async def close(self) -> None:
        self.closed = True
        links = [slot.opened.link for slot in self._slots.values() if slot.opened is not None]
        for link in links:
            if isinstance(link, LegacyHttpLink):
                link.close()
        await asyncio.gather(*(link.close() for link in links if isinstance(link, StdioLink)))
        if self.origin is not None:
            self.origin.close()


class Upstreams:
    """All registered servers, kept in step with the snapshot."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.servers: dict[ServerId, UpstreamServer] = {}

    def follow(self, specs: Mapping[ServerId, ServerSpec], marks: Marks = NO_MARKS) -> None:
        """Take over new and changed registrations and secrets; close what is gone."""
        for server_id, server in list(self.servers.items()):
            spec = specs.get(server_id)
            if spec is None or spec != server.spec or given_to(spec, marks) != server.secrets.marks:
                del self.servers[server_id]
                self._around.loop.create_task(server.close())
        for server_id, spec in specs.items():
            if server_id not in self.servers:
                given = given_to(spec, marks)
                self.servers[server_id] = UpstreamServer(spec, self._around, given)

    def unregistered(self, server: ServerId) -> UpstreamServer:
        """Stands for a server that does not exist: without a command, it can never be reached."""
        return UpstreamServer(ServerSpec(server, Transport.STDIO), self._around)

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for server in self.servers.values()))

"""The gateway process: wiring, start, stop.  The one place where adapters meet services."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from exeat import __version__
from exeat.adapters.consent import Consent
from exeat.app.accepting import Accepting
from exeat.app.claims import BudgetsKept, PeopleAsked
from exeat.app.control import Control, listening_sockets
from exeat.app.descriptors import fitted
from exeat.app.evaluating import Evaluating
from exeat.app.held_calls import open_held_calls
from exeat.app.holding import asked, unsealable
from exeat.app.issuers import make_tokens, oauth_key
from exeat.app.journal import Journal
from exeat.app.killing import Killing
from exeat.app.live import Live, Pace, View, load_view, running
from exeat.app.lock import HomeLock, Turn
from exeat.app.notify import notify
from exeat.app.permits import permit_signer
from exeat.app.rooting import Rooting
from exeat.app.settings import Settings
from exeat.app.settling import Settling
from exeat.app.sightings import Sightings
from exeat.app.strangers import Strangers
from exeat.app.tls import Certificate, certificate, warn_of_plain_http
from exeat.app.upstream_access import make_credentials
from exeat.app.vault import Opener, open_vault, without_vault_key
from exeat.console.holds import Held
from exeat.core.errors import Conflict, ExeatError, NotFound
from exeat.core.facts import ServerSpec, ToolFacts
from exeat.core.ids import ActionId, ServerId
from exeat.evidence.keys import create_master, create_signer, load_master, load_signer
from exeat.evidence.ledger import Ledger
from exeat.evidence.model import Instance
from exeat.evidence.quota import LedgerLimits
from exeat.evidence.store import LedgerStore
from exeat.gateway.edge import Edge
from exeat.gateway.front import Front
from exeat.gateway.gate import Gate
from exeat.gateway.handover import Handover
from exeat.gateway.isolation import Isolation, choose_isolation, landlock_abi, proven
from exeat.gateway.permits import Permits
from exeat.gateway.pipeline import Pipeline
from exeat.gateway.tls import TlsEntry
from exeat.gateway.upstreams import Surroundings, Upstreams
from exeat.gateway.wire import Incoming
from exeat.storage.ledger import SqliteLedgerStore
from exeat.storage.places import checkpoint_path
from exeat.storage.state import State, open_state

if TYPE_CHECKING:  # needs the driver of PostgreSQL, an extra
    from exeat.storage.hints import Hints

_log = structlog.get_logger("exeat.serve")
DRAIN_MAX_S: Final = 5.0
BACKLOG: Final = 2048
RELIST_EVERY_S: Final = 2.0
THREADS_SWITCH_S: Final = 0.001
"""The ledger's thread must not wait long for the interpreter after its disk has answered."""
WORKERS: Final = "workers"
"""Folder of the sockets over which workers pass connections to each other, in the home."""
OUTBOX_LOCK: Final = "outbox.lock"
_GC_THRESHOLDS: Final = (50_000, 20, 100)


class Gateway:
    """Built in order: state, ledger, upstreams, front, edge.  Stopped in the opposite order."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        state: State,
        tls: Certificate | None = None,
        *,
        listener: socket.socket | None = None,
        control: Control | None = None,
    ) -> None:
        """``listener``: a socket that listens already, and for other workers too.  ``control``: None
        where another worker serves it."""
        context = None
        if tls is not None:
            context = tls.context()
            tls.warn()
        self.home = home
        self.settings = settings
        self.state = state
        self.loop = asyncio.get_running_loop()
        self.ledger = self._open_ledger()
        self.rooting = Rooting(
            state, self._signer, home, settings.database_url, settings.root_every_s
        )
        self._hints = self._listener()
        self.journal = Journal(state, self.ledger, self.loop, Turn(home / OUTBOX_LOCK))
        self._isolations: dict[tuple[str, str], Isolation] = {}
        begun = running()
        first = load_view(state, None)
        self.live = Live(
            state,
            first,
            pace=Pace(settings.state_poll_s, settings.staleness_max_s),
            begun=begun,
            loop=self.loop,
            on_change=self._changed,
        )
        self.sightings = Sightings(state.registry, self.loop, self._tools)
        self.vault = open_vault(home, settings, state)
        self.secrets = Opener(self.vault, self.loop)
        self.held_calls = open_held_calls(settings, state, self.vault)
        self.credentials = make_credentials(
            settings,
            self.vault,
            self.secrets,
            _key(home / "keys" / "state.key"),
            self.journal.upstream,
        )
        self.upstreams = Upstreams(
            Surroundings(
                loop=self.loop,
                home=home,
                environ=without_vault_key(settings, os.environ),
                isolate=self._isolate,
                notice=self.journal.upstream,
                observe=self.sightings.saw,
                client_message=self._unbound,
                open_secret=self.secrets.open,
                credentials=self.credentials,
            )
        )
        self.upstreams.follow(first.snapshot.specs, first.snapshot.secrets)
        self.handover = self._neighbours() if listener is not None else None
        self.strangers = Strangers(state.registry, self.loop)
        self.people = PeopleAsked(
            self.held_calls.approvals, self._view, self.loop, time.time_ns, self._asked
        )
        self.budgets = BudgetsKept(
            state.budgets, lambda: self.live.view.pdp.controls, self.loop, _new_id
        )
        tokens, self.issuers = make_tokens(settings, home, time.time_ns)
        self.front = Front(
            self.loop,
            Pipeline(
                self.live,
                self.ledger,
                time.time_ns,
                self.strangers.met,
                Gate(self.people, self.budgets),
            ),
            self.upstreams,
            settings.gateway(),
            _key(home / "keys" / "state.key"),
            time.time_ns,
            self.handover,
            tokens,
        )
        self.credentials.shown = self.front.credentials.shown
        self.front.permits = Permits(
            permit_signer(home),
            self._signer.verifier.name,
            settings.permit_life_s,
            time.time_ns,
            os.urandom,
        )
        self.killing = Killing(
            self.front, state.kill_effects, self.ledger, settings.instance, first
        )
        self.edge = Edge(self.front.dispatch, settings.gateway(), self.loop, self.front.admit)
        self.tls = tls
        self.entry = TlsEntry(self.edge, context) if context is not None else None
        self.server: asyncio.AbstractServer | None = None
        self.control = control
        if control is not None:
            control.consents = Consent(self.credentials, self._spec, time.time_ns)
            control.check = tokens.assertion
            control.approvals = self.held_calls.endpoint
            control.held = Held(self.held_calls.approvals, self.held_calls.standing)
            control.evaluator = Evaluating(
                self.front.pipeline,
                self._definition,
                state.budgets,
                lambda: self.live.view.pdp.controls,
                control.issuer,
            )
        self._shared = listener
        self._accepting: Accepting | None = None
        self._relister: asyncio.Task[None] | None = None
        self._holder: asyncio.Task[None] | None = None

    def _open_ledger(self) -> Ledger:
        settings, keys = self.settings, self.home / "keys"
        name = f"exeat/{settings.instance}"
        signer_path = keys / f"{settings.instance}.ed25519"
        if signer_path.exists():
            signer = load_signer(signer_path)
        else:
            signer = create_signer(signer_path, name, os.urandom)
        instance = Instance(
            name=settings.instance,
            origin=signer.verifier.name,
            key=signer.verifier.id.hex(),
            build=__version__,
            config=settings.digest(),
            staleness_ms=int(settings.staleness_max_s * 1000),
            settings={"host": settings.host, "state_poll_s": str(settings.state_poll_s)},
        )
        self._signer = signer
        ledger = Ledger(
            instance,
            self._ledger_store(signer.verifier.name),
            signer,
            _master(keys / "master.key"),
            clock=time.time_ns,
            random=os.urandom,
            limits=LedgerLimits(heartbeat_s=settings.heartbeat_s),
        )
        ledger.start(self.loop)
        if ledger.durability == "no fsync":
            _log.warning("the database runs with fsync off: a power cut there loses the record")
        return ledger

    def _ledger_store(self, origin: str) -> LedgerStore:
        """One setting decides: registry, policy and record lie in the same database, or in files."""
        instance, url = self.settings.instance, self.settings.database_url
        if url is None:
            return SqliteLedgerStore(self.home / "ledger" / f"{instance}.db")
        from exeat.storage.ledger_postgres import PostgresLedgerStore

        holder = f"{instance} on {socket.gethostname()}, pid {os.getpid()}"
        return PostgresLedgerStore(url, origin, holder, checkpoint_path(self.home, instance))

    def _listener(self) -> "Hints | None":
        """What the database says of changes, at once; without it the next poll sees them."""
        if self.settings.database_url is None:
            return None
        from exeat.storage.hints import Hints

        def heard() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.loop.call_soon_threadsafe(self.live.hint)

        return Hints(self.settings.database_url, heard)

    def _neighbours(self) -> Handover:
        secret = _key(self.home / "keys" / "state.key")
        return Handover(self.home / WORKERS, self.settings.instance, self.loop, secret)

    # ---- changes

    def _changed(self, view: View) -> None:
        self.killing.changed(view)
        self.upstreams.follow(view.snapshot.specs, view.snapshot.secrets)
        self.front.clients.end_stopped()
        self.front.clients.lists_changed()

    def _unbound(self, server: ServerId, principal: str, message: Incoming) -> None:
        self.front.clients.unbound(server, principal, message)

    def _isolate(self, spec: ServerSpec) -> Isolation:
        key = (spec.id, spec.run_as)
        if key not in self._isolations:
            chosen = choose_isolation(spec, self.home, os.geteuid(), landlock_abi())
            self._isolations[key] = proven(chosen)
        return self._isolations[key]

    def _view(self) -> View:
        return self.live.view

    def _asked(self) -> None:
        """Somebody may have been asked for an approval."""
        self.held_calls.noticing.wake()

    def _definition(self, server: ServerId, tool: str, pin: str) -> str:
        """As the server showed it last; of one that nobody has looked at, ``pin``."""
        upstream = self.upstreams.servers.get(server)
        return (
            upstream.observed.get(tool, "") if upstream is not None and upstream.observed else pin
        )

    def _spec(self, server: str) -> ServerSpec | None:
        return self.live.view.snapshot.specs.get(ServerId(server))

    def _tools(self) -> Mapping[ActionId, ToolFacts]:
        return self.live.view.snapshot.tools

    async def _relist(self) -> None:
        while True:
            await asyncio.sleep(RELIST_EVERY_S)
            for server in list(self.upstreams.servers.values()):
                try:
                    await server.relist()
                except ExeatError as error:
                    _log.warning("a server could not be listed", server=server.id, why=str(error))

    async def _warn_of_holds(self) -> None:
        """Once; of several workers, the one that serves control."""
        controls = asked(self.live.view.pdp)
        if not controls:
            return
        why = await self.loop.run_in_executor(
            None, unsealable, self.home, self.settings, self.state
        )
        if why is not None:
            _log.warning(
                "calls that wait for people are denied (approvals_unavailable)",
                controls=", ".join(controls),
                why=str(why),
                next=why.remedy,
            )

    # ---- life

    async def start(self) -> int:
        """Listen.  Returns the port.  Raises Conflict if the address is taken."""
        await self.live.start()
        self.journal.start()
        self.rooting.start(self.loop)
        self.held_calls.noticing.start(self.loop)
        if self._hints is not None:
            self._hints.start()
        self._relister = self.loop.create_task(self._relist())
        if self.control is not None:
            self._holder = self.loop.create_task(self._warn_of_holds())
        try:
            if self.handover is not None:
                self.handover.listen(self.edge)
            if self._shared is not None:
                self._accepting = Accepting(self._shared, self.entry or self.edge, self.loop)
            else:
                self.server = await self.loop.create_server(
                    self.entry or self.edge,
                    self.settings.host,
                    self.settings.port,
                    backlog=BACKLOG,
                )
        except OSError as error:
            raise Conflict(
                f"cannot listen on {self.settings.host}:{self.settings.port}"
                f" ({os.strerror(error.errno) if error.errno else error})",
                remedy="choose another --port, or stop what uses it",
            ) from None
        port = self._port()
        if self.control is not None:
            alone = self._shared is None and self.settings.database_url is None
            others_s = 0.0 if alone else self.settings.state_poll_s
            settling = Settling(self.live, self.state, others_s)
            await self.control.start(port, self.tls, settling)
        sys.setswitchinterval(THREADS_SWITCH_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        return port

    def _port(self) -> int:
        if self._shared is not None:
            return int(self._shared.getsockname()[1])
        assert self.server is not None  # noqa: S101 - it listens
        return int(self.server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    def read_certificate(self) -> None:
        """New connections get the certificate as it is on disk now; the others go on."""
        if self.entry is not None and self.tls is not None:
            self.entry.context = self.tls.again(self.entry.context)
        if self.control is not None:
            self.control.read_certificate()

    async def stop(self) -> None:
        """Take nothing new, let answers end, close upstreams, close the log."""
        if self.control is not None:
            await self.control.stop()
        if self.server is not None:
            self.server.close()
        if self._accepting is not None:
            await self._accepting.close()
        if self.entry is not None:
            self.entry.close()
        if self.handover is not None:
            await self.handover.close()
        self.edge.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_MAX_S):
                # a drain, once per process; a subscription does not end by itself
                while self._answering:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        if self._relister is not None:
            self._relister.cancel()
        if self._holder is not None:  # it reads the state
            await asyncio.wait({self._holder}, timeout=DRAIN_MAX_S)
            self._holder.cancel()
        await self.front.close()
        for each in (self.people, self.budgets):
            await self.loop.run_in_executor(None, each.close)
        await self.issuers.close()
        await self.strangers.close()
        self.edge.close()
        self.secrets.close()
        if self._hints is not None:
            await self.loop.run_in_executor(None, self._hints.close)
        reachable = self.live.fresh
        await self.held_calls.noticing.close()
        await self.live.close()
        await self.sightings.close()
        await self.killing.close()
        await self.journal.close()
        await self.ledger.close()
        await self.rooting.close(self.loop, write=reachable)
        self.state.close()

    @property
    def _answering(self) -> bool:
        relaying = self.handover is not None and self.handover.relaying
        return relaying or any(not each.unlimited for each in self.front.calls)


def _master(path: Path) -> bytes:
    return load_master(path) if path.exists() else create_master(path, os.urandom)


_key = _master


def _new_id() -> str:
    return os.urandom(16).hex()


def state_key(home: Path) -> bytes:
    """What all gateways of a home seal with that comes back by way of a client or a browser."""
    return _key(home / "keys" / "state.key")


def must_exist(home: Path, settings: Settings) -> None:
    """Raises NotFound."""
    if not (home / "state.db").exists() and settings.database_url is None:
        raise NotFound(f"there is no exeat home at {home}", remedy="run `exeat init` first")


def make_keys(home: Path) -> None:
    """Those that all workers share, before any of them starts."""
    _master(home / "keys" / "master.key")
    _key(home / "keys" / "state.key")
    oauth_key(home)
    permit_signer(home)


async def _run(
    home: Path,
    settings: Settings,
    tls: Certificate | None,
    ready: Callable[[Gateway, int], None],
    listener: socket.socket | None,
    serves_control: bool,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    state = await loop.run_in_executor(None, open_state, home, settings.database_url)
    control = None
    if serves_control:
        sockets = listening_sockets(settings)
        port = int(sockets[0].getsockname()[1])
        settings = settings.model_copy(update={"control_port": port})  # it may have been 0: any
        control = Control(home, settings, state, sockets)
    gateway = Gateway(home, settings, state, tls, listener=listener, control=control)
    loop.add_signal_handler(signal.SIGHUP, gateway.read_certificate)
    port = await gateway.start()
    ready(gateway, port)
    notify("READY=1")
    await stopping.wait()
    notify("STOPPING=1")
    await gateway.stop()


def serve(
    home: Path,
    settings: Settings,
    ready: Callable[[Gateway, int], None],
    *,
    listener: socket.socket | None = None,
    serves_control: bool = True,
) -> None:
    """Run until SIGINT or SIGTERM; SIGHUP reads the certificate again.  ``listener``: of several
    workers, one of which this is; one of them serves control.  Raises ExeatError if it cannot start."""
    must_exist(home, settings)
    tls = certificate(home, settings)
    if listener is None:  # of several, the supervisor says so once
        warn_of_plain_http(settings.host, tls)
        warn_of_plain_http(settings.control_host, tls)
    with HomeLock(home, settings.instance):
        uvloop.run(_run(home, fitted(settings), tls, ready, listener, serves_control))

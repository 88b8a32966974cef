"""The control listener: sign-in, consent and OAuth endpoints, apart from the gateway's edge (GW-13).

Starlette on uvicorn's protocol, on the gateway's own loop.  No agent's token opens anything here; people
have sessions, clients their own credentials.
"""

import asyncio
import functools
import os
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from exeat.api.approvals import Endpoint
from exeat.api.evaluation import Evaluator
from exeat.app.control_app import Beside, control_app
from exeat.app.fetching import make_fetcher
from exeat.app.issuers import oauth_key
from exeat.app.settings import Settings
from exeat.app.tls import Certificate
from exeat.console.holds import Held
from exeat.console.upstreams import Consents
from exeat.core.errors import Conflict, ExeatError
from exeat.core.ids import PersonId
from exeat.identity.authorization.model.doing import ITSELF, Doing
from exeat.identity.authorization.rules.resources import Resources
from exeat.identity.authorization.service.assertions import Check
from exeat.identity.authorization.service.tokens import Mint
from exeat.identity.signin.service import RelyingParty, SignIn
from exeat.storage.state import State
from exeat.web.bindings import Settled
from exeat.web.site import site_at

HEAD_MAX_BYTES: Final = 32 * 1024
CONNECTIONS_MAX: Final = 256
KEEP_ALIVE_S: Final = 15
DRAIN_MAX_S: Final = 3
BIND_TRIES: Final = 5


def listening_sockets(settings: Settings) -> list[socket.socket]:
    """Of the control listener.  ``localhost`` means two addresses, so both are taken where both
    exist: else another user of this machine could sit on the other.  Raises Conflict."""
    hosts = [settings.control_host]
    if settings.control_host in ("127.0.0.1", "localhost") and _has_ipv6():
        hosts = ["127.0.0.1", "::1"]
    for attempt in range(BIND_TRIES):
        found: list[socket.socket] = []
        try:
            for host in hosts:
                port = found[0].getsockname()[1] if found else settings.control_port
                found.append(_bound(host, port))
            return found
        except OSError as error:
            for each in found:
                each.close()
            if settings.control_port or attempt == BIND_TRIES - 1:
                raise Conflict(
                    f"cannot listen on {settings.control_host}:{settings.control_port} for"
                    f" sign-in ({os.strerror(error.errno) if error.errno else error})",
                    remedy="write another control_port into exeat.toml in the home, or stop what uses it",
                ) from None
    raise AssertionError("unreachable")


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, where = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(CONNECTIONS_MAX)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def _has_ipv6() -> bool:
    try:
        _bound("::1", 0).close()
    except OSError:
        return False
    return True


def first_link(home: Path, state: State, issuer: str) -> str | None:
    """ID-8: while nobody has a passkey, a one-time link for the person of ``exeat init``."""
    try:
        operator = PersonId((home / "operator").read_text(encoding="ascii").strip())
    except OSError:
        return None
    sign_in = SignIn(state.sign_in, RelyingParty("localhost", issuer), os.urandom)
    if sign_in.any_passkey():
        return None
    doing = Doing(ITSELF, "cli", time.time_ns(), "nobody has a passkey yet")
    try:
        return f"{issuer}/link/{sign_in.make_first_link(operator, doing)}"
    except ExeatError:
        return None


class _Protocol(H11Protocol):
    """With a limit on the time that a head may take, which uvicorn has not (0.40 to 0.54)."""

    _late: asyncio.TimerHandle | None = None

    def __init__(self, *, head_time_max_s: float, **more: Any) -> None:
        super().__init__(**more)
        self._head_time_max_s = head_time_max_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiting = self.conn.their_state is h11.IDLE
        if not waiting and self._late is not None:
            self._late.cancel()
            self._late = None
        elif waiting and self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(self._head_time_max_s, self.transport.close)


class Control:
    """Listens once started; ``issuer`` is known before."""

    def __init__(
        self, home: Path, settings: Settings, state: State, sockets: list[socket.socket]
    ) -> None:
        """``sockets``: which listen on the port in the settings.  Raises Invalid for bad settings."""
        self._settings, self._state, self._sockets = settings, state, sockets
        self.issuer = settings.issuer
        try:
            self._key = oauth_key(home)
            self._site = site_at(self.issuer, settings.control_port, frozenset())
        except BaseException:
            self._close()
            raise
        self._context: ssl.SSLContext | None = None
        self._server: uvicorn.Server | None = None
        self.consents: Consents | None = None
        """Set before the start: pages on which people give access to upstreams (ID-9)."""
        self.check: Check | None = None
        """Set before the start: how assertions of trusted issuers are checked (ID-JAG)."""
        self.approvals: Endpoint | None = None
        """Set before the start: where signed answers to held calls come in (APP-5)."""
        self.evaluator: Evaluator | None = None
        """Set before the start: the PDP for other enforcement points (POL-8)."""
        self.held: Held | None = None
        """Set before the start: held calls, of which pages tell (APP-4)."""

    def _app(self, gateway_port: int, settled: Settled) -> ASGIApp:
        settings = self._settings
        resources = Resources.at(
            "https" if settings.tls_certificate is not None else "http",
            settings.host,
            gateway_port,
            settings.allowed_hosts,
            settings.public_url or "",
        )
        fetching = make_fetcher(settings)
        mint = Mint(self.issuer, self._key, os.urandom, settings.access_token_life_s)
        return control_app(
            self._state,
            self._site,
            mint,
            resources,
            fetching,
            settled,
            beside=Beside(self.consents, self.check, self.approvals, self.evaluator, self.held),
        )

    async def start(self, gateway_port: int, tls: Certificate | None, settled: Settled) -> None:
        """``gateway_port``: of the gateway's edge, whose endpoints tokens are for.  ``settled``: waits
        until gateways decide by what was changed."""
        config = uvicorn.Config(
            self._app(gateway_port, settled),
            http="h11",
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEAD_MAX_BYTES,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_MAX_S,
        )
        config.load()
        config.ssl = self._tls(tls)
        limit_s = self._settings.head_time_max_s
        config.http_protocol_class = functools.partial(_Protocol, head_time_max_s=limit_s)  # type: ignore[assignment]
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup(sockets=self._sockets)

    def _tls(self, tls: Certificate | None) -> ssl.SSLContext | None:
        """The gateway's certificate; people are not asked for one of their own."""
        if tls is None:
            return None
        self._certificate = Certificate(tls.certificate, tls.key, None)
        self._context = self._certificate.context()

        def latest(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
            if self._context is not None:
                connection.context = self._context

        self._context.sni_callback = latest
        return self._context

    def read_certificate(self) -> None:
        """New connections get the certificate as it is on disk now."""
        if self._context is not None:
            self._context = self._certificate.again(self._context)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown(sockets=self._sockets)
        self._close()

    def _close(self) -> None:
        for each in self._sockets:
            each.close()

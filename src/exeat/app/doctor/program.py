"""The program and its memory: versions, and whether secrets in memory can reach a disk."""

import platform
import re
import resource
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from exeat.app.doctor.check import Finding, Patient, ok, problem, skipped, warn

_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*\])?(?P<range>[^;]*)(?:;.*extra == ['\"](?P<extra>.*)['\"])?"
)
_KIB_PER_MIB: Final = 1024


def versions(patient: Patient) -> Iterator[Finding]:
    """What is installed against what exeat says that it needs."""
    try:
        wanted = metadata.requires("exeat") or []
        python = metadata.metadata("exeat")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        yield skipped("versions", "exeat runs from its sources; what it needs is not known.")
        return
    needed = list(_needed(wanted, postgres=patient.settings.database_url is not None))
    unfit = list(_unfit(needed))
    if not fits(platform.python_version(), python):
        unfit.insert(0, f"Python is {platform.python_version()}, not {python}")
    if unfit:
        yield problem(
            "versions",
            f"What is installed is not what exeat needs: {'; '.join(unfit)}.",
            "Install exeat again with its lock file (docs/how-to/deploy.md).",
        )
        return
    yield ok(
        "versions",
        f"exeat {metadata.version('exeat')}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {platform.system()} {platform.release()}; "
        f"{len(needed)} libraries as they should be.",
    )


def _needed(wanted: list[str], *, postgres: bool) -> Iterator[tuple[str, str]]:
    """Name and range; the driver of PostgreSQL only where a database is set."""
    for line in wanted:
        found = _REQUIREMENT.match(line)
        if found is not None and (
            not found["extra"] or (found["extra"] == "postgres" and postgres)
        ):
            yield found["name"], found["range"].strip()


def _unfit(needed: list[tuple[str, str]]) -> Iterator[str]:
    for name, wanted in needed:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} is missing"
            continue
        if not fits(version, wanted):
            yield f"{name} is {version}, not {wanted}"


def fits(version: str, wanted: str) -> bool:
    """Whether a release lies in a range such as ``>=4.12,<4.13``; the kinds that pyproject.toml uses."""
    here = _release(version)
    for clause in filter(None, (part.strip() for part in wanted.split(","))):
        kind, than = clause.rstrip("0123456789. "), _release(clause.lstrip("<>=! "))
        width = max(len(here), len(than))
        left, right = (each + (0,) * (width - len(each)) for each in (here, than))
        if not {">=": left >= right, "<": left < right, "==": left == right}.get(kind, True):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def memory(patient: Patient) -> Iterator[Finding]:
    """Keys and arguments stand in the gateway's memory: it should never be written to a disk."""
    yield from _swap(patient)
    limit, whose = limit_of(patient.serving, "Max core file size", resource.RLIMIT_CORE)
    if limit == 0:
        yield ok("core", f"{whose} leaves no core file if it crashes.")
    else:
        yield warn(
            "core",
            f"{whose} may leave a core file with its keys in it if it crashes.",
            "Start it with `ulimit -c 0` (LimitCORE=0 in systemd).",
        )


def _swap(patient: Patient) -> Iterator[Finding]:
    try:
        listed = Path("/proc/swaps").read_text(encoding="ascii", errors="replace")
    except OSError:
        yield skipped("swap", "This system does not say whether it swaps.")
        return
    yield swap_finding(listed, kept_out=_kept_out(patient.serving))


def swap_finding(listed: str, *, kept_out: bool) -> Finding:
    """``listed``: as /proc/swaps has it, in KiB.  zram is memory itself."""
    areas = [line.split() for line in listed.splitlines()[1:] if line.strip()]
    disks = {row[0]: int(row[2]) for row in areas if "zram" not in row[0]}
    if not disks:
        return ok("swap", "Nothing is swapped to a disk.")
    if kept_out:
        return ok("swap", "This system swaps, but not the gateway (memory.swap.max is 0).")
    return warn(
        "swap",
        f"This system swaps to {', '.join(disks)} ({sum(disks.values()) // _KIB_PER_MIB} MiB): keys and "
        "arguments may be written there.",
        "Encrypt it, turn it off (`swapoff -a`), or MemorySwapMax=0 in systemd.",
    )


def _kept_out(pid: int | None) -> bool:
    """Whether the control group of the gateway (else ours) keeps it out of swap."""
    try:
        group = Path(f"/proc/{pid or 'self'}/cgroup").read_text(encoding="utf-8")
        path = next(line[3:] for line in group.splitlines() if line.startswith("0::"))
        file = Path("/sys/fs/cgroup") / path.lstrip("/") / "memory.swap.max"
        return file.read_text(encoding="ascii").strip() == "0"
    except (OSError, StopIteration):
        return False


def limit_of(pid: int | None, name: str, number: int) -> tuple[int, str]:
    """A soft limit of the running gateway, else of this shell, and whose it is."""
    if pid is not None:
        try:
            for line in Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines():
                if line.startswith(name):
                    soft = line.removeprefix(name).split()[0]
                    limit = resource.RLIM_INFINITY if soft == "unlimited" else int(soft)
                    return limit, f"The gateway (pid {pid})"
        except (OSError, ValueError):
            pass  # it ended, or belongs to somebody else: our own limit is the best guess
    return resource.getrlimit(number)[0], "A gateway started from here"

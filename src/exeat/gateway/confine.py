"""The small program between gateway and stdio server: give up rights, then become the server.

Run as ``python -I -S confine.py PLAN COMMAND [ARG …]`` in the child.  PLAN is JSON: ``hide``
(directories out of reach), ``abi`` (Landlock ABI, 0 = none), ``uid`` (null = stay), ``gid``,
``groups``.  Standard library only, so that it starts fast.  Any step that fails ends in exit status
126 before the server runs (GW-12: never start it unconfined).

Landlock is an allow-list (Documentation/userspace-api/landlock.rst): what is not named is denied.
So every entry beside the path to a hidden directory is named, and the path itself is not.
"""

import ctypes
import json
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1
_CREATE_RULESET_VERSION: Final = 1
_SCOPE_SIGNAL: Final = 2
_ABI_SCOPES: Final = 6

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_BLOCK, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 14, 1 << 15
_FILE_RIGHTS: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ_ONLY: Final = _EXECUTE | _READ_FILE | _READ_DIR
_RIGHTS_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_RIGHTS_BITS_NEWEST: Final = 16

_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES_KEPT: Final = (0, 1, 3, 4, 6, 7, 10)
"""chown, dac_override, fowner, fsetid, setgid, setuid, net_bind_service.  The rest (raw I/O,
modules, mknod, mount, ptrace, open by handle) would let root walk around Landlock."""
_CAPABILITIES_END: Final = 64

PROBE: Final = "--probe"
"""Instead of a command: try to list the directory that follows, exit 0 if that is refused."""
_KERNEL_TREES: Final = frozenset({"/proc", "/sys"})
"""Read-only for a server: writing there (core_pattern, release_agent) runs code outside."""
_MEMORY_DEVICES: Final = frozenset({"/dev/mem", "/dev/kmem", "/dev/port"})


class CannotConfine(Exception):
    """A step failed, so the server must not start."""


def landlock_abi() -> int:
    """The Landlock ABI of this kernel, 0 if there is none or it is off."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        abi = int(_libc().syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))
    except (OSError, AttributeError):
        return 0
    return max(0, abi)


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, step: str) -> int:
    if result < 0:
        raise CannotConfine(f"{step}: {os.strerror(ctypes.get_errno())}")
    return result


def openings(hidden: Iterable[str]) -> Iterator[str]:
    """Every entry that may be opened whole: the neighbours of each step from / to a hidden path.

    Symbolic links are left out, since a rule would bind to their target; what they point to has its
    own entry.  Entries that appear later beside the path stay closed.
    """
    closed = {os.path.realpath(path) for path in hidden}
    steps = {parent for path in closed for parent in _parents(path)}
    for parent in sorted(steps):
        try:
            entries = sorted(os.listdir(parent))
        except OSError:
            continue
        for name in entries:
            path = os.path.join(parent, name)
            if path not in closed and path not in steps and not os.path.islink(path):
                yield path


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def raw_devices(top: str = "/dev") -> Iterator[str]:
    """Devices that show the disk or the memory beneath every file permission."""
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name not in ("shm", "pts", "mqueue")]
        for name in names:
            path = os.path.join(folder, name)
            try:
                mode = os.lstat(path).st_mode
            except OSError:
                continue
            if stat.S_ISBLK(mode) or path in _MEMORY_DEVICES:
                yield path


def aliases(home: str, mountinfo: str) -> Iterator[str]:
    """Other paths at which ``home`` is mounted as well (bind mounts); see proc_pid_mountinfo(5)."""
    mounts = [_mount(line) for line in mountinfo.splitlines()]
    holder = [mount for mount in mounts if _within(home, mount[2])]
    if not holder:
        return
    device, root, point = max(holder, key=lambda mount: len(mount[2]))
    inner = os.path.normpath(os.path.join(root, os.path.relpath(home, point)))
    for other_device, other_root, other_point in mounts:
        if other_device != device or other_point == point:
            continue
        if _within(inner, other_root):
            yield os.path.normpath(os.path.join(other_point, os.path.relpath(inner, other_root)))
        elif _within(other_root, inner):
            yield other_point


def _mount(line: str) -> tuple[str, str, str]:
    fields = line.split(" ")
    root, point = (field.encode().decode("unicode_escape") for field in fields[3:5])
    return fields[2], root, point


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def hide(homes: Iterable[str], abi: int) -> None:
    """Landlock: this process and all it starts can neither read nor write beneath ``homes``.

    Access to /proc/<pid>/mem, environ, root, fd of processes outside is denied as well: ptrace is
    checked by Landlock's domains.  Raises CannotConfine.
    """
    handled = (1 << _RIGHTS_BITS.get(abi, _RIGHTS_BITS_NEWEST)) - 1
    granted = handled & ~(_MAKE_CHAR | _MAKE_BLOCK)
    fields = [handled, 0, _SCOPE_SIGNAL] if abi >= _ABI_SCOPES else [handled]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    libc = _libc()
    ruleset = _checked(
        libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0), "landlock_create_ruleset"
    )
    for path in openings([*homes, *_other_doors(homes)]):
        _allow(libc, ruleset, path, granted & _READ_ONLY if path in _KERNEL_TREES else granted)
    _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _other_doors(homes: Iterable[str]) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        mountinfo = table.read()
    doors = [door for home in homes for door in aliases(os.path.realpath(home), mountinfo)]
    return [*doors, *raw_devices()]


def _allow(libc: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        entry = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # gone since it was listed: nothing to open
    try:
        mode = os.fstat(entry).st_mode
        if stat.S_ISLNK(mode):
            return
        rights &= -1 if stat.S_ISDIR(mode) else _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, entry)
        _checked(
            libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0),
            f"landlock_add_rule {path}",
        )
    finally:
        os.close(entry)


def drop_capabilities() -> None:
    """For a server that stays root: keep what files and ports need, lose the rest for good."""
    libc = _libc()
    for capability in range(_CAPABILITIES_END):
        if capability not in _CAPABILITIES_KEPT:
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL past the kernel's last one
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    _checked(libc.capget(header, held), "capget")
    permitted = struct.unpack("=6I", held.raw)[1]
    kept = permitted & sum(1 << capability for capability in _CAPABILITIES_KEPT)
    _checked(libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)), "capset")


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Another user, for good: groups first, uid last."""
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except (OSError, OverflowError) as error:
        raise CannotConfine(f"cannot become uid {uid}: {error}") from None


def _run(plan: dict[str, Any], command: list[str]) -> NoReturn:
    linux = sys.platform.startswith("linux")
    if linux:
        _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if plan["abi"]:
        hide(plan["hide"], plan["abi"])
        if plan["uid"] is None and os.geteuid() == 0:
            drop_capabilities()
    if plan["uid"] is not None:
        become(plan["uid"], plan["gid"], plan["groups"])
    if command[0] == PROBE:
        sys.exit(_probe(command[1]))
    if linux:
        _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    os.closerange(3, os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else 1024)
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # the interpreter ignores or traps these
    os.execv(command[0], command)  # noqa: S606 - becoming the server is the point


def _probe(home: str) -> int:
    """0 if the home is out of reach."""
    try:
        os.listdir(home)
    except PermissionError:
        return 0
    except OSError:
        return 1
    return 1


def main(arguments: list[str]) -> int:
    try:
        _run(json.loads(arguments[0]), arguments[1:])
    except CannotConfine as error:
        reason = str(error)
    except OSError as error:
        reason = f"cannot run {error.filename or arguments[1]}: {error.strerror}"
    print(f"exeat: {reason}", file=sys.stderr)
    return 126


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

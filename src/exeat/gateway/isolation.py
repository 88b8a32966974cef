"""GW-12: what keeps a stdio server away from exeat's home (keys, vault, database, ledger).

``choose_isolation`` says what this platform can give; ``Isolation.argv`` applies it through
``confine.py``, a program that gives up rights in the child before it becomes the server.
``docs/reference/isolation.md`` says what each kind covers and what it does not.
"""

import json
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec
from exeat.gateway import confine
from exeat.gateway.confine import landlock_abi

__all__ = ["NONE", "Isolation", "choose_isolation", "landlock_abi", "proven"]

_ABI_TRUNCATE: Final = 3
_PROBE_MAX_S: Final = 10.0
NOT_ISOLATED: Final = "not isolated"


@dataclass(frozen=True, slots=True)
class Isolation:
    """``label``: ``user:<name>``, ``landlock`` or ``none``.  ``evidence``: one sentence.

    ``home``: the directory kept out of reach.  ``abi``: Landlock ABI used, 0 = no Landlock.
    ``uid``, ``gid``, ``groups``: whom the child becomes; uid None = it stays the gateway's user.
    ``user_home``: HOME of that user, empty if it stays.
    """

    label: str
    evidence: str
    home: str = ""
    abi: int = 0
    uid: int | None = None
    gid: int = 0
    groups: tuple[int, ...] = ()
    user_home: str = ""

    @property
    def isolated(self) -> bool:
        return self.label != "none"

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command line that gives up rights and then becomes ``command`` (full path first)."""
        plan = {
            "hide": [self.home] if self.home else [],
            "abi": self.abi,
            "uid": self.uid,
            "gid": self.gid,
            "groups": list(self.groups),
        }
        return [sys.executable, "-I", "-S", "-B", confine.__file__, json.dumps(plan), *command]


NONE: Final = Isolation("none", f"{NOT_ISOLATED}: no isolation was chosen")


def choose_isolation(spec: ServerSpec, home: Path, euid: int, abi: int) -> Isolation:
    """The strongest isolation that the platform gives to this server.

    ``home``: exeat's home.  ``euid``: the gateway's effective uid.  ``abi``: ``landlock_abi()``.
    Another user where ``run_as`` names one and the gateway is root (with Landlock on top where the
    kernel has it); else Landlock; else none, and the evidence says so.  Raises Invalid when
    ``run_as`` cannot be honoured: it was asked for, so nothing weaker is started instead.
    """
    user = _user(spec) if spec.run_as else None
    if user is not None and user.pw_uid not in (euid, 0):
        return _other_user(spec, user, home, euid, abi)
    if abi > 0:
        return Isolation("landlock", _landlock_evidence(euid, abi), str(home), abi)
    return Isolation("none", f"{NOT_ISOLATED}: this kernel has no Landlock and no run_as is set")


def _user(spec: ServerSpec) -> pwd.struct_passwd:
    try:
        if spec.run_as.isdecimal():
            return pwd.getpwuid(int(spec.run_as))
        return pwd.getpwnam(spec.run_as)
    except KeyError:
        raise Invalid(
            f"server {spec.id} is to run as {spec.run_as}, but this machine has no such user",
            remedy=f"create the user {spec.run_as}, or change run_as of server {spec.id}",
        ) from None


def _other_user(
    spec: ServerSpec, user: pwd.struct_passwd, home: Path, euid: int, abi: int
) -> Isolation:
    name = user.pw_name
    if euid != 0:
        raise Invalid(
            f"server {spec.id} is to run as {name}, but only a gateway started by root can do that",
            remedy=f"start exeat as root, or remove run_as of server {spec.id}",
        )
    chosen = Isolation(
        label=f"user:{name}",
        evidence=f"runs as user {name} (uid {user.pw_uid})",
        home=str(home),
        abi=abi,
        uid=user.pw_uid,
        gid=user.pw_gid,
        groups=tuple(os.getgrouplist(name, user.pw_gid)),
        user_home=user.pw_dir,
    )
    if abi > 0:
        return replace(chosen, evidence=f"{chosen.evidence}, with {_landlock_evidence(euid, abi)}")
    if _closed_to_others(home):
        return chosen
    return replace(
        chosen,
        label="none",
        evidence=f"{NOT_ISOLATED}: {chosen.evidence}, but exeat's home is open to other users",
    )


def _closed_to_others(home: Path) -> bool:
    try:
        found = home.stat()
    except OSError:
        return False
    return not stat.S_IMODE(found.st_mode) & 0o077


def _landlock_evidence(euid: int, abi: int) -> str:
    said = f"Landlock ABI {abi}"
    if abi < _ABI_TRUNCATE:
        said += ", which cannot stop truncation of files"
    return said


def proven(isolation: Isolation) -> Isolation:
    """Try it: a child under this isolation must fail to list the home.  Blocking, about 50 ms.

    Returns the isolation as it is, or ``none`` with what was seen; so evidence never claims more
    than the kernel does.
    """
    if not isolation.isolated or not Path(isolation.home).is_dir():
        return isolation
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            isolation.argv([confine.PROBE, isolation.home]),
            capture_output=True,
            timeout=_PROBE_MAX_S,
            check=False,
            env={},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Isolation("none", f"{NOT_ISOLATED}: {isolation.label} could not be tried: {error}")
    if done.returncode == 0:
        return isolation
    said = done.stderr.decode("utf-8", "replace").strip() or "the home could be read"
    return Isolation("none", f"{NOT_ISOLATED}: {isolation.label} was tried and failed: {said}")

"""Tasks: work of a server that outlives the call it came from (2025-11-25; extension of 2026-07-28).

Served only where the server is registered to allow ``tasks/get`` (GW-7).  To the server all agents of
the gateway are one client, so whose a task is, only the gateway can say: a client is given the task's
name sealed for its principal, and what does not open for a principal is an unknown task to it (GW-8).
No state is kept, and the names survive a restart.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from exeat.core.facts import ServerFacts

GET: Final = "tasks/get"
OWNED: Final = frozenset({GET, "tasks/result", "tasks/cancel"})
NEVER_SERVED: Final = frozenset({"tasks/list", "tasks/update"})
"""A list would be everybody's; answers to a task's questions name no question to be decided like."""
EXTENSION: Final = "io.modelcontextprotocol/tasks"
_RELATED: Final = "io.modelcontextprotocol/related-task"
_PREFIX: Final = "ext1."


def served(server: ServerFacts) -> bool:
    return GET in server.extra_methods


class TaskNames:
    """AES-SIV (RFC 5297): the same task has the same name each time, which clients compare.
    ``key``: 32 bytes that outlive the process."""

    def __init__(self, key: bytes) -> None:
        self._siv = AESSIV(hmac.digest(key, b"exeat/v1/tasks", "sha512"))

    def shown(self, server: str, principal: str, task: str) -> str:
        sealed = self._siv.encrypt(task.encode() or b"\0", [server.encode(), principal.encode()])
        return _PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii")

    def meant(self, server: str, principal: str, name: object) -> str | None:
        """The server's own name; None: no task, or not this principal's, or another server's."""
        if type(name) is not str or not name.startswith(_PREFIX) or not name.isascii():
            return None
        try:
            sealed = base64.urlsafe_b64decode(name[len(_PREFIX) :])
            if _PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii") != name:
                return None
            plain = self._siv.decrypt(sealed, [server.encode(), principal.encode()])
        except (InvalidTag, binascii.Error, ValueError):
            return None
        return plain.decode()


def augmentation(params: dict[str, Any], *, allowed: bool) -> None:
    """Of a legacy call's wish to be a task, what is known is kept: how long it shall be remembered."""
    wish = params.pop("task", None)
    if allowed and type(wish) is dict:
        ttl = wish.get("ttl")
        params["task"] = {"ttl": ttl} if type(ttl) is int else {}


def rename(result: dict[str, Any], shown: Callable[[str], str]) -> None:
    """Every place where a result names its task."""
    meta = result.get("_meta")
    related = meta.get(_RELATED) if isinstance(meta, dict) else None
    for place in (result, result.get("task"), related):
        if isinstance(place, dict) and isinstance(place.get("taskId"), str):
            place["taskId"] = shown(place["taskId"])


def capability(offered: Mapping[str, Any]) -> dict[str, Any]:
    """The server's own offer of tasks in either era, less what the gateway does not serve."""
    found: dict[str, Any] = {}
    legacy, extensions = offered.get("tasks"), offered.get("extensions")
    if isinstance(legacy, dict):
        found["tasks"] = {key: legacy[key] for key in ("cancel", "requests") if key in legacy}
    if isinstance(extensions, dict) and isinstance(extensions.get(EXTENSION), dict):
        found["extensions"] = {EXTENSION: extensions[EXTENSION]}
    return found

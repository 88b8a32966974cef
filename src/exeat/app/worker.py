"""One worker of ``exeat up --workers N``, a process of its own: ``python -m exeat.app.worker``.

Its first line of stdin holds home and settings; stdin then stays open as long as the supervisor
lives.  Its line of stdout says that it listens, or why it could not start.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, Final

import structlog

from exeat.app.logs import log_to_stderr
from exeat.app.serve import Gateway, serve
from exeat.app.settings import Settings
from exeat.core.errors import ExeatError
from exeat.evidence.store import StoreFailed

_STDIN, _STDOUT, _STDERR = 0, 1, 2
LINE_MAX_BYTES: Final = 1024 * 1024


def order(
    home: Path, settings: Settings, listener: int, *, verbose: bool, serves_control: bool
) -> bytes:
    """What the supervisor writes.  ``listener``: the descriptor that the worker inherits."""
    value = {
        "home": str(home),
        "settings": settings.model_dump(mode="json"),
        "listener": listener,
        "verbose": verbose,
        "serves_control": serves_control,
    }
    return json.dumps(value).encode() + b"\n"


def _ordered() -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_MAX_BYTES:
        part = os.read(_STDIN, 65_536)
        if not part:
            raise SystemExit(1)  # the supervisor ended before it said anything
        line += part
    value: dict[str, Any] = json.loads(line)
    return value


def _listener(descriptor: int) -> socket.socket:
    """The supervisor's, for us and the other workers; not for processes that we start."""
    os.set_inheritable(descriptor, False)
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    return listener


def _say(value: dict[str, Any]) -> None:
    """The one line for the supervisor; whatever else is printed belongs with the log."""
    with contextlib.suppress(OSError):  # it ended: we shall hear of that on stdin
        os.write(_STDOUT, json.dumps(value).encode() + b"\n")
    os.dup2(_STDERR, _STDOUT)


def _outlive_nobody() -> None:
    """The supervisor is gone, however it went: stop as told."""

    def wait() -> None:
        while os.read(_STDIN, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="exeat-supervisor", daemon=True).start()


def main() -> int:
    given = _ordered()
    log_to_stderr(verbose=bool(given["verbose"]))
    settings = Settings(**given["settings"])
    structlog.contextvars.bind_contextvars(worker=settings.instance)
    _outlive_nobody()

    def ready(gateway: Gateway, port: int) -> None:
        _say({"port": port})

    try:
        serve(
            Path(given["home"]),
            settings,
            ready,
            listener=_listener(given["listener"]),
            serves_control=bool(given["serves_control"]),
        )
    except ExeatError as error:
        _say({"error": str(error), "remedy": error.remedy})
        return 1
    except StoreFailed as error:
        _say({"error": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

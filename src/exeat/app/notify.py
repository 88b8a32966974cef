"""sd_notify: tell systemd (``Type=notify``) when the gateway listens, and when it stops."""

import os
import socket
from typing import Final

ADDRESS: Final = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """``READY=1`` or ``STOPPING=1``.  Without systemd nothing happens; a refusal is no reason to stop."""
    address = os.environ.get(ADDRESS, "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address[0] == "@" else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.setblocking(False)
            door.sendto(state.encode(), name)
    except OSError:
        return

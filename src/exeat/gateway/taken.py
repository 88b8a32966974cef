"""How much of what was written a client has taken, as the system knows it.

A transport's buffer does not tell: the system takes a megabyte at once, and under TLS there is a
second buffer below the one that the transport shows.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from typing import Final

_LINUX: Final = sys.platform == "linux"
_ACKED_AT: Final = 120  # of struct tcp_info: tcpi_bytes_acked
_INFO_BYTES: Final = 128


def taken(transport: asyncio.Transport) -> tuple[int, int]:
    """A number that grows while the client takes bytes, and how many still wait for it."""
    waiting = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if not _LINUX or sock is None:
        return -waiting, waiting
    with contextlib.suppress(OSError, struct.error):
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
        with socket.socket(fileno=os.dup(sock.fileno())) as own:  # uvloop's has no getsockopt
            info = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        waiting += int.from_bytes(queued, sys.byteorder)
        return struct.unpack_from("=Q", info, _ACKED_AT)[0], waiting
    return -waiting, waiting

"""Bounded lines: stdout of a child split into messages, stderr kept as a redacted ring.  No I/O."""

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

STDERR_RING_BYTES: Final = 64 * 1024
STDERR_LINE_MAX_BYTES: Final = 4 * 1024
STDERR_LOGGED_PER_WINDOW: Final = 100
STDERR_WINDOW_S: Final = 10.0
REDACTED: Final = "[redacted]"
_OURS: Final = "exeat: "


class LineFlood(Exception):
    """More bytes than the limit without a line end."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"a line of more than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class LineSplitter:
    """Bytes in, whole lines out (without line end); holds at most one line of ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._shut = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields each completed line.  Raises LineFlood after the lines before the flood."""
        start = 0
        while not self._shut:
            end = data.find(b"\n", start)
            piece = data[start:] if end < 0 else data[start:end]
            self._size += len(piece)
            if self._size > self._limit_bytes:
                self.shut()
                raise LineFlood(self._limit_bytes)
            if end < 0:
                if piece:
                    self._parts.append(piece)
                return
            line = b"".join((*self._parts, piece)) if self._parts else piece
            self._parts.clear()
            self._size = 0
            start = end + 1
            yield line[:-1] if line.endswith(b"\r") else line

    def shut(self) -> None:
        """Take nothing more."""
        self._shut = True
        self._parts.clear()


class StderrRing:
    """The last 64 KiB of stderr in lines, each redacted before it is kept.

    ``secrets``: values never shown.  A long line is cut, and cut further by the longest secret, so
    that no part of a secret survives at the edge.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        # A secret of several lines is looked for line by line: that is how it arrives here.
        known = {part for value in secrets for part in (value, *value.splitlines()) if part.strip()}
        ordered = sorted(known, key=len, reverse=True)
        self._secret = re.compile("|".join(map(re.escape, ordered))) if ordered else None
        self._edge = max((len(value.encode()) for value in ordered), default=1) - 1
        self._kept: deque[str] = deque()
        self._kept_bytes = 0
        self._line = bytearray()
        self._cut = False
        self._window_from = float("-inf")
        self._window_count = 0
        self.unlogged = 0

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take bytes; returns the redacted lines to log, few per window (a steady ``now_s``)."""
        shown = []
        for number, piece in enumerate(data.split(b"\n")):
            if number:
                text = self._end_line()
                if text and self._may_log(now_s):
                    shown.append(text)
            room = STDERR_LINE_MAX_BYTES + self._edge - len(self._line)
            self._line += piece[:room]
            self._cut = self._cut or len(piece) > room
        return shown

    def close(self) -> str:
        """The last line without an end, redacted."""
        return self._end_line()

    def tail(self) -> str:
        return "\n".join(self._kept)

    def confinement_failure(self) -> str:
        """What ``confine.py`` said if it was the last to speak, else empty."""
        last = (self._kept[-1] if self._kept else "") if not self._line else ""
        return last.removeprefix(_OURS) if last.startswith(_OURS) else ""

    def _end_line(self) -> str:
        raw = bytes(self._line)
        self._line.clear()
        text = raw.decode("utf-8", "replace").rstrip("\r")
        if self._secret is not None:
            text = self._secret.sub(REDACTED, text)
        if self._cut or len(raw) > STDERR_LINE_MAX_BYTES:
            text = text[: max(0, len(text) - self._edge)] + " [cut]"
        self._cut = False
        self._keep(text)
        return text

    def _keep(self, text: str) -> None:
        if not text:
            return
        self._kept.append(text)
        self._kept_bytes += len(text.encode()) + 1
        while self._kept_bytes > STDERR_RING_BYTES:
            self._kept_bytes -= len(self._kept.popleft().encode()) + 1

    def _may_log(self, now_s: float) -> bool:
        if now_s - self._window_from >= STDERR_WINDOW_S:
            self._window_from, self._window_count = now_s, 0
        self._window_count += 1
        if self._window_count <= STDERR_LOGGED_PER_WINDOW:
            return True
        self.unlogged += 1
        return False

"""Where log lines go: stderr, and nowhere if nobody takes them.

A gateway must not stop deciding because a terminal was closed or a pipe has no reader any more.
"""

import contextlib
import logging
import sys
from typing import TextIO

import structlog


class Sink:
    """What structlog needs of a logger.  Never raises."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        if self._stream is None:  # the process was started without one
            return
        with contextlib.suppress(OSError, ValueError):  # no reader; closed
            self._stream.write(message + "\n")
            self._stream.flush()

    log = debug = info = warn = warning = error = critical = exception = fatal = msg


def log_to_stderr(*, verbose: bool) -> None:
    """Warnings and errors; ``verbose``: what goes well, too."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.INFO if verbose else logging.WARNING
        ),
        logger_factory=lambda *_: Sink(sys.stderr),
    )

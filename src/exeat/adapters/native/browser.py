"""Opens the person's browser, apart from our own streams: stdin and stdout carry the protocol."""

import subprocess
import sys
import threading


def open_browser(url: str) -> None:
    """Best effort, and at once: the URL is printed as well.  A child, as a browser for terminals would
    read our stdin, and some programs that start browsers do not return."""
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell, and the URL was checked
            [sys.executable, "-m", "webbrowser", url],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return
    threading.Thread(target=child.wait, name="browser", daemon=True).start()

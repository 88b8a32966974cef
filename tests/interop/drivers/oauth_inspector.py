"""Inspector's command line signs in by itself: `oauth_inspector.py URL FOLDER COMMAND…`.

The first run has what a person gives it, a terminal as its stdin; it opens no browser, but prints the address
and waits at its own callback.  The second run may not ask anybody (``--stored-auth-only``): it refreshes what
the first one kept in FOLDER.  Inspector never gets the driver's own stdin: Node makes it non-blocking for both.
"""

import json
import os
import pty
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

ASKS = "Please navigate to: "


def run(url: str, folder: str, command: list[str], a: int, *words: str) -> None:
    env = {
        **os.environ, "HOME": folder, "MCP_STORAGE_DIR": folder, "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_SECRET_STORE": "file", "NO_COLOR": "1",
    }  # fmt: skip
    argv = [
        *command, url, "--transport", "http", *words, "--method", "tools/call",
        "--tool-name", "add", "--tool-arg", f"a={a}", "b=2",
    ]  # fmt: skip
    person, terminal = pty.openpty()
    with subprocess.Popen(
        argv, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    ) as inspector:
        assert inspector.stdout is not None and inspector.stderr is not None
        said = []
        for line in inspector.stderr:
            said.append(line)
            if ASKS in line:
                print(f"URL {line.split(ASKS)[1].strip()}", flush=True)
                where = sys.stdin.readline().strip()
                urllib.request.urlopen(where).read()  # noqa: S310 - its own callback
        answer = inspector.stdout.read()
    os.close(person)
    os.close(terminal)
    try:
        print(f"SUM {json.loads(answer)['content'][0]['text']}", flush=True)
    except (ValueError, KeyError):
        sys.exit("".join(said)[-1500:] + answer[-500:])


def spoil(kept: Path) -> None:
    """The access token that Inspector kept is no longer good, as after its minutes."""
    store = json.loads(kept.read_text())
    (name,) = (name for name in store["secrets"] if ":tokens:" in name)
    tokens = {**json.loads(store["secrets"][name]), "access_token": "no-longer-good"}
    store["secrets"][name] = json.dumps(tokens)
    kept.write_text(json.dumps(store))


def main(url: str, folder: str, *command: str) -> None:
    """The callback's port is a free one; Inspector's own, 6276, may be somebody's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        callback = f"http://127.0.0.1:{free.getsockname()[1]}/oauth/callback"
    run(url, folder, list(command), 1, "--callback-url", callback)
    spoil(Path(folder) / "secrets.json")
    run(url, folder, list(command), 2, "--stored-auth-only")


main(*sys.argv[1:])

"""Inspector's command line signs in by itself: `oauth_inspector.py URL FOLDER COMMAND…`.

Its first run would open a browser: it prints the address, and waits at its own callback.  The second run may
not ask anybody (``--stored-auth-only``): it takes what the first one kept in FOLDER.
"""

import json
import os
import subprocess
import sys
import urllib.request

ASKS = "Please navigate to: "


def run(url: str, folder: str, command: list[str], a: int, *words: str) -> None:
    env = {
        **os.environ, "HOME": folder, "MCP_STORAGE_DIR": folder, "MCP_AUTO_OPEN_ENABLED": "true",
        "MCP_INSPECTOR_SECRET_STORE": "file", "BROWSER": "true", "NO_COLOR": "1",
    }  # fmt: skip
    argv = [
        *command, url, "--transport", "http", *words, "--method", "tools/call",
        "--tool-name", "add", "--tool-arg", f"a={a}", "b=2",
    ]  # fmt: skip
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
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
    try:
        print(f"SUM {json.loads(answer)['content'][0]['text']}", flush=True)
    except (ValueError, KeyError):
        print("".join(said)[-1500:], answer[-500:], flush=True)


run(sys.argv[1], sys.argv[2], sys.argv[3:], 1)
run(sys.argv[1], sys.argv[2], sys.argv[3:], 2, "--stored-auth-only")

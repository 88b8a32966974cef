"""Real gateway processes for tests: started, killed, and asked over plain HTTP."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
ACCEPT = "application/json, text/event-stream"


class Gateway:
    """One `exeat up` on a home; ready when the constructor returns."""

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "exeat.cli.main", "up", "--home", str(home), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("exeat is up: "), line
        self.url = line.split()[-1]
        self.port = int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def stop(self) -> int:
        self.process.terminate()
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def post(
        self, path: str, key: str, body: bytes | dict[str, Any], headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", "accept": ACCEPT, **headers}
        if key:
            sent["authorization"] = f"Bearer {key}"
        try:
            connection.request("POST", path, raw, sent)
            answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, fields, answer.read()
        finally:
            connection.close()

    def modern(
        self, path: str, key: str, method: str, params: dict[str, Any], number: int = 1
    ) -> dict[str, Any]:
        """One modern request; its message, from JSON or from the end of an event stream."""
        headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
        name = params.get("name", params.get("uri"))
        if name is not None:
            headers["mcp-name"] = name
        body = {
            "jsonrpc": "2.0",
            "id": number,
            "method": method,
            "params": {**params, "_meta": META},
        }
        _, fields, raw = self.post(path, key, body, headers)
        return message(fields, raw)

    def call(self, path: str, key: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.modern(path, key, "tools/call", {"name": tool, "arguments": arguments})


def message(fields: Mapping[str, str], raw: bytes) -> dict[str, Any]:
    if fields.get("content-type") == "text/event-stream":
        data = [line[5:] for line in raw.splitlines() if line.startswith(b"data:")]
        raw = data[-1]
    found: dict[str, Any] = json.loads(raw)
    return found


@contextmanager
def gateway(home: Path) -> Iterator[Gateway]:
    running = Gateway(home)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()

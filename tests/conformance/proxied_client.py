"""The gateway as the client under test: reference client → gateway → the suite's own servers (ID-9).

Run by the suite with its server's URL as the last argument.  A whole gateway is started on a new home
where that server is registered with the mode of credentials that the scenario is about.  The reference
client knows no gateway, so this script stands before it: it adds the agent's key, and plays the person
who opens the consent page that the gateway names.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from browsing import Browser
from homes import ADA, Home
from suite import free_port, wait_for

from exeat.core.upstream_auth import NO_AUTH, AuthMode, UpstreamAuth
from exeat.registry.rules.pins import definition_digest

DOCUMENT = "https://conformance-test.local/client-metadata.json"
READY_S = 15.0
CONSENTS_MAX = 6
LINK = re.compile(r"http://localhost:\d+/upstreams/consent/[A-Za-z0-9_\-.=]+")
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def auth_of(scenario: str, url: str, home: Path) -> tuple[UpstreamAuth, dict[str, str]]:
    """The registration that the scenario calls for, and the gateway's environment."""
    context: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    if not scenario.startswith("auth/"):
        return NO_AUTH, {}
    client = context.get("client_id")
    if not client:
        return UpstreamAuth(AuthMode.AUTHORIZATION_CODE), {}
    known: dict[str, Any] = {"client_id": client, "issuer": issuer_of(url)}
    variables = {}
    if "private_key_pem" in context:
        path = home / "client.pem"
        path.write_text(context["private_key_pem"])
        known["key_file"] = str(path)
    elif "client_secret" in context:
        variables["UPSTREAM_SECRET"] = context["client_secret"]
        known["secret_from"] = "UPSTREAM_SECRET"
    mode = AuthMode.AUTHORIZATION_CODE
    if scenario.startswith("auth/client-credentials"):
        mode = AuthMode.CLIENT_CREDENTIALS
    elif "idp_id_token" in context:
        mode = AuthMode.ID_JAG
        variables["UPSTREAM_SUBJECT"] = context["idp_id_token"]
        known |= {"subject_from": "UPSTREAM_SUBJECT", "idp": context["idp_issuer"],
                  "idp_client_id": context["idp_client_id"]}  # fmt: skip
    return UpstreamAuth(mode, **known), variables


def issuer_of(url: str) -> str:
    """What an operator would be told by whoever registered the gateway there."""
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    for path in (parts.path, ""):
        answer = httpx2.get(f"{origin}/.well-known/oauth-protected-resource{path}")
        if answer.status_code == 200:
            return str(answer.json()["authorization_servers"][0])
    raise SystemExit("the server names no authorization server")


class Under:
    """The gateway, its one agent and the agent's person."""

    def __init__(self, home: Home, port: int, control: str, bearer: str) -> None:
        self.home, self.url = home, f"http://127.0.0.1:{port}/mcp/ref"
        self.bearer = {"authorization": f"Bearer {bearer}"}
        self.browser = Browser(control)
        self.consents = 0
        self.client = httpx2.Client(timeout=60)
        self.lock = threading.Lock()

    def gave_consent(self, text: str) -> bool:
        """True if the text names a consent page, and the person went there."""
        found = LINK.search(text)
        if found is None:
            return False
        with self.lock:
            self.consents += 1
            if self.consents > CONSENTS_MAX:
                return False
            page = self.browser.consent(found[0])
        print(f"consent: HTTP {page.status_code}", self.browser.visited[-3:], file=sys.stderr)
        if page.status_code != 200:
            print(re.sub(r"<[^>]+>|\s+", " ", page.text), file=sys.stderr)
        return page.status_code == 200

    def tools(self) -> list[dict[str, Any]]:
        """What the registry has seen of the server so far."""
        with self.home.state.registry.read() as read:
            return [dict(tool.pending.body) for tool in read.tools() if tool.pending is not None]

    def pin(self) -> None:
        """Look at the server through the gateway, with the person's consent, and pin all of it."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            answer = self._list()
            if self.gave_consent(answer.text):
                continue
            with self.home.state.registry.read() as read:
                waiting = [tool for tool in read.tools() if tool.pending is not None]
            for tool in waiting:
                self.home.registry.pin(
                    tool.action, definition_digest(tool.pending.body), self.home.act()
                )
            if answer.json().get("result", {}).get("tools"):
                return
            if "error" in answer.json():
                print("list:", answer.text[:500], file=sys.stderr)
                return
            time.sleep(0.1)

    def _list(self) -> httpx2.Response:
        return self.client.post(
            self.url,
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}},
            headers={
                **self.bearer,
                "accept": "application/json, text/event-stream",
                "mcp-protocol-version": "2026-07-28",
                "mcp-method": "tools/list",
            },
        )


@contextmanager
def gateway(url: str, scenario: str) -> Iterator[Under]:
    with tempfile.TemporaryDirectory(prefix="exeat-client-") as folder:
        made = Home(Path(folder) / "home")
        auth, variables = auth_of(scenario, url, Path(folder))
        made.server("ref", url=url, auth=auth)
        made.agent("bot", ["ref"])
        bearer = made.key("bot", ADA)
        made.policy('@id("all") permit(principal, action, resource);')
        port, control = free_port(), free_port()
        environ = {
            **os.environ,
            **variables,
            "EXEAT_CONTROL_PORT": str(control),
            "EXEAT_CLIENT_DOCUMENT_URL": DOCUMENT,
        }
        exeat = str(Path(sys.executable).with_name("exeat"))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [exeat, "up", "--home", str(made.path), "--port", str(port)],
                stdout=log,
                stderr=log,
                env=environ,
            )
            try:
                wait_for(port, process)
                wait_for(control, process)
                yield Under(made, port, f"http://localhost:{control}", bearer)
            finally:
                process.terminate()
                process.wait(20)
                made.state.close()
        print((Path(folder) / "log").read_text(), file=sys.stderr)


def handler(under: Under) -> type[BaseHTTPRequestHandler]:
    class Before(BaseHTTPRequestHandler):
        """Adds the key, and sends a request again once the person gave the consent it lacked; a modern
        client is shown the question, and comes back itself."""

        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("host", "content-length", "connection", "accept-encoding")
            }
            while True:
                sent = under.client.build_request(
                    self.command, under.url, content=body, headers={**headers, **under.bearer}
                )
                answer = under.client.send(sent, stream=True)
                if answer.headers.get("content-type") == "text/event-stream":
                    self._stream(answer)
                    return
                text = answer.read().decode()
                asked = LINK.search(text) is not None and under.gave_consent(text)
                if not asked or '"input_required"' in text:
                    break
            self._head(answer)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def _head(self, answer: httpx2.Response) -> None:
            self.send_response(answer.status_code)
            for name in ("content-type", "mcp-session-id", "www-authenticate"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])

        def _stream(self, answer: httpx2.Response) -> None:
            self._head(answer)
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for piece in answer.iter_raw():
                    self.wfile.write(piece)
                    self.wfile.flush()
            except (OSError, httpx2.HTTPError):
                pass
            finally:
                answer.close()

        do_GET = do_POST = do_DELETE = _pass_on

        def log_message(self, format: str, *args: Any) -> None: ...

    return Before


def main() -> int:
    url, scenario = sys.argv[-1], os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    with gateway(url, scenario) as under:
        under.browser.sign_in(under.home)
        under.pin()
        before = ThreadingHTTPServer(("127.0.0.1", 0), handler(under))
        before.daemon_threads = True
        threading.Thread(target=before.serve_forever, daemon=True).start()
        client = [sys.executable, "-W", "ignore", os.environ["REFERENCE_CLIENT"]]
        environ = dict(os.environ)
        if scenario.startswith("auth/"):  # to it, ours is a server that wants nothing
            environ["MCP_CONFORMANCE_SCENARIO"] = "auth/through-a-gateway"
            environ.pop("MCP_CONFORMANCE_CONTEXT", None)
        done = subprocess.run(
            [*client, f"http://127.0.0.1:{before.server_port}/mcp"], env=environ, check=False
        )
        before.shutdown()
        before.server_close()
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""A token that is bound to a client's certificate, over a real TLS connection (ID-4, RFC 8705)."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from gateways import Gateway, decisions, running, start_matrix_server, url_of
from homes import Home
from issuing import ALL, sign
from requirements import requirement
from worlds import META, VERSION

from exeat.app.issuers import oauth_key
from exeat.core.ids import AgentId
from exeat.gateway.proof import thumbprint

ISSUER = "https://signs.example"


@dataclass
class Place:
    home: Home
    gateway: Gateway
    authority: Authority

    def token(self, certificate: Path, **changes: Any) -> str:
        key = oauth_key(self.home.path)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": "svc", "client_id": "svc", "scope": ALL, "exp": now + 300,
            "aud": f"https://localhost:{self.gateway.port}/mcp/up",
            "cnf": {"x5t#S256": thumbprint(der)}, **changes,
        }  # fmt: skip
        return sign(key, {"typ": "at+jwt", "kid": key.kid}, claims)

    def call(self, token: str, pair: tuple[Path, Path]) -> int:
        context = ssl.create_default_context(cafile=self.authority.path)
        context.load_cert_chain(*pair)
        wire = http.client.HTTPSConnection(
            "localhost", self.gateway.port, context=context, timeout=15
        )
        body = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "add", "arguments": {"a": 1, "b": 2}, "_meta": META},
        }  # fmt: skip
        fields = {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {token}", "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call", "Mcp-Name": "add",
        }  # fmt: skip
        try:
            wire.request("POST", "/mcp/up", json.dumps(body), fields)
            answer = wire.getresponse()
            answer.read()
            return answer.status
        finally:
            wire.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = Authority(tmp_path)
    server, key = authority.issue("localhost")
    home = Home(tmp_path / "home")
    with running(start_matrix_server()) as upstream:
        home.pin_all(home.server("up", url=url_of(upstream)))
        home.policy('@id("all") permit(principal, action, resource);')
        home.agent("bot", ["up"])
        home.registry.bind(ISSUER, "svc", None, AgentId("bot"), home.act())
        with running(
            Gateway(
                home.path, issuer_url=ISSUER, tls_certificate=str(server), tls_key=str(key),
                tls_client_ca=str(authority.path),
            )
        ) as gateway:  # fmt: skip
            yield Place(home, gateway, authority)


@requirement("ID-4")
def test_only_the_connection_of_that_certificate(place: Place) -> None:
    mine, other = (place.authority.issue(name, client=True) for name in ("mine", "other"))
    token = place.token(mine[0])
    assert place.call(token, mine) == 200
    leaf, _, _ = decisions(place.home.path)[-1]
    assert (leaf.agent.id, leaf.user) == ("bot", "")
    assert leaf.credential_thumbprint == thumbprint(ssl.PEM_cert_to_DER_cert(mine[0].read_text()))
    assert place.call(token, other) == 401
    assert place.call(place.token(mine[0], cnf=None), other) == 200  # bound to nothing

"""The control listener of a real `exeat up`: apart from the edge, bounded, under TLS, once per crew."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from certificates import Authority
from gateways import Gateway, Wire, environ, permit_all, running, start_matrix_server, url_of
from homes import ADA, Home
from portal import VERIFIER, authorize_path
from requirements import requirement
from signing_in import CALLBACK, Person, issuer_of

from exeat.identity.authorization.model.doing import Doing
from exeat.identity.authorization.rules.scopes import SCOPES
from exeat.identity.authorization.service.clients import Clients, New
from exeat.identity.signin.service import RelyingParty, SignIn


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.state.close()


def doing(home: Home) -> Doing:
    act = home.act()
    return Doing(act.actor, act.channel, act.at, act.reason)


def link(home: Home, issuer: str) -> str:
    sign_in = SignIn(home.state.sign_in, RelyingParty("localhost", issuer), os.urandom)
    return f"{issuer}/link/{sign_in.make_link(ADA, doing(home))}"


@requirement("GW-13")
def test_the_edge_serves_no_sign_in_and_the_control_listener_no_mcp(home: Home) -> None:
    home.server("m", command=("true",))
    key = home.agent("bot", ["m"])
    with running(Gateway(home.path)) as gateway:
        issuer = issuer_of(gateway)
        edge = f"http://127.0.0.1:{gateway.port}"
        for path in ("/sign-in", "/oauth/authorize", "/oauth/token", "/link/x"):
            assert httpx2.get(edge + path).status_code == 404
        headers = {"Authorization": f"Bearer {key}"}
        for path in ("/mcp", "/mcp/m", "/healthz", "/readyz"):
            assert httpx2.post(issuer + path, headers=headers).status_code == 404
        found = httpx2.get(f"{edge}/.well-known/oauth-protected-resource/mcp").json()
        assert found["authorization_servers"] == [issuer]
        said = httpx2.get(f"{issuer}/.well-known/oauth-authorization-server").json()
        assert said["issuer"] == issuer
        assert said["code_challenge_methods_supported"] == ["S256"]
        assert said["authorization_response_iss_parameter_supported"] is True
        assert said["client_id_metadata_document_supported"] is True
        assert set(found["scopes_supported"]) <= set(said["scopes_supported"])
        assert gateway.stop() == 0


@requirement("GW-13")
def test_a_slow_or_large_head_is_cut_off(home: Home) -> None:
    with running(Gateway(home.path, head_time_max_s="0.5")) as gateway:
        port = int(issuer_of(gateway).rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost")
            assert slow.recv(100) == b""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as large:
            with contextlib.suppress(OSError):  # it may close before it has read all of it
                large.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 100_000)
            with contextlib.suppress(ConnectionResetError):
                assert large.recv(100).startswith((b"HTTP/1.1 400", b""))
        assert httpx2.get(issuer_of(gateway) + "/sign-in").status_code == 200
        kept = socket.create_connection(("127.0.0.1", port), timeout=20)
        assert gateway.stop() == 0  # an open connection holds nothing up
        kept.close()


@requirement("ID-8")
def test_a_port_that_is_taken_is_said(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        argv = [
            sys.executable,
            "-m",
            "exeat.cli.main",
            "up",
            "--home",
            str(home.path),
            "--port",
            "0",
        ]
        done = subprocess.run(
            argv, env=environ(EXEAT_CONTROL_PORT=str(port)), capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} for sign-in" in done.stderr
    assert "control_port" in done.stderr and "Traceback" not in done.stderr


@requirement("ID-8")
def test_under_tls(home: Home, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    with running(Gateway(home.path, **settings)) as gateway:
        issuer = issuer_of(gateway)
        assert issuer.startswith("https://localhost:")
        context = ssl.create_default_context(cafile=authority.path)
        person = Person(issuer, verify=context)
        person.sign_in(link(home, issuer))
        names = {cookie.name.partition("exeat")[0] for cookie in person.http.cookies.jar}
        assert names == {"__Host-"}
        assert all(cookie.secure for cookie in person.http.cookies.jar)
        assert person.http.get("/").status_code == 200
        person.close()


@pytest.mark.long
@requirement("ID-7")
def test_of_several_workers_one_signs_people_in_for_all(home: Home) -> None:
    with running(start_matrix_server()) as upstream:
        home.pin_all(home.server("m", url=url_of(upstream)))
        home.agent("bot", ["m"])
        permit_all(home, "bot")
        clients = Clients(home.state.authorization, os.urandom)
        client, _ = clients.add(New("web", 30, (CALLBACK,)), doing(home))
        (home.path / "operator").write_text("ada\n")
        with running(Gateway(home.path, workers="2")) as gateway:
            issuer = issuer_of(gateway)
            while "open this within 15 minutes, once: " not in gateway.output:
                assert gateway.process.poll() is None
            assert gateway.output.count("/link/") == 1
            person = Person(issuer)
            person.sign_in(link(home, issuer))
            where = authorize_path(
                client.id, resource=gateway.endpoint("m"), scope=" ".join(SCOPES)
            )
            told = person.allow(issuer + where, "bot")
            form = {
                "grant_type": "authorization_code", "client_id": client.id, "code": told["code"],
                "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
            }  # fmt: skip
            said = json.loads(person.http.post("/oauth/token", data=form).text)
            for _ in range(12):  # connections spread over both
                wire = Wire(gateway.port, said["access_token"], "/mcp/m")
                wire.call("add", a=1, b=2)
                assert wire.status == 200
                wire.http.close()
            form = {"token": said["access_token"], "client_id": client.id}
            assert person.http.post("/oauth/revoke", data=form).status_code == 200
            for _ in range(12):
                wire = Wire(gateway.port, said["access_token"], "/mcp/m")
                wire.call("add", a=1, b=2)
                assert wire.status == 401
                wire.http.close()
            person.close()
            assert gateway.stop() == 0

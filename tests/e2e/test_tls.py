"""TLS towards clients (GW-14): good ones served, others refused, certificates renewed in place."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from gateways import Gateway, NotStarted, Server, environ, running
from homes import Home
from requirements import requirement

from exeat.gateway.tls import ServerTls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tls")
    Home(made / "home").state.close()
    return made


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "authority")


def tls_gateway(folder: Path, pair: tuple[Path, Path], **more: str) -> Gateway:
    return Gateway(folder / "home", tls_certificate=str(pair[0]), tls_key=str(pair[1]), **more)


@pytest.fixture(scope="module")
def gateway(folder: Path, authority: Authority) -> Iterator[Gateway]:
    with running(tls_gateway(folder, authority.issue("server"))) as made:
        yield made


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


def health(port: int, context: ssl.SSLContext) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@requirement("GW-14")
def test_a_client_that_trusts_the_authority_is_served(
    gateway: Gateway, authority: Authority
) -> None:
    assert gateway.url.startswith("https://")
    assert health(gateway.port, trusting(authority)) == (200, b"ok\n")


@requirement("GW-14")
def test_a_body_in_pieces_and_keep_alive_work_over_tls(
    gateway: Gateway, authority: Authority
) -> None:
    context = trusting(authority)
    with (
        socket.create_connection(("127.0.0.1", gateway.port), 10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as wire,
    ):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
        head = (
            b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"accept: application/json, text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        for _ in range(2):
            for byte in head + body:
                wire.sendall(bytes([byte]))
            assert wire.recv(4096).startswith(b"HTTP/1.1 401 ")


@requirement("GW-14")
def test_others_are_refused(gateway: Gateway, authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        health(gateway.port, ssl.create_default_context())
    old = trusting(authority)
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        health(gateway.port, old)
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        answer = b""
        try:
            while piece := plain.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        assert not answer.startswith(b"HTTP/1.1 200")
    assert health(gateway.port, trusting(authority))[0] == 200


@requirement("GW-14")
def test_half_a_handshake_holds_nobody_up(gateway: Gateway, authority: Authority) -> None:
    held = [socket.create_connection(("127.0.0.1", gateway.port), 10) for _ in range(50)]
    try:
        for each in held:
            each.sendall(b"\x16\x03\x01")
        assert health(gateway.port, trusting(authority))[0] == 200
    finally:
        for each in held:
            each.close()


@requirement("GW-14")
def test_a_renewed_certificate_is_taken_and_a_broken_one_is_not(
    folder: Path, authority: Authority
) -> None:
    pair = authority.issue("renewed")
    with running(tls_gateway(folder, pair, instance="gw2")) as gateway:
        other = Authority(folder, "other")
        context = trusting(authority)
        kept = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=context, timeout=10)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        pair[0].write_text("nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        while "not renewed" not in gateway.output:
            assert gateway.process.poll() is None
        assert health(gateway.port, trusting(authority))[0] == 200
        other.issue("renewed")
        gateway.process.send_signal(signal.SIGHUP)
        while True:
            try:
                assert health(gateway.port, trusting(other))[0] == 200
                break
            except ssl.SSLCertVerificationError:
                pass  # the signal is on its way
        kept.request("GET", "/healthz")  # the connection of before goes on
        assert kept.getresponse().read() == b"ok\n"
        kept.close()


@requirement("GW-14")
def test_clients_must_show_a_certificate_where_one_is_asked_for(
    folder: Path, authority: Authority
) -> None:
    pair = authority.issue("strict")
    with running(
        tls_gateway(folder, pair, tls_client_ca=str(authority.path), instance="gw3")
    ) as gateway:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            health(gateway.port, trusting(authority))
        known = trusting(authority)
        known.load_cert_chain(*authority.issue("client"))
        assert health(gateway.port, known)[0] == 200


@requirement("GW-14")
@pytest.mark.parametrize("wrong", ["missing", "mismatch", "nonsense", "half"])
def test_wrong_files_are_named_with_the_next_step(
    folder: Path, authority: Authority, wrong: str
) -> None:
    certificate, key = authority.issue("one")
    if wrong == "missing":
        certificate = folder / "nowhere.crt"
    elif wrong == "mismatch":
        key = authority.issue("two")[1]
    elif wrong == "nonsense":
        certificate.write_text("nonsense")
    settings = {"EXEAT_TLS_CERTIFICATE": str(certificate), "EXEAT_TLS_KEY": str(key)}
    if wrong == "half":
        del settings["EXEAT_TLS_KEY"]
    up = [sys.executable, "-m", "exeat.cli.main", "up", "--home", str(folder / "home")]
    env = environ(**settings, EXEAT_INSTANCE="gw4")
    with pytest.raises(NotStarted) as refused:
        Server([*up, "--port", "0"], "exeat is up: ", env).kill()
    assert refused.value.status == 1
    said = " ".join(refused.value.said.split())
    assert "Traceback" not in said
    assert "tls_certificate" in said


@requirement("GW-14")
def test_a_bare_address_without_tls_is_warned_about(folder: Path) -> None:
    code = "import typer; from exeat.cli.up import up; typer.run(up)"
    argv = [sys.executable, "-c", code, "--home", str(folder / "home"), "--port", "0"]
    process = subprocess.Popen(
        [*argv, "--host", "0.0.0.0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environ(EXEAT_INSTANCE="gw5"),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    process.terminate()
    process.wait(20)
    process.stdout.close()
    assert any("in the clear" in line for line in lines)


@requirement("GW-14")
def test_nothing_older_than_tls_1_2(authority: Authority) -> None:
    context = ServerTls(*authority.issue("modern"), None).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2

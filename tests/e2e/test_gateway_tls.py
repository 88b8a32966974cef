"""`exeat up` with a certificate: real processes, real clients, a CA made in the test (GW-14)."""

import asyncio
import http.client
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from certificates import Authority
from gateways import Gateway, NotStarted, running
from homes import Home
from requirements import requirement

from exeat.app.settings import Settings
from exeat.app.tls import certificate
from exeat.core.errors import ExeatError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "home"
    made = Home(path)
    made.state.close()
    return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def gateway(home: Path, authority: Authority) -> Iterator[Gateway]:
    pem, key = authority.issue("server")
    with running(
        Gateway(home, tls_certificate=str(pem), tls_key=str(key), head_time_max_s="1")
    ) as made:
        yield made


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.path)


def health(port: int, context: ssl.SSLContext) -> int:
    with httpx2.Client(verify=context, timeout=15) as client:
        return int(client.get(f"https://127.0.0.1:{port}/healthz").status_code)


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=15)


def ended(sock: socket.socket) -> bytes:
    """What still comes until the gateway closes."""
    told = b""
    try:
        while piece := sock.recv(65536):
            told += piece
    except ConnectionError:
        pass
    return told


@requirement("GW-14")
def test_a_client_that_trusts_the_authority_is_served(
    gateway: Gateway, authority: Authority
) -> None:
    assert gateway.url.startswith("https://127.0.0.1:")
    assert health(gateway.port, trusting(authority)) == 200
    with pytest.raises(httpx2.ConnectError, match="certificate verify failed"):
        health(gateway.port, ssl.create_default_context())
    with (
        dial(gateway.port) as sock,
        trusting(authority).wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.3"
        tls.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3 + b"X\r\n\r\n")
        told = ended(tls)
    assert told.count(b"HTTP/1.1 200 OK") == 3
    assert told.count(b"HTTP/1.1 400 Bad Request") == 1


@requirement("GW-14")
def test_a_body_in_pieces_and_keep_alive_work_over_tls(
    gateway: Gateway, authority: Authority
) -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    head = (
        b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"accept: application/json, text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    with (
        dial(gateway.port) as sock,
        trusting(authority).wrap_socket(sock, server_hostname="127.0.0.1") as wire,
    ):
        for _ in range(2):
            for byte in head + body:
                wire.sendall(bytes([byte]))
            assert wire.recv(4096).startswith(b"HTTP/1.1 401 ")


@requirement("GW-14")
@pytest.mark.parametrize(
    "version",
    [ssl.TLSVersion.TLSv1_1, pytest.param(ssl.TLSVersion.TLSv1, marks=pytest.mark.long)],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_refused(
    gateway: Gateway, authority: Authority, version: ssl.TLSVersion
) -> None:
    old = trusting(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = version
    with pytest.raises(ssl.SSLError), dial(gateway.port) as sock:
        old.wrap_socket(sock, server_hostname="localhost")
    weak = trusting(authority)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256")  # no AEAD
    with pytest.raises(ssl.SSLError), dial(gateway.port) as sock:
        weak.wrap_socket(sock, server_hostname="localhost")
    newer = trusting(authority)
    newer.maximum_version = ssl.TLSVersion.TLSv1_2
    with dial(gateway.port) as sock, newer.wrap_socket(sock, server_hostname="localhost") as tls:
        cipher = tls.cipher()
    assert cipher is not None
    assert cipher[0].startswith("ECDHE-")
    assert cipher[0].endswith(("GCM-SHA256", "GCM-SHA384", "POLY1305"))


@requirement("GW-14")
def test_half_handshakes_and_plain_http_end_and_hold_up_nobody(
    gateway: Gateway, authority: Authority
) -> None:
    """The time limit is the one of heads (here a second); the socket's own limit fails the test."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 20
    slow = [dial(gateway.port) for _ in range(20)]
    for number, sock in enumerate(slow):
        sock.sendall(hello[: number * 2])
    with dial(gateway.port) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        told = ended(plain)
        assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert told.endswith(b"content-length: 36\r\n\r\nthis port speaks TLS: use https://\r\n")
        assert len(told.partition(b"\r\n\r\n")[2]) == 36
    assert health(gateway.port, trusting(authority)) == 200
    for sock in slow:
        assert b"HTTP/" not in ended(sock)
        sock.close()
    assert health(gateway.port, trusting(authority)) == 200
    gateway.stop()
    assert gateway.output.count("\n") < 8, gateway.output  # an attacker fills no log


@requirement("GW-14")
def test_half_handshakes_count_as_connections(home: Path, authority: Authority) -> None:
    pem, key = authority.issue("server")
    settings = {"tls_certificate": str(pem), "tls_key": str(key), "connections_max": "12"}
    with running(Gateway(home, **settings)) as gateway:
        context = trusting(authority)
        kept = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=context, timeout=15)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        slow = [dial(gateway.port) for _ in range(11)]
        with dial(gateway.port) as late:  # with room, it would be told to use https
            late.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert ended(late) == b""
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok\n"
        kept.close()
        for sock in slow:
            sock.close()


@requirement("GW-14")
def test_clients_of_no_or_another_authority_are_refused(
    home: Path, authority: Authority, tmp_path: Path
) -> None:
    pem, key = authority.issue("server")
    people = Authority(tmp_path, "people")
    settings = {"tls_certificate": str(pem), "tls_key": str(key)}
    with running(Gateway(home, **settings, tls_client_ca=str(people.path))) as gateway:
        good = trusting(authority)
        good.load_cert_chain(*people.issue("ada", client=True))
        assert health(gateway.port, good) == 200
        outsiders = [
            None,
            people.issue("late", days=-1, client=True),
            people.issue("a-server"),
            authority.issue("eve", client=True),
            Authority(tmp_path / "..", "people").issue("impostor", client=True),
        ]
        for pair in outsiders:
            other = trusting(authority)
            if pair is not None:
                other.load_cert_chain(*pair)
            with pytest.raises(httpx2.TransportError):
                health(gateway.port, other)
        assert health(gateway.port, good) == 200


@requirement("GW-14")
def test_a_new_certificate_is_taken_without_dropping_a_connection(
    home: Path, authority: Authority, tmp_path: Path
) -> None:
    pem, key = authority.issue("server")
    with running(Gateway(home, tls_certificate=str(pem), tls_key=str(key))) as gateway:
        context = trusting(authority)
        kept = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=context, timeout=15)

        def alive() -> bytes:
            kept.request("GET", "/healthz")
            return kept.getresponse().read()

        def shown() -> bytes:
            with (
                dial(gateway.port) as sock,
                context.wrap_socket(sock, server_hostname="localhost") as tls,
            ):
                return tls.getpeercert(binary_form=True) or b""

        assert alive() == b"ok\n"
        sock, first = kept.sock, shown()
        pem.write_text("nonsense")
        gateway.process.send_signal(signal.SIGHUP)
        _until(lambda: "the old certificate stays in use" in gateway.output)
        assert (shown(), alive()) == (first, b"ok\n")
        authority.issue("server")
        gateway.process.send_signal(signal.SIGHUP)
        _until(lambda: shown() != first)
        assert alive() == b"ok\n"
        assert kept.sock is sock
        kept.close()
        assert gateway.stop() == 0


def _until(holds: object) -> None:
    async def wait() -> None:
        async with asyncio.timeout(15):
            while not holds():  # type: ignore[operator]
                await asyncio.sleep(0.01)

    asyncio.run(wait())


@requirement("GW-14")
def test_files_that_cannot_be_used_are_named_with_a_next_step(
    home: Path, authority: Authority, tmp_path: Path
) -> None:
    pem, key = map(str, authority.issue("server"))
    _, other = map(str, authority.issue("other"))
    text = tmp_path / "text.pem"
    text.write_text("hello")
    trusted = tmp_path / "trusted.pem"
    trusted.write_text(Path(pem).read_text().replace(" CERTIFICATE", " TRUSTED CERTIFICATE"))
    for settings, says in [
        ({"tls_certificate": pem}, "'tls_key' is not"),
        ({"tls_key": key}, "'tls_certificate' is not"),
        ({"tls_client_ca": pem}, "'tls_certificate' is not"),
        ({"tls_certificate": pem, "tls_key": f"{tmp_path}/no.key"}, f"no file {tmp_path}/no.key"),
        ({"tls_certificate": f"{tmp_path}/no.pem", "tls_key": key}, f"no file {tmp_path}/no.pem"),
        ({"tls_certificate": pem, "tls_key": other}, f"{other} is not the key of"),
        ({"tls_certificate": str(text), "tls_key": key}, "no certificate and key in PEM form"),
        ({"tls_certificate": str(trusted), "tls_key": key}, f"{trusted} is no certificate"),
        ({"tls_certificate": pem, "tls_key": str(tmp_path)}, "cannot be read"),
        ({"tls_certificate": pem, "tls_key": key, "tls_client_ca": str(text)}, f"could be read from {text}"),
    ]:  # fmt: skip
        with pytest.raises(ExeatError) as failed:
            tls = certificate(home, Settings(**settings))
            assert tls is not None
            tls.context()
        assert says in str(failed.value)
        assert failed.value.remedy
    with pytest.raises(NotStarted) as stopped:
        running(Gateway(home, tls_certificate=pem, tls_key=other)).__enter__()
    assert f"{other} is not the key of" in " ".join(stopped.value.said.split())


@requirement("GW-14")
def test_what_is_unwise_is_said_at_the_start(home: Path, authority: Authority) -> None:
    pem, key = authority.issue("server", days=3)
    key.chmod(0o644)
    tls = {"tls_certificate": str(pem), "tls_key": str(key)}
    with running(Gateway(home, **tls, host="0.0.0.0")) as gateway:
        gateway.stop()
        assert "others can read the key" in gateway.output
        assert f"chmod 600 {key}" in gateway.output
        assert "the certificate ends" in gateway.output
        assert "without TLS" not in gateway.output
    with running(Gateway(home, host="0.0.0.0")) as gateway:
        gateway.stop()
        assert "without TLS" in gateway.output
    with running(Gateway(home)) as gateway:
        gateway.stop()
        assert "without TLS" not in gateway.output

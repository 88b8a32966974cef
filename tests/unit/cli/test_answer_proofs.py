"""REG-10: the proofs are the latest decisions of that agent in the ledgers of the home."""

from dataclasses import replace
from pathlib import Path

import pytest
from ledger_world import AGENT, DENY, PERMIT, REQUEST, World
from requirements import requirement

from exeat.cli.answer import LedgerFiles
from exeat.core.errors import LedgerUnavailable
from exeat.core.ids import AgentId
from exeat.core.request import Caller

pytestmark = pytest.mark.anyio
OTHER = replace(REQUEST, caller=Caller(replace(AGENT, id=AgentId("other")), None, "k2"))


@requirement("REG-10")
async def test_the_latest_decisions_newest_first_across_batches(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    world = World(tmp_path / "ledger" / "gw-1.db").start()
    indexes = []
    for number in range(6):  # each decision waits for the one before: a batch of its own
        receipt = await world.decide(REQUEST, DENY if number == 5 else PERMIT)
        await world.decide(OTHER)
        indexes.append(receipt.index)  # type: ignore[union-attr]
    found = LedgerFiles(tmp_path).latest(AGENT.id, 3)
    assert found is not None
    assert [proof.decision for proof in found] == [f"gw-1-{n}" for n in reversed(indexes[-3:])]
    assert (found[0].verdict, found[0].reason, found[0].action) == (
        "deny",
        "forbidden",
        "git/git_log",
    )
    assert len(LedgerFiles(tmp_path).latest(AGENT.id, 100) or ()) == 6
    assert LedgerFiles(tmp_path).latest(AgentId("silent"), 5) == ()
    await world.ledger.close()


@requirement("REG-10")
def test_no_ledger_is_not_an_empty_one(tmp_path: Path) -> None:
    assert LedgerFiles(tmp_path).latest(AGENT.id, 5) is None


@requirement("REG-10")
def test_a_ledger_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "gw-1.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(LedgerUnavailable):
        LedgerFiles(tmp_path).latest(AGENT.id, 5)

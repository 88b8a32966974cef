"""kill -9 under load: no executed call without its entry, and the ledger recovers by itself (EVD-3)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ledger_world import World
from requirements import requirement

from exeat.evidence.model import DecisionLeaf, OutcomeLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.evidence.verify import verify
from exeat.storage.ledger import SqliteLedgerReader

pytestmark = pytest.mark.anyio
CHILD = Path(__file__).with_name("ledger_child.py")
ROOT = CHILD.parents[2]


def run_and_kill(path: Path, calls: int) -> dict[int, str]:
    """Receipts that the child acted on before it was killed after ``calls`` of them."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    command = [sys.executable, str(CHILD), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(calls)]
        child.kill()
        lines += child.stdout.readlines()
    acted = [line.split() for line in lines if line.endswith("\n")]
    return {int(index): leaf_hash for index, leaf_hash in acted}


@requirement("EVD-3", "GW-1", "EVD-4")
async def test_a_killed_gateway_leaves_no_call_without_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    acted: dict[int, str] = {}
    for calls in (1, 150, 400):  # three lives of one ledger
        acted.update(run_and_kill(path, calls))
    published = path.with_name("l.db.checkpoint").read_bytes()
    last = World(path).start()
    await last.ledger.close()

    entries = {e.index: e for e in EvidenceReader(SqliteLedgerReader(path)).entries()}
    decisions = {i: e for i, e in entries.items() if isinstance(e.leaf, DecisionLeaf)}
    for index, leaf_hash in acted.items():
        assert decisions[index].leaf_hash.hex() == leaf_hash
    settled = [e.leaf for e in entries.values() if isinstance(e.leaf, OutcomeLeaf)]
    assert {leaf.decision for leaf in settled} == set(decisions)
    assert {leaf.cause for leaf in settled if leaf.status == "unknown"} <= {"crash"}
    report = verify(SqliteLedgerReader(path), key=last.signer.verifier, held=(published,))
    assert report.problems == []
    assert report.waiting == 0

"""kill -9 under load: nothing was carried out that is not on record (GW-1, EVD-3)."""

from pathlib import Path

import pytest
from killing import kill_many
from requirements import requirement


@pytest.mark.long
@requirement("GW-1", "EVD-3")
@pytest.mark.parametrize("kills", [10, 50])
def test_kills_leave_no_executed_call_without_a_record(tmp_path: Path, kills: int) -> None:
    tally = kill_many(tmp_path, kills)
    assert tally.executed > kills
    assert tally.unrecorded == ()
    assert tally.sound

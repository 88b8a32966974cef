"""kill -9 under load: nothing was carried out that is not on record (GW-1, EVD-3)."""

from pathlib import Path

from killing import kill_many
from requirements import requirement

KILLS = 50


@requirement("GW-1", "EVD-3")
def test_fifty_kills_leave_no_executed_call_without_a_record(tmp_path: Path) -> None:
    tally = kill_many(tmp_path, KILLS)
    assert tally.executed > KILLS
    assert tally.unrecorded == ()
    assert tally.sound

"""After kills under load: nothing ran twice, every permit has an outcome, unknown ones are said so
(GW-1, EVD-3).  The count over many kills is in test_kills.py and scripts/kills.py."""

from collections import Counter
from pathlib import Path

from gateways import decisions, verified
from killing import kill_many
from requirements import requirement

KILLS = 8


@requirement("GW-1", "GW-11", "EVD-3")
def test_kills_repeat_no_call_and_leave_no_outcome_unsaid(tmp_path: Path) -> None:
    tally = kill_many(tmp_path, KILLS)
    assert tally.unrecorded == ()
    executed = Counter((tmp_path / "executed.log").read_text().split())
    assert max(executed.values()) == 1
    home = tmp_path / "home"
    acts = [each for each in decisions(home) if each[0].action.method == "tools/call"]
    permits = Counter(str(values["arguments"]["n"]) for _, values, _ in acts)
    assert max(permits.values()) == 1
    outcomes = {str(values["arguments"]["n"]): outcome for _, values, outcome in acts}
    assert set(outcomes.values()) <= {"ok", "unknown", "failed", "cancelled"}
    known = {number for number, outcome in outcomes.items() if outcome == "ok"}
    assert known <= set(executed)  # an outcome that is called known is true
    assert {n for n in executed if outcomes[n] != "ok"} <= {
        n for n, outcome in outcomes.items() if outcome in ("unknown", "cancelled")
    }
    report = verified(home)
    assert report.sound and report.waiting == 0 and report.closed
    assert report.unknown == tally.unknown > 0

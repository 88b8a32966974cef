"""GW-3 as a test.  The first run installs the suite, which needs the registries of npm and PyPI."""

import subprocess
import sys
from pathlib import Path

import pytest
from requirements import requirement

RUN = Path(__file__).with_name("run.py")


@pytest.mark.long
@requirement("GW-3", "GW-4")
def test_the_official_suite_loses_nothing_through_the_gateway() -> None:
    done = subprocess.run([sys.executable, str(RUN)], capture_output=True, text=True, timeout=300)
    if done.returncode and "failed:\n" in done.stderr:
        pytest.skip(f"the suite cannot be installed here: {done.stderr[:200]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2025-11-25: direct 30/30, through exeat 30/30" in done.stdout
    assert "2026-07-28: direct 37/37, through exeat 37/37" in done.stdout

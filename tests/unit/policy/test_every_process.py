"""One call, one decision: in any process, whatever its hashes (POL-2)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from policies import everywhere
from requirements import requirement

TESTS = Path(__file__).parents[2]


@requirement("POL-2")
@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_another_process_decides_the_same_to_the_byte(seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(TESTS)}
    told = subprocess.run(
        [sys.executable, "-m", "policies.everywhere"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == everywhere.text()

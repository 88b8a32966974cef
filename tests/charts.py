"""The Helm chart, rendered by the packaging tools."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CHART = ROOT / "packaging" / "helm" / "exeat"
PYTHON = ROOT / ".tools" / "packaging" / "bin" / "python"
POSTGRESQL = {
    "mode": "postgresql",
    "postgresql": {"existingSecret": "db"},
    "keys": {"existingSecret": "exeat-keys"},
}


class Refused(Exception):
    pass


def render(values: dict[str, Any], chart: Path = CHART) -> dict[str, dict[str, Any]]:
    """Kind → object; there is at most one of a kind."""
    if not PYTHON.exists():
        pytest.skip("the packaging tools are not installed: make packaging")
    script = ROOT / "tests" / "packaging" / "render_chart.py"
    done = subprocess.run(
        [PYTHON, "-W", "ignore", script, chart, json.dumps(values)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Refused(done.stderr)
    objects = json.loads(done.stdout)["objects"]
    assert len({each["kind"] for each in objects}) == len(objects)
    return {each["kind"]: each for each in objects}


def pod(workload: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = workload["spec"]["template"]["spec"]
    return found

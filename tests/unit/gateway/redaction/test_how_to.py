"""The examples of docs/how-to/redact-results.md are carried out as they stand there (POL-9)."""

import re
from pathlib import Path

import pytest
from requirements import requirement

from exeat.core.controls import CONTROLS_FILE
from exeat.core.obligations import on_result, written
from exeat.core.strictjson import parse
from exeat.gateway.redaction.detectors import DETECTORS
from exeat.gateway.redaction.filter import SEARCHED_MAX_BYTES, ResultFilter
from exeat.policy.controls import DETECTORS as DECLARED
from exeat.policy.controls import read_controls

PAGE = (Path(__file__).parents[4] / "docs/how-to/redact-results.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
EXAMPLES = [
    (BLOCKS[at][1], BLOCKS[at + 1][1], BLOCKS[at + 2][1])
    for at in range(len(BLOCKS) - 2)
    if [kind for kind, _ in BLOCKS[at : at + 3]] == ["yaml", "json", "json"]
]


@requirement("POL-9")
@pytest.mark.parametrize(("declared", "said", "passed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(declared: str, said: str, passed: str) -> None:
    controls, findings = read_controls({CONTROLS_FILE: declared})
    assert findings == []
    (name,) = re.findall(r"^  (\w+):$", declared, re.MULTILINE)
    guard = ResultFilter(on_result(written(controls.fulfilled[name])), None, "gw1-42")
    assert parse(guard.result(said.encode())) == parse(passed.encode())


@requirement("POL-9")
def test_the_page_has_an_example_for_each_thing_and_names_the_limits() -> None:
    assert len(EXAMPLES) == 4
    assert set(DETECTORS) == DECLARED
    assert all(f"| `{name}` |" in PAGE for name in DETECTORS)
    assert f"over {SEARCHED_MAX_BYTES // 2**20} MiB" in PAGE

"""``exeat policy diff``: policies, controls, and what agents could do now that they could not (POL-6)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run
from recorded_home import RecordedHome
from requirements import requirement

from exeat.policy.difference import differences

OLD = """@id("reads") permit(principal, action in Action::"effect:read", resource);
@id("gone") forbid(principal, action == Action::"bank/balance", resource);
@id("same") forbid(principal == Agent::"bot", action == Action::"fs/read", resource)
  when { context.input.path == "/x" };
"""
NEW = """
@id("reads") permit(principal, action in Action::"effect:read", resource)
  unless { principal.environment == "test" };
@id("pays") permit(principal, action == Action::"bank/transfer", resource);
@id("same")
forbid(principal == Agent::"bot", action == Action::"fs/read", resource) when { context.input.path == "/x" };
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RecordedHome]:
    made = RecordedHome(tmp_path / "home", OLD)
    yield made
    made.state.close()


@requirement("POL-6")
def test_policies_are_compared_by_id() -> None:
    found = differences({"a.cedar": OLD}, {"b.cedar": NEW})
    assert [(each.what, each.id) for each in found] == [
        ("removed", "gone"), ("added", "pays"), ("changed", "reads")
    ]  # fmt: skip
    assert any(line.startswith("+  unless { principal.environment") for line in found[2].lines)
    assert differences({"a.cedar": OLD}, {"b.cedar": OLD.replace("\n", "\n\n")}) == []
    (controls,) = differences({"controls.yaml": ""}, {"controls.yaml": "approvers: {}"})
    assert (controls.what, controls.lines) == ("added", ("+approvers: {}",))


@requirement("POL-6")
def test_it_shows_what_an_agent_could_do_now(run: Run, home: RecordedHome, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "new.cedar").write_text(NEW)
    code, out, err = run("policy", "diff", folder, "--json", "--home", home.path)
    assert code == 0, err
    tools = {row["tool"]: row["could"] for row in json.loads(out)["tools"]}
    assert tools == {"bank/transfer": True, "bank/balance": True}
    code, out, _ = run("policy", "diff", folder, "--home", home.path)
    assert "+ pays (added, new.cedar:4)" in out and "- gone (removed" in out
    assert "bank/transfer" in out and "now, not before" in out
    home.policy(NEW)
    code, out, _ = run("policy", "diff", "--home", home.path)
    assert code == 0 and "From version 1 to version 2:" in out
    code, out, _ = run("policy", "diff", "1", "2", "--home", home.path)
    assert "no longer" in out, "the other way round"
    code, out, _ = run("policy", "diff", "2", "--home", home.path)
    assert "The policies are the same." in out and "No agent could" in out
    code, out, err = run("policy", "diff", "9", "--home", home.path)
    assert code == 1 and "no policy version 9" in err

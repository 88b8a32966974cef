"""Two people on the command line: propose, look, approve; observe and enforce (POL-5, POL-7, POL-10)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Run
from homes import BOB
from recorded_home import ALL, RecordedHome
from requirements import requirement

from exeat.core.ids import AgentId
from exeat.registry.model.person import ADMIN


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RecordedHome]:
    made = RecordedHome(tmp_path / "home")
    made.registry.set_roles(BOB, [ADMIN], made.act())
    yield made
    made.state.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.cedar").write_text(ALL.replace("all", "every"))
    return tmp_path / "p"


@requirement("POL-10")
def test_a_policy_is_proposed_shown_and_approved(
    run: Run, home: RecordedHome, folder: Path
) -> None:
    at = ("--home", home.path)
    code, _, err = run("policy", "apply", folder, "--reason", "x", *at)
    assert code == 1 and "takes two people" in err and "exeat policy propose" in err
    code, out, err = run("policy", "propose", folder, "--reason", "clearer names", *at)
    assert code == 0 and "Proposal 1 (" in out and "policy approve 1" in err
    code, out, err = run("policy", "proposals", "1", *at)
    assert "+ every (added" in out and "clearer names" in out and "--digest" in err
    code, _, err = run("policy", "approve", "1", "--reason", "x", *at)
    assert code == 1 and "wrote or proposed it" in err
    code, _, err = run(
        "policy", "approve", "1", "--reason", "x", "--as", "bob", "--digest", "0" * 12, *at
    )
    assert code == 1 and "has the digest" in err
    code, out, _ = run("policy", "approve", "1", "--reason", "fine", "--as", "bob", *at)
    assert code == 0 and "Policy version 2 (" in out
    code, out, _ = run("policy", "versions", *at)
    assert "ada" in out.splitlines()[1] and "bob" in out.splitlines()[1]
    code, out, _ = run("policy", "propose", folder, "--reason", "x", *at)
    assert code == 1, "exactly these files are in force"


@requirement("POL-10")
def test_the_setting_says_one_person(run: Run, home: RecordedHome, folder: Path) -> None:
    (home.path / "exeat.toml").write_text("policy_approvals = 1\n")
    code, out, _ = run("policy", "apply", folder, "--reason", "x", "--home", home.path)
    assert code == 0 and "version 2" in out
    home.registry.set_roles(BOB, [], home.act())
    (home.path / "exeat.toml").write_text("policy_approvals = 2\n")
    (folder / "a.cedar").write_text(ALL)
    code, _, err = run("policy", "apply", folder, "--reason", "x", "--home", home.path)
    assert code == 1 and "takes two people" in err


@requirement("POL-5")
def test_a_proposal_is_checked_again_when_it_is_approved(
    run: Run, home: RecordedHome, folder: Path
) -> None:
    at = ("--home", home.path)
    text = '@id("x") permit(principal, action == Action::"bank/balance", resource);'
    (folder / "a.cedar").write_text(text)
    assert run("policy", "propose", folder, "--reason", "x", *at)[0] == 0
    home.registry.forget_tool("bank/balance", home.act())  # type: ignore[arg-type]
    code, out, err = run("policy", "approve", "1", "--reason", "x", "--as", "bob", *at)
    assert code == 1 and "a.cedar:1" in out and "the version in force stays" in err
    assert home.state.snapshot().policy.number == 1  # type: ignore[union-attr]
    code, out, _ = run("policy", "withdraw", "1", "--reason", "x", *at)
    assert code == 0 and "is withdrawn" in out


@requirement("POL-7", "POL-10")
def test_an_agent_is_observed_and_enforced(run: Run, home: RecordedHome) -> None:
    at = ("--home", home.path)
    code, out, _ = run("agent", "observe", "bot", "--for", "3d", "--reason", "new rules", *at)
    assert code == 0 and "Proposal 1 (" in out
    code, out, _ = run("policy", "proposals", *at)
    assert "observe bot for 72 h" in out
    code, out, _ = run("policy", "approve", "1", "--reason", "ok", "--as", "bob", *at)
    assert code == 0 and "Agent bot is observed" in out
    assert "observed_until" in run("agent", "show", "bot", *at)[1]
    assert home.state.snapshot().agents[AgentId("bot")].observe_until > 0
    code, out, _ = run("agent", "enforce", "bot", "--reason", "done", *at)
    assert code == 0 and "Policy binds agent bot" in out
    assert "observed_until" not in run("agent", "show", "bot", *at)[1]
    code, _, err = run("agent", "observe", "bot", "--for", "8d", "--reason", "x", *at)
    assert code == 1 and "7 days" in err
    code, _, err = run("agent", "observe", "bot", "--for", "soon", "--reason", "x", *at)
    assert code == 1 and "no span of time" in err
    home.registry.set_roles(BOB, [], home.act())
    code, out, _ = run("agent", "observe", "bot", "--reason", "x", *at)
    assert code == 0 and "Agent bot is observed for 1d" in out, "one admin alone"

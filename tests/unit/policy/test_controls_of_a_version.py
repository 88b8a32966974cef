"""``controls.yaml`` belongs to a policy version: it is checked with it and closes what policies name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from policies.policy_world import version
from requirements import requirement

from exeat.cli.policy_files import policy_files
from exeat.core.decision import Reason
from exeat.policy.bundle import compile_bundle
from exeat.policy.lint import lint

ALL = '@id("all") permit(principal, action, resource);'
FINANCE = """
approvers:
  finance: {roles: [finance], quorum: 1}
controls:
  no_mail: {redact: [email]}
budgets:
  - {id: spend, actions: [bank/transfer], agents: [bot], counts: amount, argument: amount,
     limit: 100, window: 1d}
"""


def found(world: Any, controls: str, policy: str = ALL) -> list[str]:
    files = {"a.cedar": policy, "controls.yaml": controls}
    return [str(each) for each in lint(files, world("").catalogue)]


def pdp_of(world: Any, controls: str, policy: str = ALL) -> Any:
    w = world("")
    files = {"a.cedar": policy, "controls.yaml": controls}
    made = replace(version(policy), files=files)
    return w, compile_bundle(made, w.tools, w.servers, people=w.people)


@requirement("POL-5")
def test_what_a_version_declares_is_what_its_policies_may_name(world: Any) -> None:
    policy = (
        '@id("a") permit(principal, action, resource) when '
        '{ context.session.controls.contains(Control::"approved_by_finance") };'
    )
    assert found(world, FINANCE, policy) == []
    assert any("Did you mean approved_by_finance?" in each for each in found(
        world, FINANCE, policy.replace("finance", "finnance")
    ))  # fmt: skip
    assert any("is not declared in controls.yaml" in each for each in found(world, "", policy))
    _, pdp = pdp_of(world, FINANCE, policy)
    assert pdp.findings == () and pdp.controls.approver("approved_by_finance") is not None
    assert "no_mail" in pdp.controls.fulfilled and len(pdp.controls.budgets) == 1
    _, without = pdp_of(world, "", policy)
    assert len(without.findings) == 1, "an undeclared control is no control"


@requirement("POL-5")
@pytest.mark.parametrize(
    ("before", "after", "line", "expected"),
    [
        ("roles: [finance]", "roles: [finnance]", 3, "Did you mean finance?"),
        ("roles: [finance]", "people: [adda]", 3, "Did you mean ada?"),
        ("bank/transfer", "bank/transfr", 7, "Did you mean bank/transfer?"),
        ("[bot]", "[bott]", 7, "Did you mean bot?"),
        ("argument: amount", "argument: amuont", 7, "has the argument amuont"),
        ("argument: amount", "argument: to", 7, "is no number"),
        ("redact: [email]", "redact: [mails]", 5, "no detector mails"),
    ],
)
def test_each_unknown_name_is_a_finding_with_its_line(
    world: Any, before: str, after: str, line: int, expected: str
) -> None:
    assert before in FINANCE
    said = found(world, FINANCE.replace(before, after))
    assert len(said) == 1 and said[0].startswith(f"controls.yaml:{line}:"), said
    assert expected in said[0]


@requirement("POL-1", "POL-5")
def test_a_version_whose_controls_cannot_be_read_denies_everything(world: Any) -> None:
    w, pdp = pdp_of(world, "approvers: [oops]")
    decision = pdp.decide(w.call("bank/balance"))
    assert decision.reason is Reason.POLICY_ERROR and "controls.yaml:1" in decision.detail
    w, pdp = pdp_of(world, FINANCE)
    assert pdp.decide(w.call("bank/balance")).permitted


@requirement("POL-5")
def test_a_directory_is_read_with_its_controls(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ALL)
    assert set(policy_files(tmp_path)) == {"a.cedar"}
    (tmp_path / "controls.yaml").write_text(FINANCE)
    assert policy_files(tmp_path)["controls.yaml"] == FINANCE

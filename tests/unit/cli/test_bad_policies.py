"""Bad policy files: an error that names file, line and remedy, and the running version stays (POL-5)."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from command_line import Run
from recorded_home import RecordedHome
from requirements import requirement

GOOD = '@id("good") permit(principal, action in Action::"effect:read", resource);\n'


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RecordedHome]:
    made = RecordedHome(tmp_path / "home")
    yield made
    made.state.close()


@requirement("POL-1", "POL-5")
@pytest.mark.parametrize("verb", ["apply", "propose"])
@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ({"a.cedar": "permit(principal action, resource);"}, "a.cedar:1:1", "not a policy"),
        ({"a.cedar": GOOD + '@id("x") permit(principal, action, resource)'}, "a.cedar:2:1", "no end"),
        (
            {"a.cedar": '\n@id("x") permit(principal, action == Action::"bank/transferr", resource);'},
            "a.cedar:2:",
            "Did you mean bank/transfer?",
        ),
        ({"a.cedar": GOOD, "b.cedar": "\n" + GOOD}, "b.cedar:2:", "already used at a.cedar:1"),
        ({"a.cedar": '@id("x") @shdow("y") ' + GOOD[12:]}, "a.cedar:1:", "Did you mean shadow?"),
        ({"a.cedar": '@id("x") @narow("y") ' + GOOD[12:]}, "a.cedar:1:", "Did you mean narrow?"),
        ({"a.cedar": GOOD, "controls.yaml": "approvers:\n  finance: {rols: [x]}"}, "controls.yaml:2:", "rols"),
        ({"a.cedar": GOOD, "controls.yaml": "a: [b"}, "controls.yaml:1:", "This is not YAML"),
        (
            {"a.cedar": GOOD, "controls.yaml": "budgets:\n- {id: b, actions: [bank/x], limit: 1, window: 1d}"},
            "controls.yaml:2:",
            "There is no action bank/x",
        ),
    ],
)  # fmt: skip
def test_each_names_its_place_and_changes_nothing(
    run: Run,
    home: RecordedHome,
    tmp_path: Path,
    verb: str,
    files: dict[str, str],
    place: str,
    says: str,
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    code, out, err = run("policy", verb, folder, "--reason", "x", "--home", home.path)
    assert code == 1 and place in out and says in out, out
    assert "nothing was applied, the version in force stays" in err
    policy = home.state.snapshot().policy
    assert policy is not None and policy.number == 1
    with home.state.registry.read() as read:
        assert read.proposals() == ()


@pytest.mark.long
@requirement("POL-5")
def test_one_mistake_among_ten_thousand_policies_is_found(
    run: Run, home: RecordedHome, tmp_path: Path
) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    lines = [
        f'@id("p{n}") permit(principal, action == Action::"fs/read", resource)'
        f' when {{ context.input.path == "/w/{n}" }};'
        for n in range(10_000)
    ]
    lines[7_777] = lines[7_777].replace("context.input.path", "context.input.paht")
    (folder / "many.cedar").write_text("\n".join(lines))
    code, out, _ = run("policy", "apply", folder, "--reason", "x", "--home", home.path)
    assert code == 1 and out.count("many.cedar:") == out.count("many.cedar:7778:") > 0
    assert home.state.snapshot().policy.number == 1  # type: ignore[union-attr]
    lines[7_777] = lines[7_777].replace("paht", "path")
    (folder / "many.cedar").write_text("\n".join(lines))
    assert run("policy", "apply", folder, "--reason", "x", "--home", home.path)[0] == 0


@requirement("POL-5")
def test_a_flood_of_findings_is_cut_short(run: Run, home: RecordedHome, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.cedar").write_text("permit(principal, action, resource);\n" * 80)
    code, out, err = run("policy", "apply", folder, "--reason", "x", "--home", home.path)
    assert code == 1 and "… and 30 more." in out and "80 findings" in err


@requirement("POL-6", "POL-4")
def test_a_recorded_call_with_decimals_is_explained(run: Run, home: RecordedHome) -> None:
    arguments = {"amount": Decimal("99.50"), "to": "x@example.com", "currency": "EUR"}
    home.policy(
        '@id("small") permit(principal, action == Action::"bank/transfer", resource)'
        ' when { context.input.amount.lessThan(decimal("50.0")) };'
    )
    (decision,) = home.record([("bank/transfer", arguments)])
    code, out, err = run("policy", "explain", decision, "--home", home.path)
    assert code == 0, err
    assert "verdict  deny (not_permitted)" in out and '"99.5000"' in out
    assert "does not hold" in out

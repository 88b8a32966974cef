"""`exeat kill`, `exeat revive` and `exeat budgets` (APP-8, APP-9)."""

import json
import time
from pathlib import Path

import pytest
from command_line import Run, run
from homes import ADA, Home
from requirements import requirement

from exeat.core.controls import Charge
from exeat.core.kills import Target

__all__ = ["run"]
PERMIT = "permit(principal, action, resource);"
CONTROLS = """
budgets:
- {id: payments, actions: [call_tool], counts: amount, argument: amount, limit: 1000.50, window: 1d}
- {id: recipients, actions: [call_tool], per: user, counts: distinct, argument: to, limit: 3, window: 90m}
- {id: calls, actions: [call_tool], limit: 100, window: 10s}
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.server("m", command=("true",))
    made.agent("bot", ["m"])
    return made


def args(home: Home, who: str = "ada", reason: str = "for a test") -> tuple[str, ...]:
    return ("--home", str(home.path), "--as", who, "--reason", reason)


@requirement("APP-9")
def test_kill_list_report_revive(home: Home, run: Run) -> None:
    at = ("--home", home.path)
    code, out, err = run("kill", "agent", "bot", *args(home, "bob", "mails strangers"))
    assert code == 0 and "Stopped: agent bot (k-" in out and "exeat revive k-" in err
    ((what, kill),) = home.state.snapshot().kills.of.items()
    assert what == (Target.AGENT, "bot")
    assert run("kill", "all", *args(home))[0] == 0
    listed = run("kill", "--list", *at)[1]
    assert "everything" in listed and "mails strangers" in listed and "bob" in listed
    assert len(json.loads(run("kill", "--list", "--json", *at)[1])) == 2
    ordered = {k.id: k.at for k in _kills(home)}
    for number, instance in enumerate(("gw1", "gw2", "gw3"), 1):
        took = ordered[kill] + number * 100_000_000
        home.state.kill_effects.took(instance, took, {kill: number})
    out = run("kill", "--report", *at)[1]
    assert "no gateway yet" in out and "after ms: p50 200, p95 300, max 300" in out
    report = json.loads(run("kill", "--report", "--json", *at)[1])
    assert report["after_ms"] == {"p50": 200, "p95": 300, "max": 300}
    (mine,) = [each for each in report["kills"] if each["kill"] == kill]
    assert mine["gateways"][1] == {"gateway": "gw2", "after_ms": 200, "cancelled": 2}
    assert run("revive", kill, *args(home, "bob"))[0] == 1
    code, out, _ = run("revive", kill, *args(home))
    assert code == 0 and "Agent bot may go on" in out
    assert len(home.state.snapshot().kills.of) == 1
    (mine,) = [
        each
        for each in json.loads(run("kill", "--report", "--json", *at)[1])["kills"]
        if each["kill"] == kill
    ]
    assert mine["ended_by"] == "ada" and mine["stands"] is False


def _kills(home: Home) -> list:  # type: ignore[type-arg]
    with home.state.registry.read() as read:
        return list(read.kills())


@requirement("APP-9")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("agent", "bot"), "not said why"),
        (("agent", "bott", "--reason", "x"), "Did you mean bot?"),
        (("agentt", "bot", "--reason", "x"), "agent, owner, user, server, tool, run, all"),
        (("--reason", "x"), "not said what to stop"),
        (("agent", "--reason", "x"), "not said which agent"),
        (("all", "bot", "--reason", "x"), "takes no id"),
        (("agent", "bot", "--list"), "stand alone"),
        (("--list", "--report"), "stand alone"),
    ],
)
def test_a_wrong_order_says_what_is_right(
    home: Home, run: Run, arguments: tuple[str, ...], says: str
) -> None:
    code, out, err = run("kill", *arguments, "--home", home.path, "--as", "ada")
    assert code == 1 and says in err and not out
    assert not home.state.snapshot().kills


@requirement("APP-8")
def test_budgets_list_and_show(home: Home, run: Run) -> None:
    at = ("--home", home.path)
    assert "declares no budgets" in run("budgets", "list", *at)[1]
    home.registry.apply_policy({"p.cedar": PERMIT, "controls.yaml": CONTROLS}, ADA, home.act())
    day, limit = 86_400, 10_005_000
    for number, amount in enumerate((1_000_000, 2_505_000)):
        charge = Charge("payments", "agent:bot", amount, limit, day)
        members = [Charge("recipients", "user:bob", 1, 3, 5400, f"m{n}") for n in range(number + 1)]
        assert home.state.budgets.reserve([charge, *members], f"gw1-{number}", "bot/bob") is None
    listed = run("budgets", "list", *at)[1]
    assert "350.5" in listed and "1000.5" in listed and "90m" in listed and "user:bob" in listed
    shown = run("budgets", "show", "payments", *at)[1]
    assert "payments: 1000.5 amount per agent in 1d" in shown
    assert "650" in shown and "gw1-1" in shown and "bot/bob" in shown and "250.5" in shown
    as_json = json.loads(run("budgets", "show", "recipients", "--json", "--uses", "1", *at)[1])
    assert as_json["shares"][0]["spent"] == "2" and as_json["shares"][0]["calls"] == 2
    assert [use["call"] for use in as_json["uses"]] == ["gw1-1"]
    assert as_json["shares"][0]["free_at"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    every = json.loads(run("budgets", "list", "--json", *at)[1])
    assert [each["budget"] for each in every] == ["payments", "recipients", "calls"]
    code, _, err = run("budgets", "show", "payment", *at)
    assert code == 1 and "calls, payments, recipients" in err

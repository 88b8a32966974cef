"""``exeat approvals`` and ``exeat grants``: what is asked is shown, whatever it holds (APP-1, APP-6)."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from approvals_world import CALL
from approvals_world import held as held_call
from command_line import Run
from homes import Home
from requirements import requirement

from exeat.app.approvals import open_approvals, standing_now
from exeat.app.settings import load_settings
from exeat.app.vault import open_vault
from exeat.approvals.model.bounds import AtMost, Below, Same, values
from exeat.cli.bounds import Typed, read_typed, until
from exeat.core.errors import Invalid
from exeat.core.grant import Claim, Granted, Pending
from exeat.core.ids import AgentId, ServerId
from exeat.registry.model.names import instant, show_time

HOUR_NS = 3600 * 10**9
Ask = Callable[..., str]


class Held:
    """A home with ada, who owns bot, and bob, its deputy; and a gateway that holds calls."""

    def __init__(self, path: Path) -> None:
        self.home = Home(path)
        self.home.server("bank", command=("true",))
        self.home.agent("bot", ["bank"])
        vault = open_vault(path, load_settings(path), self.home.state)
        self.approvals = open_approvals(self.home.state, vault)

    def claim(self, arguments: Any = CALL, **more: Any) -> Claim:
        now = self.home.act().at
        call = held_call(arguments, at=now, agent=AgentId("bot"), user=None, **more)
        return self.approvals.claim(call, standing_now(self.home.state), now)

    def asked(self, arguments: Any = CALL, **more: Any) -> str:
        found = self.claim(arguments, **more)
        assert isinstance(found, Pending)
        return found.hold


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> Any:
    monkeypatch.setenv("EXEAT_HOME", str(tmp_path / "home"))
    made = Held(tmp_path / "home")
    (tmp_path / "home" / "operator").write_text("ada", encoding="ascii")
    yield made
    made.home.state.close()


@requirement("APP-1")
def test_list_and_show_the_real_call(held: Held, run: Run) -> None:
    arguments = {"to": "DE02 1203", "amount": Decimal("250.00"), "path": "/srv/x"}
    hold = held.asked(arguments, narrowed={**arguments, "amount": 100})
    code, out, err = run("approvals", "list")
    assert code == 0
    assert f"exeat approvals show {hold}" in err
    assert re.search(rf"{hold} +pending +bot +- +bank/pay +approved_by_owner", out)
    code, out, _ = run("approvals", "show", hold)
    for line in (
        r"tool +bank/pay  \(tools/call at server bank\)",
        r"agent +bot",
        r"for +nobody: the agent acts for itself",
        r'to = "DE02 1203"',
        r"amount = 250\.00   narrowed to 100",
        r'goes to +"DE02 1203"  \(to\)',
        r'goes to +"/srv/x"  \(path\)',
        r"effect +pay",
        r"sink +external",
        r"labels +none",
        r"why +policy asks for people: pay-with-approval",
        r"asked +approved_by_owner: ada, bob \(by cli, console, passkey\)",
        r"until +20.*Z \(in 59 min\)",
        r"otherwise +the answer is no; if the agent makes the same call again, it is asked again",
    ):
        assert re.search(line, out), (line, out)
    shown = json.loads(run("approvals", "show", hold, "--json")[1])
    assert json.loads(shown["narrowed"])["amount"] == 100
    assert [each["id"] for each in json.loads(run("approvals", "list", "--json")[1])] == [hold]


@requirement("APP-1")
@pytest.mark.parametrize("count", [50, 51])
def test_recipients_that_are_not_listed_are_said_to_be_there(
    held: Held, run: Run, count: int
) -> None:
    """No number of harmless ones hides one that is not."""
    hold = held.asked({"to": [f"a{n}@x.example" for n in range(count)]})
    out = run("approvals", "show", hold)[1]
    assert out.count("  goes to") == count
    assert ("MORE THAN IS LISTED HERE" in out) is (count > 50)


@requirement("APP-1", "APP-2")
def test_who_answers_is_told_that_the_definition_is_another_one(held: Held, run: Run) -> None:
    hold = held.asked()
    assert "another one" not in run("approvals", "show", hold)[2]
    held.home.pin_all(ServerId("bank"), [{"name": "pay", "inputSchema": {"type": "object"}}])
    assert "is another one since this call was held" in run("approvals", "show", hold)[2]
    _, out, err = run("approvals", "approve", hold, "--reason", "x")
    assert "Approved" in out and "people are asked again" in err


@requirement("APP-1")
def test_hostile_text_is_printed_harmlessly(held: Held, run: Run) -> None:
    evil = "\x1b[2J\x1b]0;x\x07\r\n  asked       nobody\u202eteews\u2066\x00\x9b31m"
    hold = held.asked({"to": evil, evil: "x", "more": [evil], "long": "y" * 100_000})
    code, out, _ = run("approvals", "show", hold)
    assert code == 0
    assert all(c == "\n" or (c.isascii() and c.isprintable()) for c in out)
    assert sum(line.strip().startswith("asked ") for line in out.splitlines()) == 1
    assert "NOT SHOWN HERE: 96002 more characters" in out
    for verb in (("list",), ("list", "--json"), ("show", hold, "--json")):
        assert "\x1b" not in run("approvals", *verb)[1]


@requirement("APP-2", "APP-3")
def test_approve_and_deny(held: Held, run: Run) -> None:
    first, second = held.asked(), held.asked({"n": 1})
    code, out, _ = run("approvals", "approve", first, "--reason", "invoice 7")
    assert (code, out.startswith("Approved: the same call may be made once until ")) == (0, True)
    assert isinstance(held.claim(), Granted)
    assert run("approvals", "deny", second, "--as", "bob")[:2] == (0, f"{second} is denied.\n")
    assert run("approvals", "list")[1].count("\n") == 1
    assert first in run("approvals", "list", "--all")[1]
    (told,) = [
        each.event for each in held.home.state.outbox.take(100)
        if each.event.kind == "approval.approved"
    ]  # fmt: skip
    assert (told.actor, told.channel, told.reason) == ("ada", f"cli:{os.geteuid()}", "invoice 7")


@requirement("APP-2", "APP-3")
@pytest.mark.parametrize(
    ("arguments", "says", "next_"),
    [
        (("approve", "h-none"), "There is no held call 'h-none'", "exeat approvals list"),
        (("approve", "HOLD", "--as", "eve"), "eve is not a live person", "exeat person list"),
        (("approve", "HOLD", "--as", "carl"), "carl may not answer", "Ask one of: ada, bob"),
        (("approve", "HOLD", "--times", "5"), "Bounds belong to a grant", "--grant"),
        (("approve", "HOLD", "--grant"), "needs an end and a number", "--until 18:00 --times 5"),
        (
            ("approve", "HOLD", "--grant", "--times", "2", "--until", "91d"),
            "at most 90 days",
            "--until",
        ),
        (
            (
                "approve",
                "HOLD",
                "--grant",
                "--times",
                "2",
                "--until",
                "1h",
                "--at-most",
                "amount=5",
            ),
            "The held call itself does not lie within the bound for amount",
            "Widen the bound",
        ),
        (
            ("approve", "HOLD", "--grant", "--times", "2", "--until", "1h", "--same", "sum"),
            "no argument 'sum'",
            "amount, note, to",
        ),
    ],
)
def test_what_is_refused_says_why_and_what_next(
    held: Held, run: Run, arguments: tuple[str, ...], says: str, next_: str
) -> None:
    hold = held.asked()
    held.home.registry.register_person("carl", [], held.home.act())
    code, _, err = run("approvals", *(hold if each == "HOLD" else each for each in arguments))
    assert code == 1
    assert says in err
    assert next_ in err
    assert held.approvals.states([hold]) == {hold: "pending"}


@requirement("APP-6")
def test_a_grant_from_the_command_line(held: Held, run: Run) -> None:
    hold = held.asked()
    code, out, err = run(
        "approvals", "approve", hold, "--grant", "--at-most", "amount=100", "--same", "to",
        "--until", "8h", "--times", "5",
    )  # fmt: skip
    assert code == 0, err
    (grant,) = held.approvals.grants.all()
    assert re.match(rf"Granted: {grant.id}, 5 times until 20\S+Z\.", out)
    assert isinstance(held.claim({**CALL, "amount": 7}), Granted)
    assert isinstance(held.claim({**CALL, "amount": 101}), Pending)
    assert re.search(rf"{grant.id} +live +bot +- +bank/pay +approved_by_owner +1 of 5 ",
                     run("grants", "list")[1])  # fmt: skip
    shown = run("grants", "show", grant.id)[1]
    for line in (r"amount from 0 to 100", r'to = "DE02 1203 0000 0000 2020 51"', r'note = ""',
                 r"where +any run of the same agent and user", r"used +1 of 5"):  # fmt: skip
        assert re.search(line, shown), shown
    assert json.loads(run("grants", "list", "--json")[1])[0]["left"] == 4
    assert run("grants", "revoke", grant.id, "--as", "bob")[1] == (
        f"{grant.id} is revoked; it was used 1 of 5 times.\n"
    )
    code, _, err = run("grants", "revoke", grant.id)
    assert (code, "was revoked before" in err) == (1, True)
    assert isinstance(held.claim({**CALL, "amount": 7}), Pending)


@requirement("APP-7")
def test_figures(held: Held, run: Run) -> None:
    run("approvals", "approve", held.asked())
    run("approvals", "deny", held.asked({"n": 1}))
    held.asked({"n": 2})
    out = run("approvals", "figures")[1]
    assert "3 held calls (3 attempts): 1 approved (0 as grants), 0 confirmed, 1 denied" in out
    assert re.search(r"ada +1 +1 +0 +1 +0\.5 ", out)
    assert json.loads(run("approvals", "figures", "--json")[1])["people"][0]["denials"] == 1
    assert run("approvals", "figures", "--since", "yesterday")[0] == 1


NOON = datetime(2027, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@requirement("APP-6")
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("18:00", "2027-03-01T17:00:00Z"),
        ("12:01", "2027-03-01T11:01:00Z"),
        ("90m", "2027-03-01T12:30:00Z"),
        ("8h", "2027-03-01T19:00:00Z"),
        ("7d", "2027-03-08T11:00:00Z"),
        ("2027-03-31", "2027-04-01T00:00:00Z"),
        ("2027-03-01T18:00:00+01:00", "2027-03-01T17:00:00Z"),
    ],
)
def test_ends_as_people_write_them(text: str, wanted: str) -> None:
    assert show_time(until(text, NOON)) == wanted


@requirement("APP-6")
@pytest.mark.parametrize("text", ["", "12:00", "11:59", "24:00", "0h", "soon", "-1h", "2027-02-30"])
def test_ends_that_are_none(text: str) -> None:
    with pytest.raises(Invalid):
        until(text, NOON)


@requirement("APP-6")
def test_bounds_as_people_type_them() -> None:
    held = {"to": "5", "n": 5, "path": "/srv", "amount": Decimal("1.5")}
    typed = Typed(("amount=1.50",), ("path=/srv",), ("to=5", "to=6", "n=5", "n=6"), (), "8h", 3)
    found = read_typed(typed, held, NOON)
    assert found.arguments == {
        "amount": AtMost(Decimal("1.50")), "path": Below("/srv"),
        "to": values("5", "6"), "n": values(5, 6),
    }  # fmt: skip
    assert (found.uses, found.until, found.any_run) == (3, instant(NOON) + 8 * HOUR_NS, True)
    assert read_typed(
        Typed(same=("to",), until="8h", times=1, this_run=True), held, NOON
    ).arguments == {"to": Same()}
    assert NOON.astimezone(UTC).hour == 11


@requirement("APP-6")
@pytest.mark.parametrize(
    "typed",
    [
        Typed(at_most=("amount",)),
        Typed(at_most=("=5",)),
        Typed(at_most=("amount=",)),
        Typed(at_most=("amount=-1",)),
        Typed(at_most=("amount=NaN",)),
        Typed(at_most=("amount=inf",)),
        Typed(at_most=("amount=1e",)),
        Typed(at_most=("amount=5", "amount=6")),
        Typed(at_most=("amount=5",), same=("amount",)),
        Typed(one_of=("n=five",)),
        Typed(one_of=("n=NaN",)),
    ],
)
def test_bounds_that_are_none(typed: Typed) -> None:
    from dataclasses import replace

    with pytest.raises(Invalid):
        read_typed(replace(typed, until="8h", times=1), {"amount": 5, "n": 5}, NOON)

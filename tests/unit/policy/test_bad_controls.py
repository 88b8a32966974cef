"""Every way to write ``controls.yaml`` wrongly: place, problem and remedy, and the version is refused."""

from decimal import Decimal
from typing import Any

import pytest
from requirements import requirement

from exeat.core.controls import NO_CONTROLS
from exeat.policy.controls import amount_units, read_controls
from exeat.policy.lint import lint

ALL = '@id("all") permit(principal, action, resource);'


def budget(**members: str) -> str:
    """A sound budget of payments with some members changed; an empty text leaves one out."""
    sound = {
        "id": "b",
        "actions": "[bank/transfer]",
        "counts": "amount",
        "argument": "amount",
        "limit": "5",
        "window": "1d",
    }
    kept = {name: text for name, text in (sound | members).items() if text}
    return "budgets:\n- {" + ", ".join(f"{name}: {text}" for name, text in kept.items()) + "}\n"


def approver(text: str) -> str:
    return f"approvers:\n  finance: {text}\n"


def control(text: str) -> str:
    return f"controls:\n  clean: {text}\n"


CALLS = {"counts": "calls", "argument": ""}
ROWS = {"counts": "rows", "argument": ""}


@requirement("POL-5", "APP-8")
@pytest.mark.parametrize(
    ("text", "place", "problem", "remedy"),
    [
        ("a: [b", "1:1", "This is not YAML", "Correct it."),
        ("a: b\n---\nc: d\n", "2:1", "This is not YAML", "Correct it."),
        ("[" * 3_000 + "]" * 3_000, "1:1", "It is nested too deeply.", "Write it flat."),
        ("controls: &here {clean: *here}", "1:18", "clean is not known here.", "There are: bytes, dry_run,"),
        ("controls: {clean: &here {redact: *here}}", "1:", "A list was expected here.", "Write it as [one, two]."),
        ("a: \x00", "1:1", "This is not YAML", "Correct it."),
        ("[a]", "1:1", "A mapping was expected here.", "Write it as name: value."),
        ("aprovers: {}", "1:1", "aprovers is not known here.", "There are: approvers,"),
        ("controls: {}\ncontrols: {}", "2:1", "controls stands here twice.", "Remove one."),
        (approver("{}"), "2:12", "Nobody could approve as finance.", "Name people or roles."),
        (approver("{rols: [finance]}"), "2:13", "rols is not known here.", "There are: channels,"),
        (approver("{roles: finance}"), "2:20", "A list was expected here.", "Write it as [one, two]."),
        (approver("{roles: [{a: b}]}"), "2:21", "A word was expected here.", "Write one."),
        (approver("{people: [ada], quorum: 2}"), "2:36", "2 of 1 cannot agree.", "Lower the quorum."),
        (approver("{roles: [finance], quorum: 0}"), "2:39", "A whole number from 1 to 100", "Correct it."),
        (approver("{roles: [finance], channels: [fax]}"), "2:42", "fax is not known here.", "There are: webhook,"),
        (approver("{roles: [finance], within: 8d}"), "2:39", "8d is no time within 604800 s.", "E.g. 90s, 8h, 7d."),
        ("approvers:\n  Fin: {roles: [finance]}", "2:8", "'Fin' is no name.", "Use a-z, 0-9 and _"),
        ("controls:\n  approved_by_x: {rows: 1}", "2:18", "approved_by_x is an answer of people.", "under approvers."),
        (control("{}"), "2:10", "The control clean does nothing.", "Say what it redacts or caps."),
        (control("{redact: [mails]}"), "2:19", "There is no detector mails.", "There are: card, email,"),
        (control("{fields: [people/ssn]}"), "2:19", "people/ssn is no JSON pointer.", "/a/b or /a/*/b."),
        (control("{fields: [/a/~2]}"), "2:19", "/a/~2 is no JSON pointer.", "/a/b or /a/*/b."),
        (control("{rows: -1}"), "2:17", "A whole number from 1 to 1000000", "Correct it."),
        (control("{bytes: 1.5}"), "2:18", "A whole number from 1 to", "Correct it."),
        (control("{dry_run: maybe}"), "2:20", "true or false was expected here.", "Write one of them."),
        ("budgets: {a: b}", "1:10", "A list was expected here.", "Write it as [one, two]."),
        (budget(limit=""), "2:3", "The budget has no limit.", "Write it."),
        (budget(window=""), "2:3", "The budget has no window.", "Write it."),
        (budget(id="B!"), "2:8", "'B!' is no id.", "Use a-z, 0-9, dot, dash."),
        (budget(argument=""), "2:3", "A budget of amount needs the argument that it reads.", "Correct counts"),
        (budget(counts="calls"), "2:3", "A budget of calls reads no argument.", "Correct counts"),
        (budget(counts="ammount"), "2:45", "ammount is not known here.", "There are: calls,"),
        (budget(per="team"), "2:", "team is not known here.", "There are: agent,"),
        (budget(actions="[]"), "2:", "The budget counts no action.", "Name tools or groups."),
        (budget(limit="-5"), "2:", "This is no amount: it is negative.", "At most four places."),
        (budget(limit=".nan"), "2:", "This is no amount:", "At most four places."),
        (budget(limit="NaN"), "2:", "This is no amount: it is not a finite number.", "At most four places."),
        (budget(limit="Infinity"), "2:", "This is no amount: it is not a finite number.", "At most four places."),
        (budget(limit="0.00001"), "2:", "it has more than four decimal places", "At most four places."),
        (budget(limit="9223372036854775808"), "2:", "This is no amount: it is too large.", "At most four places."),
        (budget(limit="1e999999999"), "2:", "This is no amount: it is too large.", "At most four places."),
        (budget(limit="lots"), "2:", "This is no amount:", "At most four places."),
        (budget(limit="0"), "2:", "A limit of 0 permits nothing.", "Forbid the action instead."),
        (budget(limit="1.5", **CALLS), "2:", "A whole number from 1 to", "Correct it."),
        (budget(limit="9223372036854775808", **CALLS), "2:", "A whole number from 1 to", "Correct it."),
        (budget(**ROWS), "2:3", "A budget of rows needs reserve: the most that one result may use.", "or reserve."),
        (budget(reserve="5"), "2:3", "A budget of amount has none.", "Correct counts or reserve."),
        (budget(reserve="6", **ROWS), "2:", "One result may use more than the limit.", "Lower reserve."),
        (budget(window="0d"), "2:", "0d is no time within 31622400 s.", "E.g. 90s, 8h, 7d."),
        (budget(window="1w"), "2:", "1w is no time within 31622400 s.", "E.g. 90s, 8h, 7d."),
        (budget(window="367d"), "2:", "367d is no time within 31622400 s.", "E.g. 90s, 8h, 7d."),
        (budget() + budget().removeprefix("budgets:\n"), "3:3", "The budget b stands here twice.", "another id."),
    ],
)  # fmt: skip
def test_each_mistake_names_its_place_and_the_remedy(
    world: Any, text: str, place: str, problem: str, remedy: str
) -> None:
    controls, findings = read_controls({"controls.yaml": text})
    assert controls == NO_CONTROLS, "of what is partly wrong nothing is taken"
    (finding,) = findings
    said = str(finding)
    assert said.startswith(f"controls.yaml:{place}"), said
    assert problem in said and remedy in said, said
    files = {"a.cedar": ALL, "controls.yaml": text}
    assert said in [str(each) for each in lint(files, world("").catalogue)]


@requirement("POL-5")
def test_so_many_budgets_and_no_more() -> None:
    one = budget().removeprefix("budgets:\n")
    many = "budgets:\n" + "".join(one.replace("id: b", f"id: b{n}") for n in range(1_001))
    _, (finding,) = read_controls({"controls.yaml": many})
    assert "More than 1000 budgets." in str(finding)
    controls, findings = read_controls({"controls.yaml": many[: many.index("- {id: b1000")]})
    assert findings == [] and len(controls.budgets) == 1_000


@requirement("APP-8")
def test_the_largest_amount_is_an_amount() -> None:
    assert amount_units(Decimal("922337203685477.5807")) == 2**63 - 1
    with pytest.raises(ValueError, match="too large"):
        amount_units(Decimal("922337203685477.5808"))


@requirement("POL-5")
@pytest.mark.parametrize("text", ["", "# nothing", "approvers:\ncontrols:\n", budget()])
def test_what_is_sound_has_no_findings(text: str) -> None:
    assert read_controls({"controls.yaml": text})[1] == []

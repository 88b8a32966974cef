"""A running gateway narrows, holds, and keeps budgets, with real clients and a real server
(POL-9, APP-1, APP-4, APP-8, APP-11)."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway, decisions, denied, running, text
from offices import DEADLINE_S, Office
from requirements import requirement


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    with running(Gateway(made.home.path, hold_wait_s="0")) as gateway:
        made.gateway = gateway
        yield made
    made.close()


@requirement("POL-9", "POL-4")
def test_a_narrowed_call_leaves_as_decided_and_says_so(office: Office) -> None:
    answer = office.wire().call("search", query="all", limit=400)
    assert office.carried_out() == [{"tool": "search", "query": "all", "limit": 5}]
    assert len(answer["result"]["structuredContent"]["rows"]) == 5
    assert "limit: 400 → 5" in text(answer)
    told = answer["result"]["_meta"]["exeat/narrowed"]
    assert told["changes"] == {"limit": {"asked": 400, "sent": 5}}
    ((leaf, values, _),) = decisions(office.home.path)
    assert (leaf.verdict, leaf.obligations) == ("permit", ("narrow:limit",))
    assert values["arguments"] == {"query": "all", "limit": 400}
    assert values["wire"] == {"query": "all", "limit": 5}


@requirement("APP-1", "APP-11", "APP-4")
def test_held_approved_retried_and_used_once(office: Office) -> None:
    wire = office.wire()
    held = wire.call("pay", amount=500, to="bob")
    assert denied(held) == "approval_required" and office.carried_out() == []
    hold = json.loads(office.exeat("approvals", "list", "--json"))[0]["id"]
    assert text(held).startswith("Held by exeat") and hold in text(held)
    assert "ada" not in text(held), "whose answer is awaited is said by role"
    office.exeat("approvals", "approve", hold, "--as", "ada", "--reason", "looks right")
    assert denied(wire.call("pay", amount=501, to="bob")) == "approval_required"
    done = wire.call("pay", amount=500, to="bob")
    assert not denied(done), done
    assert denied(wire.call("pay", amount=500, to="bob")) == "approval_required", "once"
    assert [each["amount"] for each in office.carried_out()] == [500]
    permitted = [leaf for leaf, _, _ in decisions(office.home.path) if leaf.verdict == "permit"]
    assert [leaf.approval for leaf in permitted] == [hold]
    assert permitted[0].obligations == ("control:approved_by_owner",)


@requirement("POL-9")
def test_a_result_is_redacted_and_capped_before_anybody_sees_it(office: Office) -> None:
    answer = office.wire().call("people", team="all")
    seen = json.dumps(answer)
    assert "example.org" not in seen and "[redacted:email]" in seen
    assert len(answer["result"]["structuredContent"]["rows"]) == 10
    assert "email addresses and cut 10 rows" in text(answer), text(answer)
    end = time.monotonic() + DEADLINE_S
    while not (found := decisions(office.home.path))[0][2]:  # it is written soon after the answer
        assert time.monotonic() < end
    ((leaf, _, outcome),) = found
    assert outcome == "ok" and {"redact:email", "rows:10", "control:ten"} <= set(leaf.obligations)


@requirement("APP-8")
def test_a_budget_ends(office: Office) -> None:
    wire = office.wire()
    for number in range(3):
        assert not denied(wire.call("note", text=str(number)))
    spent = wire.call("note", text="too much")
    assert denied(spent) == "budget_exhausted" and "3 of 3 calls used" in text(spent)
    assert len(office.carried_out()) == 3


@requirement("APP-4")
def test_a_call_is_kept_open_until_people_have_answered(tmp_path: Path) -> None:
    made = Office(tmp_path)
    with running(Gateway(made.home.path, hold_wait_s="20")) as made.gateway:
        found: list[Any] = []
        wire = made.wire()
        waiting = threading.Thread(
            target=lambda: found.append(wire.call("pay", amount=7e2, to="b"))
        )
        waiting.start()
        end = time.monotonic() + DEADLINE_S
        while not (listed := json.loads(made.exeat("approvals", "list", "--json"))):
            assert time.monotonic() < end
        assert not found
        made.exeat("approvals", "approve", listed[0]["id"], "--as", "ada", "--reason", "yes")
        waiting.join(DEADLINE_S)
        assert text(found[0]) == "paid 700.0 to b"
        refused = threading.Thread(
            target=lambda: found.append(wire.call("pay", amount=8e2, to="b"))
        )
        refused.start()
        while not (listed := json.loads(made.exeat("approvals", "list", "--json"))):
            assert time.monotonic() < end
        made.exeat("approvals", "deny", listed[0]["id"], "--as", "ada", "--reason", "no")
        refused.join(DEADLINE_S)
        assert denied(found[1]) == "approval_denied"
    made.close()


@requirement("APP-6", "APP-11")
def test_a_grant_lets_calls_like_the_held_one_through_and_no_others(office: Office) -> None:
    wire = office.wire()
    assert denied(wire.call("pay", amount=500, to="bob")) == "approval_required"
    hold = json.loads(office.exeat("approvals", "list", "--json"))[0]["id"]
    office.exeat(
        "approvals", "approve", hold, "--as", "ada", "--grant", "--at-most", "amount=600",
        "--same", "to", "--until", "8h", "--times", "2",
    )  # fmt: skip
    assert denied(wire.call("pay", amount=601, to="bob")) == "approval_required"
    assert denied(wire.call("pay", amount=550, to="eve")) == "approval_required"
    assert not denied(wire.call("pay", amount=550, to="bob"))
    assert not denied(wire.call("pay", amount=600, to="bob"))
    assert denied(wire.call("pay", amount=550, to="bob")) == "approval_required", "twice"
    assert [each["amount"] for each in office.carried_out()] == [550, 600]
    (grant,) = json.loads(office.exeat("grants", "list", "--json"))
    assert (grant["state"], grant["left"]) == ("used up", 0)
    permitted = [leaf for leaf, _, _ in decisions(office.home.path) if leaf.verdict == "permit"]
    assert [leaf.approval for leaf in permitted] == [grant["id"]] * 2

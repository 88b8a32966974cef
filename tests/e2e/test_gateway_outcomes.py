"""A running gateway narrows, holds, and keeps budgets, with real clients and a real server
(POL-9, APP-1, APP-4, APP-8, APP-11)."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateways import Gateway, Server, Wire, decisions, denied, environ, running, text, url_of
from homes import BOB, Home
from requirements import requirement

from exeat.core.controls import Order
from exeat.core.facts import Effect

DEADLINE_S = 30.0
POLICY = """
@id("pay") permit(principal, action == Action::"c/pay", resource) when
  { context.input.amount.lessThanOrEqual(decimal("100.0")) ||
    context.session.controls.contains(Control::"approved_by_owner") };
@id("search") @narrow("limit") permit(principal, action == Action::"c/search", resource) when
  { context.input has limit && context.input.limit <= 5 };
@id("people") permit(principal, action == Action::"c/people", resource) when
  { context.session.controls.containsAll([Control::"redacted_pii", Control::"ten"]) };
@id("note") permit(principal, action == Action::"c/note", resource);
"""
CONTROLS = """
controls:
  ten: {rows: 10}
budgets:
  - {id: notes, actions: [c/note], counts: calls, limit: "3", window: 1h}
"""


class Office:
    """A home with one server, one agent, and what its server really did."""

    def __init__(self, path: Path, **settings: str) -> None:
        self.log = path / "carried-out.jsonl"
        self.home = Home(path / "home")
        argv = [sys.executable, str(Path(__file__).parent / "clerk_server.py"), str(self.log)]
        self.server = Server(argv, "listening on ")
        self.home.pin_all(self.home.server("c", url=url_of(self.server)))
        self.home.profile("c", "search", Effect.READ, monotone=(("limit", Order.LESS),))
        self.home.profile("c", "pay", Effect.PAY)
        self.key = self.home.agent("bot", ["c"])
        self.apply(POLICY)
        self.settings = settings
        self.gateway: Gateway

    def close(self) -> None:
        Wire.close_all()
        self.server.kill()
        self.home.state.close()

    def apply(self, policy: str, controls: str = CONTROLS) -> None:
        files = {"office.cedar": policy, "controls.yaml": controls}
        self.home.registry.apply_policy(files, BOB, self.home.act())

    def wire(self) -> Wire:
        return Wire(self.gateway.port, self.key, "/mcp/c", timeout=DEADLINE_S)

    def carried_out(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def exeat(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "exeat.cli.main", *words, "--home", str(self.home.path)],
            capture_output=True, text=True, env=environ(), timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout


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
    ((leaf, _, outcome),) = decisions(office.home.path)
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

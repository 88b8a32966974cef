"""A running gateway as a policy decision point: `exeat up`, a client of the command line, the record (POL-8)."""

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateways import Gateway, decisions, running, verified
from offices import DEADLINE_S, Office
from requirements import requirement
from signing_in import issuer_of


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()


@requirement("POL-8", "APP-9")
def test_the_running_gateway_answers_records_and_does_nothing(office: Office) -> None:
    home = office.home.path
    said = office.exeat("client", "add", "pep", "--evaluates", "--as", "ada", "--reason", "a proxy")
    client, secret = re.findall(r"(?:client id|secret): (\S+)", said)
    shown = base64.b64encode(f"{client}:{secret}".encode()).decode()
    with running(Gateway(home)) as gateway:
        control = issuer_of(gateway)
        told = httpx2.get(f"{control}/.well-known/authzen-configuration").json()
        assert told["policy_decision_point"] == control

        understood: list[str] | None = None

        def ask(tool: str, **arguments: Any) -> dict[str, Any]:
            body = {
                "subject": {"type": "agent", "id": "bot"},
                "action": {"name": "tools/call", "properties": {"arguments": arguments}},
                "resource": {"type": "tool", "id": f"c/{tool}"},
                "context": {"supported_obligations": understood},
            }
            headers = {"authorization": f"Basic {shown}", "x-request-id": "r-1"}
            answer = httpx2.post(told["access_evaluation_endpoint"], json=body, headers=headers)
            assert (answer.status_code, answer.headers["x-request-id"]) == (200, "r-1")
            found: dict[str, Any] = answer.json()
            return found

        assert ask("pay", amount=99.5, to="eve")["decision"] is True
        held = ask("pay", amount=500, to="eve")
        assert held["context"]["hold"] == {"alternatives": [["approved_by_owner"]]}
        assert office.exeat("approvals", "list", "--json").strip() == "[]", "nobody is asked"
        assert ask("note")["context"]["reason"] == "arguments_invalid"
        for _ in range(4):  # the budget holds three
            assert ask("note", text="x")["decision"] is True
        unaware = ask("search", query="x", limit=400)["context"]
        assert unaware["reason"] == "obligation_unknown"
        understood = ["narrow"]
        small = ask("search", query="x", limit=400)
        assert small["decision"] is True and small["context"]["arguments"]["limit"] == 5
        office.exeat("kill", "agent", "bot", "--as", "ada", "--reason", "for a test")
        end = time.monotonic() + DEADLINE_S
        while (stopped := ask("pay", amount=1, to="eve"))["decision"]:
            assert time.monotonic() < end
        assert stopped["context"]["reason"] == "killed"
        assert gateway.stop() == 0
    assert verified(home).sound and office.carried_out() == []
    found = decisions(home)
    assert {leaf.mode for leaf, _, _ in found} == {"evaluate"}
    assert {leaf.credential for leaf, _, _ in found} == {client}
    assert all((status == "failed") == (leaf.verdict == "permit") for leaf, _, status in found)
    assert small["context"]["decision_id"] in {f"gw1-{leaf.index}" for leaf, _, _ in found}

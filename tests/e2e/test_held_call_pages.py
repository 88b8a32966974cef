"""A held call's page with everything real: `exeat up`, a modern client that opens URLs, people's browsers
(APP-4, APP-5, APP-3)."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from authenticator import Authenticator
from browsing import Browser
from gateways import Gateway, Wire, decisions, denied, entries, running, verified
from homes import ADA, BOB
from offices import CONFIRMED, Office
from requirements import requirement

URLS = {"elicitation": {"url": {}}}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    made.key = made.home.key("bot", BOB)
    yield made
    made.close()


def asked(wire: Wire, amount: float) -> tuple[str, dict[str, Any]]:
    """Where the client is sent, and how it goes on when its person has been there."""
    wire.offers = URLS
    call = {"name": "pay", "arguments": {"amount": amount, "to": "eve"}}
    result = wire.ask("tools/call", call, "pay")["result"]
    assert result["resultType"] == "input_required", result
    ((key, question),) = result["inputRequests"].items()
    params = question["params"]
    assert (question["method"], params["mode"]) == ("elicitation/create", "url")
    state = {"requestState": result["requestState"]}
    return params["url"], {**call, **state, "inputResponses": {key: {"action": "accept"}}}


@requirement("APP-4", "APP-5", "APP-3")
def test_a_client_opens_the_page_and_an_approver_answers_there(office: Office) -> None:
    with running(Gateway(office.home.path, hold_wait_s="0")) as gateway, ExitStack() as stack:
        office.gateway = gateway
        wire = office.wire()
        link, retry = asked(wire, 500)
        control = link.partition("/holds/")[0]
        stranger, bob, ada = (stack.enter_context(Browser(control)) for _ in range(3))
        assert "passkey" in stranger.get(link).text, "who is not signed in signs in first"
        with_key = stranger.client.get(link, headers={"authorization": f"Bearer {office.key}"})
        assert with_key.status_code == 303, "an agent's key opens no page"
        bob.sign_in(office.home, BOB)
        mine = bob.get(link)  # bob is deputy, too: who asks never approves
        assert mine.status_code == 200 and "c/pay" in mine.text and "500" not in mine.text
        assert f"{urlsplit(link).path}/" not in mine.text
        assert bob.get(f"{link}/approve").status_code == 409
        assert denied(wire.ask("tools/call", retry, "pay")) == "approval_required"
        ada.sign_in(office.home, ADA)
        assert "500" in ada.get(link).text and office.carried_out() == []
        done = ada.submit(ada.get(f"{link}/approve"), reason="agreed")
        assert done.status_code == 200 and 'id="state">approved<' in done.text
        answer = wire.ask("tools/call", retry, "pay")
        assert not denied(answer) and office.carried_out() == [
            {"tool": "pay", "amount": 500.0, "to": "eve"}
        ]
        link, retry = asked(wire, 600)
        refused = ada.submit(ada.get(f"{link}/deny"), reason="too much")
        assert 'id="state">denied<' in refused.text
        assert denied(wire.ask("tools/call", retry, "pay")) == "approval_denied"
        assert len(office.carried_out()) == 1
        assert gateway.stop() == 0
    assert verified(office.home.path).sound
    hold = link.rpartition("/")[2]
    record = str([entry.leaf for entry in entries(office.home.path)])
    assert "console:link" in record and hold in record
    permits = [leaf for leaf, _, _ in decisions(office.home.path) if leaf.verdict == "permit"]
    assert len(permits) == 1 and permits[0].approval.startswith("h-")


@requirement("APP-3", "APP-4")
def test_alone_the_user_confirms_with_a_passkey(office: Office) -> None:
    home = office.home
    home.registry.depart(BOB, home.act())
    office.key = home.key("bot", ADA)
    home.registry.apply_policy({"office.cedar": CONFIRMED}, ADA, home.act())
    with running(Gateway(home.path, hold_wait_s="0")) as gateway, ExitStack() as stack:
        office.gateway = gateway
        wire = office.wire()
        link, retry = asked(wire, 500)
        control, path = link.partition("/holds/")[0], urlsplit(link).path
        ada = stack.enter_context(Browser(control))
        ada.sign_in(home, ADA)
        key = Authenticator(control)
        options = ada.script("/passkeys/options", {}, ada.get(f"{control}/passkeys"))
        made = ada.script("/passkeys/enrol", {"credential": key.create(options)})
        assert made == {"next": "/passkeys"}
        page = ada.get(f"{link}/approve")
        assert "Confirm" in page.text and "Approve" not in page.text
        seen = page.text.partition('data-seen="')[2].partition('"')[0]
        csrf = page.text.partition('name="csrf" content="')[2].partition('"')[0]
        form, origin = {"csrf": csrf, "seen": seen}, {"origin": control}
        refused = ada.client.post(f"{link}/approve", data=form, headers=origin)
        assert refused.status_code == 409, "having signed in is not enough"
        options = ada.script(f"{path}/approve/options", {"seen": seen}, page)
        said = {"seen": seen, "reason": "", "credential": key.get(options)}
        assert ada.script(f"{path}/approve/passkey", said) == {"next": path}
        assert 'id="state">confirmed<' in ada.get(link).text
        assert not denied(wire.ask("tools/call", retry, "pay"))
        assert len(office.carried_out()) == 1
        assert gateway.stop() == 0
    record = json.dumps([str(entry.leaf) for entry in entries(home.path)])
    assert "hold.confirmed" in record and "approval.approved" not in record

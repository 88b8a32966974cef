"""``exeat policy replay``: recorded traffic under a candidate (POL-6), and what shadows said (POL-5)."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from recorded_home import ALL, RecordedHome
from requirements import requirement

from exeat.cli.traffic import Traffic, start_of
from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.ids import AgentId, PersonId
from exeat.evidence.model import DecisionLeaf
from exeat.evidence.reader import EvidenceReader
from exeat.policy.replay import BEYOND_POLICY
from exeat.storage.ledger import SqliteLedgerReader

SMALL = """@id("small") permit(principal, action == Action::"bank/transfer", resource)
  when { context.input.amount.lessThanOrEqual(decimal("100.0")) };
@id("reads") permit(principal, action in Action::"effect:read", resource);
"""
PAY = {"amount": Decimal("99.5"), "to": "x@example.com", "currency": "EUR"}
LARGE = {**PAY, "amount": Decimal("100.5")}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RecordedHome]:
    made = RecordedHome(tmp_path / "home")
    yield made
    made.state.close()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / "small.cedar").write_text(SMALL)
    return folder


def replayed(run: Run, home: RecordedHome, *arguments: object) -> dict[str, Any]:
    code, out, err = run("policy", "replay", *arguments, "--json", "--home", home.path)
    assert code == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


@requirement("POL-6")
def test_each_verdict_that_would_change_is_listed(
    run: Run, home: RecordedHome, small: Path
) -> None:
    ids = home.record([
        ("bank/transfer", PAY), ("bank/transfer", LARGE), ("bank/balance", {}),
        ("fs/write", {"path": "/w/a", "content": "secret text"}),
    ])  # fmt: skip
    home.record([("bank/transfer", LARGE)], instance="gw2")
    code, out, _ = run("policy", "replay", small, "--home", home.path, "--fail-on-change")
    assert code == 1
    lines = out.splitlines()
    assert "5 decisions under the files in" in out and "3 verdicts would change" in out
    assert any(ids[1] in line and "permit -> deny" in line for line in lines)
    assert any("gw2-" in line and "bank/transfer" in line for line in lines)
    assert not any(f"{ids[0]} " in line for line in lines)
    assert "permit → deny: 3" in out and "Facts are those of the record" in out
    assert "secret text" not in out
    code, out, _ = run("policy", "replay", "1", "--home", home.path, "--fail-on-change")
    assert (code, "0 verdicts would change" in out) == (0, True), "its own version changes nothing"


@requirement("POL-6")
def test_agent_and_span_bound_it(run: Run, home: RecordedHome, small: Path) -> None:
    home.agent("other", ["bank"])
    home.record([home.request(("bank/transfer", LARGE), agent="other"), ("bank/transfer", LARGE)])
    assert replayed(run, home, small, "--agent", "other")["decided"] == 1
    assert replayed(run, home, small, "--since", "1h")["decided"] == 2


@requirement("POL-6")
def test_a_span_begins_at_the_very_decision(home: RecordedHome) -> None:
    for _ in range(4):  # a batch of three decisions each time, and others between
        home.record([("bank/balance", {})] * 3)
    with closing(SqliteLedgerReader(home.path / "ledger" / "gw1.db")) as source:
        entries = [entry.leaf for entry in EvidenceReader(source).entries()]
        starts = [start_of(source, int(leaf.at)) for leaf in entries]
    assert all(start <= leaf.index for start, leaf in zip(starts, entries, strict=True))
    assert starts[-1] > 0, "what lies before is not read"
    known, decisions = home.state.snapshot(), [e for e in entries if isinstance(e, DecisionLeaf)]
    for number, leaf in enumerate(decisions):
        found = list(Traffic(home.path, known, int(leaf.at), None).decisions())
        assert found[0].id == f"gw1-{leaf.index}" and len(found) == len(decisions) - number


@requirement("POL-6")
def test_the_facts_are_those_of_the_record(run: Run, home: RecordedHome, small: Path) -> None:
    """The agent was suspended and its tool profiled otherwise since; then it was not."""
    home.record([("bank/balance", {})])
    home.registry.suspend(AgentId("bot"), home.act())
    found = replayed(run, home, small)
    assert (found["decided"], found["changes"]) == (1, [])
    assert found["changed_since"] == {"agent": 1}


@requirement("POL-6")
def test_a_user_and_what_was_approved_are_as_they_were(home: RecordedHome) -> None:
    decision = Decision(
        Verdict.PERMIT, Reason.PERMITTED, obligations=("control:approved_by_owner", "rows:10")
    )
    home.record([home.request(("bank/transfer", PAY), user="bob")], as_if=decision)
    home.registry.depart(PersonId("bob"), home.act())
    (recorded,) = Traffic(home.path, home.state.snapshot(), 0, None).decisions()
    assert recorded.request.controls == {"approved_by_owner"}
    assert recorded.request.caller.user is not None and recorded.request.caller.user.live
    assert recorded.request.arguments == PAY


@requirement("POL-6")
@pytest.mark.parametrize("reason", sorted(BEYOND_POLICY))
def test_what_no_policy_decides_does_not_change(
    run: Run, home: RecordedHome, reason: Reason
) -> None:
    home.record([("bank/balance", {})], as_if=Decision(Verdict.DENY, reason))
    assert replayed(run, home, "1")["changes"] == []


@requirement("POL-6", "POL-7")
def test_an_observed_call_is_decided_as_of_an_observed_agent(
    run: Run, home: RecordedHome, small: Path
) -> None:
    observed = Decision(Verdict.PERMIT, Reason.OBSERVED, would=("observe:deny:not_permitted",))
    home.record([("fs/write", {"path": "/w/a", "content": "x"})], as_if=observed)
    assert replayed(run, home, small)["changes"] == []
    home.record([("fs/write", {"path": "/w/a", "content": "x"})])
    assert len(replayed(run, home, small)["changes"]) == 1


@requirement("POL-6")
def test_what_cannot_be_decided_again_is_counted(run: Run, home: RecordedHome) -> None:
    home.agent("gone", ["bank"])
    request = home.request(("bank/balance", {}), agent="gone")
    ghost = replace(request.caller.agent, id=AgentId("ghost"))
    home.record([replace(request, caller=replace(request.caller, agent=ghost))])
    found = replayed(run, home, "1")
    assert found["left_out"] == {"their agent or server is no longer registered": 1}


@requirement("POL-6")
def test_mistaken_use_is_a_sentence(run: Run, home: RecordedHome, tmp_path: Path) -> None:
    code, _, err = run("policy", "replay", "7", "--home", home.path)
    assert code == 1 and "There is no policy version 7" in err
    code, _, err = run("policy", "replay", "1", "--home", home.path)
    assert code == 1 and "There is no ledger" in err
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.cedar").write_text('@id("x") permit(principal, action resource);')
    code, _, err = run("policy", "replay", tmp_path / "broken", "--home", home.path)
    assert code == 1 and "a.cedar:1:1" in err
    home.record([("bank/balance", {})])
    (home.path / "keys" / "master.key").unlink()
    code, _, err = run("policy", "replay", "1", "--home", home.path)
    assert code == 1 and "master.key" in err


@requirement("POL-5", "POL-7")
def test_the_shadow_report_counts_what_would_have_changed(run: Run, home: RecordedHome) -> None:
    shadow = (
        '@id("no-bank") @shadow("tried") forbid(principal, action in Action::"bank/*", resource);'
    )
    home.policy(ALL + shadow)
    home.record([("bank/balance", {})] * 3 + [("fs/read", {"path": "/w/a"})])
    home.record([("fs/read", {"path": "/w/a"})], as_if=Decision(
        Verdict.PERMIT, Reason.OBSERVED, would=("observe:deny:forbidden",)))  # fmt: skip
    code, out, _ = run("policy", "shadow-report", "--home", home.path)
    assert code == 0 and "shadow policies would have changed 3 of them" in out
    code, out, _ = run("policy", "shadow-report", "--json", "--home", home.path)
    assert [(row["kind"], row["verdict"], row["policies or reason"], row["calls"]) for row in json.loads(out)] == [
        ("observe", "deny -> permit", "forbidden", 1), ("shadow", "permit -> deny", "no-bank", 3)
    ]  # fmt: skip


@requirement("POL-6")
def test_facts_are_built_once_so_that_the_pdp_knows_its_routes(home: RecordedHome) -> None:
    home.record([("bank/balance", {})] * 5)
    agents = {id(each.request.caller.agent) for each in Traffic(
        home.path, home.state.snapshot(), 0, None).decisions()}  # fmt: skip
    assert len(agents) == 1

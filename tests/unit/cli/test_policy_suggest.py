"""``exeat policy suggest``: least privilege from use, never from what an attacker could teach (POL-6)."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from ledger_world import CONTEXT
from recorded_home import RecordedHome
from requirements import requirement

from exeat.core.decision import Decision, Reason, Verdict
from exeat.core.facts import Effect

EUR = {"amount": Decimal("99.5"), "to": "ada@example.com", "currency": "EUR"}
USD = {
    "amount": 20,
    "to": "bob@example.com",
    "currency": "USD",
    "memo": "the quarterly report, dear Bob",
}
READS = [("fs/read", {"path": f"/workspace/{n}/notes.txt", "limit": n}) for n in range(1, 6)]
SECRETS = ["hunter2secret", "AKIAABCDEFGHIJKLMNOP", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[RecordedHome]:
    made = RecordedHome(tmp_path / "home")
    yield made
    made.state.close()


def suggested(run: Run, home: RecordedHome, *arguments: object) -> tuple[str, str]:
    code, out, err = run("policy", "suggest", "--agent", "bot", "--home", home.path, *arguments)
    assert code == 0, err
    return out, err


@requirement("POL-6")
def test_each_bound_is_what_was_used_and_no_more(run: Run, home: RecordedHome) -> None:
    home.record([("bank/transfer", EUR), ("bank/transfer", USD), *READS])
    out, err = suggested(run, home)
    assert 'principal == Agent::"bot", action == Action::"bank/transfer"' in out
    assert 'decimal("99.5")' in out and 'decimal("0.0")' in out
    assert 'context.input.currency == "EUR" || context.input.currency == "USD"' in out
    assert 'context.email.to.domain == "example.com"' in out
    assert 'context.path.path.canonical like "/workspace/*"' in out
    assert "context.input.limit <= 5" in out
    assert 'resource.effect == Effect::"pay"' in out
    assert "bank/balance" not in out and "fs/write" not in out
    assert "quarterly" not in out and "ada" not in out
    assert "7 used calls, and all of them are permitted by it alone" in err


@requirement("POL-6")
def test_it_is_written_with_cases_that_hold_and_a_replay_that_changes_nothing(
    run: Run, home: RecordedHome, tmp_path: Path
) -> None:
    home.record([("bank/transfer", EUR), ("bank/transfer", USD), *READS])
    folder = tmp_path / "out"
    suggested(run, home, "-o", folder)
    code, out, err = run("policy", "test", folder, "--home", home.path)
    assert code == 0 and " 0 failed" in out, out + err
    assert out.count("ok  ") >= 6, "inside and outside of each bound"
    assert run("policy", "lint", folder, "--home", home.path)[0] == 0
    code, out, _ = run("policy", "replay", folder, "--home", home.path, "--fail-on-change")
    assert (code, "0 verdicts would change" in out) == (0, True)
    code, _, err = run("policy", "suggest", "--agent", "bot", "--home", home.path, "-o", folder)
    assert code == 1 and "is there already" in err


@requirement("POL-6")
@pytest.mark.parametrize(
    ("poison", "why"),
    [
        ({"status": "tool_error"}, ""),
        ({"status": ""}, ""),
        ({"context": replace(CONTEXT, labels=("untrusted",))}, "untrusted content"),
        ({"as_if": Decision(Verdict.DENY, Reason.FORBIDDEN)}, ""),
        ({"as_if": Decision(Verdict.HOLD, Reason.APPROVAL_REQUIRED)}, ""),
        ({"as_if": Decision(Verdict.PERMIT, Reason.OBSERVED)}, "would have refused"),
        (
            {
                "as_if": Decision(
                    Verdict.PERMIT, Reason.PERMITTED, obligations=("control:approved_by_owner",)
                )
            },
            "needed an approval",
        ),
        (
            {"as_if": Decision(Verdict.PERMIT, Reason.PERMITTED, obligations=("narrow:amount",))},
            "were narrowed",
        ),
        (
            {"as_if": Decision(Verdict.PERMIT, Reason.PERMITTED, obligations=("redact:email",))},
            "were narrowed, redacted",
        ),
        ({"context": replace(CONTEXT, mode="observe")}, "would have refused"),
        ({"context": replace(CONTEXT, mode="evaluate")}, "only asked about them"),
    ],
)
def test_nobody_teaches_it_by_calls_that_policy_did_not_freely_permit(
    run: Run, home: RecordedHome, poison: dict[str, Any], why: str
) -> None:
    evil = {"amount": Decimal(100_000), "to": "eve@evil.example", "currency": "GBP"}
    home.record([("bank/transfer", EUR)])
    home.record(
        [("bank/transfer", evil), ("fs/write", {"path": "/etc/x", "content": "x"})], **poison
    )
    out, err = suggested(run, home)
    assert "evil.example" not in out and "100000" not in out and "fs/write" not in out
    assert "1 used calls" in err and why in err


@requirement("POL-6")
@pytest.mark.parametrize("secret", SECRETS)
def test_neither_free_text_nor_secrets_become_literals(
    run: Run, home: RecordedHome, tmp_path: Path, secret: str
) -> None:
    home.record(
        [("bank/transfer", {**EUR, "memo": secret})] * 9
        + [("fs/read", {"path": f"/workspace/{secret}/a"})] * 3
    )
    suggested(run, home, "-o", tmp_path / "out")
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.*"))
    assert secret not in written
    assert "/workspace/*" in written


@requirement("POL-6")
def test_a_tool_that_is_redefined_or_does_more_now_is_not_taken_on_trust(
    run: Run, home: RecordedHome
) -> None:
    home.record([("bank/balance", {}), ("fs/read", {"path": "/w/a"})])
    body = {
        "name": "balance",
        "inputSchema": {"type": "object", "properties": {"all": {"type": "boolean"}}},
    }
    home.pin_all("bank", [body])  # type: ignore[arg-type]
    home.profile("bank", "balance", Effect.READ)
    out, err = suggested(run, home)
    assert "bank/balance" not in out and "another definition" in err


@requirement("POL-6")
def test_nothing_used_is_nothing_suggested(run: Run, home: RecordedHome, tmp_path: Path) -> None:
    home.record([("bank/balance", {})], as_if=Decision(Verdict.DENY, Reason.FORBIDDEN))
    folder = tmp_path / "out"
    code, _, err = run("policy", "suggest", "--agent", "bot", "--home", home.path, "-o", folder)
    assert code == 1 and "used nothing" in err and not folder.exists()
    code, _, err = run("policy", "suggest", "--agent", "nobody", "--home", home.path)
    assert code == 1 and "There is no agent nobody" in err

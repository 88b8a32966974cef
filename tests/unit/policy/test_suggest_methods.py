"""What an agent used beside tools is suggested, too: prompts by name, resources by scheme and host (POL-6)."""

from typing import Any

from requirements import requirement

from exeat.core.decision import Reason, Verdict
from exeat.policy.replay import Recorded
from exeat.policy.suggest import suggest


def used(requests: list[Any]) -> list[Recorded]:
    return [
        Recorded(f"gw1-{n}", request, Verdict.PERMIT, Reason.PERMITTED)
        for n, request in enumerate(requests)
    ]


@requirement("POL-6")
def test_prompts_resources_and_other_methods(world: Any) -> None:
    w = world()
    found = suggest(
        "bot",
        used([
            w.method("prompts/get", "summary"),
            w.method("prompts/get", "review"),
            w.method("resources/read", "file:///workspace/a"),
            w.method("resources/read", "https://example.com/b"),
            w.method("completion/complete"),
        ]),
        w.catalogue,
    )  # fmt: skip
    assert found.findings == () and found.refused == (), found.text
    assert found.text.count("permit(") == 3
    assert 'context.target.name == "review" || context.target.name == "summary"' in found.text
    assert 'context.target.scheme == "https" && context.target.host == "example.com"' in found.text
    candidate = world(policy=found.text)
    assert candidate.pdp.decide(w.method("prompts/get", "summary")).permitted
    assert not candidate.pdp.decide(w.method("prompts/get", "other")).permitted
    assert not candidate.pdp.decide(w.method("resources/read", "https://evil.example/")).permitted
    assert not candidate.pdp.decide(w.method("prompts/get", "summary", "bank")).permitted
    assert not candidate.pdp.decide(w.call("bank/balance")).permitted


@requirement("POL-6")
def test_a_prompt_with_an_odd_name_is_not_written_down(world: Any) -> None:
    w = world()
    found = suggest("bot", used([w.method("prompts/get", "Dear Bob, hunter2")]), w.catalogue)
    assert "hunter2" not in found.text and found.findings == () and found.refused == ()
    assert 'resource in Server::"fs"' in found.text


@requirement("POL-6")
def test_ids_stay_apart(world: Any) -> None:
    w = world()
    both = [w.method("tasks/get", server="fs"), w.method("tasks/get", server="bank")]
    found = suggest("bot", used(both), w.catalogue)
    assert found.text.count('@id("suggested-bot-') == 2 and found.findings == ()

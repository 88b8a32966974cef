"""What people are shown of a held call (APP-1)."""

from typing import Any

import pytest
from approvals_world import NOW, held, standing
from requirements import requirement

from exeat.approvals.model.hold import Hold, Shown
from exeat.approvals.rules.destinations import destinations, listed
from exeat.approvals.rules.presenting import presented


@requirement("APP-1")
@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"q": "https://evil.example/x?d=1"}, [("q", "https://evil.example/x?d=1")]),
        ({"q": "javascript://x"}, [("q", "javascript://x")]),
        ({"x": "mallory@evil.example"}, [("x", "mallory@evil.example")]),
        ({"x": "10.0.0.1"}, [("x", "10.0.0.1")]),
        ({"x": "evil.example:8443"}, [("x", "evil.example:8443")]),
        ({"x": "/etc/passwd"}, [("x", "/etc/passwd")]),
        ({"x": "../../etc"}, [("x", "../../etc")]),
        ({"x": "DE02 1203 0000 0000 2020 51"}, [("x", "DE02 1203 0000 0000 2020 51")]),
        ({"to": "bob"}, [("to", "bob")]),
        ({"reply_to": "bob"}, [("reply_to", "bob")]),
        ({"mail": {"cc": ["bob", "eve"]}}, [("mail.cc[0]", "bob"), ("mail.cc[1]", "eve")]),
        ({"tomato": "red", "n": 5, "b": True, "z": None}, []),
        ({"text": "see you at noon."}, []),
    ],
)
def test_destinations(arguments: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert list(destinations(arguments)) == wanted


@requirement("APP-1")
def test_depth_and_number_are_bounded() -> None:
    deep: Any = "https://a.example/"
    for _ in range(100):
        deep = [deep]
    assert destinations({"x": deep}) == ()
    assert len(destinations({"to": ["x"] * 1000})) == 50
    assert listed({"x": deep}) == ((), True) and listed({"to": ["x"] * 51})[1]
    assert not listed({"to": ["x"] * 50, "n": 1, "t": "x", "e": []})[1]


@requirement("APP-1")
def test_all_that_the_promise_names_is_shown() -> None:
    call = held(narrowed={"to": "bob@x.example", "amount": 1}, labels=("pii",))
    hold = Hold(
        "h-1",
        call.binding,
        call.alternatives,
        call.why,
        "pay",
        "external",
        b"x",
        (),
        NOW,
        NOW + 1,
        "",
    )
    found = presented(hold, Shown(call.arguments, call.narrowed), standing())
    assert found["arguments"] == ('{"amount":99.50,"note":"","to":"DE02 1203 0000 0000 2020 51"}')
    assert found["narrowed"] == '{"amount":1,"to":"bob@x.example"}'
    assert found["destination"] == [{"argument": "to", "value": "bob@x.example"}]
    assert found["asked"] == [
        [
            {
                "control": "approved_by_owner",
                "wanted": 1,
                "people": ["ada", "bob"],
                "channels": ["cli", "console", "passkey"],
            }
        ]
    ]
    named = ("tool", "effect", "sink", "labels", "why", "agent", "user", "run", "server")
    assert [found[each] for each in named] == [
        "bank/pay", "pay", "external", ["pii"], ["pay-with-approval"], "bot", "uma", "run-1", "bank",
    ]  # fmt: skip
    assert "the answer is no" in found["if_nobody_answers"]
    assert presented(hold, None, standing())["arguments"] is None

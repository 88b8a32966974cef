"""Whatever was used, the suggestion is sound, permits all of it, and writes no free text (POL-6)."""

import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from policies.policy_world import World, tool
from requirements import requirement

from exeat.core.decision import Reason, Verdict
from exeat.core.facts import Effect
from exeat.core.ids import ServerId
from exeat.policy.replay import Recorded
from exeat.policy.suggest import suggest

TEXT = {"type": "string"}
SCHEMA = {
    "properties": {
        "path": TEXT,
        "to": {**TEXT, "format": "email"},
        "link": {**TEXT, "format": "uri"},
        "note": TEXT,
        "odd name": {"type": "integer"},
        "amount": {"type": "number"},
        "level": {"enum": ["low", "high", "top"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "flag": {"type": "boolean"},
        "either": {"anyOf": [TEXT, {"type": "integer"}]},
        "deep": {"type": "object", "properties": {"x": TEXT}},
    },
    "required": ["path", "amount"],
}
SEGMENT = st.sampled_from(["workspace", "src", "a*b", "x y", "k9f8a7s6d5f4g3h2", 'q"uote', "é"])
PATHS = st.builds(
    lambda lead, parts: lead + "/".join(parts),
    st.sampled_from(["/", "", "./"]),
    st.lists(SEGMENT, min_size=1, max_size=3),
)
SECRET = "Dear Bob, the password is hunter2"
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "path": PATHS,
    "to": st.sampled_from(["a@example.com", "B@Example.org", "c d@x.y"]),
    "link": st.sampled_from(["https://a.example/x", "http://b.example/y?k=v", "https://a.example"]),
    "note": st.sampled_from(["fast", "slow", SECRET, "", "ünï"]),
    "odd name": st.integers(-5, 2**40),
    "amount": st.one_of(
        st.integers(-3, 10**6), st.decimals(0, 1000, places=4), st.just(Decimal("0.00001"))
    ),
    "level": st.sampled_from(["low", "high", "top"]),
    "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
    "flag": st.booleans(),
    "either": st.one_of(st.just("x"), st.integers(0, 3)),
    "deep": st.just({"x": "y"}),
}
REQUIRED = {name: VALUES[name] for name in ("path", "amount")}
OPTIONAL = {name: value for name, value in VALUES.items() if name not in REQUIRED}
CALLS = st.lists(st.fixed_dictionaries(REQUIRED, optional=OPTIONAL), min_size=1, max_size=8)


@requirement("POL-6")
@settings(max_examples=25, deadline=None)
@given(CALLS)
def test_what_was_used_is_permitted_and_nothing_private_is_written(
    calls: list[dict[str, Any]],
) -> None:
    made = tool("srv", "do", Effect.WRITE, SCHEMA)
    world = World()
    world.tools[made.action] = made
    server = ServerId("srv")
    world.servers[server] = replace(world.servers[ServerId("fs")], id=server)
    scope = world.agent.scope
    world.agent = replace(world.agent, scope=replace(scope, servers=scope.servers | {server}))
    used = [
        Recorded(f"gw-{n}", world.call("srv/do", arguments), Verdict.PERMIT, Reason.PERMITTED)
        for n, arguments in enumerate(calls)
        if world.decide("srv/do", arguments).permitted
    ]
    found = suggest("bot", used, world.catalogue)
    assert found.taught == len(used)
    assert found.findings == (), found.text
    assert found.refused == (), found.text
    assert not re.search("hunter2|Dear|k9f8a7s6d5f4g3h2", found.text + found.cases)

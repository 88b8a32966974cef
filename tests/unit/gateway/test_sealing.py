"""requestState: only what we sealed for this very call comes back (GW-2, mcp.md, MRTR)."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.limits import REQUEST_STATE_LIFE_S
from exeat.gateway.sealing import StateSealer, binding

NOW = 1_790_000_000 * 10**9
BOUND = binding("bot/-", "up", "tools/call", "add", {"arguments": {"n": 1}})
SEALER = StateSealer(b"k" * 32, lambda size: b"n" * size)


@requirement("GW-2")
@given(st.text().filter(lambda text: text.isprintable()))
def test_what_was_sealed_comes_back(state: str) -> None:
    assert SEALER.unseal(SEALER.seal(state, BOUND, NOW), BOUND, NOW) == state


@requirement("GW-2")
@pytest.mark.parametrize(
    "other",
    [
        ("eve/-", "up", "tools/call", "add", {"arguments": {"n": 1}}),
        ("bot/ada", "up", "tools/call", "add", {"arguments": {"n": 1}}),
        ("bot/-", "down", "tools/call", "add", {"arguments": {"n": 1}}),
        ("bot/-", "up", "prompts/get", "add", {"arguments": {"n": 1}}),
        ("bot/-", "up", "tools/call", "sub", {"arguments": {"n": 1}}),
        ("bot/-", "up", "tools/call", "add", {"arguments": {"n": 2}}),
        ("bot/-", "up", "tools/call", "add", {"arguments": {"n": "1"}}),
        ("bot/-", "up", "tools/call", "add", {"arguments": {"n": True}}),
        ("bot/-", "up", "tools/call", "add", {"arguments": {"n": 1}, "x": None}),
    ],
)
def test_it_belongs_to_one_call(other: tuple[str, str, str, str, dict[str, Any]]) -> None:
    assert binding(*other) != BOUND
    assert SEALER.unseal(SEALER.seal("s", BOUND, NOW), binding(*other), NOW) is None


@requirement("GW-2")
def test_numbers_and_their_names_are_not_one() -> None:
    number, text = (
        binding("bot/-", "up", "tools/call", "add", {"arguments": {"n": n}})
        for n in (Decimal("1.5"), "1.5")
    )
    assert number != text


@requirement("GW-2")
def test_the_order_of_members_and_the_retrys_own_members_do_not_matter() -> None:
    one = binding("b", "u", "m", "t", {"a": 1, "b": {"c": 1, "d": 2}})
    assert one == binding("b", "u", "m", "t", {"b": {"d": 2, "c": 1}, "a": 1})
    assert one == binding(
        "b", "u", "m", "t",
        {"a": 1, "b": {"c": 1, "d": 2}, "requestState": "x", "_meta": {"y": 1}},
    )  # fmt: skip


@requirement("GW-2")
def test_it_expires() -> None:
    token, life = SEALER.seal("s", BOUND, NOW), REQUEST_STATE_LIFE_S * 10**9
    assert SEALER.unseal(token, BOUND, NOW + life) == "s"
    assert SEALER.unseal(token, BOUND, NOW + life + 1) is None


@requirement("GW-2")
@given(st.integers(0, 200), st.integers(1, 255), st.text(max_size=4))
def test_no_other_spelling_opens(at: int, change: int, tail: str) -> None:
    token = SEALER.seal("state", BOUND, NOW)
    at %= len(token)
    edited = token[:at] + chr((ord(token[at]) + change) % 256) + token[at + 1 :]
    for each in (edited, token + tail, token[:at], tail, "exs1." + tail):
        assert each == token or SEALER.unseal(each, BOUND, NOW) is None
    other = StateSealer(b"K" * 32, lambda size: b"n" * size)
    assert other.unseal(token, BOUND, NOW) is None

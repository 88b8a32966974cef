"""Shadow policies are evaluated and recorded, and never decide (POL-5)."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_world import CONTEXT, DENY, REQUEST
from policies.policy_world import NOW, World, version
from requirements import requirement

from exeat.core.decision import Decision, Reason
from exeat.core.facts import PersonFacts
from exeat.core.ids import PersonId
from exeat.core.kills import Kills, Target
from exeat.evidence.canonical import decode_leaf
from exeat.evidence.entries import EntryWriter
from exeat.evidence.model import Instance
from exeat.policy.bundle import compile_bundle
from exeat.policy.lint import lint

ALL = '@id("all") permit(principal, action, resource);'
NO_BANK = '@id("no-bank") @shadow("tried") forbid(principal, action in Action::"bank/*", resource);'
READS = '@id("reads") permit(principal, action in Action::"effect:read", resource);'
PAYS = (
    '@id("pays") @shadow("tried") permit(principal, action == Action::"bank/transfer", resource);'
)
PAY = {"amount": 1, "to": "x"}


@requirement("POL-5")
def test_a_shadow_forbid_is_told_and_does_not_decide(world: Any) -> None:
    w = world(policy=ALL + NO_BANK)
    decision = w.decide("bank/balance")
    assert decision.permitted and decision.policies == ("all",)
    assert decision.would == ("shadow:deny:no-bank",)
    assert w.decide("fs/read", {"path": "/w"}).would == ()


@requirement("POL-5")
def test_a_shadow_permit_opens_nothing(world: Any) -> None:
    w = world(policy=READS + PAYS)
    decision = w.decide("bank/transfer", PAY)
    assert decision.reason is Reason.NOT_PERMITTED
    assert decision.would == ("shadow:permit:pays",)
    assert not w.pdp.could_permit(
        w.call("bank/transfer").caller,
        w.servers["bank"],
        "tools/call",
        "bank/transfer",
        w.tools["bank/transfer"],
        "transfer",
        NOW,
    )
    alone = world(policy=PAYS)
    assert alone.decide("bank/transfer", PAY).reason is Reason.NO_POLICY


@requirement("POL-5")
def test_a_shadow_policy_about_users_binds_nobody(world: Any) -> None:
    rule = '@id("fin") @shadow("tried") permit(principal in Role::"finance", action, resource);'
    w = world(policy=ALL + rule, user=PersonFacts(PersonId("bob"), True))
    decision = w.decide("bank/balance")
    assert decision.permitted and decision.would == ("shadow:deny:fin",)


@requirement("POL-5")
def test_where_no_shadow_policy_covers_the_call_none_is_asked(world: Any) -> None:
    w = world(policy=ALL + NO_BANK)
    assert w.pdp.shadows is not None
    w.pdp.shadows.twin.decide = None  # type: ignore[method-assign]  # asking it would fail
    decision = w.decide("fs/read", {"path": "/w"})
    assert decision.permitted
    assert not w.decide("bank/balance").permitted, "the shadow was asked here, and failing denies"


@requirement("POL-1", "POL-5")
def test_a_shadow_is_linted_and_a_broken_one_does_not_deny(world: Any) -> None:
    broken = '@id("x") @shadow("y") forbid(principal, action == Action::"fs/read", resource) when '
    broken += '{ context.input.paht == "x" };'
    w = world(policy=ALL + broken)
    assert "is a shadow and is not asked" in str(w.pdp.findings[0])
    assert w.decide("fs/read", {"path": "/w"}).permitted
    files = {"a.cedar": ALL + '@id("b") @shadow("") forbid(principal, action, resource);'}
    assert "gives no reason" in str(lint(files, w.catalogue)[0])
    files = {"a.cedar": '@id("b") @shadwo("why") forbid(principal, action, resource);'}
    assert "Did you mean shadow?" in str(lint(files, w.catalogue)[0])


@requirement("POL-2", "POL-5")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([ALL, READS, NO_BANK, PAYS]), unique=True, max_size=4),
    st.sampled_from([("bank/transfer", PAY), ("bank/balance", {}), ("fs/read", {"path": "/w"})]),
)
def test_the_verdict_is_the_same_without_shadow_policies(
    texts: list[str], call: tuple[str, dict[str, Any]]
) -> None:
    bare = [text for text in texts if "@shadow" not in text]
    with_, without = World(policy="\n".join(texts)), World(policy="\n".join(bare))
    one, other = with_.decide(*call), without.decide(*call)
    assert (one.verdict, one.reason, one.policies) == (other.verdict, other.reason, other.policies)
    assert bool(one.would) is _differs(texts, call, one)


def _differs(texts: list[str], call: tuple[str, dict[str, Any]], decision: Decision) -> bool:
    """As if the shadow policies were in force, from their text alone."""
    plain = "\n".join(texts).replace('@shadow("tried")', "")
    return World(policy=plain).decide(*call).verdict is not decision.verdict


@requirement("POL-5")
def test_another_registry_keeps_the_shadows(world: Any) -> None:
    w = world(policy=ALL + NO_BANK)
    again = compile_bundle(version(w.policy), w.tools, w.servers, people={}, previous=w.pdp)
    assert again.decide(w.call("bank/balance")).would == ("shadow:deny:no-bank",)


@requirement("POL-5")
def test_who_is_killed_is_killed_for_the_shadows_too(world: Any) -> None:
    w = world(policy=ALL + NO_BANK)
    kills = Kills({(Target.ALL, ""): "k-1"})
    again = compile_bundle(
        version(w.policy), w.tools, w.servers, people={}, previous=w.pdp, kills=kills
    )
    decision = again.decide(w.call("bank/balance"))
    assert (decision.reason, decision.would) == (Reason.KILLED, ())


@requirement("POL-5", "EVD-1")
@pytest.mark.parametrize("would", [(), ("observe:deny:forbidden", "shadow:permit:a,b")])
def test_evidence_keeps_what_would_have_been_and_old_entries_stay_byte_for_byte(
    would: tuple[str, ...],
) -> None:
    writer = EntryWriter(
        Instance("gw", "exeat/gw", "00000000", "0.1", "d" * 64, 5000, {}),
        lambda count: bytes(count),
    )
    leaf, _ = writer.decision((1, 2), REQUEST, replace(DENY, would=would), CONTEXT)
    read = decode_leaf(leaf)
    assert read.would == would  # type: ignore[union-attr]
    shown = msgspec.json.decode(leaf)
    assert ("would" in shown) is bool(would)
    assert list(shown) == sorted(shown)

"""Leaves are RFC 8785 byte for byte, and commitments bind (EVD-1, EVD-4)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from ledger_world import AGENT, CONTEXT, DENY, REQUEST
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.core.event import Event
from exeat.core.ids import ActionId, PersonId
from exeat.evidence.canonical import ARGUMENTS, DOMAINS, commit, decode_leaf
from exeat.evidence.entries import EntryWriter
from exeat.evidence.merkle import (
    BadProof,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
)
from exeat.evidence.model import Instance, OutcomeFacts, Receipt
from exeat.evidence.sealed import read_record

INSTANCE = Instance("gw", "exeat/gw", "00000000", "0.1", "d" * 64, 5000, {})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def writer() -> EntryWriter:
    return EntryWriter(INSTANCE, lambda count: bytes(count))


def canonical(leaf: bytes) -> bool:
    decode_leaf(leaf)
    return rfc8785.dumps(msgspec.json.decode(leaf)) == leaf


@requirement("EVD-1")
@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=3), st.integers(0, 2**53 - 1))
def test_decisions_are_canonical(text: str, other: str, texts: list[str], index: int) -> None:
    decision = replace(DENY, policies=tuple(texts), obligations=(text,), detail=other)
    context = replace(CONTEXT, run=text, trace=other, labels=tuple(texts))
    # the caches know facts by identity, so an agent of another name is another entry
    agent = replace(AGENT, deputy=PersonId(text), scope=replace(AGENT.scope, acceptance=other))
    caller = replace(REQUEST.caller, agent=agent, credential=text)
    request = replace(REQUEST, caller=caller, method=other, action=ActionId(text))
    leaf, _ = writer().decision((index, 2**62), request, decision, context)
    assert canonical(leaf)


@requirement("EVD-1")
@given(TEXTS, st.integers(0, 2**53 - 1), st.lists(TEXTS, max_size=3))
def test_outcomes_are_canonical(text: str, number: int, texts: list[str]) -> None:
    receipt = Receipt(number, b"h" * 32, 1)
    facts = OutcomeFacts(receipt, "ok", number, b"r" * 32, tuple(texts), text, number)
    assert canonical(writer().outcome(number, 2**62, facts)[0])


@requirement("EVD-1", "REG-3")
@given(
    st.none() | st.dictionaries(TEXTS, JSON, max_size=4),
    st.none() | st.dictionaries(TEXTS, JSON, max_size=4),
)
def test_events_are_canonical(before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    event = Event("agent.changed", "agent:x", PersonId("ada"), "cli", 2**62, "why", before, after)
    assert canonical(writer().event(1, 2**62, event)[0])


@requirement("EVD-1")
def test_an_event_that_does_not_fit_stands_in_its_commitment() -> None:
    event = Event(
        "policy.applied", "policy:4", PersonId("ada"), "cli", 1, "why", None, {"x": "y" * 100_000}
    )
    leaf, record = writer().event(1, 1, event)
    assert len(leaf) < 2000
    assert b"y" * 100_000 in record


@requirement("EVD-1")
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(min_size=32, max_size=32))
def test_a_commitment_binds_to_domain_salt_and_value(one: bytes, two: bytes, salt: bytes) -> None:
    digests = {commit(domain, salt, one) for domain in DOMAINS}
    assert len(digests) == len(DOMAINS)
    assert (commit(ARGUMENTS, salt, one) == commit(ARGUMENTS, salt, two)) == (one == two)


@requirement("EVD-1")
def test_arguments_keep_their_digits_and_open_to_their_commitment() -> None:
    request = replace(REQUEST, arguments={"b": Decimal("10.50"), "a": 2**63 - 1})
    leaf, record = writer().decision((1, 1), request, DENY, CONTEXT)
    salt, value = read_record(record)[ARGUMENTS]
    assert value == b'{"a":9223372036854775807,"b":10.50}'
    assert commit(ARGUMENTS, salt, value).encode() in leaf
    assert b"10.50" not in leaf


@requirement("EVD-1")
def test_an_entry_of_more_than_64_kib_is_refused() -> None:
    decision = replace(DENY, policies=tuple("p" * 100 for _ in range(700)))
    with pytest.raises(Invalid, match="65535"):
        writer().decision((1, 1), REQUEST, decision, CONTEXT)


@requirement("EVD-4")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"kind":"decision"', b'"kind":"decisi0n"'),
        (b'"v":1', b'"v":2'),
        (b'"v":1', b'"v": 1'),
        (b'"v":1', b'"v":1,"x":0'),
        (b'"run":', b'"ru\\u006e":'),
    ],
)
def test_an_entry_has_one_form(old: bytes, new: bytes) -> None:
    leaf, _ = writer().decision((1, 1), REQUEST, DENY, CONTEXT)
    assert old in leaf
    with pytest.raises(Invalid):
        decode_leaf(leaf.replace(old, new))


@requirement("EVD-4")
@given(st.integers(2, 60), st.data())
def test_a_bent_proof_leads_nowhere(size: int, data: st.DataObject) -> None:
    hashes = [leaf_hash(bytes([n])) for n in range(size)]
    root = root_of(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(hashes, index)
    bent = data.draw(st.integers(0, len(proof) - 1))
    wrong = [*proof[:bent], b"\x00" * 32, *proof[bent + 1 :]]
    for each in (wrong, proof[:-1], [*proof, root]):
        with pytest.raises(BadProof):
            check_inclusion(hashes[index], index, size, each, root)
    old = data.draw(st.integers(1, size - 1))
    path = consistency_proof(hashes, old)
    other = root_of([leaf_hash(b"other"), *hashes[1:old]])
    for first, given_path in ((other, path), (root_of(hashes[:old]), path[:-1])):
        with pytest.raises(BadProof):
            check_consistency(old, size, given_path, first, root)

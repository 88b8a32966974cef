"""Permits against what nobody thought of: the canonical form, the parser, the middleware (ID-11)."""

import asyncio
import base64
import json
import random
from dataclasses import replace
from decimal import Decimal
from typing import Any

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from permits import ARGUMENTS, AT, KEYS, NOW, PERMIT, SIGNER
from requirements import requirement

from exeat.core.strictjson import parse
from exeat.permit import (
    NotCanonical,
    PermitRefused,
    PermitRequired,
    Seen,
    canonical,
    definition_digest,
    verify,
)
from exeat.permit.canonical import number
from exeat.permit.token import parse_object, read
from exeat.registry.rules import pins

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | SAFE | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FUZZED = 20_000


@requirement("ID-11")
@settings(max_examples=1000, deadline=None)
@given(JSON)
def test_the_canonical_form_is_rfc_8785(value: Any) -> None:
    """Against another implementation."""
    assert canonical(value) == rfc8785.dumps(value)


@requirement("ID-11")
@settings(max_examples=500, deadline=None)
@given(JSON)
def test_gateway_and_server_write_the_same_of_the_same_bytes(value: Any) -> None:
    """The gateway's strict parse keeps digits as Decimal, a server's may make floats of them."""
    raw = json.dumps(value)
    assert canonical(parse(raw.encode())) == canonical(json.loads(raw))
    assert canonical({"a": value}) == canonical(parse_object(json.dumps({"a": value})))


@requirement("ID-11")
@settings(max_examples=1000, deadline=None)
@given(FLOAT)
def test_numbers_survive(value: float) -> None:
    assert float(number(value)) == value
    assert number(float(Decimal(repr(value)))) == number(value)


@requirement("ID-11")
@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_written_in_full(value: int) -> None:
    assert canonical(value) == str(value).encode()


@requirement("ID-11")
def test_what_is_no_json_has_no_form() -> None:
    deep: Any = []
    for _ in range(70):
        deep = [deep]
    for value in (
        float("nan"),
        float("inf"),
        {1: 2},
        {1, 2},
        b"x",
        "\ud800",
        {"\udfff": 1.5},
        deep,
        object(),
    ):
        try:
            canonical(value)
        except NotCanonical:
            continue
        raise AssertionError(value)


DEFINITION = st.fixed_dictionaries(
    {"name": TEXT, "inputSchema": st.dictionaries(TEXT, JSON, max_size=3)},
    optional={
        "title": TEXT,
        "description": TEXT,
        "annotations": JSON,
        "_meta": JSON,
        "icons": JSON,
    },
)


@requirement("ID-11", "REG-6")
@settings(max_examples=300, deadline=None)
@given(DEFINITION)
def test_a_server_finds_the_same_pin_as_the_gateway(definition: dict[str, Any]) -> None:
    assert definition_digest(definition) == pins.definition_digest(definition)


def mutants(seed: bytes, count: int) -> Any:
    """The same ones each time."""
    rng = random.Random(7)
    alphabet = b'abcXYZ019-_.={}[]",:\\ \x00\xff'
    for _ in range(count):
        out = bytearray(seed)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(out) + 1)
            kind = rng.randrange(5)
            if kind == 0:
                out[at:at] = bytes([rng.choice(alphabet)])
            elif kind == 1:
                del out[at : at + rng.randint(1, 9)]
            elif kind == 2 and at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            elif kind == 3:
                other = rng.randrange(len(out) + 1)
                out[at:at] = out[other : other + rng.randint(1, 40)]
            else:
                out = out[at:] + out[:at]
        yield bytes(out)


def _signed(payload: bytes) -> str:
    """Mutated claims under a signature that is right: what comes behind it must hold by itself."""
    body = SIGNER._head + base64.urlsafe_b64encode(payload).rstrip(b"=")
    signature = base64.urlsafe_b64encode(SIGNER._key.sign(body)).rstrip(b"=")
    return (body + b"." + signature).decode()


@requirement("ID-11")
def test_the_parser_answers_every_input_with_a_permit_or_a_refusal() -> None:
    """20,000 inputs: altered permits, none of which may be believed; and signed nonsense."""
    text = SIGNER.sign(PERMIT)
    believed = 0
    for raw in mutants(text.encode(), FUZZED // 2):
        mutant = raw.decode("latin-1")
        try:
            read(mutant, KEYS)
            believed += mutant != text
        except PermitRefused:
            pass
    assert believed == 0
    claims = json.dumps(PERMIT.claims()).encode()
    for raw in mutants(claims, FUZZED // 2):
        try:
            found = read(_signed(raw), KEYS)
        except PermitRefused:
            continue
        assert found.claims() == parse_object(raw.decode())


@requirement("ID-11")
@settings(max_examples=1000, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_any_text_is_refused(text: str) -> None:
    try:
        verify(text, keys=KEYS, audience=AT, tool="t", arguments={}, seen=Seen(), now=NOW)
    except PermitRefused:
        return
    raise AssertionError(text)


@requirement("ID-11")
def test_no_altered_body_carries_another_call_past_the_middleware() -> None:
    """Whatever is made of the body: what reaches the application is no tools/call, or the one permitted."""
    params = {"name": "transfer", "arguments": ARGUMENTS}
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    ).encode()
    reached: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append((await receive())["body"])

    async def send(message: Any) -> None:
        pass

    async def run() -> None:
        for number_, raw in enumerate(mutants(body, 5000)):
            permit = SIGNER.sign(replace(PERMIT, id=str(number_)))
            front = PermitRequired(app, keys=KEYS, audience=AT, clock=lambda: NOW)

            async def receive(raw: bytes = raw) -> Any:
                return {"type": "http.request", "body": raw}

            fields = [(b"exeat-permit", permit.encode())]
            await front({"type": "http", "method": "POST", "headers": fields}, receive, send)

    asyncio.run(run())
    assert reached
    for raw in reached:
        message = json.loads(raw)  # a reader that takes the last of two members, and NaN
        assert message.get("method") != "tools/call" or message["params"] | {
            "_meta": 0
        } == params | {"_meta": 0}

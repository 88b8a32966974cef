"""The encoder is total, typed, and never writes an escape that an argument asked for (trap 2)."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import requirement

from exeat.core.decision import Reason
from exeat.policy.arguments import ToolArguments
from exeat.policy.encode import Refused, encoder
from exeat.policy.model import Reads
from exeat.policy.schema import (
    ESCAPES,
    CedarType,
    Record,
    Scalar,
    SetOf,
    Tagged,
    input_type,
    rendered,
)

NAMES = st.sampled_from(["a", "b", "path", "to", *ESCAPES, "type", "id", "fn", "arg"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.decimals(allow_nan=True, allow_infinity=True),
    st.text(max_size=12),
    st.sampled_from(["__entity", "/w/../x", "x" * 9000]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
SCALARS = st.sampled_from([{"type": t} for t in ("string", "integer", "number", "boolean")])
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.builds(
            lambda props, wanted: {
                "type": "object",
                "properties": props,
                "required": [name for name in props if wanted],
            },
            st.dictionaries(NAMES, inner, max_size=4),
            st.booleans(),
        ),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"anyOf": [part, {"type": "null"}]}, inner),
    ),
    max_leaves=8,
)
OBJECTS = st.builds(
    lambda props: {"type": "object", "properties": props},
    st.dictionaries(NAMES, SCHEMAS, max_size=5),
)


def conforms(encoded: Any, found: CedarType) -> bool:
    """Whether Cedar JSON is of the type; only a decimal may be an extension."""
    if isinstance(found, Scalar):
        if found.name == "decimal":
            return (
                set(encoded) == {"__extn"}
                and encoded["__extn"]["fn"] == "decimal"
                and Decimal(encoded["__extn"]["arg"]).is_finite()
            )
        return type(encoded) is {"String": str, "Long": int, "Bool": bool}[found.name]
    if isinstance(found, SetOf):
        return isinstance(encoded, list) and all(conforms(e, found.element) for e in encoded)
    if isinstance(found, Tagged):
        ((kind, inner),) = encoded.items()
        return conforms(inner, found.options[kind])
    assert isinstance(found, Record)
    return not set(encoded) & ESCAPES and all(
        name in found.attributes and conforms(inner, found.attributes[name].type)
        for name, inner in encoded.items()
    )


@requirement("POL-9", "POL-1")
@settings(max_examples=300, deadline=None)
@given(OBJECTS, VALUES)
def test_what_the_encoder_writes_is_of_the_type_or_it_refuses(schema: Any, value: Any) -> None:
    record = input_type(schema).record
    encode = encoder(record, Reads(value=True), {})
    try:
        encoded = encode(value)
    except Refused as refusal:
        assert refusal.reason in {Reason.ARGUMENTS_UNTYPED, Reason.ARGUMENT_OVERSIZE}
        return
    assert conforms(encoded, record)
    msgspec.json.encode(encoded)


@requirement("POL-9")
@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_conversion_and_checks_are_total(schema: Any) -> None:
    if isinstance(schema, dict):
        assert rendered(input_type(schema).record).startswith("{")
        with suppress(Refused):
            ToolArguments(schema).check({"a": 1})


@requirement("POL-9")
def test_a_schema_that_multiplies_without_end_is_bounded() -> None:
    branches = [{"$ref": "#/$defs/x"}] * 20
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/x"}},
        "$defs": {"x": {"anyOf": branches}},
    }
    assert "a" not in input_type(schema).record.attributes
    assert ToolArguments(schema).problem

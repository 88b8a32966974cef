"""Our converter against the official generator: what both type, both type alike."""

import json
from typing import Any

import pytest
from requirements import requirement

from exeat.policy.schema import Record, Scalar, SetOf, input_type

generator = pytest.importorskip("cedar_mcp_schema_generator")
STUB = """namespace Gw {
  @mcp_principal("Agent") entity Agent; @mcp_resource("Server") entity Server;
  @mcp_action("call_tool") action call_tool; }"""
CONFIG = {"objectsAsRecords": True, "numbersAsDecimal": True, "flattenNamespaces": True}
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "inner": {
            "type": "object",
            "properties": {"deep": {"type": "integer"}},
            "required": ["deep"],
        },
    },
    "required": ["text", "ratio"],
}


def ours(found: Any) -> Any:
    if isinstance(found, Scalar):
        return found.name
    if isinstance(found, SetOf):
        return ["set", ours(found.element)]
    assert isinstance(found, Record)
    return {name: (ours(a.type), a.required) for name, a in found.attributes.items()}


def theirs(found: Any, common: Any) -> Any:
    kind, name = found["type"], str(found.get("name", "")).split("::")[-1]
    if kind in common or name in common:
        return theirs(common[kind if kind in common else name], common)
    if kind == "Set":
        return ["set", theirs(found["element"], common)]
    if kind == "Record":
        return {
            key: (theirs(of, common), of.get("required", True))
            for key, of in found["attributes"].items()
        }
    return {"Boolean": "Bool"}.get(name or kind, name or kind)


@requirement("POL-9")
def test_the_official_generator_agrees() -> None:
    tool = {"name": "tool", "description": "", "inputSchema": SCHEMA}
    made = generator.generate_schema_or_raise(STUB, [tool], config=CONFIG)
    namespace = json.loads(made["schemaJson"])["Gw"]
    common = namespace["commonTypes"]
    context = namespace["actions"]["tool"]["appliesTo"]["context"]
    assert theirs(context["attributes"]["input"], common) == ours(input_type(SCHEMA).record)


@requirement("POL-9")
def test_what_has_no_plain_type_is_absent_and_named() -> None:
    schema = {
        "type": "object",
        "properties": {
            "any": {},
            "mixed": {"anyOf": [{"type": "integer"}, {"type": "number"}]},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}]},
            "away": {"$ref": "https://elsewhere.example/x"},
            "__entity": {"type": "string"},
            "here": {"$ref": "#/$defs/name"},
            "maybe": {"type": ["string", "null"]},
            "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        },
        "required": ["maybe", "here"],
        "$defs": {"name": {"type": "string"}},
    }
    found = input_type(schema)
    assert set(found.record.attributes) == {"here", "maybe", "either"}
    assert found.untyped == {"any", "mixed", "pair", "away", "__entity"}
    assert found.record.attributes["here"].required
    assert not found.record.attributes["maybe"].required

"""What the used values of one argument become: a bound, or nothing that could say too much (POL-6)."""

from decimal import Decimal
from typing import Any

import pytest
from requirements import requirement

from exeat.policy.bounds import bound_of
from exeat.policy.schema import Attribute, input_type

TEXT = {"type": "string"}


def condition(name: str, schema: Any, values: list[Any], *, required: bool = True) -> str:
    whole = {"type": "object", "properties": {name: schema}, "required": [name] if required else []}
    attribute: Attribute = input_type(whole).record.attributes[name]
    return bound_of(name, attribute, values).condition


@requirement("POL-6")
@pytest.mark.parametrize(
    ("name", "schema", "values", "expected"),
    [
        ("n", {"type": "integer"}, [3, 7], "context.input.n <= 7 && context.input.n >= 0"),
        ("n", {"type": "integer"}, [-3, 7], "context.input.n <= 7 && context.input.n >= -3"),
        ("n", {"type": "integer"}, [2**63 - 1], ""),
        ("b", {"type": "boolean"}, [True, True], "context.input.b == true"),
        ("b", {"type": "boolean"}, [True, False], ""),
        ("n", {"type": "number"}, [Decimal("1.00001")], ""),
        ("path", TEXT, ["/w/a/x", "/w/a/y"], 'context.path.path.canonical like "/w/a/*"'),
        ("path", TEXT, ["/w/a/x"], 'context.path.path.canonical like "/w/a/*"'),
        ("path", TEXT, ["/w/a", "/w/a/y"], '(context.path.path.canonical == "/w/a" || context.path.path.canonical like "/w/a/*")'),
        ("path", TEXT, ["/a*b/x"], ""),
        ("path", TEXT, ["/w/../x"], ""),
        ("to", TEXT, ["a@x.org", "b@y.org"], '(context.email.to.domain == "x.org" || context.email.to.domain == "y.org")'),
        ("link", TEXT, ["https://x.org/a?t=1"], 'context.url.link.scheme == "https" && context.url.link.host == "x.org"'),
        ("host", TEXT, ["x.org"], 'context.host.host.name == "x.org"'),
        ("mode", TEXT, ["fast"] * 3, 'context.input.mode == "fast"'),
        ("mode", TEXT, ["fast"] * 2, ""),
        ("mode", TEXT, ["please do it now"] * 9, ""),
        ("mode", TEXT, ["a1b2c3d4e5f6g7"] * 9, ""),
        ("mode", TEXT, ["ghp_abcdef"] * 9, ""),
        ("api_key", TEXT, ["fast"] * 9, ""),
        ("password", TEXT, ["fast"] * 9, ""),
        ("odd name", {"enum": ["a", "b", "c"]}, ["a"], 'context.input["odd name"] == "a"'),
        ("level", {"enum": ["a", "b"]}, ["a", "b"], ""),
        ("tags", {"type": "array", "items": {"enum": ["a", "b"]}}, [["a"]], '["a"].containsAll(context.input.tags)'),
        ("tags", {"type": "array", "items": TEXT}, [["a"]], ""),
    ],
)  # fmt: skip
def test_each_kind_of_argument(name: str, schema: Any, values: list[Any], expected: str) -> None:
    assert condition(name, schema, values) == expected


@requirement("POL-6")
def test_what_may_be_absent_is_asked_for_first() -> None:
    number = {"type": "integer"}
    assert condition("n", number, [None, None], required=False) == "!(context.input has n)"
    assert condition("n", number, [1, 2], required=False).startswith("context.input has n && ")
    assert condition("n", number, [1, None], required=False).startswith(
        "(if context.input has n then "
    )
    assert condition("p", TEXT, ["/w/x", None], required=False) == (
        '(if context.path has p then context.path.p.canonical like "/w/*" else true)'
    )

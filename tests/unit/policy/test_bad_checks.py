"""Catalogues and cases that are none: a sentence with the place, and never a stack trace."""

import pytest
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.policy.cases import load_cases
from exeat.policy.catalogue import load_catalogue

DEEP = "[" * 3_000
GIVEN = "given: {agent: bot, tool: bank/pay%s}, expect: {verdict: permit%s}"


def case(given: str = "", expect: str = "") -> str:
    return "cases: [{" + GIVEN % (given, expect) + "}]"


@requirement("POL-6")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DEEP, "cannot be read: it is nested too deeply"),
        ("a: [b", "is not YAML"),
        ("a: 2026-99-99", "cannot be read: month must be in 1..12"),
        ("3", "catalogue is not a mapping"),
        ("servers: {s: {tools: 3}}", "catalogue: tools of s is not a list"),
        ("servers: {s: {tools: [3]}}", "a tool of s is not a mapping"),
        ("servers: {s: {tools: [{effect: read}]}}", "a tool of s has no name"),
        (
            "servers: {s: {tools: [{name: a, effect: zap}]}}",
            "tool s/a: 'zap' is not a valid Effect",
        ),
        ("servers: {s: {tools: [{name: a, monotone: {x: zap}}]}}", "'zap' is not a valid Order"),
        ("servers: {s: {tools: [{name: a, monotone: 3}]}}", "monotone is not a mapping"),
        ("servers: {s: {trust: high}}", "trust of s is no whole number"),
        ("servers: {s: {extra_methods: 3}}", "extra_methods of s is not a list"),
        ("people: {p: {roles: admin}}", "roles of p is not a list"),
        ("agents: {a: 3}", "is not a mapping"),
        ("agents: {a: {groups: sales}}", "groups of a is not a list"),
    ],
)
def test_a_catalogue_that_is_none(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        load_catalogue(text)
    assert refused.value.remedy


@requirement("POL-6")
def test_what_is_left_empty_in_a_catalogue_is_nothing() -> None:
    found = load_catalogue(
        "servers: {s: {tools: , extra_methods: }}\npeople:\nagents: {a: {groups: }}"
    )
    assert set(found.servers) == {"s"} and not found.tools and set(found.agents) == {"a"}


@requirement("POL-6")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (DEEP, "x.yaml cannot be read: it is nested too deeply"),
        ("cases: 3", "x.yaml has no list 'cases'"),
        ("cases: [3]", "case 1 has no 'given'"),
        ("cases: [{given: {agent: bot}}]", "case 1 has no 'expect'"),
        (case(", agnt: bot"), "case 1: agnt is not known here"),
        (case(", controls: approved_by_owner"), "case 1: controls is not a list"),
        (case("", ", policies: small"), "case 1: policies is not a list"),
        (case("", ", obligations: 3"), "case 1: obligations is not a list"),
        (case("", ", reason: becuase"), "'becuase' is not a valid Reason"),
        (case().replace("permit", "allow"), "'allow' is not a valid Verdict"),
    ],
)
def test_cases_that_are_none(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        load_cases("x.yaml", text)
    assert refused.value.remedy

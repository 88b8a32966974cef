"""A typo is an error that names file, line and remedy, never a silent allow."""

from typing import Any

import pytest
from requirements import requirement

from exeat.policy.lint import lint

READ = 'action == Action::"fs/read"'


def problems(world: Any, text: str) -> list[str]:
    return [str(finding) for finding in lint({"a.cedar": text}, world("").catalogue)]


@requirement("POL-1")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("permit(principal, action, resource);", "no @id"),
        ('@id("a") @requireAproval("x") permit(principal, action, resource);', "@requireAproval"),
        ('@id("a") @reson("x") permit(principal, action, resource);', "Did you mean reason"),
        (
            f'@id("a") permit(principal, {READ}, resource)'
            " when { context.input has paht && context.input.paht == 1 };",
            "paht",
        ),
        (
            f'@id("a") permit(principal, {READ}, resource) when {{ context.input.limit > 1 }};',
            "optional attribute",
        ),
        (
            f'@id("a") permit(principal, {READ}, resource) when {{ context.input.path > 1 }};',
            "a.cedar:1",
        ),
        ('@id("a") permit(principal, action == Action::"fs/raed", resource);', "fs/read"),
        ('@id("a") permit(principal in Group::"paymets", action, resource);', "payments"),
        ('@id("a") permit(principal == Agent::"bott", action, resource);', "Did you mean bot"),
        ('@id("a") permit(principal, action, resource in Server::"fss");', "Did you mean fs"),
        (
            '@id("a") permit(principal, action, resource)'
            ' when { principal.owner in Role::"finnance" };',
            "Did you mean finance",
        ),
        (
            '@id("a") permit(principal, action, resource == Prompt::"nope/x");',
            "no registered server",
        ),
        (
            '@id("a") permit(principal, action, resource)'
            ' when { resource is Tool && resource.effect == Effect::"raed" };',
            "raed",
        ),
        (
            '@id("a") permit(principal, action, resource)'
            ' when { context.session.controls.contains(Control::"aproved") };',
            "aproved",
        ),
        (
            '@id("a") permit(principal, action == Action::"bank/transfer", resource)'
            ' when { context.input has currency && context.input.currency == "EURO" };',
            '"EURO" is not a value',
        ),
        ('@id("a") permit(principal, action, resource) when { 1 == 1 };', "constant"),
        ('@id("a") forbid(principal, action, resource) when { false };', "constant"),
        ('@id("a") permit(principal == ?principal, action, resource);', "templates"),
        (
            '@id("a") forbid(principal, action, resource)'
            ' when { context has input && context.input has path && context.input.path == "/x" };',
            "covers every action",
        ),
        (
            '@id("a") permit(principal, action in Action::"bank/*", resource)'
            " when { context.input == {} };",
            "reads all of context.input",
        ),
        (
            f'@id("a") permit(principal, {READ}, resource)'
            ' when { context.path.path.canonicl == "/x" };',
            "canonicl",
        ),
        (
            f'@id("a") permit(principal, {READ}, resource)'
            " when { context.session has usr && context.session.usr == principal.owner };",
            "context.session.usr",
        ),
        (
            f'@id("a") forbid(principal, {READ}, resource) when '
            '{ context.input.path like "/x/*" || context.input.path like "https://x/*" };',
            "at once",
        ),
        (
            f'@id("a") @narrow("limmit") permit(principal, {READ}, resource)'
            " when { context.input has limit && context.input.limit <= 10 };",
            '@narrow("limmit") names limmit, which the condition does not bound',
        ),
        (
            f'@id("a") @narrow("limit, path") permit(principal, {READ}, resource)'
            ' when { context.input has limit && context.input.limit <= 10 && context.input.path != "" };',
            "names path, which the condition does not bound",
        ),
        (
            f'@id("a") @narrow("") permit(principal, {READ}, resource)'
            " when { context.input has limit && context.input.limit <= 10 };",
            "names no argument",
        ),
        ('@id("a") permit(principal, action, resource)', "has no end"),
        ('@id("a") permit(principal, action resource);', "not a policy"),
    ],
)
def test_each_mistake_is_named(world: Any, text: str, expected: str) -> None:
    found = problems(world, text)
    assert any(expected in each for each in found), found


@requirement("POL-1")
def test_sound_policies_have_no_findings(world: Any) -> None:
    text = f"""
// who may read
@id("read") @description("workspace only")
permit(principal in Group::"payments", {READ}, resource)
  when {{ context.path.path.canonical like "/workspace/*" }}
  unless {{ context.input has limit && context.input.limit > 100 }};
@id("pay") permit(principal == Agent::"bot", action == Action::"bank/transfer", resource)
  when {{ context.input.amount.lessThan(decimal("10.5")) && context.session has user
         && context.session.user in Role::"finance" }};
@id("odd;name") forbid(principal, action, resource) when {{ principal.environment == "a;b // c" }};
@id("two hints") @narrow("limit, path")
permit(principal, {READ}, resource)
  when {{ context.input has limit && context.input.limit <= 10
       && (context.path.path.canonical like "/projects/*" || context.path.path.canonical == "/projects") }};
"""
    assert problems(world, text) == []


@requirement("POL-1")
def test_a_finding_names_line_and_column_of_the_word(world: Any) -> None:
    text = f'// one\n@id("a")\npermit(principal, {READ}, resource)\nwhen {{ context.input.paht == "x" }};'
    (first, *_) = lint({"a.cedar": text}, world("").catalogue)
    assert (first.file, first.line, first.column, first.policy) == ("a.cedar", 4, 22, "a")
    assert first.remedy


@requirement("POL-1", "POL-5")
@pytest.mark.parametrize(
    "deep",
    [
        "(" * 3_000 + "context.x" + ")" * 3_000,
        "[" * 3_000 + "1" + "]" * 3_000 + " == context.x",
        '{"a": ' * 3_000 + "1" + "}" * 3_000 + " == context.x",
        " && ".join(["context.x"] * 3_000),
        " + ".join(["1"] * 3_000) + " == context.x",
        "context" + ".x" * 3_000,
        "context.x" + ".contains(1)" * 3_000,
        "if context.x then true else " * 3_000 + "false",
        "context.x } when { " * 3_000 + "context.x",
    ],
    ids=["brackets", "sets", "records", "and", "sum", "dots", "calls", "if", "clauses"],
)
def test_what_would_end_the_parsers_process_is_a_finding(world: Any, deep: str) -> None:
    text = f'@id("a")\npermit(principal, action, resource)\nwhen {{ {deep} }};'
    (found,) = problems(world, text)
    assert found.startswith("a.cedar:1:1") and "nested too deeply" in found
    assert "make it several policies" in found


@requirement("POL-1")
def test_what_is_long_and_flat_is_no_finding(world: Any) -> None:
    words = ", ".join(f'"w{n}"' for n in range(5_000))
    tests = " || ".join([f'(context.input.path like "/{n}/((((*" && true)' for n in range(90)])
    text = (
        f'@id("a") permit(principal, {READ}, resource) // {"(" * 1_000}\n'
        f"when {{ [{words}].contains(context.input.path) }} when {{ {tests} }};"
    )
    assert problems(world, text) == []


@requirement("POL-1")
def test_duplicate_ids_name_the_first_place(world: Any) -> None:
    text = '@id("a") permit(principal, action, resource);\n'
    found = lint({"a.cedar": text, "b.cedar": "\n" + text}, world("").catalogue)
    assert [(each.file, each.line) for each in found] == [("b.cedar", 2)]
    assert "a.cedar:1" in found[0].problem

"""REG-5: a file, as it may be shown: no secret is in it, wherever and however it is written."""

import json

from client_files import PROJECT_FILES, SECRETS, USER_FILES, opened
from hypothesis import given, settings
from hypothesis import strategies as st
from requirements import requirement

from exeat.governance.inventory.hardcoded import secrets_of
from exeat.governance.inventory.jsonc import JsonText
from exeat.governance.inventory.masking import MASK, difference, masked
from exeat.governance.inventory.toml_text import TomlText, render

SECRET = "Ex4mple-Passw0rd"


@requirement("REG-5")
def test_no_file_of_any_client_shows_a_secret() -> None:
    shown_before = "".join(opened(n)[1].text for n in USER_FILES)
    assert "ghp_EXAMPLEexampleEXAMPLE01" in shown_before
    names = [(name, False) for name in USER_FILES] + [(name, True) for name in PROJECT_FILES]
    for name, project in names:
        _, document, listed = opened(name, project=project)
        shown = masked(document, {s.value for e in listed for s in secrets_of(e)})
        assert not [secret for secret in SECRETS if secret in shown]
        assert shown.count("\n") == document.text.count("\n")


@st.composite
def escaped(draw: st.DrawFn, text: str) -> str:
    """A JSON string that means the text, written with any escapes."""
    return '"' + "".join(c if draw(st.booleans()) else f"\\u{ord(c):04x}" for c in text) + '"'


@requirement("REG-5")
@settings(max_examples=100)
@given(st.data())
def test_a_secret_is_masked_wherever_it_stands_and_however_it_is_written(
    data: st.DataObject,
) -> None:
    written = data.draw(escaped(SECRET))
    place = data.draw(
        st.sampled_from(
            [
                '{"mcpServers": {"x": {"command": "c", "env": {"ANY": %s}}}}',
                '{"mcpServers": {"x": {"url": "u", "headers": {"X-Any": %s}}}}',
                '{"mcpServers": {"x": {"command": "c", "args": ["--password", %s]}}}',
                '{"mcpServers": {"x": {"command": "c", "nested": {"apiKey": [1, {"token": %s}]}}}}',
                '{"elsewhere": {"password": %s}}',
            ]
        )
    )
    text = place % written
    assert json.loads(text)
    shown = masked(JsonText(text), {SECRET})
    assert SECRET not in shown and written not in shown and MASK in shown


@requirement("REG-5")
def test_secrets_in_comments_and_numbers_are_masked() -> None:
    text = f'{{ // was {SECRET}, then ghp_EXAMPLEexampleEXAMPLE01\n "env": {{"PIN": 123456}} }}'
    assert masked(JsonText(text), {SECRET}) == (
        f'{{ // was {MASK}, then {MASK}\n "env": {{"PIN": "{MASK}"}} }}'
    )
    toml = f"# {SECRET}\n[mcp_servers.x]\nenv = {{ A = '{SECRET}' }}\nargs = [\"--token\", {render(SECRET)}]\n"
    assert masked(TomlText(toml), {SECRET}) == (
        f'# {MASK}\n[mcp_servers.x]\nenv = {{ A = "{MASK}" }}\nargs = ["--token", "{MASK}"]\n'
    )
    many = f'[mcp_servers.x.env]\nA = """\n{SECRET}\n"""\nB = 1\n'
    assert masked(TomlText(many), ()).count("\n") == many.count("\n")


@requirement("REG-5")
def test_references_and_plain_values_are_shown() -> None:
    text = '{"env": {"TOKEN": "${TOKEN}"}, "url": "https://h.test/mcp", "timeout": 5}'
    assert masked(JsonText(text), ()) == text


@requirement("REG-5")
def test_a_difference_names_the_file_and_both_sides() -> None:
    assert difference("a\r\nb\r\n", "a\r\nc\r\n", "f.json").split("\n") == [
        "--- f.json (now)", "+++ f.json (then)", "@@ -1,3 +1,3 @@", " a", "-b", "+c", " ",
    ]  # fmt: skip
    assert difference("", "x", "f").split("\n")[2:] == ["@@ -0,0 +1 @@", "+x"]

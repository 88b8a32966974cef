"""The command line as a newcomer uses it: the path of README.md, and errors in plain words."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from requirements import requirement

from exeat.cli import main as command_line
from exeat.core.ids import ServerId
from exeat.registry.model.act import EXEAT, Act
from exeat.registry.model.stranger import Stranger
from exeat.registry.service import Registry
from exeat.storage.state import open_state

Run = Callable[..., tuple[int, str, str]]
DEFINITION = {"name": "get_time", "description": "The time.", "inputSchema": {"type": "object"}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``exeat ARGUMENTS`` → exit code, stdout, stderr; as the program runs it, without a process."""
    monkeypatch.setenv("EXEAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EXEAT_DATABASE_URL", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["exeat", *arguments])
        try:
            command_line.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


@pytest.fixture
def furnished(run: Run, tmp_path: Path) -> Run:
    """A home with ada, bob, a server whose tool was seen, an active agent and a policy."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.cedar").write_text(
        '@id("may") permit(principal, action == Action::"time/get_time", resource);'
    )
    for line in (
        "init --me ada",
        "person add bob",
        "server add time -- time-server",
    ):
        assert run(*line.split())[0] == 0
    state = open_state(tmp_path / "home")
    with state.registry.read() as read:
        actor = read.people()[0].id
    Registry(state.registry, bytes).observe_definitions(
        ServerId("time"), [DEFINITION], Act(actor, "test", "seen", 1)
    )
    state.close()
    for line in (
        "tool pin time --all --reason reviewed",
        "agent add clock --owner ada --deputy bob --server time --effect execute --ends 2099-06-30",
        "agent accept clock",
        "agent activate clock --reason pilot",
        f"policy apply {tmp_path / 'p'} --reason first",
    ):
        code, _, err = run(*line.split())
        assert code == 0, err
    return run


@requirement("REG-1", "REG-9", "REG-10")
def test_the_path_of_the_readme(furnished: Run) -> None:
    code, out, _ = furnished("key", "issue", "clock", "--quiet")
    assert code == 0 and out.startswith("exk_") and len(out.strip()) == 47
    code, out, _ = furnished("answer", "clock")
    assert code == 0
    assert "owner ada, deputy bob" in out and "accepted by ada" in out
    assert "time/get_time" in out and "always" in out and "may: a.cedar:1" in out
    assert "No ledger was found" in out
    given = json.loads(furnished("answer", "clock", "--json")[1])
    assert given["permitted"]["actions"][0]["permission"] == "always"
    assert given["proofs"] is None


@requirement("REG-2", "REG-4")
def test_departing_and_retiring_show_in_the_answer(furnished: Run) -> None:
    code, out, err = furnished("person", "depart", "bob", "--reason", "left")
    assert code == 0 and "Agent clock: ada alone answers for it now." in out
    assert "agent change" in err
    assert "bob has departed" in furnished("agent", "suspend", "clock", "--as", "bob")[2]
    assert "deputy bob (gone)" in furnished("answer", "clock")[1]
    assert "bob (gone)" in furnished("agent", "list")[1]
    assert furnished("agent", "retire", "clock", "--reason", "over")[0] == 0
    code, out, _ = furnished("answer", "clock")
    assert "Nothing at present: agent clock is retired" in out


ERRORS = (
    ("answer nobody", "There is no agent nobody.", "exeat agent list"),
    ("agent suspend nobody", "There is no agent nobody.", "exeat agent list"),
    ("person add Ada@x", "cannot be the id of a person", "no personal names"),
    ("person depart ada", "ada is the last admin.", "the role admin first"),
    ("agent activate clock", "Agent clock is active, not draft.", "`exeat agent suspend clock`"),
    ("agent add b --owner ada --deputy ada", "both owner and deputy", "second person"),
    ("agent add b --ends tomorrow", "is not a day or a time", "2027-01-31"),
    ("person add x --as bob", "bob may not register people", "admin"),
    ("secret remove s", "There is no secret s", "`exeat secret list`"),
    ("evidence verify . --key gw1", "not a note key", "the line `key`"),
    ("server add s", "either a command or a --url", "exeat server add"),
    ("server add s --url http://u:p@h/", "user name or password", "--header"),
    ("key issue clock --days 400", "A key lives", ""),
    ("init --me eve", "There is a home", ""),
    ("plan /nowhere.yaml", "cannot be read", ""),
)
"""What is typed, what the error says, what it names as the next step."""


@requirement("REG-1")
def test_errors_are_a_sentence_and_a_next_step(furnished: Run) -> None:
    for line, says, then in ERRORS:
        code, _, err = furnished(*line.split())
        assert code == 1 and err.startswith("exeat: "), line
        assert says in err and then in err, line
        assert "Traceback" not in err and ".py" not in err, line


@requirement("REG-2")
def test_who_is_left_without_anybody_is_said(furnished: Run) -> None:
    for line in ("person add eve", "person add dan", "agent add orphan --owner eve --deputy dan"):
        assert furnished(*line.split())[0] == 0
    assert furnished("person", "depart", "eve")[0] == 0
    assert "Agent orphan: nobody answers for it now" in furnished("person", "depart", "dan")[1]


@requirement("ID-5", "ID-6")
def test_a_binding_says_what_it_ends_and_whose_tokens_are_not_taken_yet(furnished: Run) -> None:
    issuer = "http://localhost:8718"
    bind = ("agent", "bind", "clock", "--issuer")
    _, out, err = furnished(*bind, issuer, "--client", "one")
    assert "one is agent clock" in out and "no more" not in out and err == ""
    _, out, err = furnished(*bind, f"{issuer}/", "--client", "two")
    assert "two is agent clock" in out and "one is clock no more." in out
    assert f"name {issuer}/, to the letter, under [[issuers]]" in err
    person = ("person", "bind", "bob", "--issuer", "https://id.example", "--subject", "b")
    assert "name https://id.example, to the letter" in furnished(*person)[2]


@requirement("ID-5")
def test_a_client_that_was_bound_is_unregistered_no_more(furnished: Run, tmp_path: Path) -> None:
    issuer = "https://id.example"
    state = open_state(tmp_path / "home")
    seen = Stranger("unregistered:0123456789abcdef", issuer, "one", None, 1, 2, 1, frozenset())
    Registry(state.registry, bytes).saw_strangers([seen], Act(EXEAT, "gateway", "called", 2))
    state.close()
    assert "0123456789abcdef" in furnished("agent", "unregistered")[1]
    furnished("agent", "bind", "clock", "--issuer", issuer, "--client", "one")
    assert "0123456789abcdef" not in furnished("agent", "unregistered")[1]


@requirement("ID-9")
def test_a_server_with_consent_is_looked_at_for_somebody(furnished: Run) -> None:
    add = ("server", "add", "far", "--url", "https://far.example/mcp")
    assert "observe far --for AGENT/PERSON" in furnished(*add, "--auth", "authorization-code")[2]


@requirement("REG-3")
def test_a_setting_that_is_none_is_named(furnished: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "exeat.toml").write_text('[[issuers]]\nurl="https://a.example"\nx=1\n')
    err = furnished("client", "add", "c", "--agent", "clock")[2]
    assert "setting 'issuers.0.x': there is no such setting" in err
    assert "the environment variable EXEAT_ISSUERS\n" in err


@requirement("REG-3")
def test_without_a_home_the_first_step_is_named(run: Run) -> None:
    code, _, err = run("person", "list")
    assert code == 1 and "There is no exeat home" in err and "exeat init" in err


@requirement("REG-1")
def test_a_typing_error_gets_a_hint(run: Run) -> None:
    assert run("agnet")[0::2] == (2, "exeat: there is no 'agnet'; did you mean `exeat agent`?\n")
    assert run()[0] == 2 and run("--help")[0] == 0
    assert run("--version")[1].startswith("exeat ")


@requirement("REG-1")
@pytest.mark.parametrize("noun", sorted(command_line.NOUNS))
def test_every_noun_has_help(run: Run, noun: str) -> None:
    code, out, err = run(noun, "--help")
    assert code == 0, err
    assert "Usage" in out


@requirement("REG-8")
def test_export_then_plan_shows_nothing_to_do(furnished: Run, tmp_path: Path) -> None:
    target = tmp_path / "registry.yaml"
    assert furnished("export", str(target))[0] == 0
    code, out, err = furnished("plan", str(target))
    assert code == 0 and out == "The registry is what the files say.\n", err
    text = target.read_text()
    target.write_text(text.replace("roles: []", "roles: [auditor]"))
    code, out, _ = furnished("plan", str(target))
    assert ("~ person:bob" in out and "roles: [] -> [auditor]" in out.replace("-  >", "->")) or out
    assert furnished("apply", str(target), "--reason", "audit")[0] == 0
    assert "auditor" in furnished("person", "list")[1]


@requirement("REG-8")
def test_a_wrong_file_names_line_and_changes_nothing(furnished: Run, tmp_path: Path) -> None:
    target = tmp_path / "registry.yaml"
    target.write_text("people:\n  zoe: {}\n  Bad Name: {}\nagents:\n  x: {ownr: ada}\n")
    before = furnished("person", "list")[1]
    code, _, err = furnished("apply", str(target), "--reason", "r")
    assert code == 1 and "registry.yaml:3" in err and "registry.yaml:5" in err
    assert furnished("person", "list")[1] == before


@requirement("REG-8", "REG-9")
def test_no_file_accepts_a_scope(furnished: Run, tmp_path: Path) -> None:
    target = tmp_path / "registry.yaml"
    furnished("export", str(target))
    target.write_text(target.read_text().replace("- execute", "- execute\n    - pay"))
    code, out, err = furnished("apply", str(target), "--reason", "wider")
    assert code == 0 and "waits for its owner or deputy" in out, err
    assert "NOT ACCEPTED" in furnished("answer", "clock")[1]


@requirement("REG-1")
def test_the_installed_program_says_the_same() -> None:
    """Once as a process of its own: exit code, stderr, no stack trace."""
    program = Path(sys.executable).with_name("exeat")
    done = subprocess.run(
        [program, "person", "list", "--home", "/nonexistent/home"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "There is no exeat home at /nonexistent/home." in done.stderr
    assert "Traceback" not in done.stderr


@requirement("REG-1")
def test_every_command_that_a_remedy_names_exists(run: Run) -> None:
    """A next step that does not exist is worse than none."""
    source = Path(command_line.__file__).parents[1]
    named = set()
    for room in ("registry", "storage", "governance", "cli"):
        for file in (source / room).rglob("*.py"):
            named |= set(re.findall(r"`exeat ([a-z]+(?: [a-z-]+)?)([^`]*)`", file.read_text()))
    assert len(named) > 20
    for words, rest in sorted(named):
        noun, *verb = words.split()
        assert noun in command_line.NOUNS, words
        target, name, _ = command_line.NOUNS[noun]
        app = getattr(importlib.import_module(target), name)
        is_group = isinstance(app, typer.Typer)
        code, out, err = run(noun, *(verb if is_group else []), "--help")
        assert code == 0, f"`exeat {words}{rest}`: {err}"
        for option in re.findall(r"--[a-z][a-z-]*", rest):
            assert option in out, f"`exeat {words}{rest}` has no {option}"

"""REG-5 at the command line: discover, adopt and connect, on the real files of seven clients."""

import json
import re
import sqlite3
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from client_files import (
    PROJECT_FILES,
    SECRETS,
    USER_FILES,
    config_files,
    laid_out,
    secrets_in,
)
from command_line import Run
from requirements import requirement

from exeat.app.settings import Settings
from exeat.app.vault import open_vault
from exeat.cli import clients as shared
from exeat.cli import connect as connecting
from exeat.governance.inventory.clients import CLIENTS, Machine
from exeat.governance.inventory.jsonc import JsonText
from exeat.storage.state import open_state

ALL = tuple(CLIENTS)
GATEWAY = "http://127.0.0.1:8717/mcp"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with all files; the project is the present folder."""
    user, project = laid_out(tmp_path)
    (user / "memory.env").write_text("MEMORY_KEY=EXAMPLE-in-a-file\nexport MODE = x\n")
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.chdir(project)
    for module in (shared, connecting):
        monkeypatch.setattr(module, "this_machine", lambda: Machine("linux", str(user), {}))
    return user


@pytest.fixture
def exeat(run: Run, user: Path) -> Run:
    """The command, in a home whose admin is ada."""
    assert run("init", "--me", "ada")[0] == 0
    return run


def project() -> Path:
    return Path.cwd()


@requirement("REG-5")
def test_discover_needs_no_home_and_shows_no_secret(run: Run, user: Path) -> None:
    before = config_files(user, project())
    code, out, err = run("discover")
    assert code == 0 and not secrets_in(out + err)
    assert (
        "32 servers in 13 files: 32 bypass the gateway; 16 secrets in the open; 2 servers in" in out
    )
    assert "next: exeat adopt" in err
    assert re.search(
        r"  github: BYPASSES the gateway\n    stdio: npx -y @modelcontextprotocol/server-github\n"
        r"    SECRET in the file: env GITHUB_PERSONAL_ACCESS_TOKEN \(looks like: GitHub token\): "
        r"27 characters, sha256 [0-9a-f]{12}\n    same server: Codex, ~/\.codex/config\.toml \(github\)",
        out,
    )
    assert "postgresql://shop:[secret]@db.example.test/shop" in out
    assert config_files(user, project()) == before
    assert not (user / ".exeat").exists()


@requirement("REG-5")
def test_discover_tells_it_as_data(run: Run, user: Path) -> None:
    code, out, _ = run("discover", "--json", "--client", "codex", "--client", "windsurf")
    told = json.loads(out)
    assert code == 0 and not secrets_in(out)
    assert [(s["client"], s["name"]) for s in told["servers"]] == [
        ("codex", "docs"),
        ("codex", "github"),
        ("codex", "search"),
        ("windsurf", "zap"),
        ("windsurf", "github"),
        ("codex", "inline"),
        ("codex", "dotted"),
    ]
    assert told["gateways"] == [GATEWAY] and told["summary"]["bypassing"] == 7
    assert told["servers"][1]["same_server_in"][0].startswith("windsurf:")


@requirement("REG-5")
def test_discover_looks_under_a_folder_when_told(run: Run, user: Path, tmp_path: Path) -> None:
    inner = tmp_path / "src" / "one"
    inner.mkdir(parents=True)
    (inner / ".mcp.json").write_text('{"mcpServers": {"deep": {"command": "deep-mcp"}}}')
    profile = user / ".config/Code/User/profiles/-1a2b/mcp.json"
    profile.parent.mkdir(parents=True)
    profile.write_text('{"servers": {"of-profile": {"command": "p"}}}')
    _, out, _ = run("discover", "--root", tmp_path / "src")
    assert "  deep: BYPASSES" in out and "  of-profile: BYPASSES" in out and "slack" not in out
    assert run("discover", "--root", tmp_path / "none")[0] == 1
    assert "Known: claude-code" in run("discover", "--client", "emacs")[2]


@requirement("REG-5")
def test_a_malformed_file_is_named_and_the_others_go_on(run: Run, user: Path) -> None:
    (user / ".cursor/mcp.json").write_text('{\n  "mcpServers": {"x": {"env": {"K": "EXAMPLE-x}}}')
    (user / ".codex/config.toml").write_text("[mcp_servers\nEXAMPLE = 1")
    (user / ".gemini/settings.json").write_bytes(b"\xff\xfe{}")
    (user / ".codeium/windsurf/mcp_config.json").unlink()
    (user / ".codeium/windsurf/mcp_config.json").mkdir()
    code, out, err = run("discover")
    assert code == 1 and not secrets_in(out + err)
    assert "NOT READ: ~/.cursor/mcp.json:2:37: a string that does not end" in out
    assert "NOT READ: ~/.codex/config.toml:1:13: not TOML" in out
    assert "NOT READ: ~/.gemini/settings.json:1:1: not UTF-8 text" in out
    assert "NOT READ: ~/.codeium/windsurf/mcp_config.json: not a file" in out
    assert "  sentry: BYPASSES the gateway" in out and "  slack: BYPASSES the gateway" in out


@requirement("REG-5")
def test_what_a_client_may_not_read_is_a_warning(run: Run, user: Path) -> None:
    (user / ".claude.json").write_text(
        '{// c\n"mcpServers": {"a": {"command": "x"}, "a": {"command": "y"}}}'
    )
    _, out, _ = run("discover", "--client", "claude-code")
    assert "warning: ~/.claude.json:1:2: a comment; Claude Code may refuse the file" in out
    assert "warning: ~/.claude.json:2:39: a key that stands twice; the last one counts" in out


def plain(data: bytes) -> bytes:
    return data


def windows(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\n")


def marked(data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data


def unended(data: bytes) -> bytes:
    return data.rstrip(b"\n")


@requirement("REG-5")
@pytest.mark.parametrize("written", [plain, windows, marked, unended])
def test_adopting_everything_and_undoing_it_gives_the_same_bytes(
    exeat: Run, user: Path, written: Callable[[bytes], bytes]
) -> None:
    for path, data in config_files(user, project()).items():
        path.write_bytes(written(data))
    before = config_files(user, project())

    code, out, err = exeat("adopt", *ALL, "--yes", "--reason", "one door for all")

    assert code == 0 and not secrets_in(out + err), err
    after = config_files(user, project())
    assert [path for path in before if before[path] == after[path]] == []
    for path, data in after.items():
        assert data.startswith(b"\xef\xbb\xbf") == before[path].startswith(b"\xef\xbb\xbf")
        assert (b"\r\n" in data) == (b"\r\n" in before[path])
        assert data.count(b"\r\n") in (0, data.count(b"\n"))
        text = data.decode("utf-8-sig")
        assert tomllib.loads(text) if path.suffix == ".toml" else JsonText(text).value
    _, found, _ = exeat("discover")
    assert "32 servers in 13 files: 6 bypass the gateway; 3 secrets in the open" in found
    assert len(json.loads(exeat("server", "list", "--json")[1])) == 24

    code, out, _ = exeat("adopt", "--undo")
    assert code == 0 and out.count("Put back, byte for byte") == 13
    assert config_files(user, project()) == before
    assert json.loads(exeat("server", "list", "--json")[1]) == []
    assert json.loads(exeat("secret", "list", "--json")[1]) == []


@requirement("REG-5")
@pytest.mark.parametrize("client", ALL)
def test_one_client_moves_and_the_others_stay(exeat: Run, user: Path, client: str) -> None:
    before = config_files(user, project())
    assert exeat("adopt", client, "--yes")[0] == 0
    after = config_files(user, project())
    owners = {user / n: c for n, c in USER_FILES.items()} | {
        project() / n: c for n, c in PROJECT_FILES.items()
    }
    assert {path for path in before if before[path] != after[path]} == {
        path for path, owner in owners.items() if owner == client
    }
    assert exeat("adopt", "--undo")[0] == 0
    assert config_files(user, project()) == before


@requirement("REG-5", "ID-10")
def test_the_secrets_of_the_files_are_in_the_vault(exeat: Run, user: Path) -> None:
    assert exeat("adopt", *ALL, "--yes")[0] == 0
    vault = open_vault(user / ".exeat", Settings(), state := open_state(user / ".exeat", None))
    held = {(s.id.upstream, s.id.name): vault.get(s.id).decode() for s in vault.names()}
    assert held == {
        ("github", "github_personal_access_token"): "ghp_EXAMPLEexampleEXAMPLE01",
        ("tickets", "authorization"): "Bearer sk-EXAMPLE-not-a-real-key-0001",
        ("tickets", "x-region"): "eu",
        ("github-2", "github_personal_access_token"): "ghp_EXAMPLEexampleEXAMPLE02",
        ("notes", "authorization"): "Bearer EXAMPLE-notes-token-0001",
        ("search", "x-api-key"): "EXAMPLE-search-key-0001",
        ("search", "x-client"): "codex",
        ("zap", "x-api-key"): "EXAMPLE-zap-key-0001",
        ("stream", "authorization"): "Bearer eyJFWEFNUExF.eyJFWEFNUExFMQ.RVhBTVBMRQ",
        ("slack", "slack_bot_token"): "xoxb-EXAMPLE-not-real",
        ("slack", "aws_id"): "AKIAIOSFODNN7EXAMPLE",
        ("inline", "inline_token"): "EXAMPLE-inline-token-01",
    }
    state.close()


@requirement("REG-5", "ID-10")
def test_without_the_vaults_key_nothing_changes(
    exeat: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config_files(user, project())
    monkeypatch.setenv("EXEAT_VAULT_KEY_ENV", "NO_SUCH_KEY")
    code, _, err = exeat("adopt", "windsurf", "--yes")
    assert code == 1 and "NO_SUCH_KEY" in err
    assert config_files(user, project()) == before
    assert json.loads(exeat("server", "list", "--json")[1]) == []
    assert list((user / ".exeat" / "adoptions").iterdir()) == []


@requirement("REG-5")
def test_no_secret_enters_registry_or_evidence(exeat: Run, user: Path) -> None:
    assert exeat("adopt", *ALL, "--yes")[0] == 0
    with sqlite3.connect(user / ".exeat" / "state.db") as db:
        dump = "\n".join(db.iterdump())
    db.close()
    assert "server.added" in dump and not secrets_in(dump)
    for path in (user / ".exeat").rglob("*"):
        if path.is_file() and path.suffix != ".original":
            assert not [s for s in SECRETS if s.encode() in path.read_bytes()], path
    with open_state(user / ".exeat", None).registry.read() as now:
        owners = {server.owner for server in now.servers()}
    assert owners == {"ada"}


@requirement("REG-5")
def test_a_dry_run_changes_nothing_and_masks_the_difference(exeat: Run, user: Path) -> None:
    before = config_files(user, project())
    code, out, _ = exeat("adopt", "claude-code", "--dry-run")
    assert code == 0 and not secrets_in(out)
    assert '-        "GITHUB_PERSONAL_ACCESS_TOKEN": "[masked]"' in out
    assert f'+      "url": "{GATEWAY}/github"' in out
    assert (
        "    github_personal_access_token of github: its GITHUB_PERSONAL_ACCESS_TOKEN (27 char"
        in out
    )
    assert config_files(user, project()) == before
    assert not (user / ".exeat" / "adoptions").exists()


@requirement("REG-5")
def test_nothing_changes_without_a_yes(
    exeat: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config_files(user, project())
    code, _, err = exeat("adopt", "codex")
    assert code == 1 and "Nobody can be asked here. Nothing was changed." in err and "--yes" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", lambda question, default: False)
    code, out, _ = exeat("adopt", "codex")
    assert code == 1 and out.endswith("Nothing was changed.\n")
    assert config_files(user, project()) == before


@requirement("REG-5")
def test_a_file_that_changes_while_the_person_is_asked(
    exeat: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user / ".codex" / "config.toml"

    def meanwhile(question: str, default: bool) -> bool:
        path.write_text('model = "other"\n')
        return True

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", meanwhile)
    code, _, err = exeat("adopt", "codex")
    assert code == 1 and "was changed meanwhile; it is left as it is now" in err
    assert path.read_text() == 'model = "other"\n'
    assert json.loads(exeat("server", "list", "--json")[1]) == []


@requirement("REG-5")
def test_a_registry_that_refuses_leaves_the_files(
    exeat: Run, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = config_files(user, project())
    assert exeat("person", "add", "bob")[0] == 0
    code, _, err = exeat("adopt", "codex", "--yes", "--as", "bob")
    assert code == 1 and "bob" in err
    assert config_files(user, project()) == before


@requirement("REG-5")
def test_one_server_by_its_name(exeat: Run, user: Path) -> None:
    assert exeat("adopt", "codex/docs", "--yes")[0] == 0
    value = tomllib.loads((user / ".codex/config.toml").read_text())
    assert value["mcp_servers"]["docs"] == {"url": f"{GATEWAY}/docs", "startup_timeout_sec": 20}
    assert value["mcp_servers"]["search"]["url"] == "https://search.example.test/mcp"
    shown = json.loads(exeat("server", "show", "docs")[1])
    assert shown["headers_secret"] == {"Authorization": "Bearer {authorization}"}
    assert (
        "stays: codex/docs in ~/.codex/config.toml: it goes through the gateway already"
        in exeat("adopt", "codex/docs", "--yes")[1]
    )
    for words, why in (([], "Nothing is named"), (["nobody"], "'nobody' was not found")):
        code, _, err = exeat("adopt", *words)
        assert code == 1 and why in err


@requirement("REG-5")
def test_an_undo_keeps_servers_that_something_relies_on(exeat: Run, user: Path) -> None:
    assert exeat("adopt", "codex/docs", "codex/search", "windsurf/zap", "--yes")[0] == 0
    assert exeat("person", "add", "bob")[0] == 0
    code, _, err = exeat(
        "agent", "add", "bot", "--owner", "ada", "--deputy", "bob", "--server", "docs", "--effect", "read",
        "--ends", "2099-01-31",
    )  # fmt: skip
    assert code == 0, err
    code, _, err = exeat("server", "change", "search", "--trust", "5")
    assert code == 0, err
    code, out, _ = exeat("adopt", "--undo")
    assert code == 0 and "No longer registered: zap." in out
    assert "Still registered: search: Server search was changed since." in out
    assert "Still registered: docs: The scope of agent bot names server docs." in out


@requirement("REG-5", "ID-10")
def test_forgetting_leaves_no_secret_in_the_home(exeat: Run, user: Path) -> None:
    assert exeat("adopt", *ALL, "--yes")[0] == 0
    assert exeat("connect", "codex", "--yes")[0] == 0
    held = [p for p in (user / ".exeat").rglob("*") if p.is_file() and b"EXAMPLE" in p.read_bytes()]
    assert len(held) == 8 and {p.suffix for p in held} == {".original"}
    code, out, _ = exeat("adopt", "--forget")
    assert code == 0 and "it can no longer be undone" in out
    kept = [p for p in (user / ".exeat").rglob("*") if p.is_file()]
    assert not [p for p in kept if b"EXAMPLE" in p.read_bytes()]
    assert "no `exeat adopt` to undo" in exeat("adopt", "--undo")[2]
    assert "One change at a time" in exeat("adopt", "--undo", "a", "b")[2]


@requirement("REG-5")
def test_an_undo_refuses_a_file_that_changed_since(exeat: Run, user: Path) -> None:
    assert exeat("adopt", "codex/docs", "--yes")[0] == 0
    path = user / ".codex/config.toml"
    later = path.read_text() + "# later\n"
    path.write_text(later)
    code, _, err = exeat("adopt", "--undo")
    assert code == 1 and "was changed since" in err and "Nothing was put back" in err
    assert "`exeat adopt --undo --entries` puts back only the servers" in err
    assert path.read_text() == later
    assert len(json.loads(exeat("server", "list", "--json")[1])) == 1


def grown(path: Path) -> None:
    """As a running client adds to its own file."""
    text = path.read_bytes()
    if path.suffix == ".toml":
        path.write_bytes(text + b'\n[projects."/srv/new"]\ntrust_level = "trusted"\n')
    else:
        path.write_bytes(text.replace(b"{", b'{ "numStartups": 42,', 1))


def without_growth(data: bytes) -> bytes:
    data = data.replace(b'{ "numStartups": 42,', b"{", 1)
    return data.replace(b'\n[projects."/srv/new"]\ntrust_level = "trusted"\n', b"")


@requirement("REG-5")
def test_an_undo_of_the_servers_only_keeps_what_clients_wrote_since(exeat: Run, user: Path) -> None:
    before = config_files(user, project())
    assert exeat("adopt", *ALL, "--yes")[0] == 0
    for path in before:
        if path != project() / ".mcp.json":
            grown(path)
    code, out, err = exeat("adopt", "--undo", "--entries")
    assert code == 0, err
    assert out.count("the servers only; other changes stay") == 12
    assert out.count("Put back, byte for byte: ") == 1
    after = config_files(user, project())
    for path, data in before.items():
        assert path == project() / ".mcp.json" or after[path] != data
        assert without_growth(after[path]) == data


@requirement("REG-5")
@pytest.mark.parametrize("client", ALL)
def test_a_connection_goes_from_a_file_that_changed_since(
    exeat: Run, user: Path, client: str
) -> None:
    before = config_files(user, project())
    assert exeat("connect", client, "--yes")[0] == 0
    (changed,) = [
        path for path, data in config_files(user, project()).items() if before[path] != data
    ]
    grown(changed)
    code, _, err = exeat("connect", client, "--undo")
    assert code == 1 and f"`exeat connect {client} --undo --entries`" in err
    assert exeat("connect", client, "--undo", "--entries")[0] == 0
    left = without_growth(changed.read_bytes())
    assert left.split() == before[changed].split()


@requirement("REG-5")
def test_servers_that_changed_since_are_not_put_back(exeat: Run, user: Path) -> None:
    assert exeat("adopt", "codex", "--yes")[0] == 0
    path = user / ".codex/config.toml"
    later = path.read_text().replace(f"{GATEWAY}/docs", "https://elsewhere.test/mcp")
    path.write_text(later)
    code, _, err = exeat("adopt", "--undo", "--entries")
    assert code == 1 and "'docs' in" in err and "was changed since" in err
    assert path.read_text() == later


@requirement("REG-5")
def test_a_projects_link_out_of_it_is_never_changed(exeat: Run, user: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    (project() / ".mcp.json").rename(outside)
    (project() / ".mcp.json").symlink_to(outside)
    (project() / ".cursor/mcp.json").unlink()
    (project() / ".cursor/mcp.json").symlink_to(project() / ".vscode/mcp.json")
    before = outside.read_bytes()
    code, out, _ = exeat("adopt", "slack", "--yes")
    assert code == 1 and "its file is a link that leads out of the project" in out
    code, _, err = exeat("connect", "claude-code", "--scope", "project", "--yes")
    assert code == 1 and "leads out of the project" in err
    assert outside.read_bytes() == before


WRITTEN = {
    "claude-code": {"type": "http", "url": GATEWAY},
    "cursor": {"url": GATEWAY},
    "vscode": {"type": "http", "url": GATEWAY},
    "codex": {"url": GATEWAY},
    "windsurf": {"serverUrl": GATEWAY},
    "gemini-cli": {"httpUrl": GATEWAY},
}


@requirement("REG-5")
@pytest.mark.parametrize("client", ALL)
def test_connect_writes_an_entry_without_a_secret_and_takes_it_back(
    exeat: Run, user: Path, client: str
) -> None:
    before = config_files(user, project())
    code, out, err = exeat("connect", client, "--yes")
    assert code == 0 and "next: " in err and not secrets_in(out + err)
    after = config_files(user, project())
    (changed,) = [path for path in before if before[path] != after[path]]
    text = after[changed].decode()
    value = tomllib.loads(text) if client == "codex" else JsonText(text).value
    entry = value[CLIENTS[client].holders[0][0]]["exeat"]
    if client == "claude-desktop":
        assert Path(entry["command"]).is_absolute() and Path(entry["command"]).is_file()
        assert entry["args"][-2:] == ["bridge", GATEWAY]
        assert "--key-file FILE" in err
    else:
        assert entry == WRITTEN[client]
        assert "exeat client open" in err
    assert "is connected already" in exeat("connect", client, "--yes")[1]
    assert exeat("connect", client, "--undo")[0] == 0
    assert config_files(user, project()) == before


@requirement("REG-5")
@pytest.mark.parametrize("client", [c for c in ALL if c not in ("windsurf", "claude-desktop")])
def test_connect_makes_the_file_of_a_project_and_takes_it_away(
    exeat: Run, user: Path, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = exeat("connect", client, "--scope", "project", "--server", "git", "--yes")
    assert code == 0, err
    (made,) = [p for p in Path.cwd().rglob("*") if p.is_file()]
    assert f'"{GATEWAY}/git"' in made.read_text() and "exeat-git" in made.read_text()
    assert exeat("connect", client, "--undo")[0] == 0
    assert list(Path.cwd().iterdir()) == []


@requirement("REG-5")
def test_connect_refuses_what_it_cannot_do_safely(exeat: Run, user: Path) -> None:
    before = config_files(user, project())
    for words, why in (
        (["windsurf", "--scope", "project"], "Windsurf has no servers of a project"),
        (["cursor", "--scope", "planet"], "'planet' is no scope"),
        (["cursor", "--server", "No Such"], "cannot be the id of a server"),
        (
            ["cursor", "--name", "linear"],
            "has a server 'linear' already, and it is not this gateway",
        ),
        (["cursor", "--gateway", "gopher://x"], "is not an address"),
        (["emacs"], "no client that is known"),
        (["cursor", "--undo"], "no `exeat connect` to undo"),
    ):
        code, _, err = exeat("connect", *words, *(() if "--undo" in words else ("--yes",)))
        assert code == 1 and why in err, words
    assert config_files(user, project()) == before
    (user / ".claude.json").write_text("{ // c\n}")
    assert (
        "a comment, which Claude Code does not read" in exeat("connect", "claude-code", "--yes")[2]
    )
    (user / ".claude.json").write_text("{")
    assert (
        ".claude.json:1:2: no key in quotation marks. Nothing was changed"
        in exeat("connect", "claude-code", "--yes")[2]
    )


@requirement("REG-5")
def test_connect_needs_a_home_and_a_port(run: Run, user: Path) -> None:
    code, _, err = run("connect", "cursor", "--yes")
    assert code == 1 and "There is no exeat home" in err
    (user / ".exeat").mkdir()
    (user / ".exeat" / "exeat.toml").write_text("port = 0\n")
    code, _, err = run("connect", "cursor", "--dry-run")
    assert code == 1 and "port is chosen at each start" in err
    (user / ".exeat" / "exeat.toml").write_text('host = "::1"\nport = 9999\n')
    assert '"http://[::1]:9999/mcp"' in run("connect", "cursor", "--dry-run")[1]
    assert (
        '"https://gw.test/mcp"'
        in run("connect", "cursor", "--dry-run", "--gateway", "https://gw.test/mcp/")[1]
    )


@requirement("REG-5")
def test_a_public_address_is_what_clients_get(exeat: Run, user: Path) -> None:
    (user / ".exeat" / "exeat.toml").write_text('public_url = "https://gw.example.test"\n')
    assert exeat("connect", "cursor", "--yes")[0] == 0
    assert '"url": "https://gw.example.test/mcp"' in (user / ".cursor/mcp.json").read_text()
    (user / ".gemini/settings.json").write_text(
        f'{{"mcpServers": {{"here": {{"httpUrl": "{GATEWAY}/git"}}}}}}'
    )
    _, out, _ = exeat("discover", "--client", "cursor", "--client", "gemini-cli")
    assert "  exeat: through the gateway" in out and "  here: through the gateway" in out


@requirement("REG-5")
def test_the_key_file_is_named_and_never_read(exeat: Run, user: Path) -> None:
    (user / "key").write_text("exk_EXAMPLEexampleEXAMPLE01")
    assert exeat("connect", "claude-desktop", "--key-file", user / "key", "--yes")[0] == 0
    text = (user / ".config/Claude/claude_desktop_config.json").read_text()
    assert f'"--key-file", "{user / "key"}"' in text and "exk_" not in text

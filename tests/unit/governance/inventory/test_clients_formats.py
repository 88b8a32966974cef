"""REG-5: the real files of seven clients, where they are and what they say."""

import pytest
from client_files import everything, opened
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.governance.inventory.clients import (
    CLIENTS,
    Machine,
    Place,
    Scope,
    client_named,
    connection,
    managed_places,
    project_places,
    read_document,
    user_places,
)
from exeat.governance.inventory.entries import Entry, Reach, entries

HTTP, STDIO, SSE = Reach.HTTP, Reach.STDIO, Reach.SSE


def found(client: str, text: str) -> list[Entry]:
    place = Place(CLIENTS[client], Scope.USER, "f")
    return list(entries(place, "f", read_document(CLIENTS[client], text)))


@requirement("REG-5")
def test_every_server_of_every_file_is_found() -> None:
    listed = [(e.client.id, e.scope.value, e.name, e.reach, e.enabled) for e in everything()]
    assert listed == [
        ("claude-code", "user", "github", STDIO, True),
        ("claude-code", "user", "sentry", HTTP, True),
        ("claude-code", "user", "asana", SSE, True),
        ("claude-code", "user", "tickets", HTTP, True),
        ("claude-code", "local", "shop-db", STDIO, True),
        ("claude-desktop", "user", "filesystem", STDIO, True),
        ("claude-desktop", "user", "github", STDIO, True),
        ("claude-desktop", "user", "weather", STDIO, True),
        ("claude-desktop", "user", "notes", STDIO, True),
        ("cursor", "user", "filesystem", STDIO, True),
        ("cursor", "user", "linear", HTTP, True),
        ("cursor", "user", "warehouse", HTTP, True),
        ("vscode", "user", "perplexity", STDIO, True),
        ("vscode", "user", "memory", STDIO, True),
        ("vscode", "user", "maps", HTTP, True),
        ("vscode", "user", "old-fetch", STDIO, True),
        ("codex", "user", "docs", HTTP, True),
        ("codex", "user", "github", STDIO, True),
        ("codex", "user", "search", HTTP, False),
        ("windsurf", "user", "zap", HTTP, True),
        ("windsurf", "user", "github", STDIO, False),
        ("gemini-cli", "user", "python-tools", STDIO, True),
        ("gemini-cli", "user", "stream", HTTP, True),
        ("gemini-cli", "user", "events", SSE, True),
        ("claude-code", "project", "git", STDIO, True),
        ("claude-code", "project", "slack", STDIO, True),
        ("cursor", "project", "one-line", STDIO, True),
        ("cursor", "project", "other", HTTP, True),
        ("vscode", "project", "lint", STDIO, True),
        ("codex", "project", "inline", STDIO, True),
        ("codex", "project", "dotted", STDIO, True),
        ("gemini-cli", "project", "python-tools", STDIO, True),
    ]


@requirement("REG-5")
def test_what_codex_says_of_headers_and_variables() -> None:
    docs, github, search = opened(".codex/config.toml")[2]
    assert (docs.url, docs.bearer_variable) == ("https://docs.example.test/mcp", "DOCS_TOKEN")
    assert github.env == {"GITHUB_PERSONAL_ACCESS_TOKEN": "ghp_EXAMPLEexampleEXAMPLE03"}
    assert search.headers == {"X-Api-Key": "EXAMPLE-search-key-0001", "X-Client": "codex"}
    assert search.header_variables == {"X-Tenant": "SEARCH_TENANT"}
    (listed,) = found(
        "codex",
        '[mcp_servers.x]\ncommand = "x"\nenv_vars = ["A", { name = "B", source = "local" }]\n',
    )
    assert listed.env_from == ("A", "B")


@requirement("REG-5")
def test_where_the_files_are_on_each_system() -> None:
    def of(system: str, home: str, **environ: str) -> dict[str, list[str]]:
        listed: dict[str, list[str]] = {}
        for place in user_places(Machine(system, home, environ)):
            listed.setdefault(place.client.id, []).append(place.path)
        return listed

    mac = of("darwin", "/Users/ada")
    assert mac["claude-desktop"] == [
        "/Users/ada/Library/Application Support/Claude/claude_desktop_config.json"
    ]
    assert mac["vscode"][0] == "/Users/ada/Library/Application Support/Code/User/mcp.json"
    windows = of("win32", r"C:\Users\ada", APPDATA=r"D:\Roaming")
    assert windows["claude-desktop"] == [r"D:\Roaming\Claude\claude_desktop_config.json"]
    assert windows["claude-code"] == [r"C:\Users\ada\.claude.json"]
    assert windows["vscode"][1] == r"D:\Roaming\Code\User\profiles\*\mcp.json"
    assert windows["windsurf"][0] == r"C:\Users\ada\.codeium\windsurf\mcp_config.json"
    linux = of("linux", "/home/ada", CODEX_HOME="/c", CLAUDE_CONFIG_DIR="/d", XDG_CONFIG_HOME="/x")
    assert linux["codex"] == ["/c/config.toml"]
    assert linux["claude-code"] == ["/d/.claude.json"]
    assert linux["claude-desktop"] == ["/x/Claude/claude_desktop_config.json"]
    assert linux["gemini-cli"] == ["/home/ada/.gemini/settings.json"]
    assert linux["cursor"] == ["/home/ada/.cursor/mcp.json"]
    at = Machine("linux", "/home/ada", {"GEMINI_CLI_SYSTEM_SETTINGS_PATH": "/g.json"})
    assert [p.path for p in managed_places(at)] == [
        "/etc/claude-code/managed-mcp.json",
        "/etc/codex/config.toml",
        "/g.json",
    ]
    assert [p.path for p in project_places(at, "/srv")] == [
        "/srv/.mcp.json",
        "/srv/.cursor/mcp.json",
        "/srv/.vscode/mcp.json",
        "/srv/.vscode/settings.json",
        "/srv/.codex/config.toml",
        "/srv/.gemini/settings.json",
    ]


@requirement("REG-5")
def test_how_each_client_writes_the_gateway() -> None:
    bridge = ("/bin/exeat", "bridge", "URL")
    assert {name: connection(client, "URL", bridge) for name, client in CLIENTS.items()} == {
        "claude-code": {"type": "http", "url": "URL"},
        "claude-desktop": {"command": "/bin/exeat", "args": ["bridge", "URL"]},
        "cursor": {"url": "URL"},
        "vscode": {"type": "http", "url": "URL"},
        "codex": {"url": "URL"},
        "windsurf": {"serverUrl": "URL"},
        "gemini-cli": {"httpUrl": "URL"},
    }
    with pytest.raises(Invalid, match="no client that is known"):
        client_named("emacs")


@requirement("REG-5")
@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("[]", "not an object"),
        ("{}", "neither a command nor an address"),
        ('{"command": 1}', "command is not a text; neither a command nor an address"),
        ('{"command": "x", "args": "y"}', "args is not a list of texts"),
        ('{"command": "x", "args": [1]}', "args is not a list of texts"),
        ('{"command": "x", "env": ["A=b"]}', "env is not an object"),
        ('{"url": "http://x", "headers": "A: b"}', "headers is not an object"),
    ],
)
def test_an_entry_that_no_client_could_use_is_listed_with_the_reason(
    entry: str, problem: str
) -> None:
    (listed,) = found("cursor", f'{{"mcpServers": {{"broken": {entry}}}}}')
    assert (listed.name, listed.problem) == ("broken", problem)


@requirement("REG-5")
@pytest.mark.parametrize(
    "text", ["", "{}", '{"mcpServers": []}', '{"mcpServers": null}', '{"x": 1}']
)
def test_a_file_without_servers_has_none(text: str) -> None:
    assert found("cursor", text) == []

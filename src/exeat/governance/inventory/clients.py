"""MCP clients: where they keep their servers, and how they write one (looked up in November 2026).

| client | documentation or source |
|---|---|
| Claude Code | code.claude.com/docs/en/mcp: ``~/.claude.json`` (user; per project: local), ``.mcp.json`` |
| Claude Desktop | modelcontextprotocol.io quickstart: ``claude_desktop_config.json``, stdio only |
| Cursor | cursor.com/docs/mcp: ``~/.cursor/mcp.json``, ``.cursor/mcp.json`` |
| VS Code | code.visualstudio.com MCP reference: ``mcp.json``; before 1.102 in ``settings.json`` |
| Codex | openai/codex, codex-rs/config/src/mcp_types.rs: ``config.toml``, ``[mcp_servers.NAME]`` |
| Windsurf | docs.windsurf.com/windsurf/cascade/mcp: ``mcp_config.json``, ``serverUrl`` |
| Gemini CLI | google-gemini/gemini-cli, docs/tools/mcp-server.md: ``settings.json``, ``httpUrl`` |
"""

import ntpath
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from exeat.core.errors import Invalid
from exeat.governance.inventory.jsonc import JsonText
from exeat.governance.inventory.text import Document, Path, lookup
from exeat.governance.inventory.toml_text import TomlText


class Scope(StrEnum):
    USER = "user"
    LOCAL = "local"
    """Of one project, but in the user's own file (Claude Code)."""
    PROJECT = "project"
    MANAGED = "managed"
    """Set by an administrator; never changed here."""


@dataclass(frozen=True, slots=True)
class Client:
    """``holders``: under which keys the servers stand; the first is where new ones are written.
    ``comments``: whether it reads JSON with comments."""

    id: str
    title: str
    holders: tuple[Path, ...]
    comments: bool
    restart: str


@dataclass(frozen=True, slots=True)
class Place:
    """A file that may be there.  ``path`` may hold one ``*``: any name.  ``project``: its folder."""

    client: Client
    scope: Scope
    path: str
    project: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """``system``: as ``sys.platform`` says it.  ``home``: the user's, absolute."""

    system: str
    home: str
    environ: Mapping[str, str]

    def join(self, *parts: str) -> str:
        first, *rest = parts
        return ntpath.join(first, *rest) if self.system == "win32" else posixpath.join(first, *rest)

    def settings(self, *parts: str) -> str:
        """Where programs with a window keep what they keep (Electron's ``appData``)."""
        if self.system == "darwin":
            return self.join(self.home, "Library", "Application Support", *parts)
        if self.system == "win32":
            roaming = self.join(self.home, "AppData", "Roaming")
            return self.join(self.environ.get("APPDATA") or roaming, *parts)
        given = self.environ.get("XDG_CONFIG_HOME") or self.join(self.home, ".config")
        return self.join(given, *parts)

    def shared(self, darwin: str, windows: str, others: str, *parts: str) -> str:
        base = {"darwin": darwin, "win32": windows}.get(self.system, others)
        return self.join(base, *parts)


_PLAIN: Final = (("mcpServers",),)
CLAUDE_CODE: Final = Client(
    "claude-code", "Claude Code", _PLAIN, False, "start `claude`, then sign in with /mcp"
)
CLAUDE_DESKTOP: Final = Client(
    "claude-desktop", "Claude Desktop", _PLAIN, False, "quit Claude Desktop and open it again"
)
CURSOR: Final = Client(
    "cursor", "Cursor", _PLAIN, True, "open Cursor's MCP settings and sign in where it says so"
)
VSCODE: Final = Client(
    "vscode",
    "VS Code",
    (("servers",), ("mcp", "servers")),
    True,
    "run `MCP: List Servers` in VS Code, start the server and sign in",
)
CODEX: Final = Client(
    "codex", "Codex", (("mcp_servers",),), True, "sign in with `codex mcp login NAME`"
)
WINDSURF: Final = Client(
    "windsurf", "Windsurf", _PLAIN, False, "refresh the MCP servers in Windsurf's Cascade panel"
)
GEMINI: Final = Client(
    "gemini-cli", "Gemini CLI", _PLAIN, True, "start `gemini`, then sign in with /mcp auth NAME"
)
CLIENTS: Final = {
    each.id: each for each in (CLAUDE_CODE, CLAUDE_DESKTOP, CURSOR, VSCODE, CODEX, WINDSURF, GEMINI)
}


def client_named(text: str) -> Client:
    """Raises Invalid."""
    if text not in CLIENTS:
        raise Invalid(
            f"{text!r} is no client that is known.", remedy=f"Known: {', '.join(CLIENTS)}."
        )
    return CLIENTS[text]


def user_places(at: Machine) -> Iterator[Place]:
    """The first of a client is where new servers are written."""
    home, env = at.home, at.environ
    yield Place(
        CLAUDE_CODE, Scope.USER, at.join(env.get("CLAUDE_CONFIG_DIR") or home, ".claude.json")
    )
    desktop = at.settings("Claude", "claude_desktop_config.json")
    yield Place(CLAUDE_DESKTOP, Scope.USER, desktop)
    yield Place(CURSOR, Scope.USER, at.join(home, ".cursor", "mcp.json"))
    for product in ("Code", "Code - Insiders", "VSCodium"):
        for parts in (("mcp.json",), ("profiles", "*", "mcp.json"), ("settings.json",)):
            yield Place(VSCODE, Scope.USER, at.settings(product, "User", *parts))
    codex = env.get("CODEX_HOME") or at.join(home, ".codex")
    yield Place(CODEX, Scope.USER, at.join(codex, "config.toml"))
    for folder in ("windsurf", "windsurf-next", ""):  # the last is the plugins' of other editors
        yield Place(WINDSURF, Scope.USER, at.join(home, ".codeium", folder, "mcp_config.json"))
    yield Place(GEMINI, Scope.USER, at.join(home, ".gemini", "settings.json"))


def managed_places(at: Machine) -> Iterator[Place]:
    claude = at.shared(
        "/Library/Application Support/ClaudeCode",
        r"C:\Program Files\ClaudeCode",
        "/etc/claude-code",
        "managed-mcp.json",
    )
    yield Place(CLAUDE_CODE, Scope.MANAGED, claude)
    codex = at.shared("/etc/codex", r"C:\ProgramData\codex", "/etc/codex", "config.toml")
    yield Place(CODEX, Scope.MANAGED, codex)
    gemini = at.environ.get("GEMINI_CLI_SYSTEM_SETTINGS_PATH") or at.shared(
        "/Library/Application Support/GeminiCli",
        r"C:\ProgramData\gemini-cli",
        "/etc/gemini-cli",
        "settings.json",
    )
    yield Place(GEMINI, Scope.MANAGED, gemini)


PROJECT_FILES: Final[tuple[tuple[Client, tuple[str, ...]], ...]] = (
    (CLAUDE_CODE, (".mcp.json",)),
    (CURSOR, (".cursor", "mcp.json")),
    (VSCODE, (".vscode", "mcp.json")),
    (VSCODE, (".vscode", "settings.json")),
    (CODEX, (".codex", "config.toml")),
    (GEMINI, (".gemini", "settings.json")),
)
"""Windsurf and Claude Desktop have none."""


def project_places(at: Machine, folder: str) -> Iterator[Place]:
    for client, parts in PROJECT_FILES:
        yield Place(client, Scope.PROJECT, at.join(folder, *parts), folder)


def read_document(client: Client, text: str) -> Document:
    """Raises Malformed."""
    return TomlText(text) if client is CODEX else JsonText(text)


@dataclass(frozen=True, slots=True)
class Holder:
    """A place of servers within a file.  ``project``: the folder that it is for, if for one."""

    path: Path
    scope: Scope
    project: str


def holders(place: Place, document: Document) -> Iterator[Holder]:
    for path in place.client.holders:
        if lookup(document.value, path) is not None:
            yield Holder(path, place.scope, place.project)
    if place.client is CLAUDE_CODE and place.scope is Scope.USER:
        projects = lookup(document.value, ("projects",))
        for name, of_project in (projects if isinstance(projects, Mapping) else {}).items():
            if lookup(of_project, ("mcpServers",)) is not None:
                yield Holder(("projects", name, "mcpServers"), Scope.LOCAL, name)


def connection(client: Client, url: str, bridge: tuple[str, ...]) -> dict[str, Any]:
    """How the client writes a server at an address.  ``bridge``: the command of one that knows only
    stdio."""
    if client is CLAUDE_DESKTOP:
        return {"command": bridge[0], "args": [*bridge[1:]]}
    if client in (CLAUDE_CODE, VSCODE):
        return {"type": "http", "url": url}
    if client is WINDSURF:
        return {"serverUrl": url}
    if client is GEMINI:
        return {"httpUrl": url}
    return {"url": url}


TRANSPORT_FIELDS: Final = frozenset(
    {"type", "transport", "command", "args", "env", "envFile", "env_vars", "cwd"}
    | {
        "url",
        "serverUrl",
        "httpUrl",
        "headers",
        "headersHelper",
        "http_headers",
        "env_http_headers",
    }
    | {"bearer_token", "bearer_token_env_var", "auth", "oauth", "oauth_resource", "scopes"}
    | {"authProviderType", "targetAudience", "targetServiceAccount", "tcp"}
    | {"sandbox", "sandboxEnabled", "dev", "experimental_environment"}
)
"""What says how a server is reached, and is replaced; the rest (limits, lists of tools) stays."""

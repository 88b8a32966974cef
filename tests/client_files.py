"""A user's folder with the configuration files of seven MCP clients, and a project with theirs."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from exeat.governance.inventory.clients import CLIENTS, Place, Scope, read_document
from exeat.governance.inventory.entries import Entry, entries
from exeat.governance.inventory.text import Document, decode

ASSETS = Path(__file__).parent / "assets" / "clients"
USER_FILES = {
    ".claude.json": "claude-code",
    ".config/Claude/claude_desktop_config.json": "claude-desktop",
    ".cursor/mcp.json": "cursor",
    ".config/Code/User/mcp.json": "vscode",
    ".config/Code/User/settings.json": "vscode",
    ".codex/config.toml": "codex",
    ".codeium/windsurf/mcp_config.json": "windsurf",
    ".gemini/settings.json": "gemini-cli",
}
PROJECT_FILES = {
    ".mcp.json": "claude-code",
    ".cursor/mcp.json": "cursor",
    ".vscode/mcp.json": "vscode",
    ".codex/config.toml": "codex",
    ".gemini/settings.json": "gemini-cli",
}
SECRETS = (
    "ghp_EXAMPLEexampleEXAMPLE01",
    "ghp_EXAMPLEexampleEXAMPLE02",
    "ghp_EXAMPLEexampleEXAMPLE03",
    "sk-EXAMPLE-not-a-real-key-0001",
    "EXAMPLE-db-pass",
    "EXAMPLE-weather-key-0001",
    "EXAMPLE-notes-token-0001",
    "EXAMPLE-client-secret-0001",
    "AIzaEXAMPLE-not-a-real-google-key-0000",
    "EXAMPLE-search-key-0001",
    "EXAMPLE-zap-key-0001",
    "eyJFWEFNUExF.eyJFWEFNUExFMQ.RVhBTVBMRQ",
    "xoxb-EXAMPLE-not-real",
    "AKIAIOSFODNN7EXAMPLE",
    "EXAMPLE-inline-token-01",
)
"""Every secret in the files; all of them are made up."""


def laid_out(at: Path) -> tuple[Path, Path]:
    """Copies of the user's folder and of the project."""
    shutil.copytree(ASSETS / "home", at / "user")
    shutil.copytree(ASSETS / "project", at / "project")
    return at / "user", at / "project"


def config_files(user: Path, project: Path) -> dict[Path, bytes]:
    found = [*(user / name for name in USER_FILES), *(project / name for name in PROJECT_FILES)]
    return {path: path.read_bytes() for path in found}


def opened(name: str, *, project: bool = False) -> tuple[Place, Document, list[Entry]]:
    """One of the files, read as its client reads it."""
    folder = ASSETS / ("project" if project else "home")
    client = CLIENTS[(PROJECT_FILES if project else USER_FILES)[name]]
    place = Place(
        client,
        Scope.PROJECT if project else Scope.USER,
        str(folder / name),
        "/srv/project" if project else "",
    )
    _, text = decode((folder / name).read_bytes())
    document = read_document(client, text)
    return place, document, list(entries(place, name, document))


def everything() -> Iterator[Entry]:
    for name in USER_FILES:
        yield from opened(name)[2]
    for name in PROJECT_FILES:
        yield from opened(name, project=True)[2]


def secrets_in(text: str) -> set[str]:
    return {secret for secret in SECRETS if secret in text} | set(
        re.findall(r"EXAMPLE-\w[\w-]*", text)
    )

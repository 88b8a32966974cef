"""The upstream servers: how each is started, a call that it answers, and one that policy forbids."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from install import Peers
from suite import free_port, listening, reference_server

AGENT: Final = "worker"


@dataclass(frozen=True, slots=True)
class Upstream:
    """``says``: what stands in the answer of ``tool`` with ``arguments``.  ``denied``: arguments of
    the same tool for which the Cedar condition ``when`` holds, so that the tool is listed and the
    call is denied.  ``errs``: all that this server can do without a network is to refuse."""

    name: str
    package: str
    tool: str
    arguments: Mapping[str, Any]
    says: str
    denied: Mapping[str, Any]
    when: str
    url: str = ""
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    errs: bool = False

    @property
    def forbid(self) -> str:
        return (
            f'@id("no-{self.name}") forbid(principal, action == Action::"{self.name}/{self.tool}",'
            f" resource) when {{ {self.when} }};"
        )


COMMIT: Final = ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q",
                 "--allow-empty", "-m", "the only commit"]  # fmt: skip
ECHO: Final[dict[str, Any]] = {
    "tool": "echo",
    "arguments": {"message": "good morning"},
    "says": "Echo: good morning",
    "denied": {"message": "the password"},
    "when": 'context.input.message like "*password*"',
}


@contextlib.contextmanager
def upstreams(peers: Peers, folder: Path) -> Iterator[list[Upstream]]:
    """All of them; those that speak HTTP are running."""
    everything = [peers.node, peers.npm("mcp-server-everything")]
    port = free_port()
    with (
        listening([*everything, "streamableHttp"], port, PORT=str(port)) as http,
        reference_server(peers.suite) as reference,
    ):
        yield [
            Upstream("everything", "@modelcontextprotocol/server-everything, stdio",
                     command=(*everything, "stdio"), **ECHO),
            Upstream("everything-http", "@modelcontextprotocol/server-everything, HTTP", url=http,
                     **ECHO),
            *_npm_servers(peers, folder),
            *_python_servers(peers, folder),
            Upstream("reference", "everything-server of the Python SDK, HTTP",
                     "test_x_mcp_header", {"region": "eu"}, "eu", {"region": "moon"},
                     'context.input has region && context.input.region == "moon"', url=reference),
        ]  # fmt: skip


def _npm_servers(peers: Peers, folder: Path) -> list[Upstream]:
    files = folder / "files"
    files.mkdir()
    (files / "notes.txt").write_text("three apples")
    (files / "secret.txt").write_text("hidden")
    memory = folder / "memory.jsonl"
    apple = {"type": "entity", "name": "apple", "entityType": "fruit", "observations": ["red"]}
    memory.write_text(json.dumps(apple) + "\n")
    thought = {"nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1}
    return [
        Upstream("filesystem", "@modelcontextprotocol/server-filesystem", "read_text_file",
                 {"path": str(files / "notes.txt")}, "three apples",
                 {"path": str(files / "secret.txt")}, 'context.path.path.name == "secret.txt"',
                 command=(peers.node, peers.npm("mcp-server-filesystem"), str(files))),
        Upstream("memory", "@modelcontextprotocol/server-memory", "search_nodes",
                 {"query": "apple"}, "fruit", {"query": "salary"},
                 'context.input.query == "salary"', env={"MEMORY_FILE_PATH": str(memory)},
                 command=(peers.node, peers.npm("mcp-server-memory"))),
        Upstream("thinking", "@modelcontextprotocol/server-sequential-thinking",
                 "sequentialthinking", {**thought, "thought": "add one"}, '"thoughtNumber": 1',
                 {**thought, "thought": "bypass it"}, 'context.input.thought like "*bypass*"',
                 command=(peers.node, peers.npm("mcp-server-sequential-thinking"))),
    ]  # fmt: skip


def _python_servers(peers: Peers, folder: Path) -> list[Upstream]:
    mine = Path(sys.executable).parent
    repository = folder / "repository"
    (folder / "tables").mkdir()
    for words in (["init", "-q", str(repository)], ["-C", str(repository), *COMMIT]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    repo = {"repo_path": str(repository)}
    return [
        Upstream("git", "mcp-server-git", "git_show", {**repo, "revision": "HEAD"},
                 "the only commit", {**repo, "revision": "stash"},
                 'context.input.revision == "stash"',
                 command=(str(mine / "mcp-server-git"), "--repository", str(repository))),
        Upstream("time", "mcp-server-time", "get_current_time", {"timezone": "UTC"},
                 '"timezone": "UTC"', {"timezone": "Europe/Rome"},
                 'context.input.timezone == "Europe/Rome"',
                 command=(str(mine / "mcp-server-time"), "--local-timezone", "UTC")),
        Upstream("fetch", "mcp-server-fetch", "fetch", {"url": "http://127.0.0.1:1/"}, "Refused",
                 {"url": "https://forbidden.example/"},
                 'context.url.url.host == "forbidden.example"', errs=True,
                 command=(peers.python("peers", "mcp-server-fetch"), "--ignore-robots-txt")),
        Upstream("sqlite", "mcp-server-sqlite (mcp<2)", "read_query",
                 {"query": "select 6 * 7 as answer"}, "42", {"query": "select salary from people"},
                 'context.input.query like "*salary*"',
                 command=(peers.python("old", "mcp-server-sqlite"), "--db-path",
                          str(folder / "tables" / "t.db"))),
    ]  # fmt: skip

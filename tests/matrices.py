"""One gateway before servers of either era, over HTTP and stdio, for tests across eras (GW-4)."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from gateways import MODERN, TESTS, Gateway, agent, running, start_matrix_server, url_of, verified
from homes import Home
from mcp import Client

from exeat.core.ids import ServerId

BIN = Path(sys.executable).parent
SERVERS = ("both", "new", "old", "pipe", "oldpipe")
TOOLS = {
    "add",
    "act",
    "slow",
    "fail",
    "pid",
    "steps",
    "say",
    "wait",
    "waits_ended",
    "change",
    "tell",
    "touch",
    "ask",
}
NOTE, PROMPT = "note://one", "topic"


@dataclass
class Matrix:
    gateway: Gateway
    keys: dict[str, str]
    repository: Path

    @asynccontextmanager
    async def client(
        self, server: str, mode: str, who: str = "bot", **options: Any
    ) -> AsyncIterator[Client]:
        url = self.gateway.endpoint(server)
        async with agent(url, self.keys[who], mode, **options) as client:
            assert (client.protocol_version == MODERN) == (mode == "auto")
            yield client


@contextmanager
def open_matrix(folder: Path) -> Iterator[Matrix]:
    repository = folder / "repository"
    for words in (["init", "-q", str(repository)], ["-C", str(repository), *COMMIT]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    home = Home(folder / "home")
    stdio = [sys.executable, str(TESTS / "e2e" / "matrix_server.py"), "--stdio"]
    with (
        running(start_matrix_server()) as both,
        running(start_matrix_server("--modern")) as new,
        running(start_matrix_server("--legacy")) as old,
    ):
        home.server("both", url=url_of(both))
        home.server("new", url=url_of(new))
        home.server("old", url=url_of(old))
        home.server("pipe", command=stdio)
        home.server("oldpipe", command=[*stdio, "--legacy"])
        home.server("git", command=[str(BIN / "mcp-server-git"), "--repository", str(repository)])
        home.server("time", command=[str(BIN / "mcp-server-time"), "--local-timezone", "UTC"])
        for server in (*SERVERS, "git", "time"):
            home.pin_all(ServerId(server))
        every = [*SERVERS, "git", "time"]
        keys = {name: home.agent(name, every) for name in ("bot", "mute", "other")}
        home.policy(POLICY)
        home.state.close()
        with running(Gateway(home.path)) as gateway:
            yield Matrix(gateway, keys, repository)
            assert gateway.stop() == 0
            assert "Traceback" not in gateway.output, gateway.output
            assert verified(home.path).sound


COMMIT = ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty"]
COMMIT += ["-m", "the only commit"]
POLICY = """
@id("all") permit(principal, action, resource);
@id("no-questions")
forbid(principal == Agent::"mute",
  action in [Action::"elicitation/create", Action::"sampling/createMessage", Action::"roots/list"],
  resource);
"""

each_pair = pytest.mark.parametrize(
    ("mode", "server"), [(mode, server) for mode in ("auto", "legacy") for server in SERVERS]
)


def said(result: Any) -> str:
    return "".join(getattr(block, "text", "") for block in result.content)


async def answer_ada(_: Any, __: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"name": "Ada"})


async def answer_model(_: Any, __: Any) -> types.CreateMessageResult:
    text = types.TextContent(type="text", text="the model says hello")
    return types.CreateMessageResult(role="assistant", content=text, model="m")


async def answer_roots(_: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///srv/work")])


ANSWERING: dict[str, Any] = {
    "elicitation_callback": answer_ada,
    "sampling_callback": answer_model,
    "list_roots_callback": answer_roots,
}
SAYS = {"elicit": "Ada", "sample": "the model says hello", "roots": "file:///srv/work"}

"""The clients: each a process of its own that is told what to do, and says what its user would see."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from install import HERE, Peers

CALL_MAX_S: Final = 90.0
Told = Callable[[str], None]
"""Is given what a server says of its progress."""


@dataclass(frozen=True, slots=True)
class Said:
    """``raised``: the client gave its user an exception instead of a result."""

    text: str
    error: bool = False
    raised: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One server behind the gateway, and the agent's key."""

    server: str
    url: str
    key: str


class Client(Protocol):
    def open(self, target: Target) -> str:
        """The protocol version it agreed upon, as far as it tells.  Raises Failed."""
        ...

    def tools(self, target: Target) -> list[str]: ...

    def call(self, target: Target, tool: str, arguments: dict[str, Any]) -> Said: ...

    def close(self, target: Target) -> None: ...


class Failed(Exception):
    """What the client's user was shown."""


class Driven:
    """A client that keeps its connections open between orders.  ``through``: the command of a bridge
    from stdio, in which URL and key are filled in."""

    def __init__(self, process: "subprocess.Popen[str]", through: Sequence[str]) -> None:
        self._process, self._through = process, through

    def _order(
        self, op: str, target: Target, told: Told | None = None, **rest: Any
    ) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, "to": target.server, **rest}) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            if told is not None:
                told(answer["progress"])
        raise Failed(f"the client ended with {self._process.wait(20)}")

    def open(self, target: Target) -> str:
        rest: dict[str, Any] = {"url": target.url, "key": target.key}
        if self._through:
            command = [part.format(url=target.url, key=target.key) for part in self._through]
            rest = {"command": command, "env": {**os.environ, "EXEAT_KEY": target.key}}
        answer = self._order("open", target, **rest)
        if "version" not in answer:
            raise Failed(answer["text"])
        return str(answer["version"])

    def tools(self, target: Target) -> list[str]:
        answer = self._order("list", target)
        if "names" not in answer:
            raise Failed(answer["text"])
        return list(answer["names"])

    def call(self, target: Target, tool: str, arguments: dict[str, Any]) -> Said:
        return Said(**self._order("call", target, tool=tool, arguments=arguments))

    def call_told(self, target: Target, tool: str, arguments: dict[str, Any], told: Told) -> Said:
        """A call that asks for progress."""
        rest = {"tool": tool, "arguments": arguments, "progress": True}
        return Said(**self._order("call", target, told, **rest))

    def ask(self, op: str, target: Target, **rest: Any) -> Said:
        """An order that only this client knows."""
        return Said(**self._order(op, target, **rest))

    def close(self, target: Target) -> None:
        self._order("close", target)


class Inspector:
    """Inspector's command line: a process for each order, so there is no connection to lose."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def _run(self, target: Target, *words: str) -> Said:
        header = f"Authorization: Bearer {target.key}"
        argv = [*self._command, target.url, "--transport", "http", "--header", header, *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=CALL_MAX_S)
        return Said(done.stdout or done.stderr, done.returncode != 0, not done.stdout)

    def open(self, target: Target) -> str:
        return ""

    def tools(self, target: Target) -> list[str]:
        said = self._run(target, "--method", "tools/list")
        try:
            return sorted(tool["name"] for tool in json.loads(said.text)["tools"])
        except (ValueError, KeyError):
            raise Failed(said.text) from None

    def call(self, target: Target, tool: str, arguments: dict[str, Any]) -> Said:
        pairs = [f"{name}={value}" for name, value in arguments.items()]
        said = self._run(
            target, "--method", "tools/call", "--tool-name", tool, "--tool-arg", *pairs
        )
        try:
            answer = json.loads(said.text)
            text = "\n".join(block.get("text", "") for block in answer["content"])
        except (ValueError, KeyError):
            return said
        return Said(text, answer.get("isError") is True)

    def close(self, target: Target) -> None: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """``label``: how the table names the client.  ``argv`` empty: Inspector."""

    name: str
    label: str
    argv: tuple[str, ...] = ()
    through: tuple[str, ...] = ()

    @contextmanager
    def started(self, peers: Peers, log: Path) -> Iterator[Client]:
        if not self.argv:
            yield Inspector([peers.node, peers.npm("mcp-inspector"), "--cli"])
            return
        with log.open("w") as stderr:
            process = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
            try:
                yield Driven(process, self.through)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def kinds(peers: Peers) -> list[Kind]:
    sdk, theirs = str(HERE / "drivers" / "sdk.py"), peers.python("peers", "python")
    bridge = (str(Path(sys.executable).with_name("exeat")), "bridge", "{url}")
    remote = (peers.node, peers.npm("mcp-remote"), "{url}", "--allow-http", "--transport",
              "http-only", "--header", "Authorization: Bearer {key}")  # fmt: skip
    return [
        Kind("python-modern", "Python SDK 2, `auto`", (sys.executable, sdk, "auto")),
        Kind("python-legacy", "Python SDK 2, `legacy`", (sys.executable, sdk, "legacy")),
        Kind("ts2-modern", "TypeScript SDK 2, `auto`",
             (peers.node, peers.driver("ts2.mjs"), "auto")),
        Kind("ts2-legacy", "TypeScript SDK 2, `legacy`",
             (peers.node, peers.driver("ts2.mjs"), "legacy")),
        Kind("ts1", "TypeScript SDK 1", (peers.node, peers.driver("ts1.mjs"))),
        Kind("fastmcp", "FastMCP", (theirs, sdk, "fastmcp")),
        Kind("inspector", "Inspector, command line"),
        Kind("mcp-remote", "mcp-remote (stdio)", (sys.executable, sdk, "legacy"), remote),
        Kind("bridge-modern", "`exeat bridge`, modern client", (sys.executable, sdk, "auto"), bridge),
        Kind("bridge-legacy", "`exeat bridge`, legacy client",
             (sys.executable, sdk, "legacy"), bridge),
    ]  # fmt: skip

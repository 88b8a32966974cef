"""One client with one server: what it must be able to do, and what became of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from clients import Client, Failed, Kind, Target
from upstreams import Upstream

LISTS, CALLS, DENIAL, TERM, KILL = "lists", "calls", "denial", "SIGTERM", "SIGKILL"
GONE_ON, RECONNECTED = "goes on", "reconnects"
SENTENCE: Final = re.compile(
    r"Denied by exeat: .+ \(reason forbidden, decision (gw1-\d+)\)\. What can be done: \w.+"
)


@dataclass(slots=True)
class Pair:
    """What one client did with one server.  ``after``: how it went on behind each
    restart; ``lost``: what the client's user was told if the connection did not."""

    client: Kind
    upstream: Upstream
    target: Target
    version: str = ""
    decision: str = ""
    failures: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def attempt(self, step: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except Failed as failed:
            self.failures[step] = str(failed)
            return False
        return True

    def first(self, client: Client, pinned: list[str]) -> None:
        """List, call, be denied."""

        def lists() -> None:
            self.version = client.open(self.target)
            names = client.tools(self.target)
            if names != sorted(pinned):
                raise Failed(f"it saw {names}")

        if self.attempt(LISTS, lists) and self.attempt(CALLS, lambda: self.work(client)):
            self.attempt(DENIAL, lambda: self.denied(client))

    def work(self, client: Client) -> None:
        said = client.call(self.target, self.upstream.tool, dict(self.upstream.arguments))
        if self.upstream.says not in said.text or said.error != self.upstream.errs:
            raise Failed(said.text)

    def denied(self, client: Client) -> None:
        """POL-3: the reason's code, the decision and what can be done reach whoever uses the client."""
        said = client.call(self.target, self.upstream.tool, dict(self.upstream.denied))
        sentence = SENTENCE.search(said.text)
        if sentence is None or not said.error:
            raise Failed(said.text)
        self.decision = sentence.group(1)

    def again(self, client: Client, step: str) -> None:
        """The next call behind a restart: on the same connection, else on a new one.  A bridge
        sends no call twice: if it says that this one was not carried out, its user does."""
        if self.failures:
            return
        try:
            try:
                self.work(client)
            except Failed as lost:
                if "not carried out" not in str(lost):
                    raise
                self.work(client)
            self.after[step] = GONE_ON
        except Failed as lost:
            self.lost[step] = str(lost)
            self.attempt(step, lambda: self.reconnected(client, step))

    def reconnected(self, client: Client, step: str) -> None:
        client.close(self.target)
        client.open(self.target)
        self.work(client)
        self.after[step] = RECONNECTED

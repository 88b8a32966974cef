"""A home with one server that pays, searches and notes, one agent, and what the server really did."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gateways import TESTS, Gateway, Server, Wire, environ, url_of
from homes import BOB, Home

from exeat.core.controls import Order
from exeat.core.facts import Effect

DEADLINE_S = 30.0
VAULT_KEY = "OFFICE_VAULT_KEY"
"""The variable that holds the vault's key, where several gateways share a database."""
POLICY = """
@id("pay") permit(principal, action == Action::"c/pay", resource) when
  { context.input.amount.lessThanOrEqual(decimal("100.0")) ||
    context.session.controls.contains(Control::"approved_by_owner") };
@id("search") @narrow("limit") permit(principal, action == Action::"c/search", resource) when
  { context.input has limit && context.input.limit <= 5 };
@id("people") permit(principal, action == Action::"c/people", resource) when
  { context.session.controls.containsAll([Control::"redacted_pii", Control::"ten"]) };
@id("note") permit(principal, action == Action::"c/note", resource);
"""
CONFIRMED = """
@id("pay") permit(principal, action == Action::"c/pay", resource) when
  { context.session.controls.contains(Control::"confirmed_by_user") };
"""
CONTROLS = """
controls:
  ten: {rows: 10}
budgets:
  - {id: notes, actions: [c/note], counts: calls, limit: "3", window: 1h}
"""


class Office:
    def __init__(
        self, path: Path, database_url: str | None = None, controls: str = CONTROLS
    ) -> None:
        self.log = path / "carried-out.jsonl"
        self.database_url = database_url
        self.home = Home(path / "home", database_url)
        argv = [sys.executable, str(TESTS / "e2e" / "clerk_server.py"), str(self.log)]
        self.server = Server(argv, "listening on ")
        self.home.pin_all(self.home.server("c", url=url_of(self.server)))
        self.home.profile("c", "search", Effect.READ, monotone=(("limit", Order.LESS),))
        self.home.profile("c", "pay", Effect.PAY)
        self.key = self.home.agent("bot", ["c"])
        self.apply(POLICY, controls)
        self.gateway: Gateway

    def close(self) -> None:
        Wire.close_all()
        self.server.kill()
        self.home.state.close()

    def apply(self, policy: str, controls: str = CONTROLS) -> None:
        files = {"office.cedar": policy, "controls.yaml": controls}
        self.home.registry.apply_policy(files, BOB, self.home.act())

    @property
    def place(self) -> dict[str, str]:
        """Settings of every process of it: where its state lies, and what opens it."""
        url = self.database_url
        return {} if url is None else {"database_url": url, "vault_key_env": VAULT_KEY}

    def wire(self, gateway: Gateway | None = None) -> Wire:
        port = (gateway or self.gateway).port
        return Wire(port, self.key, "/mcp/c", timeout=DEADLINE_S)

    def carried_out(self) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def exeat(self, *words: str) -> str:
        more = {f"EXEAT_{name.upper()}": value for name, value in self.place.items()}
        done = subprocess.run(
            [sys.executable, "-m", "exeat.cli.main", *words, "--home", str(self.home.path)],
            capture_output=True, text=True, env=environ(**more), timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def waiting(self) -> list[str]:
        """The holds that people are asked about."""
        return [each["id"] for each in json.loads(self.exeat("approvals", "list", "--json"))]

    def asked(self) -> str:
        """The one hold, as soon as it is there."""
        end = time.monotonic() + DEADLINE_S
        while not (found := self.waiting()):
            assert time.monotonic() < end, "nobody was asked"
        (hold,) = found
        return hold

    def approve(self, hold: str) -> None:
        self.exeat("approvals", "approve", hold, "--as", "ada", "--reason", "looks right")

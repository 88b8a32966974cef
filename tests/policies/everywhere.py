"""Decides the same calls in whatever process it runs, and prints all that a decision holds."""

import json
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any, Final

from policies.policy_world import World, version

from exeat.core.controls import Order
from exeat.core.decision import Verdict
from exeat.core.ids import ActionId, Digest
from exeat.policy.bundle import compile_bundle

POLICY: Final = """
@id("small") permit(principal in Group::"payments", action == Action::"bank/transfer", resource)
  when { context.input.amount.lessThan(decimal("10.0")) };
@id("asked") permit(principal, action == Action::"bank/transfer", resource)
  when { context.session.controls.containsAny([Control::"approved_by_owner", Control::"approved_by_finance",
                                               Control::"approved_by_board", Control::"approved_by_audit"])
      && context.input.amount.lessThan(decimal("100.0")) };
@id("both") permit(principal, action == Action::"bank/transfer", resource)
  when { context.session.controls.containsAll([Control::"approved_by_board", Control::"approved_by_audit"]) };
@id("few") @narrow("limit, path") permit(principal, action == Action::"fs/read", resource)
  when { context.input has limit && context.input.limit <= 10
      && (context.input.path like "/projects/*" || context.input.path == "/projects")
      && context.session.controls.containsAny([Control::"clean", Control::"tidy", Control::"redacted_pii"]) };
@id("never") forbid(principal, action == Action::"fs/read", resource) when { context.input.path == "/projects/x" };
"""
CONTROLS: Final = """
approvers:
  finance: {roles: [finance]}
  board: {people: [ada, bob], quorum: 2}
  audit: {people: [bob, ada]}
controls:
  clean: {redact: [email, phone, iban, card, secret], fields: [/a/*, /b], rows: 5}
  tidy: {redact: [phone, email]}
budgets:
  - {id: sum, actions: ["effect:pay"], counts: amount, argument: amount, limit: 1000, window: 1d}
  - {id: all, actions: [call_tool], limit: 5, window: 1m}
  - {id: whom, actions: [bank/transfer], counts: distinct, argument: to, limit: 5, window: 1h, per: user}
"""
CALLS: Final[list[tuple[str, dict[str, Any]]]] = [
    *(("bank/transfer", {"amount": Decimal(n), "to": "x@example.com"}) for n in ("5", "50", "500", "-1")),
    *(("fs/read", {"path": path, "limit": 99}) for path in ("/", "/projects", "/projects/x", "/etc", "../x")),
    ("fs/read", {"path": "/projects/y", "limit": 3}),
    ("bank/balance", {}),
]  # fmt: skip


def decisions() -> list[dict[str, Any]]:
    world = World(POLICY)
    action = ActionId("fs/read")
    world.tools[action] = replace(
        world.tools[action], monotone={"limit": Order.LESS, "path": Order.BELOW}
    )
    policy = version(POLICY)
    policy = replace(
        policy, digest=Digest("fixed"), files={**policy.files, "controls.yaml": CONTROLS}
    )
    world.built = compile_bundle(policy, world.tools, world.servers, people=world.people)
    assert world.built.findings == (), world.built.findings
    return [asdict(world.decide(action, arguments)) for action, arguments in CALLS]


def text() -> str:
    found = decisions()
    assert {each["verdict"] for each in found} == set(Verdict), "every outcome has a call"
    return json.dumps(found, default=str)


if __name__ == "__main__":
    print(text())

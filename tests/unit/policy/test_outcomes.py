"""More than yes and no: narrowed, with controls, held (decisions.md, Outcomes; POL-9, APP-1)."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from policies.policy_world import PEOPLE, TOOLS, World, tool
from requirements import requirement

from exeat.core.controls import ApproverRole, Controls, Fulfilled, Order
from exeat.core.decision import Reason, Verdict
from exeat.core.facts import Effect, ToolFacts
from exeat.core.ids import ActionId, PersonId
from exeat.policy.bundle import compile_bundle
from exeat.policy.narrow import below
from exeat.policy.slices import text_of

READ, PAY = "fs/read", "bank/transfer"
TRANSFER = {"amount": 500, "to": "bob"}
SMALL = (
    '@id("small") permit(principal, action == Action::"bank/transfer", resource) when'
    ' { context.input.amount.lessThanOrEqual(decimal("100.0")) ||'
    ' context.session.controls.contains(Control::"approved_by_owner") };'
)
LIMITED = (
    '@id("few") @narrow("limit") permit(principal, action == Action::"fs/read", resource) when'
    " { context.input has limit && context.input.limit <= 10 };"
)


def monotone(found: ToolFacts, **orders: Order) -> ToolFacts:
    return replace(found, monotone=orders)


def world(policy: str, **orders: Order) -> World:
    tools = [monotone(each, **orders) if each.name == "read" else each for each in TOOLS]
    return World(policy, tools={each.action: each for each in tools})


@requirement("POL-9")
@pytest.mark.parametrize(
    ("old", "new", "less"),
    [
        (400, 5, True), (400, 1, True), (400, 0, False), (400, -1, False), (400, 400, False),
        (0, -1, True), (-1, -5, True), (Decimal("0.5"), Decimal("0"), False),
    ],
)  # fmt: skip
def test_no_number_becomes_none_or_negative_by_narrowing(old: Any, new: Any, less: bool) -> None:
    """As no list becomes empty: to many servers that says "no limit"."""
    assert below(Order.LESS, old, new) is less


@requirement("POL-9")
def test_a_policy_that_permits_only_zero_narrows_nothing() -> None:
    found = world(LIMITED.replace("<= 10", "< 1"), limit=Order.LESS)
    assert found.decide(READ, {"path": "/a", "limit": 400}).verdict is Verdict.DENY


# ---- held


@requirement("APP-1")
def test_what_an_approval_would_permit_is_held() -> None:
    held = World(SMALL).decide(PAY, TRANSFER)
    assert (held.verdict, held.reason) == (Verdict.HOLD, Reason.APPROVAL_REQUIRED)
    assert (held.hold, held.policies) == ((("approved_by_owner",),), ("small",))
    assert held.narrowed is None and not held.permitted
    assert "approve" in held.remedy and len(held.slice) == 64
    assert World(SMALL).decide(PAY, {**TRANSFER, "amount": 100}).permitted


@requirement("APP-1", "POL-9")
def test_the_evidence_is_what_permits_and_nothing_else() -> None:
    found = World(SMALL)
    request = found.call(PAY, TRANSFER)
    given = found.pdp.decide(replace(request, controls=frozenset({"approved_by_owner"})))
    assert given.permitted and given.obligations == ("control:approved_by_owner",)
    other = found.pdp.decide(replace(request, controls=frozenset({"approved_by_finance"})))
    assert other.verdict is Verdict.HOLD
    assert found.pdp.decide(request).verdict is Verdict.HOLD, "no memo covers controls"


@requirement("APP-1")
def test_a_forbid_that_an_approval_lifts_holds_and_another_denies() -> None:
    policy = (
        '@id("all") permit(principal, action, resource);'
        '@id("ask") forbid(principal, action in Action::"effect:pay", resource) unless'
        ' { context.session.controls.contains(Control::"approved_by_owner") };'
    )
    assert World(policy).decide(PAY, TRANSFER).verdict is Verdict.HOLD
    never = policy + '@id("no") forbid(principal, action == Action::"bank/transfer", resource);'
    denied = World(never).decide(PAY, TRANSFER)
    assert (denied.verdict, denied.reason) == (Verdict.DENY, Reason.FORBIDDEN)


@requirement("APP-1")
def test_what_is_not_policys_word_is_never_held() -> None:
    found = World(SMALL)
    found.agent = replace(found.agent, owner_live=False, deputy_live=False)
    assert found.decide(PAY, TRANSFER).reason is Reason.OWNER_NOT_LIVE
    assert World(SMALL).decide(PAY, {**TRANSFER, "amount": "much"}).verdict is Verdict.DENY


def with_controls(policy: str, controls: Controls, **changes: Any) -> World:
    found = World(policy, **changes)
    found.pdp.controls = controls
    return found


FINANCE = ApproverRole("finance", frozenset({PersonId("bob")}))
TWO = Controls(approvers={"owner": Controls().approvers["owner"], "finance": FINANCE})


@requirement("APP-3")
def test_either_of_two_or_both() -> None:
    either = SMALL.replace(
        'contains(Control::"approved_by_owner")',
        'containsAny([Control::"approved_by_owner", Control::"approved_by_finance"])',
    )
    both = either.replace("containsAny", "containsAll")
    controls = with_controls(SMALL, TWO)
    assert controls.decide(PAY, TRANSFER).hold == (("approved_by_owner",),)
    names = ("approved_by_owner",), ("approved_by_finance",)
    assert known(either).decide(PAY, TRANSFER).hold == names
    assert known(both).decide(PAY, TRANSFER).hold == (("approved_by_finance", "approved_by_owner"),)


@requirement("APP-1")
def test_each_policy_that_asks_somebody_is_named() -> None:
    finance = SMALL.replace("approved_by_owner", "approved_by_finance").replace(
        '@id("', '@id("other-'
    )
    held = known(SMALL + finance).decide(PAY, TRANSFER)
    assert held.hold == (("approved_by_owner",), ("approved_by_finance",))
    assert held.policies == tuple(
        sorted(
            (
                *known(SMALL).decide(PAY, TRANSFER).policies,
                *known(finance).decide(PAY, TRANSFER).policies,
            )
        )
    )
    assert len(held.policies) == 2


def known(policy: str) -> World:
    """A world that declares the role finance."""
    found = World(policy)
    found.built = compile_declaring(found, "approvers:\n  finance: {people: [bob]}\n")
    return found


def compile_declaring(found: World, controls: str) -> Any:
    from policies.policy_world import version

    assert found.policy is not None
    whole = version(found.policy)
    whole = replace(whole, files={**whole.files, "controls.yaml": controls})
    return compile_bundle(whole, found.tools, found.servers, people=found.people)


@requirement("APP-3")
def test_one_person_alone_confirms_and_two_do_not() -> None:
    policy = SMALL.replace("approved_by_owner", "confirmed_by_user")
    one = World(policy, people={PersonId("ada"): PEOPLE[PersonId("ada")]})
    assert one.decide(PAY, TRANSFER).hold == (("confirmed_by_user",),)
    assert World(policy).decide(PAY, TRANSFER).verdict is Verdict.DENY


@requirement("APP-1")
def test_an_approval_is_bound_to_the_policies_that_asked() -> None:
    before = World(SMALL).decide(PAY, TRANSFER)
    beside = World(SMALL + '@id("else") permit(principal, action == Action::"fs/read", resource);')
    assert beside.decide(PAY, TRANSFER).slice == before.slice
    other = World(SMALL.replace("100.0", "200.0")).decide(PAY, TRANSFER)
    assert other.verdict is Verdict.HOLD and other.slice != before.slice
    role = with_controls(SMALL, Controls(approvers={"owner": ApproverRole("owner", quorum=2)}))
    assert role.decide(PAY, TRANSFER).slice != before.slice


# ---- narrowed


@requirement("POL-9")
def test_a_confirmed_argument_is_clamped_to_the_policys_own_bound() -> None:
    found = world(LIMITED, limit=Order.LESS)
    narrowed = found.decide(READ, {"path": "a", "limit": 1000})
    assert narrowed.permitted and narrowed.narrowed == {"path": "a", "limit": 10}
    assert narrowed.obligations == ("narrow:limit",) and narrowed.policies == ("few",)
    assert found.decide(READ, {"path": "a", "limit": 10}).narrowed is None


@requirement("POL-9")
@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        (LIMITED.replace("<= 10", "< 10"), 9),
        (LIMITED.replace("context.input.limit <= 10", "10 >= context.input.limit"), 10),
        (
            '@id("all") permit(principal, action, resource);'
            '@id("few") @narrow("limit") forbid(principal, action == Action::"fs/read", resource)'
            " when { context.input has limit && context.input.limit > 10 };",
            10,
        ),
    ],
)
def test_each_way_to_write_the_bound(policy: str, bound: int) -> None:
    found = world(policy, limit=Order.LESS).decide(READ, {"path": "a", "limit": 1000})
    assert found.permitted and found.narrowed == {"path": "a", "limit": bound}


@requirement("POL-9")
@pytest.mark.parametrize(
    "why", ["not confirmed", "no hint", "misspelt", "unprofiled", "pay", "send", "delete", "other"]
)
def test_without_every_one_of_these_it_is_not_narrowed(why: str) -> None:
    policy, orders = LIMITED, {"limit": Order.LESS}
    changes: dict[str, Any] = {}
    if why == "not confirmed":
        orders = {}
    elif why == "no hint":
        policy = LIMITED.replace('@narrow("limit") ', "")
    elif why == "misspelt":
        policy = LIMITED.replace('@narrow("limit")', '@narrow("limmit")')
    elif why == "unprofiled":
        changes = {"profile_confirmed": False}
    elif why == "other":
        orders = {"limit": Order.SUBSET}
    else:
        changes = {"effect": Effect(why)}
    found = world(policy, **orders)
    action = ActionId(READ)
    found.tools[action] = replace(found.tools[action], **changes)
    denied = found.decide(READ, {"path": "a", "limit": 1000})
    assert (denied.verdict, denied.reason) == (Verdict.DENY, Reason.NOT_PERMITTED)


@requirement("POL-9")
def test_a_path_narrows_downwards_only() -> None:
    policy = (
        '@id("work") @narrow("path") permit(principal, action == Action::"fs/read", resource) when'
        ' { context.input.path like "/projects/*" || context.input.path == "/projects" };'
    )
    found = world(policy, path=Order.BELOW)
    above = found.decide(READ, {"path": "/"})
    assert above.permitted and above.narrowed == {"path": "/projects"}
    for beside in ("/etc", "/projects-old", "/etc/passwd", "projects"):
        assert found.decide(READ, {"path": beside}).verdict is Verdict.DENY


LISTS = tool(
    "fs", "hosts", Effect.READ,
    {"properties": {"hosts": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "dry": {"type": "boolean"}}, "required": ["hosts"]},
)  # fmt: skip


def listing(policy: str, **orders: Order) -> World:
    found = World(policy)
    found.tools[LISTS.action] = replace(LISTS, effect=Effect.WRITE, monotone=orders)
    return found


@requirement("POL-9")
def test_a_list_keeps_what_is_admitted_and_never_becomes_empty() -> None:
    policy = (
        '@id("two") @narrow("hosts") permit(principal, action == Action::"fs/hosts", resource) when'
        ' { ["a.example", "b.example"].containsAll(context.input.hosts) };'
    )
    found = listing(policy, hosts=Order.SUBSET)
    some = found.decide("fs/hosts", {"hosts": ["b.example", "evil.example", "a.example"]})
    assert some.narrowed == {"hosts": ["b.example", "a.example"]}
    assert found.decide("fs/hosts", {"hosts": ["evil.example"]}).verdict is Verdict.DENY


@requirement("POL-9")
def test_a_narrowing_that_the_schema_refuses_is_no_narrowing() -> None:
    found = world(LIMITED.replace("<= 10", "<= 3"), limit=Order.LESS)
    action = ActionId(READ)
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "limit": {"type": "integer", "minimum": 5}},
    }
    found.tools[action] = replace(
        found.tools[action], definition={"name": "read", "inputSchema": schema}
    )
    assert found.decide(READ, {"path": "a", "limit": 50}).verdict is Verdict.DENY


# ---- with controls that the gateway fulfils


REDACTED = (
    '@id("clean") permit(principal, action == Action::"fs/read", resource) when'
    ' { context.session.controls.contains(Control::"redacted_pii") };'
)


@requirement("POL-9")
def test_the_gateway_fulfils_what_it_can() -> None:
    found = World(REDACTED).decide(READ, {"path": "a"})
    assert found.permitted and found.narrowed is None
    assert found.obligations == (
        "control:redacted_pii", "redact:card", "redact:email", "redact:iban", "redact:phone",
    )  # fmt: skip


@requirement("POL-9")
def test_of_several_controls_only_the_needed_ones() -> None:
    unless = '@id("{0}") forbid(principal, action, resource) unless {{ context.session.controls.contains(Control::"{0}") }};'
    policy = '@id("all") permit(principal, action, resource);' + "".join(
        unless.format(name) for name in ("redacted_pii", "row_limit")
    )
    both = World(policy).decide(READ, {"path": "a"})
    assert both.permitted
    assert {"control:redacted_pii", "control:row_limit", "rows:100"} <= set(both.obligations)
    either = REDACTED.replace(
        'contains(Control::"redacted_pii")',
        'containsAny([Control::"row_limit", Control::"redacted_pii"])',
    )
    one = World(either).decide(READ, {"path": "a"})
    assert one.permitted
    assert sum(each.startswith("control:") for each in one.obligations) == 1


@requirement("POL-9")
def test_a_dry_run_sets_the_declared_flag() -> None:
    policy = (
        '@id("dry") permit(principal, action == Action::"fs/hosts", resource) when'
        ' { context.session.controls.contains(Control::"dry_run") };'
    )
    wet = {"hosts": ["a.example"], "dry": False}
    found = listing(policy, dry=Order.FLAG).decide("fs/hosts", wet)
    assert found.permitted and found.narrowed == {"hosts": ["a.example"], "dry": True}
    assert found.obligations == ("control:dry_run", "dry_run:dry")
    absent = listing(policy, dry=Order.FLAG).decide("fs/hosts", {"hosts": ["a.example"]})
    assert absent.narrowed == {"hosts": ["a.example"], "dry": True}
    assert listing(policy).decide("fs/hosts", wet).verdict is Verdict.DENY, "no flag is declared"


@requirement("POL-9")
def test_controls_of_the_gateway_come_before_people() -> None:
    policy = REDACTED.replace(
        'contains(Control::"redacted_pii")',
        'containsAny([Control::"approved_by_owner", Control::"redacted_pii"])',
    )
    assert World(policy).decide(READ, {"path": "a"}).permitted
    both = policy.replace("containsAny", "containsAll")
    held = World(both).decide(READ, {"path": "a"})
    assert held.verdict is Verdict.HOLD and held.hold == (("approved_by_owner",),)
    assert "redact:email" in held.obligations


@requirement("POL-2")
def test_the_verdict_does_not_depend_on_the_order_of_the_policies() -> None:
    found = world(LIMITED + REDACTED + SMALL, limit=Order.LESS)
    turned = world(SMALL + REDACTED + LIMITED, limit=Order.LESS)
    for action, arguments in ((READ, {"path": "a", "limit": 99}), (PAY, TRANSFER)):
        one, other = found.decide(action, arguments), turned.decide(action, arguments)
        assert (one.verdict, one.reason, one.policies, one.narrowed, one.obligations, one.hold) == (
            other.verdict, other.reason, other.policies, other.narrowed, other.obligations, other.hold,
        )  # fmt: skip


def test_a_declared_control_caps(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Controls(fulfilled={"row_limit": Fulfilled("row_limit", rows=5, bytes=100)})
    found = with_controls(REDACTED.replace("redacted_pii", "row_limit"), tight)
    assert found.decide(READ, {"path": "a"}).obligations == (
        "control:row_limit", "rows:5", "bytes:100",
    )  # fmt: skip
    assert text_of(found.pdp.policies)

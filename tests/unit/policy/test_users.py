"""Policies of users: an agent may never do for a user what the user may not (ID-5)."""

from dataclasses import replace

import pytest
from policies.policy_world import PEOPLE, World
from requirements import requirement

from exeat.core.decision import Decision, Reason
from exeat.core.facts import PersonFacts
from exeat.core.ids import ActionId, PersonId
from exeat.policy.lint import lint

ADA, BOB = PersonId("ada"), PersonId("bob")
AGENTS = '@id("agents") permit(principal, action, resource);'
PAY = "bank/transfer"
ARGUMENTS = {"amount": 5, "to": "bob"}


def person(name: PersonId, *roles: str) -> PersonFacts:
    return replace(PEOPLE.get(name, PersonFacts(name, True)), live=True, roles=frozenset(roles))


def world(policies: str, user: PersonFacts | None) -> World:
    people = {**PEOPLE, **({user.id: user} if user is not None else {})}
    return World(policy=policies, user=user, people=people)


def decided(policies: str, user: PersonFacts | None, action: str = PAY) -> Decision:
    return world(policies, user).decide(action, ARGUMENTS if action == PAY else {"path": "/a"})


@requirement("ID-5")
@pytest.mark.parametrize(
    "permit",
    [
        '@id("u") permit(principal in Role::"finance", action, resource);',
        '@id("u") permit(principal == Person::"ada", action, resource);',
        '@id("u") permit(principal is Person, action == Action::"bank/transfer", resource);',
        '@id("u") permit(principal is Person in Role::"finance", action, resource);',
    ],
)
def test_both_must_be_permitted(permit: str) -> None:
    may = decided(AGENTS + permit, person(ADA, "finance"))
    assert (may.permitted, may.policies) == (True, ("agents", "u"))
    without_agent = decided(permit, person(ADA, "finance"))
    assert without_agent.reason is Reason.NOT_PERMITTED
    if "is Person," not in permit:
        may_not = decided(AGENTS + permit, person(BOB))
        assert (may_not.permitted, may_not.reason) == (False, Reason.USER_NOT_PERMITTED)
        assert "user" in may_not.remedy


@requirement("ID-5")
def test_no_policy_of_users_bounds_nobody_and_one_bounds_all() -> None:
    assert decided(AGENTS, person(BOB)).permitted
    bank_only = '@id("u") permit(principal is Person, action == Action::"bank/transfer", resource);'
    other = next(str(each) for each in World().tools if not str(each).startswith("bank/"))
    found = world(AGENTS + bank_only, person(BOB))
    assert found.pdp.decide(found.call(other, {})).reason in (
        Reason.USER_NOT_PERMITTED, Reason.ARGUMENTS_INVALID,
    )  # fmt: skip
    assert decided(AGENTS + bank_only, None).permitted  # the agent for itself


@requirement("ID-5")
def test_a_forbid_for_users_and_conditions_on_arguments() -> None:
    policies = (
        AGENTS + '@id("u") permit(principal is Person, action, resource);'
        '@id("n") forbid(principal in Role::"intern", action, resource);'
    )
    assert decided(policies, person(ADA)).permitted
    forbidden = decided(policies, person(BOB, "intern"))
    assert (forbidden.reason, forbidden.policies) == (Reason.FORBIDDEN, ("n",))
    small = (
        AGENTS + '@id("u") permit(principal is Person, action == Action::"bank/transfer", resource)'
        ' when { context.input.amount.lessThanOrEqual(decimal("10.0")) };'
    )
    one = world(small, person(ADA))
    assert one.decide(PAY, ARGUMENTS).permitted
    assert one.decide(PAY, {**ARGUMENTS, "amount": 11}).reason is Reason.USER_NOT_PERMITTED
    assert one.decide(PAY, ARGUMENTS).permitted  # remembered under its own arguments


@requirement("ID-5", "GW-8")
def test_what_the_user_could_never_do_is_hidden() -> None:
    permit = '@id("u") permit(principal in Role::"finance", action, resource);'
    for roles, shown in ((("finance",), True), ((), False)):
        found = world(AGENTS + permit, person(ADA, *roles))
        request = found.call(PAY, ARGUMENTS)
        assert shown is found.pdp.could_permit(
            request.caller, request.server, "tools/call", ActionId(PAY), request.tool,
            request.target, request.now,
        )  # fmt: skip


@requirement("ID-5")
def test_the_memo_keeps_users_apart() -> None:
    permit = '@id("u") permit(principal == Person::"ada", action, resource);'
    ada, bob = person(ADA), person(BOB)
    found = world(AGENTS + permit, ada)
    for user, permitted in ((ada, True), (bob, False), (ada, True), (bob, False)):
        found.user = user
        assert found.decide(PAY, ARGUMENTS).permitted is permitted


@requirement("ID-5")
def test_they_are_validated_as_policies_of_people() -> None:
    found = world(AGENTS, person(ADA, "finance"))
    good = '@id("u") permit(principal in Role::"finance", action, resource);'
    assert lint({"p.cedar": AGENTS + good}, found.catalogue) == []
    bad = '@id("u") permit(principal is Person, action, resource) when { principal.environment == "x" };'
    assert "environment" in str(lint({"p.cedar": AGENTS + bad}, found.catalogue)[0])

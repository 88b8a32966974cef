"""REG-10: the three answers, and that they agree with what the PDP decides."""

import json
from pathlib import Path

import pytest
from registry_world import (
    ADA,
    BOB,
    BOT,
    EVE,
    GIT,
    NOW,
    World,
    act,
    charter,
    definition,
    scope,
    spec,
)
from requirements import requirement

from exeat.core.errors import Conflict
from exeat.core.facts import Effect, Sink, tool_action
from exeat.core.ids import AgentId, ServerId
from exeat.core.kills import Target
from exeat.core.request import AccessRequest, Caller
from exeat.governance.answer import ActionAnswer, Answer, Permission, Proof, answer
from exeat.policy.bundle import compile_bundle
from exeat.policy.decide import Pdp
from exeat.registry.model.tool import Profile
from exeat.storage.state import open_state

PROOF = Proof("gw1-7", NOW, "git/log", "permit", "permitted")


class Kept:
    """A ledger of one decision, or none at all."""

    def __init__(self, *proofs: Proof, there: bool = True) -> None:
        self.proofs, self.there = proofs, there

    def latest(self, agent: AgentId, count: int) -> tuple[Proof, ...] | None:
        return self.proofs[:count] if self.there else None


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(open_state(tmp_path))
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    for name in ("log", "push", "wipe"):
        tool = world.pin(definition(name, inputSchema=schema))
        if name != "wipe" and tool.pinned is not None:
            world.registry.confirm_profile(
                tool.action, Profile(Effect.READ, Sink.PRIVATE), tool.pinned.digest, act()
            )
    world.active()
    return world


def _pdp(world: World) -> Pdp:
    s = world.state.snapshot()
    return compile_bundle(
        s.policy, s.tools, s.servers, agents=s.agents, people=s.people, kills=s.kills
    )


def ask(world: World, policy: str = "", now: int = NOW) -> Answer:
    if policy:
        world.registry.apply_policy({"p.cedar": policy}, BOB, act(reason="because"))
    with world.state.registry.read() as read:
        agent = read.agent(BOT)
    return answer(agent, world.state.snapshot(), _pdp(world), Kept(PROOF), now)


def of(given: Answer, action: str) -> ActionAnswer:
    return next(a for a in given.permitted.actions if a.action == action)


@requirement("REG-10")
def test_who_owns_it(world: World) -> None:
    world.registry.depart(BOB, act())
    owned = ask(world).owned
    assert [(h.role, h.person, h.live) for h in owned.holders] == [
        ("owner", ADA, True),
        ("deputy", BOB, False),
        ("sponsor", ADA, True),
    ]
    assert (owned.accepted, owned.accepted_by, owned.acceptance) == (True, ADA, "agent:bot@2")
    assert owned.accepted_at == "2027-01-15T08:00:00Z" and owned.lifecycle == "active"


LOG = 'action == Action::"git/log", resource'
GROUP = 'action in Action::"git/*", resource'
PATH = "when { context.input has path }"


def _effect(name: str) -> str:
    return f'when {{ resource.effect == Effect::"{name}" }}'


@requirement("REG-10")
@pytest.mark.parametrize(
    ("policy", "permission", "why"),
    [
        ("", "never", "no policy version is in force"),
        ('@id("x") permit(principal, action == Action::"git/push", resource);',
         "never", "no permit covers it"),
        ('@id("x") permit(principal, action, resource);', "always", ""),
        (f'@id("x") permit(principal, {GROUP}) {_effect("read")};', "always", ""),
        (f'@id("x") permit(principal, {GROUP}) {_effect("pay")};',
         "never", "the conditions of x never hold"),
        (f'@id("x") permit(principal, {LOG}) {PATH};', "conditional", "if x permits"),
        ('@id("x") permit(principal, action, resource);'
         '@id("f") forbid(principal == Agent::"bot", action, resource);',
         "never", "forbidden by f"),
        (f'@id("x") permit(principal, {LOG}); @id("f") forbid(principal, {LOG}) {PATH};',
         "conditional", "unless f forbids"),
        ('@id("x") permit(principal == Agent::"other", action, resource);',
         "never", "no permit covers it"),
    ],
)  # fmt: skip
def test_what_is_permitted(world: World, policy: str, permission: str, why: str) -> None:
    found = of(ask(world, policy), "git/log")
    assert (found.permission, found.why) == (permission, why)


@requirement("REG-10")
def test_the_answer_agrees_with_decisions(world: World) -> None:
    """ALWAYS is permitted and NEVER is denied by the PDP, with and without the argument."""
    texts = (
        '@id("a") permit(principal, action == Action::"git/push", resource);'
        '@id("b") permit(principal, action in Action::"git/*", resource) when { context.input has path };'
        '@id("c") forbid(principal, action in Action::"effect:execute", resource);'
    )
    given, pdp, snapshot = ask(world, texts), _pdp(world), world.state.snapshot()
    caller = Caller(snapshot.agents[BOT], None, "")
    verdicts = {}
    for name in ("log", "push", "wipe"):
        tool = snapshot.tools[tool_action(GIT, name)]
        server = snapshot.servers[GIT]
        verdicts[name] = {
            pdp.decide(
                AccessRequest(
                    caller, "tools/call", tool.action, server, name, tool, tool.pin, arguments, NOW
                )
            ).permitted
            for arguments in ({}, {"path": "x"})
        }
    assert verdicts == {"log": {False, True}, "push": {True}, "wipe": {False}}
    assert [of(given, f"git/{name}").permission for name in verdicts] == [
        Permission.CONDITIONAL,
        Permission.ALWAYS,
        Permission.NEVER,
    ]


@requirement("REG-10", "REG-6")
def test_why_a_tool_is_stopped(world: World) -> None:
    everything = "permit(principal, action, resource);"
    world.show(definition("log", "drifted"), definition("fresh"))
    world.registry.add_server(spec(ServerId("web")), ADA, 0, [], act())
    world.pin(definition("get"), server=ServerId("web"))
    given = ask(world, everything)
    assert "is not the pinned one" in of(given, "git/log").why
    assert "nobody has confirmed" in of(given, "git/fresh").why
    assert of(given, "git/wipe").why == "effect execute is not in the scope of bot"
    assert of(given, "web/get").why == "server web is not in the scope of bot"
    assert of(given, "git/push").permission is Permission.ALWAYS
    world.registry.suspend_server(GIT, act())
    assert of(ask(world), "git/push").why == "server git is not active"


@requirement("REG-10")
def test_policies_stand_with_file_and_line(world: World) -> None:
    given = ask(world, '// head\n@id("x")\npermit(principal, action, resource);')
    (ref,) = of(given, "git/log").policies
    assert (ref.id, ref.place, ref.permit, ref.conditional) == ("x", "p.cedar:2", True, False)
    policy = given.permitted.policy
    assert policy is not None
    assert (policy["version"], policy["author"], policy["approver"]) == (1, BOB, ADA)
    assert policy["reason"] == "because"


@requirement("REG-10", "GW-7")
def test_methods_are_answered_too(world: World) -> None:
    given = ask(
        world,
        '@id("p") permit(principal, action == Action::"prompts/get", resource);'
        '@id("r") permit(principal, action == Action::"resources/read", resource == Resource::"git/file:///a");',
    )
    assert of(given, "prompts/get").permission is Permission.ALWAYS
    assert of(given, "resources/read").permission is Permission.CONDITIONAL
    assert of(given, "sampling/createMessage").permission is Permission.NEVER


@requirement("REG-10", "REG-2", "REG-9")
def test_a_stopped_agent_may_nothing(world: World) -> None:
    everything = '@id("x") permit(principal, action, resource);'
    given = ask(world, everything, now=NOW + 400 * 86_400 * 10**9)
    assert "end date" in given.permitted.stopped
    assert {a.permission for a in given.permitted.actions} == {Permission.NEVER}
    with world.state.registry.read() as read:
        agent = read.agent(BOT)
    world.registry.change_agent(
        BOT, charter(), scope(Effect.READ, Effect.PAY), agent.ends_at, act()
    )
    given = ask(world)
    assert "not accepted the scope" in given.permitted.stopped and not given.owned.accepted
    world.registry.set_roles(EVE, ["admin"], act())
    for person in (BOB, ADA):
        world.registry.depart(person, act(EVE))
    assert "neither owner nor deputy" in ask(world).permitted.stopped


@requirement("REG-10")
def test_every_replica_gives_the_same_bytes(world: World, tmp_path: Path) -> None:
    ask(world, '@id("x") permit(principal, action in Action::"git/*", resource);')
    one = json.dumps(ask(world).as_json(), sort_keys=True)
    world.state = open_state(tmp_path)
    assert json.dumps(ask(world).as_json(), sort_keys=True) == one


@requirement("REG-10")
def test_proofs_and_their_absence_are_told_apart(world: World) -> None:
    with world.state.registry.read() as read:
        agent = read.agent(BOT)
    snapshot, pdp = world.state.snapshot(), _pdp(world)
    assert answer(agent, snapshot, pdp, Kept(there=False), NOW).proofs is None
    assert answer(agent, snapshot, pdp, Kept(), NOW).as_json()["proofs"] == []
    shown = answer(agent, snapshot, pdp, Kept(PROOF), NOW).as_json()["proofs"]
    assert shown[0]["decision"] == "gw1-7" and shown[0]["at"] == "2027-01-15T08:00:00Z"


@requirement("REG-10")
def test_agent_and_state_of_two_moments_are_not_mixed(world: World) -> None:
    with world.state.registry.read() as read:
        agent = read.agent(BOT)
    world.registry.suspend(BOT, act())
    with pytest.raises(Conflict, match="changed meanwhile"):
        answer(agent, world.state.snapshot(), _pdp(world), Kept(), NOW)


@requirement("REG-10", "APP-9")
@pytest.mark.parametrize(
    ("target", "name", "all_stopped", "tools"),
    [
        (Target.AGENT, "bot", True, 3), (Target.OWNER, "ada", True, 3), (Target.ALL, "", True, 3),
        (Target.SERVER, "git", False, 3), (Target.TOOL, "git/log", False, 1),
        (Target.AGENT, "other", False, 0), (Target.USER, "eve", False, 0),
    ],
)  # fmt: skip
def test_what_is_killed_is_never_permitted(
    world: World, target: Target, name: str, all_stopped: bool, tools: int
) -> None:
    world.active("other")
    kill = world.registry.kill(target, name, act())
    found = ask(world, '@id("all") permit(principal, action, resource);').permitted
    says = f"it is stopped by kill {kill.id}"
    assert found.stopped == (says if all_stopped else "")
    killed = [a for a in found.actions if a.action.startswith("git/") and a.why == says]
    assert [each.permission for each in killed] == [Permission.NEVER] * tools


@requirement("REG-10", "POL-7")
def test_an_observed_agent_is_said_to_be_observed(world: World) -> None:
    policy = '@id("x") permit(principal == Agent::"bot", action == Action::"git/push", resource);'
    assert ask(world, policy).permitted.observed_until == ""
    world.registry.observe(BOT, 3600, act())
    observed = ask(world).permitted
    assert observed.observed_until == "2027-01-15T09:00:00Z"
    assert ask(world, now=NOW + 3600 * 10**9).permitted.observed_until == ""


@requirement("REG-10", "APP-3")
def test_whose_approval_a_call_waits_for(world: World) -> None:
    policy = (
        '@id("x") permit(principal, action == Action::"git/push", resource) when'
        ' { context.session.controls.contains(Control::"approved_by_owner") };'
    )
    actions = {each.action: each for each in ask(world, policy).permitted.actions}
    assert actions["git/push"].approvals == ("owner (the agent's owner or deputy)",)
    assert actions["git/log"].approvals == ()

"""The registry as files: read strictly, planned, applied whole or not at all (REG-8)."""

from pathlib import Path

import pytest
from registry_world import ADA, BOB, BOT, GIT, World, act, definition
from requirements import requirement

from exeat.core.errors import Conflict, Invalid
from exeat.core.facts import Effect, Lifecycle, PinState, Sink, tool_action
from exeat.governance.export import export
from exeat.governance.manifest import read_manifest
from exeat.governance.plan import Plan, apply_manifest, make_plan
from exeat.registry.model.tool import Profile
from exeat.registry.rules.pins import definition_digest
from exeat.storage.state import open_state

PIN = definition_digest(definition("log"))
FILES = f"""
people:
  ada: {{roles: [admin]}}
  bob: {{}}
  eve: {{roles: [auditor]}}
servers:
  git:
    owner: ada
    command: [git-server]
    trust: 10
tools:
  git/log: {{pin: "{PIN}", effect: read, sink: internal, reversible: true}}
agents:
  bot:
    purpose: "says: what changed"
    owner: ada
    deputy: bob
    until: 2030-01-31
    groups: [dev]
    servers: [git]
    effects: [read]
"""


@pytest.fixture
def world(tmp_path: Path):
    state = open_state(tmp_path / "home")
    yield World(state)
    state.close()


def plan(world: World, text: str, *, prune: bool = False) -> Plan:
    with world.state.registry.read() as now:
        return make_plan(read_manifest({"reg.yaml": text}), now, prune=prune)


def apply(world: World, text: str, *, prune: bool = False) -> Plan:
    manifest = read_manifest({"reg.yaml": text})
    return apply_manifest(manifest, world.registry, act(), prune=prune)


def subjects(made: Plan) -> list[str]:
    return [f"{step.sign}{step.subject}" for step in made.steps]


@requirement("REG-8")
def test_plan_shows_what_apply_does_and_then_nothing_is_left(world: World) -> None:
    world.show(definition("log"))
    shown = plan(world, FILES)
    assert subjects(shown) == ["~person:eve", "~tool:git/log", "+agent:bot"]
    assert shown.steps[0].lines == ("roles: [] -> [auditor]",)
    before = world.state.epoch()
    assert apply(world, FILES) == shown
    assert world.state.epoch() == before + 1
    assert plan(world, FILES) == Plan((), (), ())
    tool = world.state.snapshot().tools[tool_action(GIT, "log")]
    assert (tool.state, tool.pin, tool.effect, tool.sink, tool.reversible) == (
        PinState.PINNED,
        PIN,
        Effect.READ,
        Sink.INTERNAL,
        True,
    )


@requirement("REG-9")
def test_a_file_never_accepts_a_scope_and_a_wider_one_voids_the_acceptance(world: World) -> None:
    world.show(definition("log"))
    apply(world, FILES)
    assert world.state.snapshot().agents[BOT].scope.accepted == ""
    with world.registry.view() as now:
        seen = now.agent(BOT).scope_digest
    world.registry.accept_scope(BOT, seen, act(BOB))
    world.registry.activate(BOT, act())
    apply(world, FILES.replace("effects: [read]", "effects: [read, write]"))
    agent = world.state.snapshot().agents[BOT]
    assert (agent.lifecycle, agent.scope.accepted) == (Lifecycle.ACTIVE, "")
    with pytest.raises(Invalid, match="unknown key 'accepted'"):
        read_manifest({"reg.yaml": FILES.replace("    purpose:", "    accepted: x\n    purpose:")})


@requirement("REG-8")
def test_what_the_files_do_not_name_is_shown_and_stays_without_prune(world: World) -> None:
    apply(world, "people: {ada: {roles: [admin]}}")
    made = plan(world, "people: {ada: {roles: [admin]}}")
    assert (made.steps, made.drift) == ((), ("server:git", "person:bob", "person:eve"))
    assert not plan(world, FILES).drift


@requirement("REG-8")
def test_prune_takes_away_in_an_order_that_works(world: World) -> None:
    world.pin(definition("log"))
    world.active()
    done = apply(world, "people: {ada: {roles: [admin]}}", prune=True)
    assert subjects(done) == ["-agent:bot", "-server:git", "-person:bob", "-person:eve"]
    state = world.state.snapshot()
    assert state.agents[BOT].lifecycle is Lifecycle.RETIRED
    assert not state.servers
    assert not state.tools
    assert [p.id for p in state.people.values() if p.live] == [ADA]


@requirement("REG-8")
def test_prune_does_not_remove_who_applies(world: World) -> None:
    before = world.state.epoch()
    with pytest.raises(Conflict, match="ada applies these files"):
        apply(world, "people: {bob: {roles: [admin]}}", prune=True)
    assert world.state.epoch() == before


@requirement("REG-8")
def test_an_apply_that_fails_late_changes_nothing(world: World) -> None:
    """The last agent names a person who is nowhere; all that came before is undone."""
    before = world.state.snapshot()
    broken = FILES.replace("deputy: bob", "deputy: zoe")
    with pytest.raises(Exception, match="no person zoe"):
        apply(world, broken)
    assert world.state.snapshot() is before


@requirement("REG-6", "REG-8")
def test_a_pin_waits_for_exactly_the_declared_definition(world: World) -> None:
    made = plan(world, FILES)
    assert made.waiting == ("git/log: not seen yet; run `exeat server observe git`, then apply",)
    world.show(definition("log", "does something else"))
    other = definition_digest(definition("log", "does something else"))
    (line,) = plan(world, FILES).waiting
    assert line == f"git/log: reg.yaml:12 pins {PIN[:12]}, the server shows {other[:12]}"
    apply(world, FILES)
    assert world.state.snapshot().tools[tool_action(GIT, "log")].state is PinState.NEW


@requirement("REG-6", "REG-8")
def test_a_new_pin_confirms_its_profile_again(world: World) -> None:
    world.show(definition("log"))
    apply(world, FILES)
    world.show(definition("log", "v2"))
    second = FILES.replace(PIN, definition_digest(definition("log", "v2")))
    apply(world, second)
    tool = world.state.snapshot().tools[tool_action(GIT, "log")]
    assert (tool.state, tool.effect, tool.profile_confirmed) == (PinState.PINNED, Effect.READ, True)


@requirement("REG-8")
def test_an_export_declares_what_is_there(world: World) -> None:
    world.pin(definition("log"))
    world.registry.confirm_profile(tool_action(GIT, "log"), Profile(Effect.WRITE), PIN, act())
    world.active("bot")
    world.draft("no", deputy=None, purpose="yes: 'quoted' ünïcode", environment="1.10")
    with world.state.registry.read() as now:
        text = export(now)
        assert export(now) == text
    assert plan(world, text) == Plan((), (), ())


BAD = (
    ("people:\n  ada: {roles: admin}", "2: roles is not a list"),
    ("people:\n  ada: {}\n  ada: {}", "3: 'ada' stands here and at line 2"),
    ("people: {}\npeople: {}", "2: 'people' stands here and at line 1"),
    ("agents:\n  bot:\n    owner: no", "3: owner is not a text"),
    ("agents:\n  bot:\n    colour: red", "3: unknown key 'colour'"),
    ("agents:\n  bot:\n    owner: a\n    owner: b", "4: 'owner' stands here twice"),
    ("agents:\n  bot:\n    owner: ada\n    deputy: ada", "2: bot: ada cannot be both"),
    ("agents:\n  bot:\n    until: soon", "2: bot: 'soon' is not a day or a time"),
    ("agents:\n  bot:\n    effects: [fly]", "3: effects holds 'fly'"),
    (
        "agents:\n  bot:\n    actions: [git/log]",
        "2: bot: The action git/log is on a server outside",
    ),
    ("servers:\n  git:\n    command: [x]", "3: owner is missing"),
    ("servers:\n  git:\n    owner: ada", "2: git: Server git has neither an address nor a command"),
    (
        "servers:\n  git:\n    owner: ada\n    command: [x]\n    env: {API_TOKEN: hunter2}",
        "2: git: The variable API_TOKEN of server git looks like a secret",
    ),
    ("servers:\n  a_b:\n    owner: ada\n    command: [x]", "2: a_b: 'a_b' cannot be the id"),
    ("tools:\n  git/log: {pin: abc}", "2: pin is not a SHA-256 digest"),
    (f"tools:\n  git/log: {{pin: '{PIN}', effect: read}}", "2: sink is missing"),
    ("colours: {}", "1: unknown section 'colours'"),
    ("people: [ada]", "1: people is not a mapping"),
    ("people: &x\n  ada: *x", "2: ada is not a mapping|2: unknown key"),
    ("people: {ada: {}", "1: not YAML"),
    ("- a", "1: the file is not a mapping"),
    ("? [a]\n: b", "1: a key in the file is not a text"),
    ("a: !!python/object/apply:os.system [x]", "1: unknown section 'a'"),
    ("a: 1\n---\nb: 2", "2: not YAML"),
)


@requirement("REG-8")
@pytest.mark.parametrize(("text", "wanted"), BAD)
def test_an_error_names_file_line_and_remedy(text: str, wanted: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_manifest({"reg.yaml": text})
    said = str(refused.value)
    assert any(f"reg.yaml:{each}" in said for each in wanted.split("|")), said
    assert "hunter2" not in said
    problem = said.splitlines()[1]
    assert problem.count(". ") >= 1, "each problem says what to do"


@requirement("REG-8")
def test_all_files_are_read_before_one_is_believed() -> None:
    with pytest.raises(Invalid, match="2 problems") as refused:
        read_manifest({"b.yaml": "x: 1", "a.yaml": "y: 1", "c.yaml": "people: {ada: {}}"})
    assert [line.split(": ")[0].strip() for line in str(refused.value).splitlines()[1:]] == [
        "a.yaml:1",
        "b.yaml:1",
    ]
    with pytest.raises(Invalid, match=r"ada is declared at a.yaml:1 already"):
        read_manifest({"a.yaml": "people: {ada: {}}", "b.yaml": "people: {ada: {}}"})


@requirement("REG-8")
def test_nesting_without_end_is_refused_in_words() -> None:
    with pytest.raises(Invalid, match="not YAML"):
        read_manifest({"deep.yaml": "[" * 100_000})


@requirement("REG-8")
def test_departed_people_and_retired_agents_cannot_be_declared(world: World) -> None:
    world.active()
    world.registry.retire(BOT, act())
    world.registry.depart(BOB, act())
    with pytest.raises(Invalid, match="bob has departed") as refused:
        plan(world, FILES)
    assert "bot is retired" in str(refused.value)

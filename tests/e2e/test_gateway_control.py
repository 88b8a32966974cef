"""Who may come in, and how a change by another process takes effect on a running gateway
(GW-8, GW-13, REG-2, REG-6, REG-9)."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from gateways import (
    Gateway,
    Wire,
    agent,
    decisions,
    denied,
    environ,
    running,
    start_matrix_server,
    text,
    url_of,
    verified,
)
from homes import ADA, Home
from mcp.client.subscriptions import ToolsListChanged
from requirements import requirement

from exeat.core.facts import tool_action
from exeat.core.ids import AgentId, PersonId, ServerId
from exeat.registry.model.agent import Scope

DEADLINE_S = 30.0
ALL = '@id("all") permit(principal, action, resource);'


class World:
    """A running gateway, and the registry behind it as another process would change it."""

    def __init__(self, home: Home, gateway: Gateway) -> None:
        self.home, self.gateway = home, gateway
        self.registry, self.act = home.registry, home.act
        self._names = iter(f"bot{n}" for n in range(100))

    def agent(self, **rest: Any) -> tuple[AgentId, Wire]:
        """A new agent and its client, once the running gateway knows it."""
        name = next(self._names)
        wire = Wire(self.gateway.port, self.home.agent(name, ["m"], **rest), "/mcp/m")
        until(lambda: wire.call("add", a=1, b=1) and wire.status == 200)
        return AgentId(name), wire


@pytest.fixture(autouse=True)
def _closing() -> Iterator[None]:
    yield
    Wire.close_all()


def until(holds: Callable[[], Any]) -> float:
    """Seconds until it held."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < DEADLINE_S, "it never came to hold"
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = Home(tmp_path_factory.mktemp("control") / "home")
    with running(start_matrix_server()) as upstream:
        home.pin_all(home.server("m", url=url_of(upstream)))
        home.policy(ALL)
        with running(Gateway(home.path)) as gateway:
            yield World(home, gateway)
            home.state.close()
            assert gateway.stop() == 0
            assert "Traceback" not in gateway.output, gateway.output


def refused(wire: Wire) -> bool:
    wire.call("add", a=1, b=1)
    return wire.status == 401


@requirement("GW-13")
def test_only_a_valid_key_opens(world: World) -> None:
    _, good = world.agent()
    none, wrong = (
        Wire(world.gateway.port, "", "/mcp/m"),
        Wire(world.gateway.port, "xk-no", "/mcp/m"),
    )
    for wire in (none, wrong):
        answer = wire.call("add", a=1, b=1)
        assert wire.status == 401 and "result" not in answer
        assert wire.fields["www-authenticate"].startswith("Bearer ")
        assert "xk-no" not in str(answer) + str(wire.fields)
    assert 'error="invalid_token"' in wrong.fields["www-authenticate"]
    assert text(good.call("add", a=1, b=1)) == "2"


@requirement("GW-8")
def test_a_call_to_a_server_that_does_not_exist_is_on_record(world: World) -> None:
    agent, _ = world.agent()
    wire = Wire(world.gateway.port, world.home.key(agent), "/mcp/ghost")
    until(lambda: wire.call("add", a=1, b=1) and wire.status == 200)
    assert wire.call("add", a=1, b=1)["error"]["message"] == "Unknown tool: add"
    leaf, values, _ = decisions(world.home.path)[-1]
    assert (leaf.agent.id, leaf.reason) == (agent, "out_of_scope")
    assert (leaf.action.server, leaf.action.server_revision) == ("", 0)  # no word of a client's
    assert "ghost" in str(values)
    assert verified(world.home.path).problems == []


@requirement("GW-13")
def test_a_key_ends_when_it_is_revoked_or_expires(world: World) -> None:
    agent, _ = world.agent()
    key, secret = world.registry.issue_key(agent, None, 86_400, world.act())
    wire = Wire(world.gateway.port, secret, "/mcp/m")
    until(lambda: not refused(wire))
    world.registry.revoke_key(key.id, world.act())
    until(lambda: refused(wire))
    _, brief = world.registry.issue_key(agent, None, 2, world.act())
    wire = Wire(world.gateway.port, brief, "/mcp/m")
    until(lambda: not refused(wire))
    until(lambda: refused(wire))
    assert 'error="invalid_token"' in wire.fields["www-authenticate"]


@requirement("GW-13")
def test_a_session_is_bound_to_its_agent_and_endpoint(world: World) -> None:
    (_, mine), (_, other) = world.agent(), world.agent()
    params = {"protocolVersion": "2025-11-25", "capabilities": {}}
    params["clientInfo"] = {"name": "t", "version": "1"}  # type: ignore[assignment]
    mine.legacy({"id": 1, "method": "initialize", "params": params})
    session = mine.fields["mcp-session-id"]
    mine.legacy({"method": "notifications/initialized"}, session)
    ping = {"id": 2, "method": "ping"}
    assert mine.legacy(ping, session)["result"] == {}
    other.legacy(ping, session)
    assert other.status == 404
    aggregate = Wire(world.gateway.port, mine.key, "/mcp")
    aggregate.legacy(ping, session)
    assert aggregate.status == 404
    mine.legacy(ping, session[:-1] + ("0" if session[-1] != "0" else "1"))
    assert mine.status == 404
    mine.legacy(ping)
    assert mine.status == 400
    fields = {"Authorization": f"Bearer {mine.key}", "Mcp-Session-Id": session}
    mine.post("", fields, "DELETE")
    assert mine.status == 204
    mine.legacy(ping, session)
    assert mine.status == 404


@requirement("REG-4", "REG-2")
def test_a_suspended_agent_is_stopped_and_a_resumed_one_goes_on(world: World) -> None:
    agent, wire = world.agent()
    world.registry.suspend(agent, world.act())
    until(lambda: denied(wire.call("add", a=1, b=1)) == "agent_not_active")
    assert "error" in wire.ask("tools/list")
    world.registry.resume(agent, world.act())
    until(lambda: not denied(wire.call("add", a=1, b=1)))


@requirement("REG-2")
def test_an_agent_stops_when_owner_and_deputy_are_gone(world: World) -> None:
    for person in ("eve", "fay"):
        world.registry.register_person(person, [], world.act())
    eve, fay = PersonId("eve"), PersonId("fay")
    _, wire = world.agent(owner=eve, deputy=fay)
    world.registry.depart(eve, world.act())
    epoch = len(decisions(world.home.path))
    until(
        lambda: (
            not denied(wire.call("add", a=1, b=1))
            and any(not leaf.agent.owner_live for leaf, *_ in decisions(world.home.path)[epoch:])
        )
    )  # the deputy is there
    world.registry.depart(fay, world.act())
    until(lambda: denied(wire.call("add", a=1, b=1)) == "owner_not_live")


@requirement("REG-9")
def test_a_scope_that_was_not_accepted_stops_the_agent(world: World) -> None:
    agent, wire = world.agent()
    with world.registry.view() as read:
        before = read.agent(agent)
    actions = frozenset({tool_action("m", "pid")})
    scope = Scope(before.scope.servers, before.scope.effects, actions)
    changed = world.registry.change_agent(agent, before.charter, scope, before.ends_at, world.act())
    until(lambda: denied(wire.call("add", a=1, b=1)) == "scope_not_accepted")
    world.registry.accept_scope(agent, changed.scope_digest, world.act(actor=ADA))
    until(lambda: denied(wire.call("pid")) == "")
    answer = wire.call("add", a=1, b=1)
    assert "Unknown tool" in answer["error"]["message"]  # outside of the scope is hidden


@requirement("POL-1")
def test_policy_takes_effect_and_can_be_taken_back_without_a_restart(world: World) -> None:
    _, wire = world.agent()
    world.home.policy(ALL + '@id("stop") forbid(principal, action == Action::"m/add", resource);')
    try:
        until(lambda: "error" in wire.call("add", a=1, b=1))  # unconditional, so it is hidden
        assert not denied(wire.call("waits_ended"))
        tools = wire.ask("tools/list")["result"]["tools"]
        assert "add" not in {tool["name"] for tool in tools}
    finally:
        world.registry.enforce_policy(1, world.act())
    until(lambda: "result" in wire.call("add", a=1, b=1))


@requirement("GW-4", "GW-8")
@pytest.mark.anyio
async def test_a_subscriber_of_all_servers_hears_of_a_change(world: World) -> None:
    name, wire = await anyio.to_thread.run_sync(world.agent)
    async with (
        agent(world.gateway.url, wire.key) as client,
        client.listen(tools_list_changed=True) as events,
    ):
        world.registry.issue_key(name, None, 60, world.act())  # any change of the registry
        with anyio.fail_after(DEADLINE_S):
            assert isinstance(await anext(aiter(events)), ToolsListChanged)


@requirement("POL-1")
def test_a_policy_that_does_not_parse_leaves_the_running_version(
    world: World, tmp_path: Path
) -> None:
    _, wire = world.agent()
    (tmp_path / "broken.cedar").write_text('@id("x") permit(principal, action resource;')
    done = subprocess.run(
        [sys.executable, "-m", "exeat.cli.main", "policy", "apply", str(tmp_path),
         "--reason", "by mistake", "--as", "ada"],
        env=environ(EXEAT_HOME=str(world.home.path)), capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done
    assert "the version in force stays" in done.stderr
    for _ in range(50):
        assert text(wire.call("add", a=1, b=1)) == "2"


@requirement("REG-6", "GW-8")
def test_a_tool_that_nobody_has_seen_is_hidden_and_denied(world: World) -> None:
    _, wire = world.agent()
    with world.registry.view() as read:
        definition = read.tool(tool_action("m", "pid")).pinned
    assert definition is not None
    world.registry.forget_tool(tool_action("m", "pid"), world.act())
    until(lambda: "error" in wire.call("pid"))
    until(lambda: "pid" not in {t["name"] for t in wire.ask("tools/list")["result"]["tools"]})
    hidden, unknown = wire.call("pid")["error"], wire.call("nothing")["error"]
    assert hidden["code"] == unknown["code"]
    assert hidden["message"].replace("pid", "X") == unknown["message"].replace("nothing", "X")
    world.registry.observe_definitions(ServerId("m"), [definition.body], world.act())
    world.registry.pin(tool_action("m", "pid"), definition.digest, world.act())
    until(lambda: "result" in wire.call("pid"))


@requirement("REG-6")
def test_a_definition_that_changes_at_a_running_server_stops_the_tool(tmp_path: Path) -> None:
    """A changed definition is noticed by anybody's list; the server itself never restarts."""
    changed = tmp_path / "changed"
    home = Home(tmp_path / "home")
    with running(start_matrix_server("--changed", str(changed))) as upstream:
        home.pin_all(home.server("m", url=url_of(upstream)))
        keys = [home.agent(name, ["m"]) for name in ("one", "two")]
        home.policy(ALL)
        with running(Gateway(home.path)) as gateway:
            one, two = (Wire(gateway.port, key, "/mcp/m") for key in keys)
            assert text(one.call("act", tag="a")) == "did a"
            changed.touch()
            shown = {tool["name"] for tool in two.ask("tools/list")["result"]["tools"]}
            assert "act" not in shown and "add" in shown
            assert denied(one.call("act", tag="b")) == "definition_changed"
            assert text(one.call("add", a=1, b=1)) == "2"
            until(lambda: pending(home))  # for a person to see
            changed.unlink()
            two.ask("tools/list")
            until(lambda: not pending(home))
            until(lambda: not denied(one.call("act", tag="c")))
            gateway.stop()
    home.state.close()
    acts = [leaf for leaf, *_ in decisions(home.path) if leaf.action.id == "m/act"]
    assert [leaf.reason for leaf in acts][:2] == ["permitted", "definition_changed"]
    assert acts[1].action.pin and acts[1].action.observed_pin not in ("", acts[1].action.pin)


def pending(home: Home) -> bool:
    with home.registry.view() as read:
        return read.tool(tool_action("m", "act")).pending is not None

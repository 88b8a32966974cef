"""What it takes to make the registry what declared files say, and what drifted from them (REG-8).

A plan is computed inside the transaction that carries it out, so what was shown as possible is what
happens, or nothing does.  The acceptance of a scope never comes from a file (REG-9).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exeat.core.errors import Conflict
from exeat.core.facts import Lifecycle
from exeat.core.ids import PersonId
from exeat.governance.manifest import (
    Declared,
    DeclaredAgent,
    DeclaredServer,
    DeclaredTool,
    Manifest,
    refusal,
)
from exeat.governance.nodes import Problem
from exeat.registry.model.act import Act
from exeat.registry.model.agent import Agent
from exeat.registry.model.server import Server
from exeat.registry.model.tool import Tool
from exeat.registry.service import Registry
from exeat.registry.store import RegistryRead

Verb = Callable[[Registry, Act], object]


@dataclass(frozen=True, slots=True)
class Step:
    """``sign``: ``+`` new, ``~`` changed, ``-`` gone.  ``lines``: what differs, one line each."""

    sign: str
    subject: str
    lines: tuple[str, ...]
    do: Verb = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """``steps`` in the order in which they can be done.  ``drift``: subjects that are registered but
    not declared.  ``waiting``: what cannot be done yet, in words."""

    steps: tuple[Step, ...]
    drift: tuple[str, ...]
    waiting: tuple[str, ...]


def make_plan(manifest: Manifest, now: RegistryRead, *, prune: bool) -> Plan:
    """``prune``: what drifted is taken away.  Raises Invalid for what could never be done."""
    problems: list[Problem] = []
    steps, waiting = list[Step](), list[str]()
    steps += _people(manifest, now, problems)
    steps += _servers(manifest, now)
    steps += _tools(manifest, now, waiting)
    steps += _agents(manifest, now, problems)
    if problems:
        raise refusal(problems)
    gone = list(_gone(manifest, now))
    return Plan(
        (*steps, *gone) if prune else tuple(steps),
        () if prune else tuple(step.subject for step in gone),
        tuple(waiting),
    )


def apply_manifest(manifest: Manifest, registry: Registry, act: Act, *, prune: bool) -> Plan:
    """Carry out the plan in one transaction: all of it, or nothing.  Returns what was done."""
    with registry.together() as joined:
        with joined.view() as now:
            plan = make_plan(manifest, now, prune=prune)
        for step in plan.steps:
            step.do(joined, act)
    return plan


def _verb(method: Callable[..., object], *arguments: object) -> Verb:
    def do(registry: Registry, act: Act) -> None:
        method(registry, *arguments, act)

    return do


def _people(manifest: Manifest, now: RegistryRead, problems: list[Problem]) -> Iterator[Step]:
    known = {person.id: person for person in now.people()}
    for name, declared in manifest.people.items():
        roles, old = declared.value, known.get(name)
        if old is None:
            yield Step(
                "+",
                f"person:{name}",
                _lines({}, {"roles": sorted(roles)}),
                _verb(Registry.register_person, name, roles),
            )
        elif not old.live:
            what = f"{name} has departed"
            problems.append(Problem(declared.place, what, "Take the person out of the files."))
        elif old.roles != roles:
            yield Step(
                "~",
                old.subject,
                _lines({"roles": sorted(old.roles)}, {"roles": sorted(roles)}),
                _verb(Registry.set_roles, name, roles),
            )


def _servers(manifest: Manifest, now: RegistryRead) -> Iterator[Step]:
    known = {server.id: server for server in now.servers()}
    for name, declared in manifest.servers.items():
        wanted, old = declared.value, known.get(name)
        before = {} if old is None else _server_json(old)
        lines = _lines(before, _declared_server_json(wanted))
        if lines:
            sign = "+" if old is None else "~"
            yield Step(sign, f"server:{name}", lines, _server_verb(wanted, old))


def _server_verb(wanted: DeclaredServer, old: Server | None) -> Verb:
    given = wanted.spec, wanted.owner, wanted.trust, wanted.extra_methods

    def do(registry: Registry, act: Act) -> None:
        name = wanted.spec.id
        if old is None:
            registry.add_server(*given, act)
        elif given != (old.spec, old.owner, old.trust, old.extra_methods):
            registry.change_server(*given, act)
        if not wanted.active and (old is None or old.active):
            registry.suspend_server(name, act)
        elif wanted.active and old is not None and not old.active:
            registry.resume_server(name, act)

    return do


def _declared_server_json(s: DeclaredServer) -> dict[str, Any]:
    return _server_json(Server(s.spec.id, s.spec, s.owner, s.trust, s.active, s.extra_methods, 0))


def _server_json(server: Server) -> dict[str, Any]:
    return {k: v for k, v in server.as_json().items() if k not in ("id", "revision")}


def _tools(manifest: Manifest, now: RegistryRead, waiting: list[str]) -> Iterator[Step]:
    known = {tool.action: tool for tool in now.tools()}
    for action, declared in manifest.tools.items():
        wanted, old = declared.value, known.get(action)
        pinned = old.pinned.digest if old is not None and old.pinned is not None else ""
        pending = old.pending.digest if old is not None and old.pending is not None else ""
        server = action.partition("/")[0]
        if old is None:
            waiting.append(
                f"{action}: not seen yet; run `exeat server observe {server}`, then apply"
            )
        elif pinned != wanted.pin and pending != wanted.pin:
            shown = pending or pinned
            waiting.append(
                f"{action}: {declared.place} pins {wanted.pin[:12]}, the server shows {shown[:12]}"
            )
        elif lines := _tool_lines(wanted, old, pinned):
            yield Step("~", old.subject, lines, _tool_verb(wanted, old, pinned))


def _tool_lines(wanted: DeclaredTool, old: Tool, pinned: str) -> tuple[str, ...]:
    """A new pin voids the profile, so a declared profile is confirmed again with it."""
    kept = old.profile if pinned == wanted.pin else None
    profile = wanted.profile or kept
    before = {"pin": pinned, "profile": kept and kept.as_json()}
    return _lines(before, {"pin": wanted.pin, "profile": profile and profile.as_json()})


def _tool_verb(wanted: DeclaredTool, old: Tool, pinned: str) -> Verb:
    def do(registry: Registry, act: Act) -> None:
        kept = old.profile
        if pinned != wanted.pin:
            registry.pin(old.action, wanted.pin, act)
            kept = None
        if wanted.profile is not None and wanted.profile != kept:
            registry.confirm_profile(old.action, wanted.profile, wanted.pin, act)

    return do


def _agents(manifest: Manifest, now: RegistryRead, problems: list[Problem]) -> Iterator[Step]:
    known = {agent.id: agent for agent in now.agents()}
    for name, declared in manifest.agents.items():
        wanted, old = declared.value, known.get(name)
        if old is not None and old.lifecycle is Lifecycle.RETIRED:
            remedy = "Take it out of the files, or declare a new agent."
            problems.append(Problem(declared.place, f"{name} is retired", remedy))
            continue
        before = {} if old is None else _agent_json(old.charter, old.scope, old.ends_at)
        lines = _lines(before, _agent_json(wanted.charter, wanted.scope, wanted.ends_at))
        if lines or old is None:
            yield Step(
                "+" if old is None else "~",
                f"agent:{name}",
                lines,
                _agent_verb(declared, name, old),
            )


def _agent_verb(declared: Declared[DeclaredAgent], name: str, old: Agent | None) -> Verb:
    wanted = declared.value

    def do(registry: Registry, act: Act) -> None:
        if old is None:
            registry.register_agent(name, wanted.charter, wanted.scope, wanted.ends_at, act)
        else:
            registry.change_agent(old.id, wanted.charter, wanted.scope, wanted.ends_at, act)

    return do


def _agent_json(charter: Any, scope: Any, ends_at: int | None) -> dict[str, Any]:
    names = ("name", "purpose", "owner", "deputy", "sponsor", "environment", "model")
    return {
        **{name: getattr(charter, name) or "" for name in names},
        "prompt_digest": charter.prompt_digest,
        "groups": sorted(charter.groups),
        **scope.as_json(ends_at),
    }


def _gone(manifest: Manifest, now: RegistryRead) -> Iterator[Step]:
    """Registered and not declared, in the order in which it can be taken away."""
    for agent in now.agents():
        if agent.id not in manifest.agents and agent.lifecycle is not Lifecycle.RETIRED:
            yield Step(
                "-",
                agent.subject,
                ("retire it; its keys are revoked",),
                _verb(Registry.retire, agent.id),
            )
    staying = manifest.servers
    for tool in now.tools():
        if tool.action not in manifest.tools and tool.pinned is not None and tool.server in staying:
            yield Step(
                "-",
                tool.subject,
                ("forget it, with its pin",),
                _verb(Registry.forget_tool, tool.action),
            )
    for server in now.servers():
        if server.id not in manifest.servers:
            yield Step(
                "-",
                server.subject,
                ("remove it, with its tools",),
                _verb(Registry.remove_server, server.id),
            )
    for person in now.people():
        if person.live and person.id not in manifest.people:
            yield Step("-", person.subject, ("depart",), _depart(person.id))


def _depart(person: PersonId) -> Verb:
    def do(registry: Registry, act: Act) -> None:
        if person == act.actor:
            raise Conflict(
                f"{person} applies these files and is not declared in them.",
                remedy="Declare yourself under people, with the role admin.",
            )
        registry.depart(person, act)

    return do


def _lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, ...]:
    """``field: old -> new`` for each field that differs; empty fields of a new thing are left out."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if (old or None) == (new or None):
            continue
        found.append(
            f"{name}: {_word(new)}" if not before else f"{name}: {_word(old)} -> {_word(new)}"
        )
    return tuple(found)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {_word(v)}' for k, v in value.items())}}}"
    return (
        "-"
        if value in (None, "")
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )

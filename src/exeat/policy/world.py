"""What policies may name: tools, servers, agents, people, and the Cedar schema over them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from exeat.core.controls import NO_CONTROLS, Controls
from exeat.core.facts import AgentFacts, Effect, PersonFacts, ServerFacts, Sink, ToolFacts
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.policy.arguments import ToolArguments
from exeat.policy.canonical import FACT_TYPES
from exeat.policy.methods import (
    ANY_METHOD,
    ANY_TOOL,
    METHODS,
    effect_group,
    resource_type,
    server_group,
)
from exeat.policy.model import Kind, Reads, ScopePart
from exeat.policy.schema import Record, Scalar, pruned, quoted, rendered


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that a policy may name."""

    tools: Mapping[ActionId, ToolFacts]
    servers: Mapping[ServerId, ServerFacts]
    agents: Mapping[AgentId, AgentFacts] = field(default_factory=dict)
    people: Mapping[PersonId, PersonFacts] = field(default_factory=dict)

    @property
    def groups(self) -> frozenset[str]:
        return frozenset().union(*(agent.groups for agent in self.agents.values()))

    @property
    def roles(self) -> frozenset[str]:
        return frozenset().union(*(person.roles for person in self.people.values()))


def tool_ancestors(tool: ToolFacts) -> tuple[str, ...]:
    """The action groups of a tool (trap 5: Cedar must always be told of all of them)."""
    return (ANY_TOOL, server_group(tool.server), effect_group(tool.effect))


def methods_of(servers: Iterable[ServerFacts]) -> frozenset[str]:
    """Every method that is an action: the known ones and those that a registration allows."""
    return frozenset(METHODS).union(*(server.extra_methods for server in servers))


@dataclass(frozen=True, slots=True)
class Covered:
    """What a scope covers: tools, and methods that are not tool calls."""

    tools: tuple[ToolFacts, ...]
    methods: tuple[str, ...]


class World:
    """An index over a catalogue, with the argument types of its tools."""

    def __init__(
        self,
        tools: Mapping[ActionId, ToolFacts],
        servers: Mapping[ServerId, ServerFacts],
        arguments: Mapping[str, ToolArguments],
        controls: Controls = NO_CONTROLS,
    ) -> None:
        """``controls``: of the policy version; policies may name these and no others."""
        self._base = base(controls)
        self.tools = dict(tools)
        self.servers = dict(servers)
        self.arguments = arguments
        self.methods = methods_of(servers.values())
        self._by_group: dict[str, list[ToolFacts]] = {ANY_TOOL: []}
        for server in servers:
            self._by_group[server_group(server)] = []
        for effect in Effect:
            self._by_group[effect_group(effect)] = []
        for tool in tools.values():
            for group in tool_ancestors(tool):
                self._by_group.setdefault(group, []).append(tool)
        self._covered: dict[tuple[ScopePart, ScopePart], Covered] = {}
        self._schemas: dict[tuple[object, ...], str] = {}

    @property
    def actions(self) -> frozenset[str]:
        """Every action and action group that exists."""
        return frozenset({*self.tools, *self.methods, *self._by_group, ANY_METHOD})

    def input_record(self, tool: ToolFacts) -> Record:
        return self.arguments[tool.action].type.record

    def covered(self, action: ScopePart, resource: ScopePart) -> Covered:
        """The tools and methods in an action scope whose resource could lie in a resource scope."""
        key = (action, resource)
        if key not in self._covered:
            self._covered[key] = self._cover(action, resource)
        return self._covered[key]

    def _cover(self, action: ScopePart, resource: ScopePart) -> Covered:
        tools: dict[str, ToolFacts] = {}
        methods: set[str] = set()
        if not action.uids:
            tools.update((tool.action, tool) for tool in self.tools.values())
            methods.update(self.methods)
        for _, name in action.uids:
            if name in self.tools:
                tools[name] = self.tools[ActionId(name)]
            elif name in self.methods:
                methods.add(name)
            elif name == ANY_METHOD and not action.exact:
                methods.update(self.methods)
            elif not action.exact:
                tools.update((tool.action, tool) for tool in self._by_group.get(name, ()))
        return Covered(
            tuple(
                tools[name]
                for name in sorted(tools)
                if could_hold(resource, "Tool", name, tools[name].server)
            ),
            tuple(
                method
                for method in sorted(methods)
                if _method_could(resource, resource_type(method))
            ),
        )

    def schema(
        self,
        action: ScopePart,
        resource: ScopePart,
        reads: Reads,
        named: frozenset[str],
        who: str = "Agent",
    ) -> str:
        """A Cedar schema of only what a policy covers, and of that only what it can see: one
        action per distinct shape, so that a wide policy is validated in little more than a
        narrow one's time.  ``named``: actions that its conditions name.  ``who``: the type of its
        principals."""
        sees = tuple((part, reads.at("context", part)) for part in _CONTEXT_PARTS)
        key = (action, resource, repr(sees), named, who)
        if key not in self._schemas:
            self._schemas[key] = self._schema(
                self.covered(action, resource), action, dict(sees), named, who
            )
        return self._schemas[key]

    def _schema(
        self,
        covered: Covered,
        action: ScopePart,
        sees: Mapping[str, Reads | None],
        named: frozenset[str],
        who: str,
    ) -> str:
        applies: dict[str, str] = {}
        parents: dict[str, tuple[str, ...]] = {}
        shapes: set[str] = set()
        plain = all(node is None for node in sees.values())
        for tool in covered.tools[:1] if plain else covered.tools:
            shape = tool_context(self.input_record(tool), sees)
            if shape not in shapes:
                shapes.add(shape)
                applies[tool.action] = _applies("Tool", shape, who)
                parents[tool.action] = tool_ancestors(tool)
        for method in covered.methods:
            kind = resource_type(method)
            if kind not in shapes:
                shapes.add(kind)
                applies[method] = _applies(kind, _METHOD_CONTEXTS[kind], who)
                parents[method] = (ANY_METHOD,)
        known = self.actions
        wanted = {name for _, name in action.uids if name in known} | (named & known)
        for name in wanted - set(parents):
            tool_named = self.tools.get(ActionId(name))
            if tool_named is not None:
                parents[name] = tool_ancestors(tool_named)
            elif name in self.methods:
                parents[name] = (ANY_METHOD,)
        groups = (wanted | {up for ups in parents.values() for up in ups}) - set(parents)
        lines = [self._base, *(f"action {quoted(group)};" for group in sorted(groups))]
        for name in sorted(parents):
            ups = ", ".join(f"Action::{quoted(up)}" for up in parents[name])
            lines.append(f"action {quoted(name)} in [{ups}]{applies.get(name, '')};")
        return "\n".join(lines)


def could_hold(part: ScopePart, kind: str, name: str, server: str) -> bool:
    """Whether a resource of type ``kind`` with this id on this server may lie in the scope."""
    if part.entity_type and part.entity_type != kind:
        return False
    if not part.uids:
        return True
    if (kind, name) in part.uids:
        return True
    return not part.exact and ("Server", server) in part.uids


def _method_could(part: ScopePart, kind: str) -> bool:
    if part.entity_type and part.entity_type != kind:
        return False
    if not part.uids:
        return True
    return any(of == kind or (of == "Server" and not part.exact) for of, _ in part.uids)


_CONTEXT_PARTS: Final = ("input", *(kind.value for kind in Kind))
_FACT_OF: Final = {kind.value: FACT_TYPES[kind] for kind in Kind}
_COMMON: Final = "session: Session, run: {}"
_URI: Final = "{uri: String, scheme: String, host: String, path: String}"
_METHOD_CONTEXTS: Final = {
    "Prompt": f"{{target: {{name: String}}, {_COMMON}}}",
    "Resource": f"{{target: {_URI}, {_COMMON}}}",
    "Server": f"{{target: {{}}, {_COMMON}}}",
}


def tool_context(record: Record, sees: Mapping[str, Reads | None]) -> str:
    """The context type of a tool, as far as ``sees`` looks into it."""
    parts = [f"input: {rendered(pruned(record, sees.get('input')))}"]
    for kind, fact_type in _FACT_OF.items():
        reads = sees.get(kind)
        names = []
        for name, attribute in record.attributes.items():
            texts = isinstance(attribute.type, Scalar) and attribute.type.name == "String"
            if reads is not None and texts and (reads.value or name in reads.attributes):
                names.append(f"{quoted(name)}{'' if attribute.required else '?'}: {fact_type}")
        parts.append(f"{kind}: {{{', '.join(names)}}}")
    return f"{{{', '.join(parts)}, target: {{name: String}}, {_COMMON}}}"


def _applies(kind: str, context: str, who: str = "Agent") -> str:
    return f" appliesTo {{principal: [{who}], resource: [{kind}], context: {context}}}"


def _enum(values: Iterable[str]) -> str:
    return f"enum [{', '.join(quoted(value) for value in values)}]"


def base(controls: Controls) -> str:
    """The part of the Cedar schema that is the same for every scope of a version."""
    return f"""\
entity Group; entity Role;
entity Person in [Role];
entity Agent in [Group] = {{owner: Person, environment: String}};
entity Server = {{trust: Long}};
entity Effect {_enum(Effect)};
entity Sink {_enum(Sink)};
entity Control {_enum(controls.names)};
entity Tool in [Server] = {{effect: Effect, sink: Sink, reversible: Bool, confirmed: Bool}};
entity Prompt in [Server]; entity Resource in [Server];
type Session = {{now: datetime, user?: Person, environment: String, controls: Set<Control>}};
"""

"""Declared files: people, servers, tools and agents in YAML (REG-8).

Read through PyYAML's node graph, so that every finding names its file and line, so that a key which
comes twice is an error, and so that YAML's guesses (``no`` is false, ``1.10`` is 1.1) never change a
text.  Nothing is read from files that have a problem anywhere.

    people:   {ada: {roles: [admin]}}
    servers:  {git: {owner: ada, command: [mcp-server-git]}}
    tools:    {git/git_log: {pin: 5f…, effect: read, sink: internal, reversible: true}}
    agents:   {bot: {owner: ada, deputy: bob, until: 2027-01-31, servers: [git], effects: [read]}}
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import yaml

from exeat.core.errors import Invalid
from exeat.core.facts import Effect, ServerSpec, Sink, Transport
from exeat.core.ids import ActionId, AgentId, PersonId, ServerId
from exeat.core.upstream_auth import read_auth
from exeat.governance.nodes import Fields, Place, Problem, entries, mapping
from exeat.registry.model.agent import Charter, Scope
from exeat.registry.model.names import parse_until, role_name, server_name, slug, tool_name
from exeat.registry.model.server import check_spec
from exeat.registry.model.tool import Profile
from exeat.registry.rules.profiles import read_monotone

FILE_MAX_CHARS: Final = 4 * 1024 * 1024
SECTIONS: Final = ("people", "servers", "tools", "agents")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Declared(Generic[T]):
    value: T
    place: Place


@dataclass(frozen=True, slots=True)
class DeclaredServer:
    spec: ServerSpec
    owner: PersonId
    trust: int
    active: bool
    extra_methods: frozenset[str]


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """``profile`` None: the file says nothing of it, and a confirmed one stays."""

    pin: str
    profile: Profile | None


@dataclass(frozen=True, slots=True)
class DeclaredAgent:
    charter: Charter
    scope: Scope
    ends_at: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the files declare, by id.  ``people``: their roles."""

    people: dict[PersonId, Declared[frozenset[str]]] = field(default_factory=dict)
    servers: dict[ServerId, Declared[DeclaredServer]] = field(default_factory=dict)
    tools: dict[ActionId, Declared[DeclaredTool]] = field(default_factory=dict)
    agents: dict[AgentId, Declared[DeclaredAgent]] = field(default_factory=dict)


def read_manifest(files: Mapping[str, str]) -> Manifest:
    """``files``: name → YAML text.  Raises Invalid with the first problem of
    each declared thing, by file and line."""
    manifest, problems = Manifest(), list[Problem]()
    for name, text in sorted(files.items()):
        problems.extend(_read_file(name, text, manifest))
    if problems:
        raise refusal(problems)
    return manifest


def refusal(problems: list[Problem]) -> Invalid:
    """One error for all problems: ``file:line: what.  what to do`` each."""
    count = "One problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = "\n".join(f"  {problem}" for problem in problems)
    return Invalid(
        f"{count} in the files; nothing was changed:\n{lines}",
        remedy="Correct the files and run it again.",
    )


def _read_file(name: str, text: str, into: Manifest) -> Iterator[Problem]:
    if len(text) > FILE_MAX_CHARS:
        yield Problem(Place(name, 1), f"longer than {FILE_MAX_CHARS} characters", "Split it.")
        return
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        what = error.problem or "cannot be read"
        yield Problem(Place(name, line), f"not YAML: {what}", "Correct the syntax.")
        return
    except (yaml.YAMLError, RecursionError):
        yield Problem(Place(name, 1), "not YAML that can be read", "Correct the syntax.")
        return
    if root is None:
        return
    try:
        sections = mapping(name, root, "the file")
    except Problem as problem:
        yield problem
        return
    for section, key, node in entries(sections):
        if section not in _READERS:
            yield Problem(
                Place(name, key.start_mark.line + 1),
                f"unknown section {section!r}",
                f"There are: {', '.join(SECTIONS)}.",
            )
            continue
        yield from _read_section(name, section, node, into)
    yield from _repeated(name, sections)


def _read_section(name: str, section: str, node: yaml.Node, into: Manifest) -> Iterator[Problem]:
    try:
        things = mapping(name, node, section)
    except Problem as problem:
        yield problem
        return
    known: dict[str, Declared[Any]] = getattr(into, section)
    for thing, key, value in entries(things):
        place = Place(name, key.start_mark.line + 1)
        try:
            fields = Fields(name, mapping(name, value, thing))
            declared = _READERS[section](thing, fields)
            fields.refuse_unknown()
            if thing in known:
                other = known[thing].place
                raise Problem(place, f"{thing} is declared at {other} already", "Keep one of them.")
            known[thing] = Declared(declared, place)
        except Problem as problem:
            yield problem
        except Invalid as error:
            yield Problem(place, f"{thing}: {str(error).rstrip('.')}", error.remedy)
    yield from _repeated(name, things)


def _repeated(name: str, node: yaml.MappingNode) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            what = f"{key.value!r} stands here and at line {seen[key.value]}"
            yield Problem(Place(name, line), what, "Keep one of them.")
        seen.setdefault(str(key.value), line)


def _person(name: str, fields: Fields) -> frozenset[str]:
    slug("a person", name)
    return frozenset(role_name(role) for role in fields.texts("roles"))


def _server(name: str, fields: Fields) -> DeclaredServer:
    server = ServerId(server_name(name))
    url, command = fields.text("url"), fields.texts("command")
    spec = ServerSpec(
        server,
        Transport.HTTP if url else Transport.STDIO,
        url=url,
        headers_from=fields.pairs("headers_from"),
        command=tuple(command),
        env=fields.pairs("env"),
        env_from=tuple(fields.texts("env_from")),
        cwd=fields.text("cwd"),
        run_as=fields.text("run_as"),
        shared=fields.flag("shared", absent=False),
        headers_secret=fields.pairs("headers_secret"),
        env_secret=fields.pairs("env_secret"),
        permit=fields.text("permit"),
        auth=read_auth(fields.pairs("auth")),
    )
    check_spec(spec)
    return DeclaredServer(
        spec,
        PersonId(fields.required("owner", "Name the person who answers for it.")),
        fields.number("trust", absent=0),
        fields.flag("active", absent=True),
        frozenset(fields.texts("extra_methods")),
    )


def _tool(action: str, fields: Fields) -> DeclaredTool:
    server, _, name = action.partition("/")
    server_name(server)
    if not tool_name(name):
        raise Invalid(f"{action!r} is not a tool.", remedy="Write it as server/tool.")
    pin = fields.required("pin", "Take it from `exeat export`, or `exeat tool show`.")
    if len(pin) != 64 or pin.strip("0123456789abcdef"):
        raise fields.problem("pin", "is not a SHA-256 digest", "Write 64 of 0-9, a-f.")
    effect, sink = fields.text("effect"), fields.text("sink")
    reversible = fields.flag("reversible", absent=False)
    monotone = read_monotone(fields.pairs("monotone"))
    if not effect and not sink:
        return DeclaredTool(pin, None)
    kinds = fields.one_of("effect", Effect), fields.one_of("sink", Sink)
    return DeclaredTool(pin, Profile(*kinds, reversible, monotone))


def _agent(name: str, fields: Fields) -> DeclaredAgent:
    slug("an agent", name)

    def person(part: str) -> PersonId | None:
        return PersonId(text) if (text := fields.text(part)) else None

    charter = Charter(
        name=fields.text("name"),
        purpose=fields.text("purpose"),
        owner=person("owner"),
        deputy=person("deputy"),
        sponsor=person("sponsor"),
        groups=frozenset(fields.texts("groups")),
        environment=fields.text("environment"),
        model=fields.text("model"),
        prompt_digest=fields.text("prompt_digest"),
    )
    scope = Scope(
        frozenset(map(ServerId, fields.texts("servers"))),
        fields.some_of("effects", Effect),
        frozenset(map(ActionId, fields.texts("actions"))),
    )
    until = fields.text("until", dates=True)
    return DeclaredAgent(charter, scope, parse_until(until) if until else None)


_READERS: Final[Mapping[str, Callable[[str, Fields], Any]]] = {
    "people": _person,
    "servers": _server,
    "tools": _tool,
    "agents": _agent,
}

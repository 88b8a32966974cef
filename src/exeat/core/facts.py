"""The facts that a decision reads: frozen, loaded once per snapshot, never edited.

The registry's store builds them; the gateway's information point (PIP) hands them to the PDP.
Times are integer nanoseconds since the Unix epoch (UTC).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from exeat.core.controls import Order
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.core.kills import NO_KILLS, Kills
from exeat.core.secret import SecretId
from exeat.core.upstream_auth import NO_AUTH, UpstreamAuth


class Lifecycle(StrEnum):
    DRAFT = "draft"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


class Effect(StrEnum):
    """What calling a tool does to the world; ``EXECUTE`` is the cautious value of an unknown."""

    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    EXECUTE = "execute"
    SEND = "send"
    PAY = "pay"


class Sink(StrEnum):
    """Who could see what is passed to a tool; ``EXTERNAL`` is the cautious value of an unknown."""

    PRIVATE = "private"
    INTERNAL = "internal"
    EXTERNAL = "external"
    PUBLIC = "public"


class PinState(StrEnum):
    PINNED = "pinned"
    """A person confirmed exactly this definition."""
    NEW = "new"
    """Seen at the server, never confirmed."""
    CHANGED = "changed"
    """Confirmed once; the server now shows another definition."""


@dataclass(frozen=True, slots=True)
class PersonFacts:
    id: PersonId
    live: bool
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ScopeFacts:
    """What the owner was asked to accept, and what was accepted (REG-9).

    ``accepted`` is the digest that the owner accepted, or empty; it counts only if equal to
    ``digest``.  ``acceptance`` names the event of acceptance.  ``servers`` and ``effects`` bound
    every action of the agent, whatever policy says.  ``actions`` bounds tools further when it is
    not empty: exact action ids.
    """

    digest: Digest
    accepted: str
    acceptance: str
    servers: frozenset[ServerId]
    effects: frozenset[Effect]
    actions: frozenset[ActionId] = frozenset()


@dataclass(frozen=True, slots=True)
class AgentFacts:
    id: AgentId
    revision: int
    lifecycle: Lifecycle
    owner: PersonId
    owner_live: bool
    deputy: PersonId
    deputy_live: bool
    sponsor: PersonId
    ends_at: int
    scope: ScopeFacts
    groups: frozenset[str] = frozenset()
    environment: str = ""
    observe_until: int = 0
    """Nanoseconds; before then what policy alone would refuse is only recorded (POL-7, POL-10)."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``revision`` 0: it is not registered.  ``extra_methods``: MCP methods beyond the known ones that
    its registration allows (GW-7).  ``mode``: an ``UpstreamMode``, or empty if it is not registered."""

    id: ServerId
    revision: int
    active: bool
    owner: PersonId
    trust: int
    extra_methods: frozenset[str] = frozenset()
    mode: str = ""


class Transport(StrEnum):
    HTTP = "http"
    STDIO = "stdio"


class UpstreamMode(StrEnum):
    """What keeps others from using a server around the gateway (ID-11); it stands in every proof."""

    PERMIT = "permit-enforced"
    """It demands a signed permit for each tools/call."""
    CREDENTIAL = "credential-only"
    """It is shown a credential that agents do not hold."""
    NONE = "none"


SecretMark = tuple[int, int]
"""Version of a secret and when it was set: another mark is another value."""


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """How to reach a server.  Holds names of secrets, never secrets.

    HTTP: ``url``, and ``headers_from``: header name → name of the environment variable of the
    gateway that holds its value.  stdio: ``command`` (argv), ``env`` (plain values),
    ``env_from`` (names of the gateway's environment variables that are handed down), ``cwd``,
    ``run_as`` (user name or uid; empty = the gateway's own).  ``shared``: a person confirmed that the
    server keeps no state between callers, so one process may serve all principals (GW-12).
    From the vault (ID-10): ``headers_secret``, header name → ``NAME`` or ``Scheme {NAME}``, and
    ``env_secret``, variable → name of the secret.  ``permit``: the audience of the signed permit that the
    server demands (ID-11), empty if it demands none.
    """

    id: ServerId
    transport: Transport
    url: str = ""
    headers_from: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    env_from: tuple[str, ...] = ()
    cwd: str = ""
    run_as: str = ""
    shared: bool = False
    headers_secret: Mapping[str, str] = field(default_factory=dict)
    env_secret: Mapping[str, str] = field(default_factory=dict)
    permit: str = ""
    auth: UpstreamAuth = NO_AUTH
    """How the gateway shows an HTTP server who asks (ID-9)."""

    @property
    def mode(self) -> UpstreamMode:
        if self.permit:
            return UpstreamMode.PERMIT
        held = self.headers_from or self.headers_secret or self.env_from or self.env_secret
        shown = held or self.auth != NO_AUTH
        return UpstreamMode.CREDENTIAL if shown else UpstreamMode.NONE

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of all that it takes from the vault."""
        headers = (secret_of(template)[1] for template in self.headers_secret.values())
        own = (self.auth.secret,) if self.auth.secret else ()
        return tuple(sorted({*headers, *self.env_secret.values(), *own}))


@dataclass(frozen=True, slots=True)
class ToolFacts:
    """A tool as pinned.  ``definition``: the pinned definition as the server wrote it.

    ``pin`` is the digest of the confirmed definition, empty if none was ever confirmed.
    ``profile_confirmed`` False means the cautious profile stands (EXECUTE, EXTERNAL, irreversible).
    """

    server: ServerId
    name: str
    action: ActionId
    pin: str
    state: PinState
    definition: Mapping[str, Any] = field(compare=False)
    effect: Effect = Effect.EXECUTE
    sink: Sink = Sink.EXTERNAL
    reversible: bool = False
    profile_confirmed: bool = False
    monotone: Mapping[str, Order] = field(default_factory=dict)
    """Arguments that a person confirmed as monotone, and in which order they get smaller (POL-9)."""

    @property
    def input_schema(self) -> Mapping[str, Any]:
        schema = self.definition.get("inputSchema")
        return schema if isinstance(schema, Mapping) else {}

    @property
    def promises_output(self) -> bool:
        """Whether clients hold the tool's ``structuredContent`` against a schema of its own."""
        return self.definition.get("outputSchema") is not None


@dataclass(frozen=True, slots=True)
class CredentialFacts:
    """A bearer key of an agent.  ``id`` is public; the key itself is stored only as SHA-256."""

    id: str
    agent: AgentId
    user: PersonId | None
    expires_at: int


@dataclass(frozen=True, slots=True)
class PolicyVersionFacts:
    """The policy version in force: who wrote it, who approved it, why.  ``files``: name → Cedar text."""

    digest: Digest
    number: int
    author: PersonId
    approver: PersonId
    reason: str
    files: Mapping[str, str] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state that decisions read, behind one reference; swapped whole, never edited.

    ``epoch`` grows with every change of registry or policy.
    """

    epoch: int
    agents: Mapping[AgentId, AgentFacts]
    people: Mapping[PersonId, PersonFacts]
    servers: Mapping[ServerId, ServerFacts]
    specs: Mapping[ServerId, ServerSpec]
    tools: Mapping[ActionId, ToolFacts]
    credentials: Mapping[bytes, CredentialFacts]
    """SHA-256 (32 bytes) of the key → credential."""
    policy: PolicyVersionFacts | None
    clients: Mapping[tuple[str, str, str], AgentId] = field(default_factory=dict)
    """(issuer, client id, user or "") → agent (ID-5)."""
    subjects: Mapping[tuple[str, str], PersonId] = field(default_factory=dict)
    """(issuer, subject) → person."""
    endings: Mapping[str, int] = field(default_factory=dict)
    """Grants and token ids that were ended → nanoseconds after which none of them lives anyway."""
    proofs: Mapping[AgentId, str] = field(default_factory=dict)
    """Agents that must prove possession of a key: ``dpop``, ``mtls`` or ``any`` (ID-4)."""
    secrets: Mapping[SecretId, SecretMark] = field(default_factory=dict)
    """Which value of each secret that servers may name is in force; never a value."""
    kills: Kills = NO_KILLS
    """What was switched off at once (APP-9)."""


def secret_of(template: str) -> tuple[str, str]:
    """``Bearer {github}`` → ("Bearer ", "github"); ``github`` → ("", "github")."""
    before, brace, rest = template.partition("{")
    return (before, rest.removesuffix("}")) if brace else ("", template)


def tool_action(server: str, tool: str) -> ActionId:
    """The Cedar action id of a tool: ``server/tool``.  Server ids hold no slash, so it is injective."""
    return ActionId(f"{server}/{tool}")

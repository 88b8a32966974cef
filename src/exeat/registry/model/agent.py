"""An agent, its owner, its scope and its life (REG-1, REG-2, REG-4, REG-9)."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from exeat.core.errors import Conflict, Invalid
from exeat.core.event import Event
from exeat.core.facts import Effect, Lifecycle
from exeat.core.ids import ActionId, AgentId, Digest, PersonId, ServerId
from exeat.registry.model.act import Act
from exeat.registry.model.canonical import digest
from exeat.registry.model.names import plain_text, role_name, server_name, show_until, slug

TEXT_MAX_CHARS: Final = 500
_LIVES: Final = {
    "activate": ({Lifecycle.DRAFT}, Lifecycle.ACTIVE, "agent.activated"),
    "suspend": ({Lifecycle.ACTIVE}, Lifecycle.SUSPENDED, "agent.suspended"),
    "resume": ({Lifecycle.SUSPENDED}, Lifecycle.ACTIVE, "agent.resumed"),
    "retire": (set(Lifecycle) - {Lifecycle.RETIRED}, Lifecycle.RETIRED, "agent.retired"),
}
"""REG-4: verb → the states it starts from, the state it ends in, its event."""


@dataclass(frozen=True, slots=True)
class Charter:
    """What an agent is for and who answers for it.  ``model`` and ``prompt_digest`` are declared.

    ``groups``: the team and any further groups that policy may name.
    """

    name: str = ""
    purpose: str = ""
    owner: PersonId | None = None
    deputy: PersonId | None = None
    sponsor: PersonId | None = None
    groups: frozenset[str] = frozenset()
    environment: str = ""
    model: str = ""
    prompt_digest: str = ""

    def __post_init__(self) -> None:
        for what in ("name", "purpose", "environment", "model", "prompt_digest"):
            if text := getattr(self, what):
                plain_text(what.replace("_", " "), text, TEXT_MAX_CHARS)
        for group in self.groups:
            role_name(group)
        if self.owner is not None and self.owner == self.deputy:
            raise Invalid(
                f"{self.owner} cannot be both owner and deputy.",
                remedy="Name a second person as deputy (REG-2).",
            )

    @property
    def people(self) -> frozenset[PersonId]:
        return frozenset(p for p in (self.owner, self.deputy, self.sponsor) if p is not None)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "purpose": self.purpose,
            "owner": self.owner,
            "deputy": self.deputy,
            "sponsor": self.sponsor,
            "groups": sorted(self.groups),
            "environment": self.environment,
            "model": self.model,
            "prompt_digest": self.prompt_digest,
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """The outer bound of an agent, whatever policy says.  ``actions`` empty: no further bound."""

    servers: frozenset[ServerId] = frozenset()
    effects: frozenset[Effect] = frozenset()
    actions: frozenset[ActionId] = frozenset()

    def __post_init__(self) -> None:
        for server in self.servers:
            server_name(server)
        for action in self.actions:
            if action.partition("/")[0] not in self.servers:
                raise Invalid(
                    f"The action {action} is on a server outside the scope.",
                    remedy="Write actions as server/tool, and name that server in the scope.",
                )

    def as_json(self, ends_at: int | None) -> dict[str, Any]:
        return {
            "servers": sorted(self.servers),
            "actions": sorted(self.actions),
            "effects": sorted(self.effects),
            "until": "" if ends_at is None else show_until(ends_at),
        }


@dataclass(frozen=True, slots=True)
class Acceptance:
    """REG-9: who accepted which scope.  ``event``: ``agent:ID@REVISION``, the event's subject and
    the revision in its ``after``."""

    digest: Digest
    by: PersonId
    at: int
    event: str


@dataclass(frozen=True, slots=True)
class Agent:
    """A non-human principal.  ``ends_at``: nanoseconds, None while nobody has set an end."""

    id: AgentId
    charter: Charter
    scope: Scope
    ends_at: int | None
    acceptance: Acceptance | None
    lifecycle: Lifecycle
    revision: int

    @classmethod
    def register(
        cls, name: str, charter: Charter, scope: Scope, ends_at: int | None, act: Act
    ) -> tuple["Agent", Event]:
        """A new agent is a draft, and every call of a draft is denied (REG-4)."""
        agent_id = AgentId(slug("an agent", name))
        agent = cls(agent_id, charter, scope, ends_at, None, Lifecycle.DRAFT, 1)
        return agent, act.event("agent.registered", agent.subject, None, agent.as_json())

    @property
    def subject(self) -> str:
        return f"agent:{self.id}"

    @property
    def scope_digest(self) -> Digest:
        """REG-9: SHA-256 over canonical JSON of servers, actions, effects and end date."""
        return digest(self.scope.as_json(self.ends_at))

    @property
    def accepted(self) -> bool:
        return self.acceptance is not None and self.acceptance.digest == self.scope_digest

    def change(
        self, charter: Charter, scope: Scope, ends_at: int | None, act: Act
    ) -> tuple["Agent", Event]:
        """Another charter, scope or end.  REG-9: another scope or end voids the acceptance, and so
        does the accepting person being neither owner nor deputy any more.

        Raises Conflict if nothing changes, the agent is retired, or it would be active without
        owner, deputy or end date (REG-2).
        """
        self._require_not_retired()
        if (charter, scope, ends_at) == (self.charter, self.scope, self.ends_at):
            raise Conflict(f"Nothing of agent {self.id} changes.")
        new = replace(
            self, charter=charter, scope=scope, ends_at=ends_at, revision=self.revision + 1
        )
        if self.lifecycle is not Lifecycle.DRAFT:
            new._require_complete()
        kept = self.acceptance
        if kept is not None and (
            kept.digest != new.scope_digest or kept.by not in (charter.owner, charter.deputy)
        ):
            new = replace(new, acceptance=None)
        return new, act.event("agent.changed", self.subject, self.as_json(), new.as_json())

    def accept(self, seen: str, act: Act) -> tuple["Agent", Event]:
        """REG-9: the owner or the deputy takes on exactly the scope they were shown (``seen``)."""
        self._require_not_retired()
        self._require_complete()
        if act.actor not in (self.charter.owner, self.charter.deputy):
            raise Conflict(
                f"{act.actor} is neither owner nor deputy of {self.id}.",
                remedy=f"{self.charter.owner} or {self.charter.deputy} must accept the scope.",
            )
        if seen != self.scope_digest:
            raise Conflict(
                f"The scope of {self.id} is no longer the one that was shown.",
                remedy=f"Look again with `exeat agent scope {self.id}`, then accept.",
            )
        if not self.scope.servers or not self.scope.effects:
            raise Invalid(
                f"The scope of {self.id} names no server or no effect, so it permits nothing.",
                remedy=f"Set it with `exeat agent change {self.id} --server NAME --effect read`.",
            )
        if self.accepted:
            raise Conflict(f"The scope of {self.id} is already accepted.")
        revision = self.revision + 1
        by = Acceptance(self.scope_digest, act.actor, act.at, f"{self.subject}@{revision}")
        new = replace(self, acceptance=by, revision=revision)
        return new, act.event("agent.scope_accepted", self.subject, self.as_json(), new.as_json())

    def activate(self, live: Collection[PersonId], act: Act) -> tuple["Agent", Event]:
        """REG-2, REG-9: live owner and deputy, an end to come, and the scope accepted as it is."""
        self._may("activate")
        self._require_fit(live, act.at)
        return self._moved("activate", act)

    def suspend(self, act: Act) -> tuple["Agent", Event]:
        """REG-4: only an active agent can be suspended; its next call is denied."""
        self._may("suspend")
        return self._moved("suspend", act)

    def resume(self, live: Collection[PersonId], act: Act) -> tuple["Agent", Event]:
        """REG-4: back to active, under the same conditions as activation."""
        self._may("resume")
        self._require_fit(live, act.at)
        return self._moved("resume", act)

    def retire(self, act: Act) -> tuple["Agent", Event]:
        """REG-4: for good.  The service revokes the agent's keys in the same transaction."""
        self._may("retire")
        return self._moved("retire", act)

    def as_json(self) -> dict[str, Any]:
        a = self.acceptance
        return {
            "id": self.id,
            **self.charter.as_json(),
            "lifecycle": self.lifecycle.value,
            "scope": self.scope.as_json(self.ends_at),
            "scope_digest": self.scope_digest,
            "accepted": None if a is None else {"digest": a.digest, "by": a.by, "event": a.event},
            "revision": self.revision,
        }

    def _may(self, verb: str) -> None:
        sources, _, _ = _LIVES[verb]
        if self.lifecycle not in sources:
            wanted = " or ".join(sorted(sources))
            raise Conflict(
                f"Agent {self.id} is {self.lifecycle}, not {wanted}.", remedy=self._next()
            )

    def _next(self) -> str:
        """How its life can go on from here."""
        verbs = [verb for verb, (sources, _, _) in _LIVES.items() if self.lifecycle in sources]
        if not verbs:
            return "That is for good: register another agent."
        return f"From there: {' or '.join(f'`exeat agent {verb} {self.id}`' for verb in verbs)}."

    def _moved(self, verb: str, act: Act) -> tuple["Agent", Event]:
        _, target, kind = _LIVES[verb]
        new = replace(self, lifecycle=target, revision=self.revision + 1)
        return new, act.event(kind, self.subject, self.as_json(), new.as_json())

    def _require_not_retired(self) -> None:
        if self.lifecycle is Lifecycle.RETIRED:
            raise Conflict(f"Agent {self.id} is retired.", remedy="Register a new agent.")

    def _require_complete(self) -> None:
        c = self.charter
        for what, value in (("owner", c.owner), ("deputy", c.deputy), ("end date", self.ends_at)):
            if value is None:
                option = {"end date": "ends"}.get(what, what)
                raise Conflict(
                    f"Agent {self.id} has no {what}.",
                    remedy=f"Set it with `exeat agent change {self.id} --{option} …` (REG-2).",
                )

    def _require_fit(self, live: Collection[PersonId], now: int) -> None:
        self._require_complete()
        for what, who in (("owner", self.charter.owner), ("deputy", self.charter.deputy)):
            if who not in live:
                raise Conflict(
                    f"The {what} of {self.id}, {who}, is not a live person.",
                    remedy=f"Name another with `exeat agent change {self.id} --{what} …` (REG-2).",
                )
        if self.ends_at is None or self.ends_at <= now:
            raise Conflict(
                f"The end date of {self.id} has passed.",
                remedy=f"Set a new one with `exeat agent change {self.id} --ends …`.",
            )
        if not self.accepted:
            raise Conflict(
                f"The scope of {self.id} as it stands is not accepted.",
                remedy=f"Its owner or deputy runs `exeat agent accept {self.id}` (REG-9).",
            )

"""A tool of a server: the definition a person confirmed, the one last seen, its profile (REG-6)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from exeat.core.controls import Order
from exeat.core.errors import Conflict
from exeat.core.event import Event
from exeat.core.facts import Effect, PinState, Sink, tool_action
from exeat.core.ids import ActionId, Digest, ServerId
from exeat.registry.model.act import Act


@dataclass(frozen=True, slots=True)
class Definition:
    """``digest``: over the canonical definition (rules.pins).  ``body``: as the server wrote it."""

    digest: Digest
    body: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """What calling does to the world, and who could see what is passed.  Cautious by default.

    ``monotone``: arguments that may be made smaller, and in which order (POL-9), sorted."""

    effect: Effect = Effect.EXECUTE
    sink: Sink = Sink.EXTERNAL
    reversible: bool = False
    monotone: tuple[tuple[str, Order], ...] = ()

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "effect": self.effect.value,
            "sink": self.sink.value,
            "reversible": self.reversible,
        }
        if self.monotone:
            found["monotone"] = {name: order.value for name, order in self.monotone}
        return found


@dataclass(frozen=True, slots=True)
class Tool:
    """``pending``: the definition last seen, None while it is the pinned one.

    ``profile``: as a person confirmed it for exactly this pin, None while nobody has.
    """

    server: ServerId
    name: str
    pinned: Definition | None
    pending: Definition | None
    profile: Profile | None
    revision: int

    @classmethod
    def first_seen(cls, server: ServerId, name: str, seen: Definition, act: Act) -> "Change":
        tool = cls(server, name, None, seen, None, 1)
        return tool, act.event("tool.seen", tool.subject, None, tool.as_json())

    @property
    def action(self) -> ActionId:
        return tool_action(self.server, self.name)

    @property
    def subject(self) -> str:
        return f"tool:{self.action}"

    @property
    def state(self) -> PinState:
        if self.pinned is None:
            return PinState.NEW
        return PinState.PINNED if self.pending is None else PinState.CHANGED

    @property
    def seen(self) -> Definition | None:
        """The definition that the server last showed."""
        return self.pending or self.pinned

    def observe(self, seen: Definition, act: Act) -> "Change | None":
        """REG-6: what the server shows now; None if it is what was last seen."""
        if self.seen == seen:
            return None
        if self.pinned == seen:
            return self._changed("tool.restored", act, pending=None)
        kind = "tool.seen" if self.pinned is None else "tool.drifted"
        return self._changed(kind, act, pending=seen)

    def pin(self, confirmed: str, act: Act, warnings: tuple[str, ...] = ()) -> "Change":
        """REG-6: a person confirms the definition they were shown (``confirmed`` is its digest).

        Pinning voids the profile, which was confirmed for another definition.  ``warnings``, the
        look-alikes and hidden texts that the person was shown, are kept in the event.
        """
        if self.pending is None:
            raise Conflict(f"The definition of {self.action} is already pinned.")
        if confirmed != self.pending.digest:
            raise Conflict(
                f"The server no longer shows that definition of {self.action}.",
                remedy=f"Look again with `exeat tool diff {self.action}`.",
            )
        tool, event = self._changed(
            "tool.pinned", act, pinned=self.pending, pending=None, profile=None
        )
        if warnings and event.after is not None:
            event = replace(event, after={**event.after, "warnings": list(warnings)})
        return tool, event

    def confirm_profile(self, profile: Profile, pin: str, act: Act) -> "Change":
        """A person confirms what the tool does, for exactly the pinned definition ``pin``."""
        if self.pinned is None or self.pinned.digest != pin:
            raise Conflict(
                f"{self.action} is not pinned to that definition.",
                remedy=f"Pin it first: `exeat tool pin {self.action}`.",
            )
        if profile == self.profile:
            raise Conflict(f"The profile of {self.action} is already confirmed so.")
        return self._changed("tool.profile_confirmed", act, profile=profile)

    def as_json(self) -> dict[str, Any]:
        return {
            "server": self.server,
            "name": self.name,
            "state": self.state.value,
            "pin": "" if self.pinned is None else self.pinned.digest,
            "pending": "" if self.pending is None else self.pending.digest,
            "profile": None if self.profile is None else self.profile.as_json(),
            "revision": self.revision,
        }

    def _changed(self, kind: str, act: Act, **fields: Any) -> "Change":
        new = replace(self, revision=self.revision + 1, **fields)
        return new, act.event(kind, self.subject, self.as_json(), new.as_json())


Change = tuple[Tool, Event]

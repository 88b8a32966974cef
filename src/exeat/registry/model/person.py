"""A person: an opaque id, whether live, and roles.  Never a name or an e-mail address (EVD-7)."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from exeat.core.errors import Conflict, Invalid
from exeat.core.event import Event
from exeat.core.ids import PersonId
from exeat.registry.model.act import EXEAT, Act
from exeat.registry.model.names import role_name, slug

ADMIN: Final = "admin"
"""May change the registry and the policy.  Other roles mean what policy makes of them."""


@dataclass(frozen=True, slots=True)
class Person:
    """``live`` False: has left; owns nothing any more; never deleted (evidence names them)."""

    id: PersonId
    live: bool
    roles: frozenset[str]
    revision: int

    @classmethod
    def register(cls, name: str, roles: Iterable[str], act: Act) -> tuple["Person", Event]:
        if slug("a person", name) == EXEAT:
            raise Invalid(f"{EXEAT!r} is reserved for what exeat does by itself.")
        person = cls(PersonId(name), True, frozenset(map(role_name, roles)), 1)
        return person, act.event("person.registered", person.subject, None, person.as_json())

    @property
    def subject(self) -> str:
        return f"person:{self.id}"

    def with_roles(self, roles: Iterable[str], act: Act) -> tuple["Person", Event]:
        self._require_live()
        return self._changed("person.roles_set", act, roles=frozenset(map(role_name, roles)))

    def depart(self, act: Act) -> tuple["Person", Event]:
        """REG-2: the agents of this person lose an owner or deputy from this moment."""
        self._require_live()
        return self._changed("person.departed", act, live=False, roles=frozenset())

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "live": self.live,
            "roles": sorted(self.roles),
            "revision": self.revision,
        }

    def _require_live(self) -> None:
        if not self.live:
            raise Conflict(f"{self.id} has departed.", remedy="Register the person under a new id.")

    def _changed(self, kind: str, act: Act, **fields: Any) -> tuple["Person", Event]:
        new = replace(self, revision=self.revision + 1, **fields)
        return new, act.event(kind, self.subject, self.as_json(), new.as_json())
